"""What named layers of a model see and hold: dreams, activations, saliency.

A dream is gradient ascent on an image. `objectives` says what is maximised and `settings` how; `layer_outputs` runs a
model up to the layers in question and `measures` turns their outputs into the objective's value. `canvas` holds the
image as pixels or as frequencies, `ascent` moves it uphill, tile by tile if it is large, and `dream` goes through the
octaves. `dream_callback` dreams during training. `look` shows activations and Grad-CAM. `start_images` and
`image_files` read images; the latter writes PNG files with the recipe inside.
"""
