"""TensorFlow's start-up notes kept off the screen; whatever else is written to standard error stays.

Its libraries write two notes straight to the file descriptor before any level of logging can be set
(tensorflow 2.21.0), so they are caught there.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path

_NOTES = (b"I0000 ", b"WARNING: All log messages before absl::InitializeLog()", b"To enable the following instructions")


def import_tensorflow() -> None:
    """Import TensorFlow, its errors and warnings shown, its notes not."""
    has_gpu = Path("/dev/nvidiactl").exists()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1" if has_gpu else "3")  # 3: not even its search for a GPU
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            import_module("tensorflow")
        finally:
            os.dup2(original, 2)
            os.close(original)
            caught.seek(0)
            for line in caught:
                if not line.startswith(_NOTES):
                    os.write(2, line)
