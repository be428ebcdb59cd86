"""The way that names are written, learnt from names that are there: strings only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SEPARATORS = "_.-"


@dataclass(frozen=True)
class Convention:
    """How words and numbers become one name."""

    separator: str = "_"  # between words; empty: words begin with a capital, `stemConv`
    case: str = "lower"  # of words: lower, capital, upper
    apart: bool = False  # whether a number stands by itself: `block_1`, not `block1`

    def name(self, *words: str, number: int | None = None) -> str:
        """Return a name of these words, the first as it is, and of a number at its end."""
        first, *rest = words
        parts = [first, *(self._cased(word) for word in rest)]
        joined = self.separator.join(parts)
        if number is None:
            return joined
        return f"{joined}{(self.separator or '_') if self.apart else ''}{number}"

    def _cased(self, word: str) -> str:
        if not self.separator or self.case == "capital":
            return word.capitalize()
        return word.upper() if self.case == "upper" else word


def convention_of(names: Iterable[str]) -> Convention:
    """Return how most of these own names are written; where they say nothing, `stage1_conv1`."""
    written = list(names)
    separators = Counter(char for name in written for char in name if char in _SEPARATORS)
    humps = sum(bool(re.search(r"[a-z][A-Z]", name)) for name in written)
    separator = separators.most_common(1)[0][0] if separators else ("" if humps > len(written) / 2 else "_")
    words = [word for name in written for word in re.findall(r"[A-Za-z]+", name)]
    apart = sum(bool(re.search(rf"[A-Za-z][{_SEPARATORS}][0-9]", name)) for name in written)
    close = sum(bool(re.search(r"[A-Za-z][0-9]", name)) for name in written)
    return Convention(separator, _case(words), apart > close)


def _case(words: Sequence[str]) -> str:
    """Return how most words of several letters are written."""
    long = [word for word in words if len(word) > 1]
    upper = sum(word.isupper() for word in long)
    capital = sum(word[0].isupper() and not word.isupper() for word in long)
    if 2 * upper > len(long):
        return "upper"
    return "capital" if 2 * capital > len(long) else "lower"
