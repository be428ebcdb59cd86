"""Model files: loaded, saved, exported, repaired, and weights transferred by name.

`load_model` reads a whole model from any file that has one, `load_weights` reads weights into a model that is there.
`save` writes a file and proves that it loads again; `export` writes a SavedModel. `transfer` plans which weights of one
side go to which of the other, `reconstruct` finds lost names again, `repair` fixes `.keras` files with duplicate names.
The other modules have what no format says by itself: `name_metadata` and `lora_files` what our `.keras` files hold
besides Keras' own content, `file_names` the names that a file abbreviates, `automatic_pairs` those that Keras makes
up, `channel_order` the order in which PyTorch flattens images.
"""
