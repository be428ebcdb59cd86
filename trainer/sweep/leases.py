"""Leases of devices: the GPUs and cores that jobs on one machine have to themselves, without TensorFlow."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from nameplate.checkpoint import lock
from nameplate.engine.config import StrategyKind
from nameplate.errors import NameplateError
from trainer.config.run_config import RunConfig

VISIBLE = "CUDA_VISIBLE_DEVICES"

_UUID = re.compile(r"\(UUID: ([\w/-]+)\)")


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` can name them: UUIDs if known."""
    gpus = _listed()
    visible = os.environ.get(VISIBLE)
    if visible is None:
        return list(gpus)
    names = []
    for name in filter(None, map(str.strip, visible.split(","))):
        if name == "-1":
            break  # CUDA ignores the rest
        index = int(name) if name.isdigit() else -1
        names.append(gpus[index] if 0 <= index < len(gpus) else name)
    return names


@cache
def _listed() -> tuple[str, ...]:
    """Return every GPU of the machine, or its instances if it is partitioned (MIG)."""
    try:
        output = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return tuple(str(index) for index, _ in enumerate(Path("/dev").glob("nvidia[0-9]*")))
    uuids: list[str] = []
    for line in output.splitlines():
        if match := _UUID.search(line):
            if line.lstrip().startswith("MIG") and uuids and uuids[-1].startswith("GPU"):
                uuids.pop()  # a partitioned GPU can only be used through its instances
            uuids.append(match[1])
    return tuple(uuids)


FOLDER = "NAMEPLATE_LEASES"  # environment variable: the directory of this machine's lock files


class LeaseError(NameplateError):
    """A job that needs more devices than the machine has, or a lock directory that cannot be used."""


@dataclass(frozen=True)
class DeviceRequest:
    """The devices that a job needs: `count` of `among`."""

    among: Sequence[str] = ()
    count: int = 0
    kind: str = "GPU"  # or "CPU"; "none": a job that must not see a GPU
    restricts: bool = True  # the job sees only these devices


@dataclass(frozen=True)
class Lease:
    """The devices that a job has."""

    devices: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] | None = None  # None: all
    descriptors: tuple[int, ...] = ()  # hold the lease; the job inherits them


def devices_of(config: RunConfig) -> DeviceRequest:
    """Return the devices that a job of this configuration needs.

    Raises:
        LeaseError: the machine has fewer.
    """
    gpus = visible_gpus() if config.strategy.kind is not StrategyKind.cpu_replicas else []
    request = _of_gpus(config, gpus) if gpus else _of_cores(config)
    if request.count > len(request.among):
        raise LeaseError(
            f"a job needs {request.count} {request.kind}s, and this machine has {len(request.among)}; "
            f"set sweep.{request.kind.lower()}s_per_job to at most that"
        )
    return request


@contextmanager
def leased(request: DeviceRequest, *, waiting: Callable[[str], None]) -> Iterator[Lease]:
    """Lease devices inside a `with` block; wait until they are free.

    Waiting jobs queue, and only the first one collects devices: none starves, and no two wait for each other.
    """
    if not request.count:
        yield Lease(environment={VISIBLE: "-1"} if request.kind == "none" else {})
        return
    with ExitStack() as stack:
        held: dict[str, int] = {}
        message = f"waiting for {request.count} of {len(request.among)} {request.kind}s"
        folder = _folder()
        with lock.held(folder / f"queue-{request.kind}", waiting=lambda: waiting(message)):
            _collect(request, folder, held, stack, lambda: waiting(message))
        yield _lease(request, held)


def _collect(
    request: DeviceRequest, folder: Path, held: dict[str, int], stack: ExitStack, waiting: Callable[[], None]
) -> None:
    began, reported = time.monotonic(), False
    while True:
        for device in request.among:
            if device not in held and len(held) < request.count:
                descriptor = lock.take(folder / f"{request.kind}-{device.replace('/', '_')}")
                if descriptor is not None:
                    stack.callback(os.close, descriptor)
                    held[device] = descriptor
        if len(held) == request.count:
            return
        if not reported and time.monotonic() - began > lock.SILENCE:
            waiting()
            reported = True
        time.sleep(lock.PAUSE)


def _lease(request: DeviceRequest, held: Mapping[str, int]) -> Lease:
    devices = tuple(device for device in request.among if device in held)
    descriptors = tuple(held.values())
    if not request.restricts:
        return Lease(devices, {}, None, descriptors)
    if request.kind == "CPU":
        return Lease(devices, {}, tuple(map(int, devices)), descriptors)
    return Lease(devices, {VISIBLE: ",".join(devices)}, None, descriptors)


def _of_gpus(config: RunConfig, gpus: Sequence[str]) -> DeviceRequest:
    strategy, wanted = config.strategy, config.sweep.gpus_per_job
    if wanted is not None:
        return DeviceRequest(gpus, wanted)
    if strategy.gpus is not None:
        chosen = [gpus[index] for index in strategy.gpus if 0 <= index < len(gpus)]
        return DeviceRequest(chosen, len(chosen), restricts=False)  # the run selects them itself, by index among all
    if strategy.kind is StrategyKind.single:
        return DeviceRequest(gpus, 1)
    return DeviceRequest(gpus, min(strategy.replicas or len(gpus), len(gpus)))


def _of_cores(config: RunConfig) -> DeviceRequest:
    """Return the cores of a job, pinned if `cpus_per_job` is set; without GPUs, `gpus_per_job` counts cores."""
    cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
    if config.sweep.cpus_per_job is not None:
        return DeviceRequest(cores, config.sweep.cpus_per_job, "CPU")
    if config.sweep.gpus_per_job is not None:
        return DeviceRequest(cores, min(config.sweep.gpus_per_job, len(cores)), "CPU", restricts=False)
    return DeviceRequest(kind="none" if config.strategy.kind is StrategyKind.cpu_replicas else "GPU")


def _folder() -> Path:
    """Return the directory of this machine's lock files, which only this user can write."""
    if own := os.environ.get(FOLDER):
        return Path(own)
    path = Path(tempfile.gettempdir()) / f"nameplate-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    about = path.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
        raise LeaseError(f"{path} is not a directory that you own; set {FOLDER}=DIRECTORY in the environment")
    return path
