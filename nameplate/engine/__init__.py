"""The distributed step: devices, workers, and what makes any number of replicas compute what one device would.

Read it in this order:

config, strategy, cluster, coordinator, signals   devices and processes, before anything is computed
compile, learning_rate, optimizer_state           optimizer, schedule, objective and class weights of a model
graph, step_ranges                                many steps in one call; training, evaluation, prediction
replica                                           one step on one replica: forward, backward, update, metrics
loss_scaling                                      the formula by which a replica's numbers enter the step's
one_device, local_updates                         Keras' losses, metrics and optimizers follow that formula
batch_step                                        a step on a batch that Python has, for Keras' own loop
collectives, statistics                           sums, gradients and batch moments over the replicas, in the graph
host_collectives                                  exchanges between processes, from Python
reductions, trial, whole_batch                    a user's own losses, metrics and steps: means, sums, or neither
dataset_order                                     what a `tf.data` pipeline leaves to chance
event_files                                       event files and profiles for TensorBoard
errors                                            errors of Keras and TensorFlow that a user can mend
private, private_loop                             all that is private in Keras and TensorFlow
"""
