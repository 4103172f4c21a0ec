"""Entry point of ``semicl`` and of ``python -m semicl``."""

import sys


def main() -> int:
    """Run the command line; a missing library is named with the command that installs it."""
    try:
        from semicl.cli import main as run

        return run()
    except ModuleNotFoundError as missing:
        print(f"error: {missing}; install what training needs: pip install 'semicl[train]'", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
