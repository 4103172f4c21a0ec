"""One process at a time does the jobs, and a new one takes over where a kernel took it down or hangs.

After an illegal access no kernel of that process runs any more, and a kernel that waits for ever cannot be stopped
from inside; neither may end the whole run.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from .device import Device, open_device

FAREWELL_SECONDS = 5

Job = Callable[[Device, Callable[[str], None]], Any]


@dataclass(frozen=True)
class Outcome:
    """What a job gave; or the error that ended it, and who was at work then ("" for the job itself)."""

    value: Any = None
    error: str | None = None
    at: str = ""


def serve(connection: Connection, toy: bool) -> None:
    """Do the jobs that come, until there are no more."""
    device = open_device(toy)
    while (job := connection.recv()) is not None:
        try:
            connection.send(("done", job(device, lambda word: connection.send(("at", word)))))
        except Exception as error:
            connection.send(("failed", f"{type(error).__name__}: {error}"[:300]))


class Crew:
    """Runs jobs, which are functions of this package with their arguments. A context manager."""

    def __init__(self, toy: bool) -> None:
        self.toy = toy
        self.process: BaseProcess | None = None
        self.connection: Connection | None = None

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process is not None and self.connection is not None and error is None:
            self.connection.send(None)
            self.process.join(FAREWELL_SECONDS)
        self.dismiss()

    def dismiss(self) -> None:
        """End the process: at once, for it may hang."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None

    def hire(self) -> Connection:
        if self.process is None or self.connection is None:
            context = multiprocessing.get_context("spawn")
            self.connection, theirs = context.Pipe()
            self.process = context.Process(target=serve, args=(theirs, self.toy))
            self.process.start()
            theirs.close()
        return self.connection

    def run(self, job: Job, seconds: float) -> Outcome:
        """Return the outcome of a job, which gets so many seconds. After a failure the next job gets a new process."""
        connection = self.hire()
        end = time.monotonic() + seconds
        at = ""
        try:
            connection.send(job)
            while connection.poll(max(0.0, end - time.monotonic())):
                kind, word = connection.recv()
                if kind == "done":
                    return Outcome(value=word)
                if kind == "failed":
                    self.dismiss()
                    return Outcome(error=word, at=at)
                at = word
        except (EOFError, ConnectionError):
            self.dismiss()
            return Outcome(error="its process died", at=at)
        self.dismiss()
        return Outcome(error=f"it took more than {seconds:.0f} s", at=at)
