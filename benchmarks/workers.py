"""One process at a time does the jobs, and a new one takes over where a kernel took it down or hangs.

After an illegal access no kernel of that process runs any more, and a kernel that waits forever cannot be stopped from
inside.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from .devices import DEVICES, Cpu
from .measure import one_line

Job = Callable[[Cpu], Any]

opened: list[Cpu] = []  # the device of this process


@dataclass(frozen=True)
class Outcome:
    """What a job gave, or the error that ended it."""

    value: Any = None
    error: str | None = None


def start(device: str, threads: int | None) -> None:
    opened.append(DEVICES[device](threads))


def on_device(job: Job) -> Any:
    return job(opened[0])


class Worker:
    """Runs jobs, which are functions of this package with all arguments but the device."""

    def __init__(self, device: str, threads: int | None = None) -> None:
        self.arguments = (device, threads)
        self.pool: futures.ProcessPoolExecutor | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self.stop()
        elif self.pool is not None:
            self.pool.shutdown()

    def stop(self) -> None:
        """End the process at once: it may hang."""
        if self.pool is not None:
            for process in multiprocessing.active_children():
                process.kill()
            self.pool.shutdown()
            self.pool = None

    def run(self, job: Job, timeout: float) -> Outcome:
        """Return the outcome of a job, which gets so many seconds. After a failure the next job gets a new process."""
        if self.pool is None:
            spawn = multiprocessing.get_context("spawn")
            self.pool = futures.ProcessPoolExecutor(1, spawn, initializer=start, initargs=self.arguments)
        try:
            return Outcome(self.pool.submit(on_device, job).result(timeout))
        except BrokenProcessPool:
            error = "its process died"
        except futures.TimeoutError:
            error = f"it took more than {timeout:.0f} s"
        except Exception as raised:
            error = one_line(raised)
        self.stop()
        return Outcome(error=error)
