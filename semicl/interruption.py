"""How a command ends that is told to, by Ctrl-C or SIGTERM, however many processes train together.

The first process hears the signal, ends the others, and alone has something to say.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen

SIGNALS = (signal.SIGINT, signal.SIGTERM)

OTHERS: list[Popen[bytes]] = []
"""The processes that this one started to train with it."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGTERM is heard; afterwards all is as it was."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    hear()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hear() -> None:
    """Take SIGTERM for Ctrl-C, which is a KeyboardInterrupt; a process that another started leaves both to that one."""
    if os.environ.get("LOCAL_RANK", "0") == "0":  # set by Lightning
        signal.signal(signal.SIGTERM, _interrupt)
    else:
        _turn_deaf()


def end_others() -> None:
    """End the processes that train with this one; what they had to keep, this one has written."""
    _turn_deaf()
    for process in OTHERS:
        process.kill()
        process.wait()
        process.returncode = 0  # else Lightning, which watches them, would kill this one too


def _interrupt(*_: object) -> None:
    _turn_deaf()  # once is enough
    raise KeyboardInterrupt


def _turn_deaf() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
