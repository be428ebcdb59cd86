"""Edits of a model's graph: replace, insert, remove, extract, flatten; each gives a new model."""
