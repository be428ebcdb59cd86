"""The Hydra application: a whole run, or a sweep of runs, from one command line.

`run.py` is the flow on one screen; `config/` turns a command line into a configuration; `sweep/` runs many; `cli/`
holds the commands beside training.
"""

from pathlib import Path

# `python -m trainer.names` is the command in cli/names.py: commands have short names and a room of their own.
__path__.append(str(Path(__file__).parent / "cli"))
