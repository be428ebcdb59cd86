"""Trackers: what they receive, what their failures do to a run, and what real ones hold in their local stores."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import nameplate
from nameplate import checkpoint as store
from nameplate.errors import NameplateError
from nameplate.training import trackers
from nameplate.training.trackers import About, Tracker
from tests.nameplate.training.script import At, train

Calls = list[tuple[str, Any]]


@pytest.fixture(autouse=True)
def _scope(strategy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with strategy.scope():
        yield


def log(*names: Any) -> nameplate.Log:
    return nameplate.Log(every_steps=2, tensorboard=False, trackers=list(names))


class Recording:
    """A tracker that writes down what it receives, and does what a test wants in its constructor and at a metric."""

    def __init__(self, calls: Calls, about: About, known: str | None, act: Callable[[str], None]) -> None:
        act("start")
        self.id, self._calls, self._act = known or "made-up", calls, act
        calls.append(("start", (known, about)))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._act("metrics")
        self._calls.append(("metrics", (step, values)))

    def checkpoint(self, step: int, address: str, xxh3: str) -> None:
        self._calls.append(("checkpoint", (step, address, xxh3)))

    def finish(self, status: str) -> None:
        self._calls.append(("finish", status))


Make = Callable[..., Calls]


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return what puts a recording tracker in the place of a real one, and returns what that receives."""

    def put(name: str = "mlflow", act: Callable[[str], None] = lambda place: None) -> Calls:
        calls: Calls = []

        def make(about: About, options: Mapping[str, Any], known: str | None) -> Tracker:
            return Recording(calls, about, known, act)

        monkeypatch.setitem(trackers._KINDS, name, make)  # type: ignore[arg-type]
        return calls

    return put


def of(kind: str, calls: Calls) -> list[Any]:
    return [what for name, what in calls if name == kind]


class FailedError(Exception):
    """The user's program fails."""


def fail(*_: Any) -> None:
    raise FailedError


def test_a_resumed_run_goes_on_in_the_same_tracked_run(recording: Make, tmp_path: Path) -> None:
    calls, run = recording(), tmp_path / "mine"
    with pytest.raises(FailedError):
        train(run, At(10, fail), log=log("mlflow"))
    assert of("finish", calls) == ["FAILED"]
    train(run, log=log("mlflow"))
    (first, about), (second, _) = of("start", calls)
    assert (first, second) == (None, "made-up")
    assert json.loads((run / trackers.NAME).read_text()) == {"mlflow": "made-up"}
    assert of("finish", calls) == ["FAILED", "FINISHED"]
    assert about.name == "mine"
    assert about.parameters["fit.epochs"] == 4
    assert [row[0] for row in about.layers] == ["x", "hidden", "drop", "classes"]
    received = dict(of("metrics", calls))
    wanted = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {each["step"]: each["loss"] for each in wanted} == {
        step: values["loss"] for step, values in received.items()
    }
    addresses = {step: (address, xxh3) for step, address, xxh3 in of("checkpoint", calls)}
    assert {4, 6, 8, 12, 24} <= addresses.keys()
    for path in store.checkpoints(run / "checkpoints"):
        address, xxh3 = addresses[int(path.name[5:])]
        assert address == str(path)
        assert xxh3 in (path / "manifest.json").read_text()
    assert len(of("checkpoint", calls)) == len(addresses)  # none twice


@pytest.mark.parametrize("place", ["start", "metrics"])
@pytest.mark.parametrize("how", [fail, lambda *_: __import__("sys").exit(3)])
def test_a_tracker_that_fails_is_reported_once_and_the_run_goes_on(
    recording: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, how: Callable[[], None]
) -> None:
    recording(act=lambda at: how() if at == place else None)
    well = recording("wandb")
    history, _ = train(tmp_path / "mine", log=log("mlflow", "wandb"), epochs=2)
    assert len(history.epoch) == 2
    said = capsys.readouterr()
    assert (said.out + said.err).count("log.trackers: mlflow:") == 1
    assert of("finish", well) == ["FINISHED"]


def test_a_tracker_that_hangs_is_left_behind(
    recording: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "AT_END", 0.3)
    monkeypatch.setattr(trackers, "WAITING", 3)
    forever = threading.Event()
    recording(act=lambda place: None if place == "start" else fail() if forever.wait(60) else None)
    train(tmp_path / "mine", log=log("mlflow"), epochs=2)
    said = capsys.readouterr()
    assert (said.out + said.err).count("log.trackers: mlflow: it is too slow, or hangs") == 1
    forever.set()


