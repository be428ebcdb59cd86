"""Trackers: what a run measures also goes to MLflow, Weights & Biases or trackio, through their own libraries.

Each tracker works in a thread of its own behind a bounded queue: one that fails, hangs or is not installed is reported
once, and training neither waits nor stops. What identifies the tracked run is kept in the run's directory, so a run
that resumes, on another machine too, goes on in the same tracked run. Checkpoints are recorded by address and hash.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import keras
import yaml

from nameplate import checkpoint as store
from nameplate.checkpoint import durable
from nameplate.errors import StoppedError
from nameplate.training.config import TRACKERS, tracker_options
from nameplate.training.observers import Observer, Record, RunLength
from nameplate.training.run_directory import RunDirectory

NAME = "trackers.json"  # in the run's directory: tracker -> what identifies the tracked run
WAITING = 10_000  # calls that wait for a slow tracker; more are dropped
AT_END = 30.0  # seconds that the end of a run waits for all trackers together

Say = Callable[[str], None]


@dataclass(frozen=True)
class About:
    """What a tracker learns of a run at its start."""

    name: str  # of the run
    parameters: Mapping[str, Any]  # dotted key -> plain value
    columns: Sequence[str]  # of the table of layers
    layers: Sequence[Sequence[str]]


class Tracker(Protocol):
    """One tracked run; any method may raise anything."""

    def __init__(self, about: About, options: Mapping[str, Any], known: str | None) -> None:
        """Start a tracked run, or go on in the `known` one."""

    id: str  # what identifies it

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record values that were measured at a step."""

    def checkpoint(self, step: int, address: str, xxh3: str) -> None:
        """Record that there is a checkpoint, by its address and the hash of its manifest."""

    def finish(self, status: str) -> None:
        """End with FINISHED, FAILED, or KILLED by a signal after saving."""


class MLflow:
    """A run of MLflow: by default in the experiment "nameplate" of `$MLFLOW_TRACKING_URI`."""

    def __init__(self, about: About, options: Mapping[str, Any], known: str | None) -> None:
        """Start a run, or go on in the known one; parameters that have changed since become tags."""
        self._entities = import_module("mlflow.entities")
        self._client = import_module("mlflow").MlflowClient(tracking_uri=options.get("tracking_uri"))
        if known is None:
            name = options.get("experiment", "nameplate")
            found = self._client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self._client.create_experiment(name)
            known = self._client.create_run(experiment, run_name=about.name).info.run_id
        else:
            self._client.update_run(known, status="RUNNING")
        self.id = str(known)
        before = self._client.get_run(self.id).data.params
        given = {key: str(value)[:500] for key, value in about.parameters.items()}
        new = [self._entities.Param(key, value) for key, value in given.items() if key not in before]
        changed = {key: value for key, value in given.items() if before.get(key, value) != value}
        for start in range(0, len(new), 100):  # as many as MLflow takes at once
            self._client.log_batch(self.id, params=new[start : start + 100])
        for key, value in changed.items():
            self._client.set_tag(self.id, f"resumed_with.{key}", value)
        rows = [dict(zip(about.columns, row, strict=True)) for row in about.layers]
        self._client.log_dict(self.id, rows, "layers.json")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record values."""
        now = int(time.time() * 1000)
        self._client.log_batch(
            self.id, metrics=[self._entities.Metric(key, value, now, step) for key, value in values.items()]
        )

    def checkpoint(self, step: int, address: str, xxh3: str) -> None:
        """Record a checkpoint as an artefact that says where it is."""
        self._client.log_dict(self.id, {"address": address, "manifest_xxh3": xxh3}, f"checkpoints/step_{step:08d}.json")
        self._client.set_tag(self.id, "checkpoint", address)

    def finish(self, status: str) -> None:
        """End the run."""
        self._client.set_terminated(self.id, status=status)


class WeightsAndBiases:
    """A run of Weights & Biases: by default in the project "nameplate"; `mode: offline` keeps it on this machine."""

    def __init__(self, about: About, options: Mapping[str, Any], known: str | None) -> None:
        """Start a run, or go on in the known one."""
        self._wandb = import_module("wandb")
        given = {"project": "nameplate", "name": about.name, "id": known, "resume": "allow", **options}
        silent = self._wandb.Settings(silent=True, console="off")
        self._run = self._wandb.init(config=dict(about.parameters), settings=silent, **given)
        self.id = str(self._run.id)
        self._run.define_metric("*", step_metric="step")  # a resume repeats steps, which their own counter drops
        self._run.log(
            {"layers": self._wandb.Table(columns=list(about.columns), data=[list(row) for row in about.layers])}
        )

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record values."""
        self._run.log({"step": step, **values})

    def checkpoint(self, step: int, address: str, xxh3: str) -> None:
        """Record a checkpoint as an artefact that refers to it."""
        about = {"step": step, "address": address, "manifest_xxh3": xxh3}
        artifact = self._wandb.Artifact(f"checkpoint-{self.id}", type="checkpoint", metadata=about)
        artifact.add_reference(address if "://" in address else Path(address).as_uri(), checksum=False)
        self._run.log_artifact(artifact, aliases=[f"step-{step}"])

    def finish(self, status: str) -> None:
        """End the run."""
        self._run.finish(exit_code=int(status != "FINISHED"))


