"""What all tests share: one process, two logical CPU devices, one mirrored strategy over them, one seed.

The order of the tests is another one each time (pytest-randomly); `--randomly-seed=N` repeats one, and
`-p no:randomly` leaves them as they are written. Nothing else is left to chance: every fixture and every test begins
with the same seeds, in any order.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.long import FAULTS

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

SEED = 1
# No deadline and no check of speed: a busy machine takes longer. No database: what failed elsewhere is not tried first.
hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Let the seed of the order be that alone: pytest-randomly would seed each test by it too."""
    config.option.randomly_reset_seed = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the other suite's tests; skip under another backend of Keras (`make jax`) what needs TensorFlow."""
    other = [item for item in items if _is_long(item) != FAULTS]
    if other:
        config.hook.pytest_deselected(items=other)
        items[:] = [item for item in items if _is_long(item) == FAULTS]
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        return
    for item in items:
        if item.get_closest_marker("tensorflow") or "strategy" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason="needs Keras on TensorFlow"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tell how to repeat the order, in which the tests may have failed."""
    seed = getattr(config.option, "randomly_seed", None)
    if seed is not None and config.option.randomly_reorganize:
        terminalreporter.write_line(f"in the order of --randomly-seed={seed}")


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    """Seed before every fixture: one of a module is set up by whichever of its tests comes first."""
    _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Seed before every test."""
    _seed()


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


def _is_long(item: pytest.Item) -> bool:
    """Return whether a test is of the long suite, which `make faults` runs."""
    return item.get_closest_marker("long") is not None or item.path.is_relative_to(Path(__file__).parent / "faults")


def _seed() -> None:
    """Seed what is there: a test that needs no framework is not made to import one."""
    random.seed(SEED)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(SEED)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(SEED)


def _split_cpu() -> None:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) < 2:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
