"""What a process that jobs are forked from has done: imported all that a run needs, and computed nothing."""

from nameplate.training.console import import_tensorflow

import_tensorflow()

import nameplate  # noqa: E402 - after TensorFlow's notes
import trainer.run  # noqa: E402
import trainer.sweep.job_process  # noqa: E402, F401

nameplate.check  # noqa: B018 - the package hands out its verbs lazily
nameplate.enforce  # noqa: B018
