"""YAML as plain data: dictionaries, lists and scalars, within limits, without tags, aliases or repeated keys.

Nine levels of aliases expand to gigabytes, and thousands of levels of nesting overflow the stack: so a text is measured
before it is parsed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml

LARGEST = 256 << 10  # characters; ours have about 2 KiB
MOST_NODES = 10_000  # values, keys included
DEEPEST = 32

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parsed(text: str) -> Any:
    """Return the data of a YAML text.

    Raises:
        ValueError: it is not YAML, or not plain, or larger or deeper than a configuration, in one line.
    """
    try:
        require_plain(text)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            _refuse_repeated(node)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def require_plain(text: str) -> None:
    """Raise `ValueError`, or what YAML's parser raises, for a text that is not plain or exceeds the limits."""
    if len(text) > LARGEST:
        raise ValueError(f"it has {len(text)} characters; at most {LARGEST} are read")
    nodes = depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError("it has an anchor or an alias; a configuration has none")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            nodes += 1
            depth += isinstance(event, yaml.CollectionStartEvent)
            if event.tag is not None:
                raise ValueError(f"it has the tag {event.tag!r:.80}; a configuration has none")
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if nodes > MOST_NODES or depth > DEEPEST:
            raise ValueError(f"it has more than {MOST_NODES} values, or is nested deeper than {DEEPEST} levels")


def _refuse_repeated(node: Any) -> None:
    if isinstance(node, yaml.MappingNode):
        repeated = [key for key, count in Counter(str(key.value) for key, _ in node.value).items() if count > 1]
        if repeated:
            raise ValueError(f"the key {repeated[0]!r:.80} appears twice")
        for _, value in node.value:
            _refuse_repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeated(value)
