"""Runs in a store: `run="s3://bucket/runs/mine"`, on machines that come and go, with a store that does the same."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import pytest

import nameplate
from nameplate import checkpoint as store
from nameplate.checkpoint import lease, remote
from nameplate.checkpoint.errors import StoreError
from nameplate.errors import NameplateError, StoppedError
from nameplate.section import ConfigError
from nameplate.training import remote_run
from nameplate.training.run_directory import RunDirectory, open_run_directory
from tests.nameplate.checkpoint.samples import snapshot
from tests.nameplate.training import script
from tests.nameplate.training.script import At
from tests.stores import Server, serving
from tests.trainer import running
from tests.trainer.running import assert_same, content, records
from trainer.cli import ckpt
from trainer.sweep.script_sweep import sweep

RUNS = "s3://bucket/runs"
KEPT = nameplate.Checkpoint(every_steps=4, remote_wait=60)
HURRIED = nameplate.Checkpoint(every_steps=4, remote_wait=1)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_run, "POLL", 0.05)
    monkeypatch.setattr(remote_run, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(remote_run, "START", 0.5)
    monkeypatch.setattr(remote_run, "RENEWED", 0.1)
    monkeypatch.setattr(lease, "SILENCE", 0.5)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return what moves to a machine of a name: its directory for copies is another one, empty at first."""

    def move(name: str) -> Path:
        monkeypatch.setenv(remote.CACHE, str(tmp_path / name))
        return tmp_path / name

    move("one")
    return move


def here(name: str) -> Path:
    return remote.cache_of(f"{RUNS}/{name}")


@contextmanager
def opened(name: str, *, wait: int = 60, said: list[str] | None = None) -> Iterator[RunDirectory]:
    """Open a run as a training does; what it says is collected."""
    lines = [] if said is None else said
    checkpoint = nameplate.Checkpoint(remote_wait=wait)
    with open_run_directory(RUNS, name, resume=True, checkpoint=checkpoint, say=lines.append) as home:
        yield home


def save(home: RunDirectory, step: int) -> None:
    with home.metrics.open("a") as file:
        file.write(f'{{"step": {step}}}\n')
    store.point(home.checkpoints, "latest", store.save(home.checkpoints, snapshot(step)))


def steps(run: Path) -> list[int]:
    return [int(path.name[-8:]) for path in store.checkpoints(run / "checkpoints")]


def sent(server: Server, name: str) -> set[int]:
    return {int(key.split("/")[1][-8:]) for key in server.objects(f"runs/{name}") if key.endswith("/manifest.json")}


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


class FailedError(Exception):
    """The user's program fails."""


def fail() -> None:
    raise FailedError


