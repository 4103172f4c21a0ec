"""Entry point of ``python -m semicl``."""

import sys

from semicl.cli import main

if __name__ == "__main__":
    sys.exit(main())
