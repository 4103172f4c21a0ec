"""The exceptions a user can mend."""


class SemiclError(Exception):
    """What is wrong, with which file or option, and how to mend it, in one line.

    The command line prints it without a traceback and exits with code 1.
    """


class UsageError(SemiclError):
    """A command line or a config cannot be taken; the command line exits with code 2."""


class OptionError(UsageError, ValueError):
    """An option has a value that it does not take; tyro answers it, a ValueError, in a box."""
