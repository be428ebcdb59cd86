"""Power fails after every system call of a save, and whatever was not fsynced may be gone."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nameplate import checkpoint as store
from tests.nameplate.checkpoint.faults import NEW, OLD, REPLACED, WRITING, prepare
from tests.nameplate.checkpoint.injection import Injector
from tests.nameplate.checkpoint.power import Disk, calls, crashes, lay_down

RECORDING = ("-xx", "-s", "1000000")


def after_every_call(inject: Injector, run: Path, scenario: str) -> Iterator[tuple[Path, bool]]:
    """Yield directories of checkpoints as found after power cuts all through a save, and whether it had been
    told done.
    """
    prepare(run, scenario)
    run.mkdir(exist_ok=True)
    before = run.with_name("before")
    shutil.copytree(run, before)
    said = run.with_name(f"{run.name}.said")
    recorded = list(calls(inject.run(run, scenario, options=(*RECORDING, "-P", str(said))).log))

    shutil.rmtree(run)
    before.rename(run)
    disk, draw, saved = Disk(run), random.Random(1), False
    for call in recorded:
        disk.apply(call)
        saved = saved or call.strings == (b"saved\n",)
        for tree in crashes(disk, draw):
            found = run.with_name("found")
            lay_down(tree, found)
            yield found / "checkpoints", saved
            shutil.rmtree(found)


@pytest.mark.parametrize("scenario", WRITING)
def test_after_a_power_cut_at_any_moment_there_is_old_or_new(inject: Injector, tmp_path: Path, scenario: str) -> None:
    damaged: list[Path] = []
    states = 0
    for directory, saved in after_every_call(inject, tmp_path / "run", scenario):
        states += 1
        store.sweep_leftovers(directory)  # as a job does that starts again
        opened = store.newest_good(directory, lambda path, error: damaged.append(path))
        assert damaged == []
        if opened is None:
            assert (scenario, saved) == ("first", False)
        else:
            assert opened.config in ((NEW, REPLACED) if saved else (OLD, NEW, REPLACED))
            opened.close()
    assert saved
    assert states > 500


def test_a_writer_without_fsync_is_caught_by_this_test(inject: Injector, tmp_path: Path) -> None:
    damaged: list[Path] = []
    for directory, saved in after_every_call(inject, tmp_path / "run", "careless"):
        try:
            opened = store.newest_good(directory, lambda path, error: damaged.append(path))
        except store.NothingGoodError:
            break
        if saved and (opened is None or opened.config == OLD):
            break
    else:
        pytest.fail("every crash of a careless writer went unnoticed")
