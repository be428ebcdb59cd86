"""Suggested names: built around a word to fit a prefix, a length and a regular expression.

The regular expression of a policy is turned into examples by way of the parse tree of `re`, which has no public API
(read in CPython 3.11 to 3.14).
"""

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


def examples(pattern: str, word: str, numbers: Iterator[int]) -> Iterator[str]:
    """Yield names that match all of `pattern`, built around `word` and each of `numbers` in turn.

    The word stands where the pattern allows anything (`.*`, `[a-z_]+`), the number where it allows digits, and literal
    text stays. Texts that do not match after all (a look-behind, a back reference) are left out, and a text without a
    number is yielded once.
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
    """Return a text for a parse tree, with optional parts where `filled`; None where there is none."""
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
    """Return one character that a class matches: the number's last digit if it can, else a letter."""
    test = re.compile(".") if op is sre.ANY else None
    for char in f"{number % 10}xabcdefghijklmnopqrstuvwyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-":
        if test is not None or _takes(op, argument, char):
            return char
    return None


def _repeated(argument: Any, word: str, number: int, *, filled: bool) -> str | None:
    """Return the word where letters repeat, the number where digits do, else the fewest repetitions allowed."""
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
    """Return whether an element of a parse tree matches a character."""
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


NEUTRAL = ("layer", "l")  # used where neither the layer's own name nor its class's word fits

_LETTERS = [f"_{letter}" for letter in "bcdefghijklmnopqrstuvwxyz"]


@dataclass(frozen=True)
class Constraints:
    """Constraints that suggested names are built for; the policy checks the results."""

    prefix: str
    pattern: str | None
    limit: int  # bytes
    ordinal: int  # number of the layer among those of its class in its container, from 1
    tries: int  # candidates of each sort


def candidates(bases: Sequence[str], counted: Iterable[str], constraints: Constraints) -> Iterator[str]:
    """Yield names built around each base; those in `counted` are class words, which always get a number."""
    words = set(counted)
    if constraints.pattern:
        for base in bases:
            yield from _matching(base, constraints, constraints.pattern)
    for base in bases:
        first = [str(constraints.ordinal)] if base in words else [""]
        for suffix in [*first, *_LETTERS, *(f"_n{number}" for number in range(2, constraints.tries))]:
            front = "" if base.startswith(constraints.prefix) else constraints.prefix
            room = constraints.limit - len(front) - len(suffix)
            if room < 1:
                break
            yield front + base[:room] + suffix
    yield from _shortest(constraints)


def _matching(base: str, constraints: Constraints, pattern: str) -> Iterator[str]:
    """Yield examples of a pattern that contain the base, then the base with numbers and letters appended."""
    yield from _fitting(base, "", constraints, pattern, count=constraints.tries)
    numbers = (f"{number}" for number in range(constraints.ordinal, constraints.ordinal + constraints.tries))
    for suffix in itertools.chain(numbers, _LETTERS):
        yield from _fitting(base, suffix, constraints, pattern, count=1)


def _fitting(base: str, suffix: str, constraints: Constraints, pattern: str, *, count: int) -> Iterator[str]:
    """Yield examples built around a base, with the prefix unless the pattern has it, the base cut to the limit."""

    def examples_of(word: str, count: int) -> Iterator[str]:
        return examples(pattern, word, iter(range(constraints.ordinal, constraints.ordinal + count)))

    front = ""
    sample = next(examples_of(base + suffix, 1), "")
    if not sample.startswith(constraints.prefix):
        front = constraints.prefix
        sample = next(examples_of(front + base + suffix, 1), "")
    kept = len(base) - max(0, len(sample) - constraints.limit)
    if sample and kept > 0:
        yield from examples_of(front + base[:kept] + suffix, count)


def _shortest(constraints: Constraints) -> Iterator[str]:
    """Yield the shortest possible names, for limits that leave no room for words."""
    room = max(0, constraints.limit - len(constraints.prefix))
    lengths = range(1, room + 1)
    texts = (
        "".join(characters)
        for length in lengths
        for characters in itertools.product(string.ascii_lowercase + string.digits, repeat=length)
    )
    for text in itertools.islice(texts, constraints.tries):
        yield constraints.prefix + text
