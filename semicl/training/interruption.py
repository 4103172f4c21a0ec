"""SIGTERM is heard as Ctrl-C; of the processes that torchrun started, the first alone has something to say."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

from semicl.console import on_main_process

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_inside = False


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGTERM is taken for Ctrl-C, which is a KeyboardInterrupt; afterwards all is as it was."""
    global _inside
    if current_thread() is not main_thread():  # no other gets signals
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _inside = True
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        _inside = False
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def take_signals() -> None:
    """Put the handlers back that Lightning replaced; a process that is not the first ends at once, without a word.

    Outside of :func:`interruptible` nothing changes: the program around has handlers of its own.
    """
    if not _inside or current_thread() is not main_thread():
        return
    if on_main_process():
        signal.signal(signal.SIGTERM, _interrupt)
    else:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(*_: object) -> None:
    for number in SIGNALS:  # once is enough
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
