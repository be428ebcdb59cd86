"""The GPUs that a process may use, found without TensorFlow: by what is visible, and by what the driver says."""

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
    """Return the GPUs, as `CUDA_VISIBLE_DEVICES` may name them; by their own names where the driver tells."""
    there = _listed()
    given = os.environ.get(VISIBLE)
    if given is None:
        return list(there)
    found = []
    for each in filter(None, map(str.strip, given.split(","))):
        if each == "-1":
            break  # CUDA reads no further
        index = int(each) if each.isdigit() else -1
        found.append(there[index] if 0 <= index < len(there) else each)
    return found


@cache
def _listed() -> tuple[str, ...]:
    """Return every GPU of the machine, or its parts where it is divided (MIG)."""
    try:
        said = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return tuple(str(index) for index, _ in enumerate(Path("/dev").glob("nvidia[0-9]*")))
    found: list[str] = []
    for line in said.splitlines():
        if match := _UUID.search(line):
            if line.lstrip().startswith("MIG") and found and found[-1].startswith("GPU"):
                found.pop()  # a divided GPU is used by its parts alone
            found.append(match[1])
    return tuple(found)


FOLDER = "NAMEPLATE_LEASES"  # in the environment: where the lock files of this machine are


class LeaseError(NameplateError):
    """More devices than there are."""


@dataclass(frozen=True)
class DeviceRequest:
    """What a job needs: `count` of `among`, and what it is told of those that it gets."""

    among: Sequence[str] = ()
    count: int = 0
    kind: str = "GPU"
    tells: bool = True  # the job sees these devices and no others


@dataclass(frozen=True)
class Lease:
    """What a job got."""

    devices: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] | None = None  # None: all
    descriptors: tuple[int, ...] = ()  # hold it; for the job to inherit


def devices_of(config: RunConfig) -> DeviceRequest:
    """Return what a job of this configuration needs of this machine.

    Raises:
        LeaseError: it has less.
    """
    gpus = visible_gpus() if config.strategy.kind is not StrategyKind.cpu_replicas else []
    wish = _of_gpus(config, gpus) if gpus else _of_cores(config)
    if wish.count > len(wish.among):
        raise LeaseError(
            f"a job needs {wish.count} {wish.kind}s, and this machine has {len(wish.among)}; "
            f"set sweep.{wish.kind.lower()}s_per_job to at most that"
        )
    return wish


@contextmanager
def leased(wish: DeviceRequest, *, waiting: Callable[[str], None]) -> Iterator[Lease]:
    """Lease devices inside a `with` block, once they are free.

    Whoever waits stands in a queue, and only its head collects: nobody starves, and no two wait for each other.
    """
    if not wish.count:
        yield Lease(environment={VISIBLE: "-1"} if wish.kind == "none" else {})
        return
    with ExitStack() as stack:
        found: dict[str, int] = {}
        said = f"waiting for {wish.count} of {len(wish.among)} {wish.kind}s"
        folder = _folder()
        with lock.held(folder / f"queue-{wish.kind}", waiting=lambda: waiting(said)):
            _collect(wish, folder, found, stack, lambda: waiting(said))
        yield _lease(wish, found)


def _collect(
    wish: DeviceRequest, folder: Path, found: dict[str, int], stack: ExitStack, waiting: Callable[[], None]
) -> None:
    began, told = time.monotonic(), False
    while True:
        for device in wish.among:
            if device not in found and len(found) < wish.count:
                descriptor = lock.take(folder / f"{wish.kind}-{device.replace('/', '_')}")
                if descriptor is not None:
                    stack.callback(os.close, descriptor)
                    found[device] = descriptor
        if len(found) == wish.count:
            return
        if not told and time.monotonic() - began > lock.SILENCE:
            waiting()
            told = True
        time.sleep(lock.PAUSE)


def _lease(wish: DeviceRequest, found: Mapping[str, int]) -> Lease:
    devices = tuple(device for device in wish.among if device in found)
    descriptors = tuple(found.values())
    if not wish.tells:
        return Lease(devices, {}, None, descriptors)
    if wish.kind == "CPU":
        return Lease(devices, {}, tuple(map(int, devices)), descriptors)
    return Lease(devices, {VISIBLE: ",".join(devices)}, None, descriptors)


def _of_gpus(config: RunConfig, gpus: Sequence[str]) -> DeviceRequest:
    strategy, wanted = config.strategy, config.sweep.gpus_per_job
    if wanted is not None:
        return DeviceRequest(gpus, wanted)
    if strategy.gpus is not None:
        chosen = [gpus[index] for index in strategy.gpus if 0 <= index < len(gpus)]
        return DeviceRequest(chosen, len(chosen), tells=False)  # it names them itself, by index among all
    if strategy.kind is StrategyKind.single:
        return DeviceRequest(gpus, 1)
    return DeviceRequest(gpus, min(strategy.replicas or len(gpus), len(gpus)))


def _of_cores(config: RunConfig) -> DeviceRequest:
    """Return cores, pinned where they are asked for; replicas on the CPU stand for the GPUs that are not there."""
    cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
    if config.sweep.cpus_per_job is not None:
        return DeviceRequest(cores, config.sweep.cpus_per_job, "CPU")
    if config.sweep.gpus_per_job is not None:
        return DeviceRequest(cores, min(config.sweep.gpus_per_job, len(cores)), "CPU", tells=False)
    return DeviceRequest(kind="none" if config.strategy.kind is StrategyKind.cpu_replicas else "GPU")


def _folder() -> Path:
    """Return the directory of this machine's lock files, which is this user's alone."""
    if own := os.environ.get(FOLDER):
        return Path(own)
    path = Path(tempfile.gettempdir()) / f"nameplate-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    about = path.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
        raise LeaseError(f"{path} is not a directory of yours; set {FOLDER}=DIRECTORY in the environment")
    return path