def test_a_tracked_run_that_is_gone_is_begun_again(
    recording: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "mine"
    run.mkdir()
    (run / trackers.NAME).write_text('{"mlflow": "gone"}')
    failures = iter([True])
    calls = recording(act=lambda place: fail() if place == "start" and next(failures, False) else None)
    train(run, log=log("mlflow"), epochs=1)
    assert [known for known, _ in of("start", calls)] == [None]
    assert "FailedError" in capsys.readouterr().out


def test_a_library_that_is_not_installed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    monkeypatch.setitem(__import__("sys").modules, "mlflow.entities", None)
    train(tmp_path / "mine", log=log("mlflow"), epochs=1)
    assert "pip install 'nameplate[mlflow]'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("mlfow", "no tracker 'mlfow'; there are mlflow, wandb, trackio. Did you mean 'mlflow'"),
        ({"wandb": {"projet": "x"}}, "wandb has no option 'projet'; it has project, .*Did you mean 'project'"),
        ({"mlflow": "x"}, "'x' is not a mapping of options"),
        (3, "no tracker 3"),
    ],
)
def test_trackers_and_options_that_do_not_exist_are_refused(tmp_path: Path, chosen: Any, message: str) -> None:
    with pytest.raises(NameplateError, match=message):
        train(tmp_path / "mine", log=log(chosen))
    assert not (tmp_path / "mine").exists()


# ---- real ones, where they are installed -------------------------------------------------------------------------


def twice(run: Path, *chosen: Any) -> str:
    """Train a run that fails and is resumed; return what identifies its tracked run."""
    with pytest.raises(FailedError):
        train(run, At(10, fail), log=log(*chosen))
    (known,) = json.loads((run / trackers.NAME).read_text()).values()
    train(run, log=log(*chosen))
    assert json.loads((run / trackers.NAME).read_text()).popitem()[1] == known
    return str(known)


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_mlflow_holds_the_run(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="not among the extras of dev: pip install 'nameplate[mlflow]'")
    pytest.importorskip("sqlalchemy", reason="MLflow's database of this machine needs it")
    where = f"sqlite:///{tmp_path}/mlflow.db"
    known = twice(tmp_path / "mine", {"mlflow": {"tracking_uri": where, "experiment": "tests"}})
    client = mlflow.MlflowClient(where)
    run = client.get_run(known)
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.learning_rate"] == "0.01"
    assert {metric.step for metric in client.get_metric_history(known, "val_loss")} == {6, 12, 18, 24}
    assert [each.path for each in client.list_artifacts(known)] == ["checkpoints", "layers.json"]
    artifact = Path(mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/checkpoints/step_00000024.json"))
    assert json.loads(artifact.read_text())["address"] == str(tmp_path / "mine" / "checkpoints" / "step_00000024")


@pytest.mark.filterwarnings("ignore")
def test_wandb_holds_the_run_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="not among the extras of dev: pip install 'nameplate[wandb]'")
    known = twice(tmp_path / "mine", {"wandb": {"mode": "offline", "dir": str(tmp_path), "project": "tests"}})
    record = import_module("wandb.proto.wandb_internal_pb2").Record
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert [path.name for path in files] == [f"run-{known}.wandb"] * 2
    records = [record.FromString(data) for path in files for data in leveldb_log(path.read_bytes())]
    runs = [each.run for each in records if each.WhichOneof("record_type") == "run"]
    assert {(run.run_id, run.project, run.display_name) for run in runs} == {(known, "tests", "mine")}
    rows = [{item.key or item.nested_key[0]: item.value_json for item in each.history.item} for each in records]
    assert {row["step"] for row in rows if "val_loss" in row} == {"6", "12", "18", "24"}
    assert any("layers" in row for row in rows)
    entries = [entry.ref for each in records for entry in each.request.log_artifact.artifact.manifest.contents]
    entries += [entry.ref for each in records for entry in each.artifact.manifest.contents]
    assert (tmp_path / "mine" / "checkpoints" / "step_00000024").as_uri() in "\n".join(entries)
    exits = [each.exit.exit_code for each in records if each.WhichOneof("record_type") == "exit"]
    assert exits == [1, 0]


def leveldb_log(data: bytes) -> Iterator[bytes]:
    """Yield the records of a log as LevelDB writes them, behind the 7 bytes with which W&B's begins."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


@pytest.mark.filterwarnings("ignore")
def test_trackio_holds_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio", reason="not among the extras of dev: pip install 'nameplate[trackio]'")
    known = twice(tmp_path / "mine", {"trackio": {"project": "tests"}})
    (run,) = trackio.Api().runs("tests")
    assert run.name == known
    storage = import_module("trackio.sqlite_storage").SQLiteStorage
    logs = storage.get_logs("tests", known)
    assert {row["step"] for row in logs if "val_loss" in row} == {6, 12, 18, 24}
    assert any(str(row.get("checkpoint", "")).endswith("step_00000024") for row in logs)
