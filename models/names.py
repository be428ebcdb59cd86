"""The grammar of names: strings only.

A layer's own name is one component, `stem_conv`; a qualified name has its containers' in front,
`backbone/stem_conv`; a variable adds its own, `backbone/stem_conv/kernel`; an optimizer's slot adds which,
`backbone/stem_conv/kernel@momentum`.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

SEPARATOR = "/"
LIMIT = 200  # bytes of an own name: a file system takes 255, and some leave room for a suffix

# Words that YAML and Hydra do not read as a string, that Windows keeps from file names, and the one key
# that no safetensors reader opens.
RESERVED = frozenset(
    [
        "null",
        "none",
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "nan",
        "inf",
        "con",
        "prn",
        "aux",
        "nul",
        "__metadata__",
    ]
    + [f"{port}{digit}" for port in ("com", "lpt") for digit in range(1, 10)]
)

_OWN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_COUNTED = re.compile(r"(?:_[0-9]+)?")


def fault(name: object, *, limit: int = LIMIT) -> str | None:
    """Return what is wrong with a layer's own name, in a few words, or None when it is sound."""
    if not isinstance(name, str):
        return f"not a string but {type(name).__name__}"
    if not name:
        return "empty"
    if not _OWN.fullmatch(name):
        strangers = sorted({char for char in name if not re.fullmatch(r"[A-Za-z0-9_.-]", char)})
        if strangers:
            return f"has {' '.join(ascii(char) for char in strangers)}; allowed are A-Z a-z 0-9 _ . -"
        return f"begins with {name[0]!r}; a letter or a digit comes first"
    if len(name) > limit:  # ASCII from here on: characters are bytes
        return f"{len(name)} bytes long; at most {limit}"
    if name.casefold() in RESERVED:
        return "a reserved word"
    return None


def join(*parts: str) -> str:
    """Return a qualified name from a container's (the top's is empty) and what lies in it."""
    return SEPARATOR.join(part for part in parts if part)


def split(qualified: str) -> tuple[str, str]:
    """Return a qualified name's container (empty at the top) and own name."""
    container, _, own = qualified.rpartition(SEPARATOR)
    return container, own


def slot(variable: str, which: str) -> str:
    """Return the name of an optimizer's slot for a variable, as `backbone/stem_conv/kernel@momentum`."""
    return f"{variable}@{which}"


def snake(class_name: str) -> str:
    """Return the word that Keras counts up for a class: `conv2d` for `Conv2D`, `multi_head_attention`."""
    word = re.sub(r"\W+", "", class_name)
    word = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", word)
    return re.sub("([a-z])([A-Z])", r"\1_\2", word).lower()


def is_automatic(name: str, class_name: str) -> bool:
    """Tell whether Keras would make up `name` for an object of this class: its word, alone or counted.

    A wrapper's `forward_` and `backward_` in front of such a word change nothing. For an input it is also
    `keras_tensor_3`, which Keras writes when it clones one without a name.
    """
    words = ["input_layer", "keras_tensor"] if class_name == "InputLayer" else [snake(class_name)]
    bare = re.sub(r"^(?:(?:forward|backward)_)?", "", name)
    return any(bare.startswith(word) and _COUNTED.fullmatch(bare[len(word) :]) is not None for word in words if word)


def sanitized(name: object) -> str:
    """Return the nearest text that the grammar takes, empty when nothing of `name` can stay."""
    plain = unicodedata.normalize("NFKD", str(name)).encode("ascii", "ignore").decode()
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "_", plain)
    return re.sub(r"^[^A-Za-z0-9]+", "", kept).rstrip("_.-")[:LIMIT]


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
