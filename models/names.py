"""The grammar of names: strings only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """Return the candidates that `word` was probably meant to be, best first; empty when nothing is close."""
    names = list(dict.fromkeys(candidates))
    folded: dict[str, str] = {}
    for name in names:
        folded.setdefault(name.casefold(), name)
    return [folded[match] for match in difflib.get_close_matches(word.casefold(), folded, n=limit, cutoff=0.6)]


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return ` Did you mean 'a' or 'b'?` with a leading space, or an empty string when nothing is close."""
    close = nearest(word, candidates)
    return f" Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
