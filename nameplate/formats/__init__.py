"""Reading and writing other people's files by name, each format in its own file; nothing in a file is executed."""

from nameplate.errors import FileFormatError
from nameplate.formats.arrays import Arrays
from nameplate.formats.registry import open_weights

__all__ = ["Arrays", "FileFormatError", "open_weights"]
