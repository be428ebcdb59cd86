"""What all tests share: one process, two logical CPU devices, one mirrored strategy over them."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_collection_finish() -> None:
    """Lay out the devices before the first test computes anything: afterwards it is too late."""
    if "tensorflow" in sys.modules:
        _split_cpu()


@pytest.fixture(scope="session")
def strategy() -> Any:
    """Return two replicas on the CPU; a process can hold one such strategy (`CollectiveReduceV2` fails otherwise)."""
    import tensorflow as tf

    _split_cpu()
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())


def _split_cpu() -> None:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) < 2:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
