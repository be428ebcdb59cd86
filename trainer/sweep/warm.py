"""What a process that jobs are forked from has done: imported all that a run needs, and computed nothing.

The functions that every job's graph is made of are converted by AutoGraph here too, once and not in every job.
"""

from trainer.command_line.quiet import import_tensorflow

import_tensorflow()

import models  # noqa: E402
import trainer.flow  # noqa: E402
import trainer.sweep.child  # noqa: E402, F401
from trainer.data import batches, feed, order  # noqa: E402 - after TensorFlow's notes
from trainer.replicas import graph, keras_private, own_logs, packing, part, replica  # noqa: E402
from trainer.workers import exchange  # noqa: E402

OUTERMOST = (graph.TrainGraph._train, graph.EvaluationGraph._evaluate)
WITHIN = (
    batches.Batches.shares,
    feed.ResidentFeed.ahead,
    feed.ResidentFeed.examples,
    feed.ResidentFeed.take,
    feed.by_seed(0, 1),
    feed.in_file_order,
    graph.EvaluationGraph._one,
    graph.TrainGraph._one,
    graph._int64,
    keras_private.compute_loss,
    keras_private.loss_tracker,
    keras_private.overridden,
    keras_private.takes_training,
    order.shuffled,
    own_logs.OwnLogs.keep,
    packing._groups,
    packing.apart,
    packing.flat,
    packing.in_one_piece,
    packing.is_small,
    part.added_up,
    part.counted_once,
    replica.Step._call,
    replica.Step._forward_backward,
    replica.Step._loss,
    replica.Step._measure,
    replica.Step._passes,
    replica.Step._prepared,
    replica.Step.evaluate,
    replica.Step.train,
    replica._part,
    replica.share_of_this_replica,
    exchange.several,
    exchange.summed,
)

keras_private.convert_ahead(OUTERMOST, outermost=True)
keras_private.convert_ahead(WITHIN, outermost=False)
models.check  # noqa: B018 - the package hands out its verbs lazily
models.enforce  # noqa: B018
