"""The commands beside training, over the library.

`names` and `ckpt` read files without TensorFlow; `evaluate`, `predict`, `export` and `dream` (with `pictures`) take a
trained model, `chosen_model`; `doctor` looks at an installation.
"""
