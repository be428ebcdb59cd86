"""What a user did that cannot be done: an answer, never a traceback."""


class NameplateError(Exception):
    """A mistake of the user's or a fault of the machine's, worded for the user.

    The message says what was wrong, what was received, what exists and what to do, all offenders at once. The
    command line prints it alone, without a traceback.
    """
