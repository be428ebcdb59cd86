"""Run the tests of a package of Keras in a process of their own, and write down what became of each.

`python -m tests.faults.keras_conformance.running PACKAGE WAY OUT`: the WAY is stock, one or two, see `WAYS`; what
became of each test goes to the JSON file OUT. Only tests that call `fit`, `evaluate` or `predict` of a model count.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

WAYS = ("stock", "one", "two")  # Keras itself; ours on one device; ours on two replicas
PACKAGES = ("trainers", "callbacks", "models", "optimizers", "distillation", "quantizers", "saving", "layers")
VERBS = ("fit", "evaluate", "predict")
_CALLS = re.compile(r"\.(fit|evaluate|predict)\(|run_layer_test|run_class_serialization_test")
_HELPED = re.compile(r"self\._?\w*(test|check|run|fit)\w*\(")  # a test may leave the call to a method of its class


@dataclass
class Outcome:
    """What became of one test."""

    outcome: str  # passed, failed, refused, skipped
    reached: bool  # whether it called one of the verbs
    reason: str = ""  # the first line of the exception


def run(package: str, way: str, out: Path, only: Collection[str] | None = None) -> dict[str, Outcome]:
    """Run the tests of a package, or some by name, in a process of their own; return what became of each, by name."""
    command = [sys.executable, "-m", __name__, package, way, str(out)]
    if only is not None:
        chosen = out.with_suffix(".names")
        chosen.write_text(json.dumps(list(only)))
        command.append(str(chosen))
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    with (out.with_suffix(".log")).open("w") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False)
    return {name: Outcome(**each) for name, each in json.loads(out.read_text()).items()}


def folder() -> Path:
    """Return where Keras' sources are installed."""
    spec = find_spec("keras")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "src"


class Recorder:
    """A pytest plugin: tests run in the strategy's scope, and their outcomes are kept."""

    def __init__(self, scope: Callable[[], Any], out: Path, only: Collection[str] | None) -> None:
        self._scope, self._out, self._only = scope, out, only
        self.reached = False
        self.outcomes: dict[str, Outcome] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests that were asked for; else those whose text does not show that they train nothing."""
        items[:] = [item for item in items if (_may_call(item) if self._only is None else _name(item) in self._only)]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Run a test in the scope, from the same seed in any order."""
        import keras

        self.reached = False
        keras.utils.set_random_seed(1)
        with self._scope():
            yield

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Keep what became of a test; written each time, so that a crash of the process leaves the others'."""
        result = yield
        report = result.get_result()  # type: ignore[attr-defined]
        if report.when != "call":
            return
        self.outcomes[_name(item)] = Outcome(_kind(report, call), self.reached, _first_line(call))
        self._out.write_text(json.dumps({key: asdict(each) for key, each in self.outcomes.items()}, indent=0))


def _name(item: pytest.Item) -> str:
    return f"{item.path.relative_to(folder()).as_posix()}::{item.nodeid.partition('::')[2]}"


def _may_call(item: pytest.Item) -> bool:
    function = getattr(item, "function", None)
    try:
        source = inspect.getsource(inspect.unwrap(function)) if function else ""
    except (OSError, TypeError):
        return True
    return bool(_CALLS.search(source) or _HELPED.search(source)) or "parameterized" in str(function)


