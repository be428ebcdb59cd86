"""A checkpoint on disk: named arrays and plain data, committed whole, hashed to the last byte, read in parts.

Knows files and NumPy; no framework. `layout` shows what lies where, `commit` how it gets there.
"""

from nameplate.checkpoint.commit import Snapshot, save
from nameplate.checkpoint.directory import probe, sweep_leftovers
from nameplate.checkpoint.errors import DamagedError, LockedError, NewerFormatError, NothingGoodError, StoreError
from nameplate.checkpoint.layout import checkpoints
from nameplate.checkpoint.lock import RunLock
from nameplate.checkpoint.pointers import point, pointers, resolve
from nameplate.checkpoint.ranking import PARTIAL, best, best_of
from nameplate.checkpoint.reading import Checkpoint, Tensors
from nameplate.checkpoint.reading import open_checkpoint as open
from nameplate.checkpoint.recovery import lacking, load_newest, newest_good
from nameplate.checkpoint.retention import STAGE, Deleted, keep, to_delete
from nameplate.checkpoint.single_file import TensorFile, open_tensors, save_tensors
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
