"""Runs that a run needs or is compared with: made before it, each in a process of its own, and listed beside it."""

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
from nameplate.training.run_directory import Home
from trainer.config import command_line
from trainer.config.run_config import RunConfig

_LOOKED_AT = 0.2  # seconds between two looks whether a signal came


class PrecedingError(NameplateError):
    """A run that had to be made first, and was not."""


def make_preceding(config: RunConfig, home: Home | None, screen: Screen, stop: StopRequest) -> None:
    """Train the runs of `config.before` to their ends, unless this run has begun and so has had them.

    One that is done says so and is left alone; one that was stopped goes on. They get this run's devices, and two jobs
    that need one run make it one after the other.

    Raises:
        PrecedingError: one of them ended otherwise; its own words stand above.
        StoppedError: a signal came meanwhile; it was handed on.
    """
    wanted = config.before or {}
    if home is None:
        for name, overrides in wanted.items():
            command = shlex.join([f"run={name}", *_handed_on(config), *overrides])
            screen.say(f"not made in a dry run: {tool('python')} -m trainer {command}")
        return
    if not home.is_new():
        return
    for place, (name, overrides) in enumerate(wanted.items()):
        screen.say(f"first {name}, {place + 1} of {len(wanted)}: {shlex.join(overrides)}")
        with _alone(Path(config.runs)):
            code = _trained([f"run={name}", *_handed_on(config), *overrides], stop)
        if stop.received is not None:
            raise StoppedError(stop.received, 0, f"{name} saved what it had")
        if code:
            raise PrecedingError(f"{name} has to be made before this run, and ended with exit code {code}; see above")


def compare(config: RunConfig, home: Home | None, screen: Screen) -> None:
    """Show the best value of this run beside those of the runs before it that measure the same, the best first."""
    if home is None or not config.before:
        return
    best = {name: _best(Path(config.runs) / name) for name in config.before} | {home.path.name: _best(home.path)}
    monitor, _ = best[home.path.name]
    found = {name: value for name, (measured, value) in best.items() if measured == monitor and value is not None}
    names = sorted(found, key=lambda name: found[name], reverse=config.checkpoint.improves_upwards(monitor))
    screen.table(f"best {monitor}", ("run", monitor), [(name, f"{found[name]:.4f}") for name in names])


def _trained(arguments: Sequence[str], stop: StopRequest) -> int:
    """Run `python -m trainer` and return its exit code; a signal is handed on once."""
    process = subprocess.Popen([sys.executable, "-m", "trainer", *arguments], start_new_session=True)
    told = False
    while True:
        try:
            return process.wait(timeout=_LOOKED_AT)
        except subprocess.TimeoutExpired:
            if stop.received is not None and not told:
                process.send_signal(stop.received)
                told = True


def _handed_on(config: RunConfig) -> Iterator[str]:
    """Yield the overrides that give another run what this one has: place, devices, trust, where options are found."""
    yield from (each for each in command_line() or () if each.startswith("hydra.searchpath="))
    yield f"runs={config.runs}"
    usual = StrategyConfig()
    for each in fields(StrategyConfig):
        value = getattr(config.strategy, each.name)
        if value != getattr(usual, each.name):
            yield f"strategy.{each.name}={value.value if isinstance(value, Enum) else value}"
    if config.trust:
        yield f"trust=[{','.join(config.trust)}]"


def _best(run: Path) -> tuple[str, float | None]:
    """Return what a run's last checkpoint calls its best value, and the value."""
    found = store.checkpoints(run / "checkpoints")
    if not found:
        return "", None
    with store.open(found[-1]) as checkpoint:
        best: Mapping[str, str | None] = checkpoint.manifest.about["best"]
    return str(best["monitor"]), None if best["value"] is None else float(best["value"])


@contextmanager
def _alone(runs: Path) -> Iterator[None]:
    """Wait until no other job makes a run in this directory for itself."""
    runs.mkdir(parents=True, exist_ok=True)
    with lock.directory_held(runs):
        yield