class Trackio:
    """A run of trackio: by default in the project "nameplate" on this machine."""

    def __init__(self, about: About, options: Mapping[str, Any], known: str | None) -> None:
        """Start a run, or go on in the known one, which its name identifies."""
        trackio = import_module("trackio")
        name, given = known or about.name, {"project": "nameplate", **options}
        parameters = {key: value for key, value in about.parameters.items() if not key.startswith("_")}
        self._run = trackio.init(
            name=name, config=parameters, resume="allow" if known else "never", embed=False, **given
        )
        self.id = str(getattr(self._run, "name", None) or name)
        rows = [dict(zip(about.columns, row, strict=True)) for row in about.layers]
        self._run.log({"layers": json.dumps(rows)}, step=0)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record values."""
        self._run.log(dict(values), step=step)

    def checkpoint(self, step: int, address: str, xxh3: str) -> None:
        """Record where a checkpoint is."""
        self._run.log({"checkpoint": address, "checkpoint_manifest_xxh3": xxh3}, step=step)

    def finish(self, status: str) -> None:
        """Record how it ended, and end the run."""
        self._run.log({"status": status})
        self._run.finish()


_KINDS: Mapping[str, Callable[[About, Mapping[str, Any], str | None], Tracker]] = {
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}
assert _KINDS.keys() == TRACKERS.keys()


class Trackers(Observer):
    """Tells the trackers of a run what it measures and saves."""

    def __init__(
        self,
        home: RunDirectory,
        trackers: Sequence[Any],
        config: str,
        *,
        columns: Sequence[str],
        layers: Sequence[Sequence[str]],
        say: Say,
    ) -> None:
        """Take the run.

        Args:
            home: its directory.
            trackers: names, or {name: options}, as in `log.trackers`.
            config: its configuration as YAML, in which secrets are not filled in.
            columns: of the table of layers.
            layers: its rows.
            say: reports the first failure of each tracker.
        """
        self._home, self._chosen, self._say = home, tracker_options(trackers), say
        plain = yaml.safe_load(config) or {}
        self._about = About(home.path.name, dict(_flat(plain)), columns, layers)
        self._workers: list[_Worker] = []
        self._seen: set[tuple[str, str]] = set()

    def began(self, model: keras.Model, run_length: RunLength) -> None:
        """Start the threads; the checkpoints from before are known."""
        known = _noted(self._home.path)
        self._seen = set() if run_length.first_step == 0 else {found[:2] for found in self._checkpoints()}
        for name, options in self._chosen.items():
            worker = _Worker(name, self._about, options, known.get(name), self._note, self._say)
            self._workers.append(worker)

    def recorded(self, record: Record) -> None:
        """Hand over what was measured, and the checkpoints since the last time."""
        values = {"epoch": float(record.epoch), **record.values}
        for worker in self._workers:
            worker.put("metrics", record.step, values)
        self._announce()

    def ended(self) -> None:
        """Let the trackers finish, for a bounded time."""
        error = sys.exc_info()[1]  # of the training that is ending
        status = "KILLED" if isinstance(error, StoppedError | KeyboardInterrupt) else "FAILED"
        self._announce()
        for worker in self._workers:
            worker.put("finish", "FINISHED" if error is None else status)
        end = time.monotonic() + AT_END
        for worker in self._workers:
            worker.join(max(end - time.monotonic(), 0.0))
        self._workers = []

    def _announce(self) -> None:
        for name, seal, step in self._checkpoints():
            if (name, seal) not in self._seen:
                self._seen.add((name, seal))
                for worker in self._workers:
                    worker.put("checkpoint", step, f"{self._home.shown_absolute}/checkpoints/{name}", seal)

    def _checkpoints(self) -> Iterator[tuple[str, str, int]]:
        """Yield name, hash of the manifest and step of every checkpoint."""
        for path in store.checkpoints(self._home.checkpoints):
            with suppress(OSError), (path / "manifest.json").open("rb") as file:
                yield path.name, file.read(64).partition(b'":"')[2][:32].decode("ascii", "replace"), int(path.name[5:])

    def _note(self, name: str, identity: str) -> None:
        with _noting:
            known = _noted(self._home.path) | {name: identity}
            durable.replace_file(self._home.path / NAME, json.dumps(known).encode())


_noting = threading.Lock()


class _Worker:
    """The thread of one tracker."""

    def __init__(
        self,
        name: str,
        about: About,
        options: Mapping[str, Any],
        known: str | None,
        note: Callable[[str, str], None],
        say: Say,
    ) -> None:
        self._name, self._about, self._options = name, about, options
        self._known, self._note, self._say = known, note, say
        self._calls: queue.Queue[tuple[str, tuple[Any, ...]]] = queue.Queue(WAITING)
        self._reported = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def put(self, method: str, *arguments: Any) -> None:
        try:
            self._calls.put_nowait((method, arguments))
        except queue.Full:
            self._report("it is too slow, or hangs: what is measured from here on may be missing there")

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._report("it does not answer, and is not waited for any longer: its last values may be missing")

    def _work(self) -> None:
        tracker = self._started()
        while tracker is not None:
            method, arguments = self._calls.get()
            try:
                getattr(tracker, method)(*arguments)
            except BaseException as error:  # a library may even raise SystemExit
                self._report(error)
            if method == "finish":
                return

    def _started(self) -> Tracker | None:
        for known in dict.fromkeys((self._known, None)):
            try:
                tracker = _KINDS[self._name](self._about, self._options, known)
                self._note(self._name, tracker.id)
            except ImportError as error:
                self._report(f"{error}; pip install 'nameplate[{self._name}]'")
                break
            except BaseException as error:
                self._report(error)
            else:
                return tracker
        return None

    def _report(self, error: BaseException | str) -> None:
        if not self._reported:
            self._reported = True
            text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
            self._say(f"log.trackers: {self._name}: {text.strip().partition(chr(10))[0][:300]}. The training goes on")


def _noted(run: Path) -> dict[str, str]:
    try:
        known = json.loads((run / NAME).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(name): str(own) for name, own in known.items()} if isinstance(known, dict) else {}


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and plain values."""
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, values if isinstance(values, int | float | str | bool) else json.dumps(values, default=str)
