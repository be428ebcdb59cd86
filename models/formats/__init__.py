"""Reading and writing other people's files by name, each format in its own file; nothing in a file is executed."""

from models.formats.arrays import Arrays
from models.formats.errors import FileFormatError
from models.formats.opening import open_weights

__all__ = ["Arrays", "FileFormatError", "open_weights"]
