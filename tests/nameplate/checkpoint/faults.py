"""What must hold after any fault in a save, and the sweep of a fault over every call of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from nameplate import checkpoint as store
from tests.nameplate.checkpoint.injection import Injector, Outcome
from tests.nameplate.checkpoint.samples import same, snapshot

OLD, NEW, REPLACED = "old\n", "new\n", "replaced\n"  # the configuration identifies a checkpoint's origin

WRITING = ("first", "following", "replacing")  # scenarios of the writer that save


def sweep(inject: Injector, run: Path, scenario: str, call: str, fault: str) -> Iterator[tuple[int, Outcome]]:
    """Yield the outcome of the fault at the 1st, 2nd, 3rd ... `call` until there is none left to hit.

    `fault` is strace's, as in `error=EIO:when={number}`. All that must hold whatever happened is checked.
    """
    number = 0
    while True:
        number += 1
        prepare(run, scenario)
        outcome = inject.run(run, scenario, f"{call}:{fault.format(number=number)}")
        assert_old_or_new(run, scenario, outcome)
        assert_next_save_is_clean(run, scenario)
        if not outcome.hit:
            assert outcome.code == 0, outcome.said
            return
        yield number, outcome


def prepare(run: Path, scenario: str) -> None:
    """Create what exists before the save."""
    shutil.rmtree(run, ignore_errors=True)
    if scenario != "first":
        directory = run / "checkpoints"
        store.point(directory, "latest", store.save(directory, snapshot(1, config=OLD)))


def assert_old_or_new(run: Path, scenario: str, outcome: Outcome) -> None:
    """A reader without the lock finds a whole old or a whole new checkpoint, and no damage anywhere."""
    damaged: list[Path] = []
    opened = store.newest_good(run / "checkpoints", lambda path, error: damaged.append(path))
    assert damaged == []
    if opened is None:  # before the first one, or in the moment between the two renames that replace one
        assert scenario in ("first", "replacing")
        assert "saved" not in outcome.said
        return
    assert opened.config in ((NEW, REPLACED) if "saved" in outcome.said else (OLD, NEW, REPLACED))
    for group, expected in snapshot(opened.step).groups().items():
        assert all(same(opened.groups()[group][name], value) for name, value in expected.items())
    opened.close()


def assert_next_save_is_clean(run: Path, scenario: str) -> None:
    """The lock is free, an earlier checkpoint is still there, and the next save leaves nothing behind."""
    directory = run / "checkpoints"
    with store.RunLock(run):
        store.sweep_leftovers(directory)
        assert store.checkpoints(directory) or scenario == "first"
        store.save(directory, snapshot(3))
    for path in directory.iterdir():
        assert not path.name.startswith(".")
        assert path.is_file() or store.verify(path) == []
