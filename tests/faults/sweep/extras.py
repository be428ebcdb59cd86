"""The project with one of its extras: an environment over this one, into which the extra is installed for the test."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PLUGINS = {
    "sweep": "hydra_plugins.hydra_joblib_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
    "optuna": "hydra_plugins.hydra_optuna_sweeper",
    "ray": "hydra_plugins.hydra_ray_launcher",
}


def python_with(extra: str, folder: Path) -> str:
    """Return a Python that has the extra: this one, or of an environment made in `folder` from the pinned versions."""
    known = subprocess.run([sys.executable, "-c", f"import {PLUGINS[extra]}"], capture_output=True, check=False)
    if known.returncode == 0:
        return sys.executable
    here = folder / extra
    venv.create(here, with_pip=True)
    own = str(here / "bin" / "python")
    (site,) = (here / "lib").glob("python*/site-packages")
    (site / "base.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n{ROOT}\n")
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    install = [own, "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), *wanted]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return own


def sweep_with(
    python: str, runs: Path, *overrides: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a sweep with this Python."""
    command = [python, "-m", "trainer", "-m", f"runs={runs}", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=runs)
