from __future__ import annotations

import subprocess

from scripts.readme_map import ROOT


def test_help_lists_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert {line.split()[0] for line in done.stdout.splitlines() if line and not line.startswith("make")} >= {
        "train", "test", "coverage", "check", "fmt", "jax", "next", "faults", "bench", "setup", "clean"
    }  # fmt: skip


def test_the_environments_of_other_versions_are_made_apart_and_cleaned_away() -> None:
    targets = ["make", "--dry-run", "jax", "next", "clean"]
    done = subprocess.run(targets, cwd=ROOT, capture_output=True, text=True, check=True)
    removed = next(line for line in done.stdout.splitlines() if line.startswith("rm -rf")).split()
    assert {".venv", ".venv-jax", ".venv-next"} <= set(removed)
    assert not [line for line in done.stdout.splitlines() if line.startswith(".venv/")]
    assert all(f"{directory}/" in (ROOT / ".gitignore").read_text() for directory in (".venv-jax", ".venv-next"))


def test_the_constraints_hold_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    assert all(line.count("==") == 1 and not set(line) & set("@/: ") for line in lines)