def _kind(report: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
    from nameplate.errors import NameplateError

    refused = call.excinfo is not None and call.excinfo.errisinstance(NameplateError)
    return "refused" if refused else report.outcome


def _first_line(call: pytest.CallInfo[None]) -> str:
    if call.excinfo is None:
        return ""
    lines = [line for line in str(call.excinfo.value).splitlines() if line.strip()]
    return f"{call.excinfo.typename}: {lines[0] if lines else ''}"[:300]


def _trainer() -> Any:
    """Return the class whose verbs every model has: some of Keras' tests train layers with it that are no models."""
    from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

    return TensorFlowTrainer


def _record_calls(recorder: Recorder) -> None:
    """Let every call of a verb, Keras' or ours, say that the test has reached it."""

    def recording(verb: Any) -> Any:
        def recorded(model: Any, *arguments: Any, **keywords: Any) -> Any:
            recorder.reached = True
            return verb(model, *arguments, **keywords)

        return recorded

    for name in VERBS:
        setattr(_trainer(), name, recording(getattr(_trainer(), name)))


def _replace_verbs() -> None:
    """Put our verbs in the place of Keras', under Keras' signatures."""
    import nameplate
    from nameplate.training import batch_loop  # noqa: F401  while Keras' own loops are still in their place

    keras_evaluate = _trainer().evaluate

    def fit(
        model: Any,
        x: Any = None,
        y: Any = None,
        batch_size: Any = None,
        epochs: Any = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        **keywords: Any,
    ) -> Any:
        given = {"batch_size": batch_size, "epochs": epochs, "verbose": verbose, "callbacks": callbacks}
        return nameplate.fit(model, x=x, y=y, **given, **keywords)

    def evaluate(
        model: Any,
        x: Any = None,
        y: Any = None,
        batch_size: Any = None,
        verbose: Any = "auto",
        *,
        return_dict: bool = False,
        **keywords: Any,
    ) -> Any:
        given = {"batch_size": batch_size, "verbose": verbose, "return_dict": return_dict}
        if "_use_cached_eval_dataset" in keywords:  # Keras' own loop validates
            return keras_evaluate(model, x=x, y=y, **given, **keywords)
        return nameplate.evaluate(model, x=x, y=y, **given, **keywords)

    def predict(model: Any, x: Any, batch_size: Any = None, verbose: Any = "auto", **keywords: Any) -> Any:
        return nameplate.predict(model, x=x, batch_size=batch_size, verbose=verbose, **keywords)

    for verb in (fit, evaluate, predict):
        setattr(_trainer(), verb.__name__, verb)


def _stand_in_for_missing() -> None:
    """Let test modules be imported that name other backends at their top, and the conftest of Keras' own checkout."""
    for name in ("jax", "torch", "grain"):
        if find_spec(name) is None:
            sys.modules[name] = MagicMock(name=name)
    conftest: Any = ModuleType("conftest")
    conftest.skip_if_backend = lambda backend, reason: pytest.mark.skipif(backend == "tensorflow", reason=reason)
    sys.modules["conftest"] = conftest


def main(package: str, way: str, out: str, chosen: str | None = None) -> int:
    """Run a package's tests one way in this process; `chosen` is a JSON file of names."""
    import keras  # noqa: F401  before the stand-ins, which it would ask for other backends
    import tensorflow as tf
    from tensorflow.python.framework import ops

    _stand_in_for_missing()

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    scope: Callable[[], Any] = contextlib.nullcontext
    if way == "two":
        strategy = tf.distribute.MirroredStrategy(
            ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
        scope = strategy.scope
        # By which Keras' tests clear the session, and would leave the scope.
        ops._default_graph_stack.reset = lambda: None
    if way != "stock":
        _replace_verbs()
    only = None if chosen is None else set(json.loads(Path(chosen).read_text()))
    recorder = Recorder(scope, Path(out), only)
    _record_calls(recorder)
    files = [str(path) for path in sorted((folder() / package).rglob("*_test.py")) if _CALLS.search(path.read_text())]
    if only is not None:
        files = sorted({str(folder() / name.partition("::")[0]) for name in only})
    plugins = ["no:cacheprovider", "no:randomly", "no:xdist", "no:timeout", "no:warnings"]
    options = [option for plugin in plugins for option in ("-p", plugin)]
    options += ["-q", "-c", os.devnull, "--rootdir", str(folder()), "--tb=short", "--continue-on-collection-errors"]
    return int(pytest.main([*files, *options], plugins=[recorder]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
