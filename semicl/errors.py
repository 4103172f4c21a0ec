"""The one exception a user can mend."""


class SemiclError(Exception):
    """What is wrong, with which file or option, and how to mend it, in one line.

    The command line prints it without a traceback and exits with code 1.
    """
