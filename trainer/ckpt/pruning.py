"""`prune`: the retention of a training run, by hand."""

from __future__ import annotations

import argparse

from models import store
from trainer import places
from trainer.ckpt import printing

FAILED = 1


def prune(arguments: argparse.Namespace) -> int:
    """Delete checkpoints of a run that is not being trained; never the newest good one, nor one that a pointer leads
    to.
    """
    directory = places.find_directory(arguments.path)
    run = directory.parent if directory.name == places.CHECKPOINTS else directory
    rule = {name: getattr(arguments, name) for name in ("last", "best", "metric", "mode", "every")}
    rule |= {"thorough": True, "partial": True}
    if arguments.dry_run:
        paths = store.to_delete(directory, **rule)
        return _report(arguments, store.Deleted(tuple(paths), {}), "would be deleted")
    with store.RunLock(run):
        return _report(arguments, store.keep(directory, **rule), "deleted")


def _report(arguments: argparse.Namespace, deleted: store.Deleted, what: str) -> int:
    if arguments.json:
        failed = {str(path): str(error) for path, error in deleted.failed.items()}
        printing.as_json({"deleted": [str(path) for path in deleted.removed], "failed": failed, "what": what})
    else:
        for path in deleted.removed:
            printing.line(f"{path}: {what}")
        for error in deleted.failed.values():
            printing.line(str(error))
        if not deleted.removed and not deleted.failed:
            printing.line("Nothing to delete.")
    return FAILED if deleted.failed else 0
