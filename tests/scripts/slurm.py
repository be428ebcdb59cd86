"""Slurm on one machine: an srun that starts every task of a step, a scontrol that writes down what it is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from scripts.readme_map import ROOT

BATCH = ROOT / "scripts" / "slurm.sbatch"
JOB = 4242

# The tasks are on one machine, as with --ntasks-per-node=2. Two machines cannot be played by two addresses of it: the
# workers would listen at one port, and TensorFlow's server takes a port of every address.
SRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys

command = sys.argv[1:]
while command[0].startswith("--"):
    del command[0]
tasks = int(os.environ["SLURM_NTASKS"])
step = {{"SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_TASKS_PER_NODE": str(tasks)}}
step["SLURM_STEP_NODELIST"] = "127.0.0.1"
started = [subprocess.Popen(command, env={{**os.environ, **step, "SLURM_PROCID": str(i)}}) for i in range(tasks)]


def pass_on(number, frame):
    for task in started:
        if task.poll() is None:
            task.send_signal(number)


for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, pass_on)
codes = [task.wait() for task in started]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""
SCONTROL = """#!/bin/bash
echo "$@" >> "$PLACE/asked"
"""


def submitted(
    place: Path, *arguments: str, tasks: int = 2, python: str = sys.executable, **extra: str
) -> subprocess.Popen[str]:
    """Start the batch script in a directory as Slurm does, with our srun and scontrol before any other."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        program = place / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PLACE": str(place),
        "PYTHON": python,
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": str(JOB),
        "SLURM_NTASKS": str(tasks),
    }
    return subprocess.Popen(
        ["bash", str(BATCH), *arguments],
        cwd=place,
        env=environment | extra,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def asked(place: Path) -> list[str]:
    """Return what scontrol was asked, a line a call."""
    path = place / "asked"
    return path.read_text().splitlines() if path.exists() else []