def test_machines_that_come_and_go_and_a_store_that_is_away_end_with_the_uninterrupted_run(
    server: Server, machine: Callable[[str], Path], strategy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Leaves(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                server.stop()
                threading.Timer(1.0, server.start).start()

    url, whole = f"{RUNS}/moves", tmp_path / "whole"
    with strategy.scope():
        script.train(whole)
        with pytest.raises(FailedError):
            script.train(url, At(10, fail), checkpoint=KEPT)
        machine("two")
        capsys.readouterr()
        script.train(url, Leaves(), checkpoint=KEPT)
    said = capsys.readouterr().out
    assert "step_00000008 of 24 steps" in said
    assert said.count("is away") == 1
    assert f"done: 24 steps in {url}" in said
    machine("three")
    with opened("moves") as home:  # what the store has is the run
        assert_same(content(home.path), content(whole))
        assert records(home.path) == records(whole)
        best = [store.resolve(run / "checkpoints", "best") or run for run in (home.path, whole)]
        assert best[0].name == best[1].name


def test_checkpoints_are_sent_while_the_run_goes_on(server: Server, machine: Callable[[str], Path]) -> None:
    with opened("on") as home:
        for step in (10, 20):
            save(home, step)
            until(lambda step=step: step in sent(server, "on"))  # type: ignore[misc]
        (home.checkpoints / "step_00000020" / "weights.safetensors").chmod(0o400)  # nothing here is touched
        store.keep(home.checkpoints, last=1)
        until(lambda: sent(server, "on") == {20})
    assert '"released": true' in server.objects("runs/on")[lease.NAME].decode()


def test_what_the_end_could_not_wait_for_is_named_and_sent_later(
    server: Server, machine: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    began = time.monotonic()
    try:
        with opened("later", wait=1, said=said) as home:
            save(home, 10)
            until(lambda: sent(server, "later") == {10})
            server.stop()
            save(home, 20)
        assert time.monotonic() - began < 45
        assert sum("is away" in line for line in said) == 1
        assert "not yet in s3://bucket/runs/later: step_00000020 and the latest logs" in said[-1]
        assert f"push {here('later')}" in said[-1]
        assert ckpt.main(["push", str(here("later"))]) == 2  # it is still away
        with opened("later", wait=0) as home:  # with something to continue from, a start needs no store
            save(home, 30)
        machine("two")
        with pytest.raises(NameplateError, match="unknown whether this run has begun"), opened("later"):
            pass
        assert not here("later").exists()
    finally:
        server.start()
    machine("one")
    assert ckpt.main(["push", f"{RUNS}/later"]) == 0
    assert "has everything: 3 checkpoints" in capsys.readouterr().out
    machine("two")
    with opened("later") as home:
        assert steps(home.path) == [10, 20, 30]


def test_a_signal_sends_what_is_saved_and_lets_the_next_machine_start_at_once(
    server: Server, machine: Callable[[str], Path]
) -> None:
    def stopped(home: RunDirectory) -> None:
        save(home, 10)
        home.requeue.write_text("{}")
        raise StoppedError(signal.SIGTERM, 10, "saved")

    with pytest.raises(StoppedError), opened("stopped") as home:
        stopped(home)
    assert "requeue.json" in server.objects("runs/stopped")
    machine("two")
    said: list[str] = []
    with opened("stopped", said=said) as home:
        assert steps(home.path) == [10]
        home.requeue.unlink()
    assert said == []
    assert "requeue.json" not in server.objects("runs/stopped")


def test_two_machines_do_not_write_one_run(server: Server, machine: Callable[[str], Path]) -> None:
    said: list[str] = []
    with opened("both") as home:
        save(home, 10)
        until(lambda: sent(server, "both") == {10})
        machine("two")
        with pytest.raises(store.LockedError, match="is in use by process"), opened("both", said=said):
            pass
        assert "waiting" in said[0]
        assert not here("both").exists()
        machine("one")
    with opened("both", said=said) as home:
        key = f"runs/both/{lease.NAME}"  # another machine takes over, since this one has been cut off for long
        server.put(key, server.objects("runs/both")[lease.NAME].replace(b'"owner": "', b'"owner": "another'))
        until(lambda: any("has been taken over" in line for line in said))
        save(home, 20)
    assert sent(server, "both") == {10}
    assert steps(here("both")) == [10, 20]


def test_a_copy_of_a_run_that_the_store_has_lost_or_replaced_is_not_taken_for_it(
    server: Server, machine: Callable[[str], Path]
) -> None:
    with opened("lost") as home:
        save(home, 10)
    server.delete(*(f"runs/lost/{name}" for name in server.objects("runs/lost")))
    with pytest.raises(StoreError, match=r"no longer has the run[^$]*push"), opened("lost"):
        pass
    machine("two")
    with opened("lost") as home:
        save(home, 20)
    machine("one")
    with pytest.raises(StoreError, match="a copy of another run"), opened("lost"):
        pass
    shutil.rmtree(here("lost"))
    with opened("lost") as home:
        assert steps(home.path) == [20]


def test_a_run_that_others_continued_is_fetched_again(server: Server, machine: Callable[[str], Path]) -> None:
    with opened("returns") as home:
        save(home, 10)
    machine("two")
    with opened("returns") as home:
        save(home, 20)
    machine("one")
    with opened("returns") as home:
        assert steps(home.path) == [10, 20]
        assert home.metrics.read_text().count("step") == 2
    machine("two")
    with opened("returns") as home:
        save(home, 30)
    machine("one")
    server.stop()
    said: list[str] = []
    try:
        with opened("returns", said=said) as home:  # with the store away this machine cannot know
            server.start()
            until(lambda: any("from another machine" in line for line in said))
            save(home, 25)
    finally:
        server.start()
    assert sent(server, "returns") == {10, 20, 30}


def test_what_cannot_be_used_is_refused_and_leaves_nothing(
    server: Server, machine: Callable[[str], Path], strategy: Any
) -> None:
    with pytest.raises(NameplateError, match="refused"), opened("refused"):
        raise NameplateError("refused")
    assert server.objects("runs/refused") == {}
    assert not here("refused").exists()
    for wrong, message in (("s3://bucket/../x", "cannot be part"), ("gs://bucket/x", "gcsfs is not installed")):
        with pytest.raises(ConfigError, match=message), strategy.scope():
            script.train(wrong)
        with pytest.raises(ConfigError, match=f"runs: .*{message}"):
            running.train(wrong)
    with (
        pytest.raises(NameplateError, match="Does the bucket exist"),
        open_run_directory("s3://nowhere", "x", resume=True),
    ):
        pass
    with pytest.raises(NameplateError, match="a sweep keeps its ledger in a directory"):
        sweep(lambda run, a: None, {"a": [1]}, run="s3://bucket/runs/sweep")


def test_what_reads_runs_reads_them_in_a_store(server: Server, machine: Callable[[str], Path]) -> None:
    job = ["model=mlp", "data.limit=64", "fit.epochs=1", "strategy=cpu_replicas"]
    report = running.train(RUNS, "run=read", *job)
    url = f"{RUNS}/read"
    machine("two")
    assert_same(nameplate.read(nameplate.load(url)), nameplate.read(report.model))
    assert nameplate.Run.open(url).history["loss"] == report.history["loss"]
    assert ckpt.main(["verify", url]) == 0
    assert ckpt.main(["prune", url, "--last", "1"]) == 2
    running.train(RUNS, "run=next", *job, "init=checkpoint", "init.path=read", "fit.steps=1")
