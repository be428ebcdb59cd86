"""Examples of a regular expression: what a suggested name must look like."""

from __future__ import annotations

import functools
import itertools
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

# The parse tree of `re`, as in CPython 3.11 to 3.14: nothing public has it.


def examples(pattern: str, word: str, numbers: Iterator[int]) -> Iterator[str]:
    """Yield names that match the whole of `pattern`, built around `word`, the first with the first number.

    Where the pattern takes anything (`.*`, `[a-z_]+`) stands the word, where it takes digits stands the
    number; what it takes for certain stays. A text that came out wrong (a look-behind, a back reference) is
    left out; where no number stands in the text, it comes once.
    """
    tree = _parsed(pattern)
    matcher = re.compile(pattern)
    before: tuple[str | None, ...] = ()
    for number in numbers:
        texts = (_written(tree, word, number, filled=True), _written(tree, word, number, filled=False))
        if texts == before:
            return
        before = texts
        for text in texts:
            if text is not None and matcher.fullmatch(text):
                yield text


@functools.lru_cache(maxsize=64)
def _parsed(pattern: str) -> Any:
    return _parser.parse(pattern)


def _written(tree: Any, word: str, number: int, *, filled: bool) -> str | None:
    """Return the text of one parse tree; optional parts only where `filled`; None for what has no text."""
    parts: list[str] = []
    word_used = False
    for op, argument in tree:
        text = _piece(op, argument, "" if word_used else word, number, filled=filled)
        if text is None:
            return None
        word_used = word_used or bool(word and word in text)
        parts.append(text)
    return "".join(parts)


def _piece(op: Any, argument: Any, word: str, number: int, *, filled: bool) -> str | None:
    if op is sre.LITERAL:
        return chr(argument)
    if op in (sre.ANY, sre.IN, sre.NOT_LITERAL, sre.CATEGORY):
        return _one(op, argument, number)
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        return _repeated(argument, word, number, filled=filled)
    if op is sre.SUBPATTERN:
        return _written(argument[-1], word, number, filled=filled)
    if op is sre.ATOMIC_GROUP:
        return _written(argument, word, number, filled=filled)
    if op is sre.BRANCH:
        return _written(argument[1][0], word, number, filled=filled)
    if op in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
        return ""
    return None


def _one(op: Any, argument: Any, number: int) -> str | None:
    """Return one character that a class takes: the number's digit, or a letter."""
    test = re.compile(".") if op is sre.ANY else None
    for char in f"{number % 10}xabcdefghijklmnopqrstuvwyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-":
        if test is not None or _takes(op, argument, char):
            return char
    return None


def _repeated(argument: Any, word: str, number: int, *, filled: bool) -> str | None:
    """Return the word where letters repeat, the number where digits do, or as many pieces as must be."""
    least, most, body = argument
    op, inner = body[0] if len(body) == 1 else (None, None)
    if filled and op in (sre.ANY, sre.IN, sre.NOT_LITERAL):
        fits = [text for text in (word, str(number)) if text and all(_takes(op, inner, char) for char in text)]
        fits = [text for text in fits if least <= len(text) <= most]
        if fits:
            return fits[0]
    pieces = [_written(body, word, number, filled=filled) for _ in range(least)]
    return None if None in pieces else "".join(piece or "" for piece in pieces)


def _takes(op: Any, argument: Any, char: str) -> bool:
    """Tell whether one element of a parse tree takes one character."""
    if op is sre.ANY:
        return True
    if op is sre.NOT_LITERAL:
        return ord(char) != argument
    members = argument if op is sre.IN else [(op, argument)]
    negated = bool(members) and members[0][0] is sre.NEGATE
    return any(_member_takes(kind, value, char) for kind, value in members) != negated


def _member_takes(kind: Any, value: Any, char: str) -> bool:
    if kind is sre.LITERAL:
        return ord(char) == value
    if kind is sre.RANGE:
        return bool(value[0] <= ord(char) <= value[1])
    categories = {sre.CATEGORY_DIGIT: r"\d", sre.CATEGORY_WORD: r"\w", sre.CATEGORY_SPACE: r"\s"}
    return kind is sre.CATEGORY and value in categories and re.match(categories[value], char) is not None


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
