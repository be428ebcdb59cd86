"""What a process that jobs are forked from has done: imported all that a run needs, and computed nothing."""

from trainer.quiet import import_tensorflow

import_tensorflow()

import trainer.flow  # noqa: E402 - after the notes of TensorFlow's start
import trainer.sweep.child  # noqa: E402, F401
