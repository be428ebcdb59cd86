"""A Keras model as a tree and as a graph: names, clones, renames, what trains; on any backend of Keras."""
