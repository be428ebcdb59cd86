"""A checkpoint on disk: named arrays and plain data, committed whole, hashed to the last byte, read in parts.

Knows files and NumPy; no framework. `layout` shows what lies where, `commit` how it gets there.
"""

from models.store.commit import save
from models.store.errors import (
    DamagedError,
    LockedError,
    NewerFormatError,
    NothingGoodError,
    StoreError,
)
from models.store.layout import checkpoints
from models.store.leftovers import sweep_leftovers
from models.store.lock import RunLock
from models.store.pointers import point, pointers, resolve
from models.store.probe import probe
from models.store.ranking import PARTIAL, best, best_of
from models.store.reading import Checkpoint, Tensors
from models.store.reading import open_checkpoint as open
from models.store.recovery import lacking, load_newest, newest_good
from models.store.retention import STAGE, Deleted, keep, to_delete
from models.store.single import TensorFile, open_tensors, save_tensors
from models.store.snapshot import Snapshot
from models.store.verifying import Damage, verify

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
