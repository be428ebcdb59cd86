"""What the engine uses of the private parts of Keras and TensorFlow, read in keras 3.15.1 and tensorflow 2.21.0.

tests/nameplate/engine/private/test_symbols.py has each symbol in a table and fails with the one that has changed; no
other module of the engine or of training may use one.

patches        attributes that are replaced inside a block
one_device     hooks in Keras' losses, metrics, layers and optimizers, while a step is traced on several replicas
optimizers     updates on each replica's own copies, rates by variable, moving averages
deterministic  randomness and batch statistics taken out of a model, to try its code
compiled       losses, metrics and variables of a compiled model
callbacks      which of a callback's hooks do anything
tracing        gradients, graphs of methods, outputs of inner layers
dataset_order  what a `tf.data` pipeline leaves to chance
cluster        a strategy over several processes
"""
