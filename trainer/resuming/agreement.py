"""Whether a run may go on under this configuration: compared with the one in its checkpoint, and said."""

from __future__ import annotations

from collections.abc import Callable

from trainer.compose.stored import defaults_of, from_yaml, to_plain
from trainer.config.run import RunConfig
from trainer.resuming import drift
from trainer.resuming.drift import Drift


def agreement(config: RunConfig, *, say: Callable[[str], None]) -> Callable[[str, str], Drift]:
    """Return what to ask of a checkpoint: its configuration as YAML, and which it is in words.

    The answer is the drift that is meant; `DriftError` where nobody meant it.
    """

    def agree(stored: str, where: str) -> Drift:
        changes = drift.compare(from_yaml(stored), to_plain(config), defaults=defaults_of(config))
        found = drift.agree(changes, meant=config.resume_changed, where=where)
        if found.changes:
            say(drift.in_words(found, where=where))
        return found

    return agree
