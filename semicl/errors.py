"""The exceptions a user can mend."""


class SemiclError(Exception):
    """What is wrong, with which file or option, and how to mend it, in one line.

    The command line prints it without a traceback and exits with code 1.
    """


class UsageError(SemiclError):
    """A config holds keys or values of a kind that no command takes; the command line exits with code 2."""


class OptionError(SemiclError):
    """An option has a value that it does not take.

    Args:
        option: its name, from the dataclass that refused it.
        takes: what it takes instead.
        got: its value.
    """

    def __init__(self, option: str, takes: str, got: object) -> None:
        super().__init__(f"--{option} takes {takes}, got {got}")
        self.option = option
        self._told = (takes, got)

    def inside(self, section: str) -> "OptionError":
        """The same, named by its place in the tree of options."""
        return OptionError(f"{section}{self.option}", *self._told)

    def of_config(self, config: str) -> SemiclError:
        """The same, told as a mistake in this config."""
        return SemiclError(f"--config {config}: {str(self).removeprefix('--')}")
