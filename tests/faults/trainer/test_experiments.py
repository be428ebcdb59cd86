"""Experiments to their ends, by the command and with the result that their files name; a minute or two each."""

from __future__ import annotations

import re
from pathlib import Path

from tests.trainer.running import about, command, content


def test_a_tower_from_pairs_beats_training_from_scratch_on_fifty_digits(tmp_path: Path) -> None:
    done = command("experiment=transfer_digits", "run=few", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.rindex("best val_accuracy") :]
    reached = {name: float(value) for name, value in re.findall(r"^(\w+) +([\d.]+)$", table, re.MULTILINE)}

    assert reached["few"] >= 0.95
    assert reached["few"] >= reached["few_from_scratch"] + 0.1
    file = about(tmp_path / "runs/few")["origins"]["tower/conv1/kernel"]["file"]
    assert file.startswith("runs/pairs/")
    first, taken = content(tmp_path / "runs/few", 30), content(tmp_path / "runs/pairs", int(file.rpartition("_")[2]))
    assert first["weights:tower/conv1/kernel"].tobytes() == taken["weights:tower/conv1/kernel"].tobytes()
