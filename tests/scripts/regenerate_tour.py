"""Runs scripts/examples/tour.ipynb and writes it back with its outputs: `python -m tests.scripts.regenerate_tour`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from scripts.readme_map import ROOT

TOUR = ROOT / "scripts" / "examples" / "tour.ipynb"


def executed(cwd: Path) -> nbformat.NotebookNode:
    """Return the notebook as a kernel of this environment leaves it, run in a directory that it may write to.

    What libraries write to standard error is left out, and with it what depends on the machine.
    """
    tour = nbformat.read(TOUR, as_version=4)
    tools = Path(sys.executable).parent
    own = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    own |= {"IPYTHONDIR": str(cwd / "ipython"), "JUPYTER_RUNTIME_DIR": str(cwd / "jupyter")}
    before = dict(os.environ)
    os.environ.update(own)  # which the kernel inherits
    try:
        NotebookClient(tour, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(cwd)}}).execute()
    finally:
        os.environ.clear()
        os.environ.update(before)
    tour.metadata = {"kernelspec": tour.metadata.kernelspec, "language_info": {"name": "python"}}
    for cell in tour.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                output.get("data", {}).pop("image/jpeg", None)  # the same picture as a PNG is there too
    return tour


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        nbformat.write(executed(Path(place)), TOUR)
