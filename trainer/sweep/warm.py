"""What a process that jobs are forked from has done: imported all that a run needs, and computed nothing."""

from trainer.command_line.quiet import import_tensorflow

import_tensorflow()

import models  # noqa: E402 - after TensorFlow's notes
import trainer.flow  # noqa: E402
import trainer.sweep.child  # noqa: E402, F401

models.check  # noqa: B018 - the package hands out its verbs lazily
models.enforce  # noqa: B018
