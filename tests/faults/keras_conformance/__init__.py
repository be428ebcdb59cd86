"""Keras' own tests of `fit`, `evaluate` and `predict`, from its installed package, with ours in their place."""
