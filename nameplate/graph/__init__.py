"""A Keras model as a tree of named layers and as a graph of calls, on any backend of Keras.

Read `tree` first: every layer and variable under one qualified name. `name_contract` checks and freezes the names,
`rename` changes them, and `clone` makes the copy that every rename and edit starts from, with the help of
`serializable`, `constructor_arguments` and `copy_state`; `equivalence` and `sample_outputs` compare the copy with the
original. `functional` reads a graph as data, `model_weights` reads and writes weights as arrays and freezes layers.
`explicit_names` records who named a layer. `global_state` and `keras_private` have what touches the whole process and
the private parts of Keras.
"""
