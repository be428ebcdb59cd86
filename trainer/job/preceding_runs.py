"""`before`: runs that a run needs or is compared with, made first, each in a process of its own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from enum import Enum
from pathlib import Path

from nameplate import checkpoint as store
from nameplate.checkpoint import lock
from nameplate.engine.config import StrategyConfig
from nameplate.engine.signals import StopRequest
from nameplate.errors import NameplateError, StoppedError
from nameplate.training.console import Screen, tool
from nameplate.training.run_directory import RunDirectory
from trainer.config import command_line
from trainer.config.run_config import RunConfig

_INTERVAL = 0.2  # seconds between two checks for a signal


class PrecedingError(NameplateError):
    """A run that had to be made first, but failed."""


def make_preceding(config: RunConfig, home: RunDirectory | None, screen: Screen, stop: StopRequest) -> None:
    """Train the runs of `config.before` to the end, unless this run has started and so has had them.

    A run that is done stays as it is; one that was stopped is resumed. They use this run's devices. Two jobs that need
    the same run take turns.

    Raises:
        PrecedingError: one of them failed; its own output is above.
        StoppedError: a signal came meanwhile, and was forwarded.
    """
    wanted = config.before or {}
    if home is None:
        for name, overrides in wanted.items():
            command = shlex.join([f"run={name}", *_shared_overrides(config), *overrides])
            screen.say(f"not made in a dry run: {tool('python')} -m trainer {command}")
        return
    if not home.is_new():
        return
    for place, (name, overrides) in enumerate(wanted.items()):
        screen.say(f"first {name}, {place + 1} of {len(wanted)}: {shlex.join(overrides)}")
        with _locked(Path(config.runs)):
            code = _trained([f"run={name}", *_shared_overrides(config), *overrides], stop)
        if stop.received is not None:
            raise StoppedError(stop.received, 0, f"{name} saved what it had")
        if code:
            raise PrecedingError(f"{name} must be made before this run, but ended with exit code {code}; see above")


def compare(config: RunConfig, home: RunDirectory | None, screen: Screen) -> None:
    """Print the best value of this run and of the runs before it that monitor the same value, the best first."""
    if home is None or not config.before:
        return
    best = {name: _best(Path(config.runs) / name) for name in config.before} | {home.path.name: _best(home.path)}
    monitor, _ = best[home.path.name]
    values = {name: value for name, (own, value) in best.items() if own == monitor and value is not None}
    names = sorted(values, key=lambda name: values[name], reverse=config.checkpoint.improves_upwards(monitor))
    screen.table(f"best {monitor}", ("run", monitor), [(name, f"{values[name]:.4f}") for name in names])


def _trained(arguments: Sequence[str], stop: StopRequest) -> int:
    """Run `python -m trainer` and return its exit code; a signal is forwarded once."""
    process = subprocess.Popen([sys.executable, "-m", "trainer", *arguments], start_new_session=True)
    forwarded = False
    while True:
        try:
            return process.wait(timeout=_INTERVAL)
        except subprocess.TimeoutExpired:
            if stop.received is not None and not forwarded:
                process.send_signal(stop.received)
                forwarded = True


def _shared_overrides(config: RunConfig) -> Iterator[str]:
    """Yield the overrides that give another run this one's directory, devices, trust and search path."""
    yield from (override for override in command_line() or () if override.startswith("hydra.searchpath="))
    yield f"runs={config.runs}"
    default = StrategyConfig()
    for setting in fields(StrategyConfig):
        value = getattr(config.strategy, setting.name)
        if value != getattr(default, setting.name):
            yield f"strategy.{setting.name}={value.value if isinstance(value, Enum) else value}"
    if config.trust:
        yield f"trust=[{','.join(config.trust)}]"


def _best(run: Path) -> tuple[str, float | None]:
    """Return the name and the best value of the monitored value, from a run's last checkpoint."""
    checkpoints = store.checkpoints(run / "checkpoints")
    if not checkpoints:
        return "", None
    with store.open(checkpoints[-1]) as checkpoint:
        best: Mapping[str, str | None] = checkpoint.manifest.about["best"]
    return str(best["monitor"]), None if best["value"] is None else float(best["value"])


@contextmanager
def _locked(runs: Path) -> Iterator[None]:
    """Hold a lock on the directory of runs; wait while another job makes a run in it."""
    runs.mkdir(parents=True, exist_ok=True)
    with lock.directory_held(runs):
        yield
