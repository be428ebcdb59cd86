"""A drawing as an image file, by Graphviz' `dot` where it is installed; nothing else here needs it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from models.names import did_you_mean
from models.surgery.edits import SurgeryError

SUFFIXES = (".svg", ".png", ".pdf")
_PATIENCE = 120.0  # seconds; `dot` lays out thousands of boxes in less, and some graphs never


def picture(text: str, path: str | os.PathLike[str]) -> Path:
    """Write DOT as an image, by one rename, and return its path; the suffix says of which kind.

    Raises:
        SurgeryError: for a suffix that is none of `SUFFIXES`, without Graphviz, and for what `dot` or the disk refuses.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        hint = did_you_mean(target.suffix, SUFFIXES)
        raise SurgeryError(f"{target}: drawings are written as {', '.join(SUFFIXES)}.{hint}")
    program = shutil.which("dot")
    if program is None:
        raise SurgeryError(
            f"{target} was not drawn: Graphviz' dot is not installed. Install it (apt install graphviz, brew install "
            "graphviz), or draw without to=: style='mermaid' for Markdown, 'dot' for any viewer, 'text' for a terminal."
        )
    draft = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _lay_out([program, f"-T{target.suffix[1:]}", "-o", str(draft)], text, target)
        os.replace(draft, target)
    except OSError as error:
        raise SurgeryError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):  # what is in the way of the file is in the way of its draft
            draft.unlink(missing_ok=True)
    return target


def _lay_out(command: list[str], text: str, target: Path) -> None:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise SurgeryError(
            f"{target} was not drawn: dot took more than {_PATIENCE:.0f} seconds. Draw a part: around=NAME, reach=3."
        ) from None
    if done.returncode:
        raise SurgeryError(f"{target} was not drawn: dot says {' '.join(done.stderr.split()):.300}")
