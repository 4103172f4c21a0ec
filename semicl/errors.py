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
        beside: name of another option whose value is why, where there is one.
    """

    def __init__(self, option: str, takes: str, got: object, beside: str | None = None) -> None:
        way_out = "" if beside is None else f"; give another --{option} or --{beside}"
        super().__init__(f"--{option} takes {takes}, got {got}{way_out}")
        self.options = [option] if beside is None else [option, beside]
        self._told = (takes, got)

    def inside(self, section: str) -> "OptionError":
        """The same, named by its place in the tree of options."""
        option, *beside = (f"{section}{option}" for option in self.options)
        return OptionError(option, *self._told, *beside)

    def of_config(self, config: str) -> SemiclError:
        """The same, told as a mistake in this config."""
        return SemiclError(f"--config {config}: {str(self).removeprefix('--')}")
