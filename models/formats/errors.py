"""What can be wrong with someone else's file."""

from models.errors import NameplateError


class FileFormatError(NameplateError):
    """A file that is not what its name says, or that is refused for what it could do."""
