"""Own names that might do for a layer, best first: strings only. `models.policy` takes the first that passes."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from models.patterns import examples

NEUTRAL = ("layer", "l")  # where neither the layer's own name nor its class's word may stand

_LETTERS = [f"_{letter}" for letter in "bcdefghijklmnopqrstuvwxyz"]


@dataclass(frozen=True)
class Wish:
    """What a suggested name must keep, as far as it can be built in; the policy judges what comes out."""

    prefix: str
    pattern: str | None
    limit: int  # bytes
    ordinal: int  # which layer of its class it is in its container, from 1
    tries: int  # how many of each sort


def candidates(bases: Sequence[str], counted: Iterable[str], wish: Wish) -> Iterator[str]:
    """Yield names around each base; those in `counted` are words, which take the layer's number at once."""
    words = set(counted)
    if wish.pattern:
        for base in bases:
            yield from _matching(base, wish, wish.pattern)
    for base in bases:
        first = [str(wish.ordinal)] if base in words else [""]
        for suffix in [*first, *_LETTERS, *(f"_n{number}" for number in range(2, wish.tries))]:
            front = "" if base.startswith(wish.prefix) else wish.prefix
            room = wish.limit - len(front) - len(suffix)
            if room < 1:
                break
            yield front + base[:room] + suffix
    yield from _shortest(wish)


def _matching(base: str, wish: Wish, pattern: str) -> Iterator[str]:
    """Yield examples of a pattern with the base in them, then with the base made different by its number."""
    yield from _fitting(base, "", wish, pattern, count=wish.tries)
    numbers = (f"{number}" for number in range(wish.ordinal, wish.ordinal + wish.tries))
    for suffix in itertools.chain(numbers, _LETTERS):
        yield from _fitting(base, suffix, wish, pattern, count=1)


def _fitting(base: str, suffix: str, wish: Wish, pattern: str, *, count: int) -> Iterator[str]:
    """Yield examples around a base, with the prefix in front unless the pattern has it, the base cut to the limit."""

    def made(word: str, count: int) -> Iterator[str]:
        return examples(pattern, word, iter(range(wish.ordinal, wish.ordinal + count)))

    front = ""
    sample = next(made(base + suffix, 1), "")
    if not sample.startswith(wish.prefix):
        front = wish.prefix
        sample = next(made(front + base + suffix, 1), "")
    kept = len(base) - max(0, len(sample) - wish.limit)
    if sample and kept > 0:
        yield from made(front + base[:kept] + suffix, count)


def _shortest(wish: Wish) -> Iterator[str]:
    """Yield the shortest names that there are, for limits that leave no room for words."""
    room = max(0, wish.limit - len(wish.prefix))
    lengths = range(1, room + 1)
    texts = (
        "".join(each)
        for length in lengths
        for each in itertools.product(string.ascii_lowercase + string.digits, repeat=length)
    )
    for text in itertools.islice(texts, wish.tries):
        yield wish.prefix + text
