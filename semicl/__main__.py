"""Entry point of ``semicl`` and of ``python -m semicl``."""

import sys

from semicl import own_version


def main() -> int:
    """Run the command line; a missing library is named with the command that installs it."""
    if sys.argv[1:] == ["--version"]:  # which needs no other library
        print("semicl", own_version())
        return 0
    try:
        from semicl.cli import main as run

        return run()
    except ModuleNotFoundError as missing:
        print(
            f"error: {missing}; install what training needs: pip install '.[train]' in the source folder of semicl",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
