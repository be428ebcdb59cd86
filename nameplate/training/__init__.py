"""Training: fit, evaluate and predict, the loop, and a run that is saved, resumed and reported.

Read it in this order:

fit, evaluate, arguments         the public verbs, and the arguments that they share with Keras
loop                             epochs and events around the steps of the engine
batch_loop                       batch by batch: what the loop in the graph does not take
stages, monitor                  what trains when; the value that decides what is best
state, callbacks, progress       all that a resume restores
checkpoint_manager, config_diff  saving and restoring; settings that may change in between
run_directory, shared_run        where a run keeps its files, on one or several workers
remote_run                       a run in an object store, replicated while it trains
script_run, script_settings      a run around `fit` in a script, and what its checkpoints are compared by
custom_loop, checkpoint_callback  a run around a loop of the user's own; around Keras' `model.fit`
objects, report, run_record       a run of live objects; what came of a run; a run read as values
initial_weights, weight_sources  weights from elsewhere
observers, tensorboard, trackers, console  what is shown and recorded
best_model                       the best model as a file for plain Keras
config                           the sections of a configuration for all of this
"""
