"""A checkpoint on disk: named arrays and plain data, committed whole, hashed to the last byte, read in parts.

Files and NumPy only, no framework. In reading order:

- `layout`: the files of a checkpoint and the names in a directory of checkpoints. `tensor_names`, `dtypes`: what may
  stand in them.
- `durable`, `files`, `lock`: atomic writes, reads that survive a network file system, flocks.
- `header`, `tensor_file`: the safetensors format. `manifest`, `plain_data`: what a checkpoint says about itself.
- `commit` saves, `reading` opens, `verification` reads every byte.
- `pointers` (`latest`, `best`), `ranking` (which is the best), `retention` (which stay), `recovery` (the newest good).
- `remote`: a run in an object store. `lease` (who writes there), `replication` (sending), `fetching`.
- `location`: the checkpoints that a path from a user means.
"""

from nameplate.checkpoint.commit import Snapshot, probe, save, sweep_leftovers
from nameplate.checkpoint.errors import DamagedError, LockedError, NewerFormatError, NothingGoodError, StoreError
from nameplate.checkpoint.layout import checkpoints
from nameplate.checkpoint.lock import RunLock
from nameplate.checkpoint.pointers import point, pointers, resolve
from nameplate.checkpoint.ranking import PARTIAL, best, best_of
from nameplate.checkpoint.reading import Checkpoint, Tensors
from nameplate.checkpoint.reading import open_checkpoint as open
from nameplate.checkpoint.recovery import lacking, load_newest, newest_good
from nameplate.checkpoint.retention import STAGE, Deleted, keep, to_delete
from nameplate.checkpoint.tensor_file import TensorFile, open_tensors, save_tensors
from nameplate.checkpoint.verification import Damage, verify

__all__ = [
    "PARTIAL",
    "STAGE",
    "Checkpoint",
    "Damage",
    "DamagedError",
    "Deleted",
    "LockedError",
    "NewerFormatError",
    "NothingGoodError",
    "RunLock",
    "Snapshot",
    "StoreError",
    "TensorFile",
    "Tensors",
    "best",
    "best_of",
    "checkpoints",
    "keep",
    "lacking",
    "load_newest",
    "newest_good",
    "open",
    "open_tensors",
    "point",
    "pointers",
    "probe",
    "resolve",
    "save",
    "save_tensors",
    "sweep_leftovers",
    "to_delete",
    "verify",
]
