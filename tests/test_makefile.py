from __future__ import annotations

import subprocess

from scripts.readme_map import ROOT


def test_help_lists_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert {line.split()[0] for line in done.stdout.splitlines() if line and not line.startswith("make")} >= {
        "train", "test", "check", "fmt", "faults", "bench", "setup", "clean"
    }  # fmt: skip


def test_the_constraints_hold_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    assert all(line.count("==") == 1 and not set(line) & set("@/: ") for line in lines)
