"""What Hydra offers to a shell for completion, made better: no schemas, the words that a setting takes, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path

from nameplate.errors import NameplateError
from nameplate.naming.names import did_you_mean

FLAGS = ("-sc", "--shell-completion")
SHELLS = ("bash", "fish", "zsh")
_FILES = ("path", "root", "runs")  # how keys end whose value is a place on the disk


class CompletionError(NameplateError):
    """A shell, or a way of asking, that is not known."""


def asks(arguments: Sequence[str]) -> bool:
    """Say whether a command line is a shell's, which wants to know how words go on."""
    return any(each in FLAGS for each in arguments)


def checked(arguments: Sequence[str], line: str | None) -> bool:
    """Return whether a shell asks for the words that complete a line, and not for the script that it asks with.

    Raises:
        CompletionError: neither; it says what to write.
    """
    asked = [each.partition("=")[::2] for each in arguments if each not in FLAGS and not each.startswith("hydra.")]
    verbs = [(verb, shell) for verb, shell in asked if verb in ("install", "uninstall", "query")]
    usage = 'write  eval "$(nameplate -sc install=bash)"'
    if len(verbs) != 1:
        raise CompletionError(f"-sc needs install=SHELL or uninstall=SHELL; {usage}")
    ((verb, shell),) = verbs
    if shell not in SHELLS:
        raise CompletionError(
            f"-sc {verb}={shell}: there are {', '.join(SHELLS)}.{did_you_mean(shell, SHELLS)} For bash {usage}"
        )
    if verb == "query" and line is None:
        raise CompletionError(f"-sc query={shell}: only a shell asks so, with the line in COMP_LINE; {usage}")
    return verb == "query"


def completions(offered: Sequence[str], line: str, words_of: Mapping[str, Sequence[str]]) -> list[str]:
    """Return how the last word of a line can go on.

    Args:
        offered: what Hydra offers.
        line: all that was typed.
        words_of: the words that a setting takes, by its dotted key.
    """
    word = "" if line.endswith(" ") else (line.split() or [""])[-1]
    key, equals, begun = word.partition("=")
    if equals and key in words_of:
        return [f"{key}={each}" for each in words_of[key] if each.startswith(begun)]
    if equals and key.rpartition(".")[2].rpartition("_")[2] in _FILES:
        return [f"{key}={each}" for each in _places(begun)]
    return [each for each in offered if not each.rpartition("=")[2].startswith("schema")]


def _places(begun: str) -> list[str]:
    return sorted(f"{each}/" if Path(each).is_dir() else each for each in glob(f"{begun}*"))
