"""How a command ends that is told to, by Ctrl-C or SIGTERM, however many processes train together.

The first process hears the signal, ends those that it started, and alone has something to say. They hear nothing, and
do not outlive it.
"""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from subprocess import Popen
from threading import Event, Thread, current_thread, main_thread

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FIRST_PROCESS = "SEMICL_FIRST_PROCESS"  # in the environment of the processes that it starts: its number
SECONDS_BETWEEN_LOOKS = 1.0

_children: list[Popen[bytes]] = []


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGTERM is taken for Ctrl-C; afterwards all is as it was."""
    if current_thread() is not main_thread():  # no other gets signals
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _children.clear()
    done = Event()
    if _has_parent():
        Thread(target=_die_with_parent, args=(os.getppid(), done), daemon=True).start()
    else:
        os.environ[FIRST_PROCESS] = str(os.getpid())
    take_signals()
    try:
        yield
    finally:
        done.set()
        if not _has_parent():
            os.environ.pop(FIRST_PROCESS, None)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def take_signals() -> None:
    """Take SIGTERM for Ctrl-C, which is a KeyboardInterrupt; a process that the first one started leaves both to it.

    Outside of :func:`interruptible` nothing changes: the program around has handlers of its own.
    """
    if FIRST_PROCESS not in os.environ or current_thread() is not main_thread():
        return
    if _has_parent():
        _ignore_signals()
    else:
        signal.signal(signal.SIGTERM, _interrupt)


def adopt(children: Iterable[Popen[bytes]]) -> None:
    """Remember the processes that train with this one, to be ended with it."""
    _children.extend(children)


def end_children() -> None:
    """End the processes that train with this one; what they had to keep, this one has written."""
    _ignore_signals()
    for child in _children:
        child.kill()
        child.returncode = 0  # at once: Lightning watches them, and would kill this process too
    for child in _children:
        with suppress(ChildProcessError):  # gone already
            os.waitpid(child.pid, 0)


def wait_to_be_ended() -> None:
    """Wait for the first process to end this one; under another launcher, return at once."""
    while _has_parent():
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _has_parent() -> bool:
    """Whether another process of this program, and no other launcher, started this one to train with it."""
    return os.environ.get(FIRST_PROCESS) == str(os.getppid()) and os.environ.get("LOCAL_RANK", "0") != "0"


def _die_with_parent(parent: int, done: Event) -> None:
    """A first process that was killed ends nobody."""
    while not done.wait(SECONDS_BETWEEN_LOOKS):
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def _interrupt(*_: object) -> None:
    _ignore_signals()  # once is enough
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    if current_thread() is main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
