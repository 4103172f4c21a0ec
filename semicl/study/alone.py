"""One study at a time in a folder: two would train the same stages over each other."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semicl.errors import SemiclError

LOCK = ".lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder; the system lets go of it when the process ends, however it ends.

    Raises:
        SemiclError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SemiclError(
                f"{folder}: another `semicl table` or `semicl search` is at work here; wait for its end, or give "
                "another --output"
            ) from error
        yield
