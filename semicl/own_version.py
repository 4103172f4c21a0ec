"""The version of this package, told without any other."""

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """The version that is installed."""
    try:
        return version("semicl")
    except PackageNotFoundError:
        return "from source, not installed"
