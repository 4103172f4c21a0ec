"""Entry point of ``python -m semicl``."""

import sys

if __name__ == "__main__":
    try:
        from semicl.cli import main

        sys.exit(main())
    except ModuleNotFoundError as missing:
        sys.exit(f"error: {missing}; install what training needs: pip install 'semicl[train]'")
