"""Devices that a job has to itself: disjoint over processes, and free when the job is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nameplate.checkpoint import lock
from trainer.config import run_config
from trainer.sweep import leases
from trainer.sweep import leases as gpus
from trainer.sweep.leases import DeviceRequest, LeaseError, devices_of, leased, visible_gpus

FOUR = ("GPU-a", "GPU-b", "GPU-c", "GPU-d")
SMI = "GPU 0: Some (UUID: GPU-a)\nGPU 1: Some (UUID: GPU-b)\nGPU 2: Some (UUID: GPU-c)\nGPU 3: Some (UUID: GPU-d)\n"
DIVIDED = "GPU 0: H (UUID: GPU-a)\n  MIG 1g.10gb  Device 0: (UUID: MIG-x)\n  MIG 1g.10gb  Device 1: (UUID: MIG-y)\n"


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(leases.FOLDER, str(tmp_path / "leases"))
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    yield
    gpus._listed.cache_clear()


def driver(says: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `nvidia-smi -L` say this."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<'end'\n{says}end\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    gpus._listed.cache_clear()


@pytest.mark.parametrize(
    ("says", "visible", "found"),
    [
        (SMI, None, list(FOUR)),
        (SMI, "2,0", ["GPU-c", "GPU-a"]),
        (SMI, "GPU-b", ["GPU-b"]),
        (SMI, "1,-1,2", ["GPU-b"]),
        (SMI, "", []),
        (DIVIDED, None, ["MIG-x", "MIG-y"]),
        ("", "0,1", ["0", "1"]),
    ],
)
def test_a_process_sees_the_gpus_that_the_environment_leaves_it(
    says: str, visible: str | None, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(says, tmp_path, monkeypatch)
    if visible is not None:
        monkeypatch.setenv(gpus.VISIBLE, visible)
    assert visible_gpus() == found


@pytest.mark.parametrize(
    ("overrides", "count", "tells"),
    [
        (["sweep.gpus_per_job=2"], 2, True),
        ([], 4, True),
        (["strategy=single"], 1, True),
        (["strategy.replicas=2"], 2, True),
        (["strategy=mirrored", "strategy.gpus=[1,3]"], 2, False),
        (["strategy=cpu_replicas"], 0, True),
    ],
)
def test_a_job_wishes_for_what_its_strategy_takes(
    overrides: list[str], count: int, tells: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(SMI, tmp_path, monkeypatch)
    request = devices_of(run_config(overrides))
    assert (request.count, request.restricts) == (count, tells)


def test_more_gpus_than_there_are_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(SMI, tmp_path, monkeypatch)
    with pytest.raises(LeaseError, match="needs 5 GPUs, and this machine has 4"):
        devices_of(run_config(["sweep.gpus_per_job=5"]))


def test_leases_are_disjoint_and_tell_the_job_its_gpus() -> None:
    with leased(DeviceRequest(FOUR, 2), waiting=print) as one, leased(DeviceRequest(FOUR, 2), waiting=print) as other:
        assert one.environment == {gpus.VISIBLE: "GPU-a,GPU-b"}
        assert other.environment == {gpus.VISIBLE: "GPU-c,GPU-d"}
    with leased(DeviceRequest(FOUR, 4), waiting=print) as all_of_them:
        assert all_of_them.devices == FOUR


def test_a_job_waits_until_enough_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SILENCE", 0.0)
    said: list[str] = []
    got: list[tuple[str, ...]] = []
    waits = threading.Event()

    def wait() -> None:
        def waiting(text: str) -> None:
            said.append(text)
            waits.set()

        with leased(DeviceRequest(FOUR, 3), waiting=waiting) as lease:
            got.append(lease.devices)

    with leased(DeviceRequest(FOUR, 2), waiting=print):
        thread = threading.Thread(target=wait)
        thread.start()
        assert waits.wait(30)
        assert got == []
    thread.join(30)
    assert said == ["waiting for 3 of 4 GPUs"]
    assert got == [("GPU-a", "GPU-c", "GPU-d")]


def test_a_lease_dies_with_its_job_and_not_with_who_started_it() -> None:
    with leased(DeviceRequest(FOUR, 2), waiting=print) as lease:
        command = [sys.executable, "-c", "input()"]
        job = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=lease.descriptors)
    with leased(DeviceRequest(FOUR, 2), waiting=print) as other:
        assert other.devices == FOUR[2:]
    job.kill()
    job.communicate()
    with leased(DeviceRequest(FOUR, 4), waiting=print) as every:
        assert every.devices == FOUR


def test_cores_are_leased_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver("", tmp_path, monkeypatch)
    assert devices_of(run_config()).count == 0
    with leased(devices_of(run_config(["sweep.cpus_per_job=1"])), waiting=print) as lease:
        assert lease.cores is not None
        assert len(lease.cores) == 1
        assert lease.cores[0] in os.sched_getaffinity(0)
