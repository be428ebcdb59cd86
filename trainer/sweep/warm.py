"""Preloaded by the fork server: imports everything that a run needs, and computes nothing."""

from nameplate.training.console import import_tensorflow

import_tensorflow()

import nameplate  # noqa: E402 - after TensorFlow's notes
import trainer.run  # noqa: E402
import trainer.sweep.job_process  # noqa: E402, F401

nameplate.check  # noqa: B018 - the package loads its verbs lazily
nameplate.enforce  # noqa: B018
