"""The Hydra application: a whole run, or a sweep of runs, from one command line.

`run` is the flow of a whole run, on one screen, and `job/` has its parts: the model, the runs before it, the loop, the
report. `config/` turns a command line into a configuration. `sweep/` runs many jobs, which `ledger/` records. `cli/`
has the commands beside training.
"""

from pathlib import Path

# So that `python -m trainer.names` runs cli/names.py: commands have short names, but live in a room of their own.
__path__.append(str(Path(__file__).parent / "cli"))
