"""Jobs side by side, each in a process of its own, each after the one it needs."""

import multiprocessing
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from semicl.study.plan import Job
from semicl.study.worker import work

LOOK_SECONDS = 1.0
"""How often whoever watches gets a look."""

ERROR = "error: "


@dataclass
class Progress:
    """What became of the jobs so far, by folder.

    Args:
        running: processes at work.
        failed: why, of jobs that failed or whose predecessor did.
    """

    running: dict[Path, BaseProcess] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)


def run_jobs(jobs: Sequence[Job], at_once: int, threads: int, progress: Progress, look: Callable[[], None]) -> None:
    """Run every job that is not finished; those after a failed one fail with it, the others go on.

    Args:
        jobs: each once; one that comes after another stands behind it or was run before.
        at_once: the most processes at a time.
        threads: of each process.
        progress: kept up to date.
        look: called after every change, and once a second.
    """
    # Forked from a server that has imported everything and computed nothing: started at once, and alone in its memory.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["semicl.study.worker"])
    waiting = [job for job in jobs if not job.finished]
    by_folder = {job.folder: job for job in waiting}
    try:
        while waiting or progress.running:
            waiting = _without_lost(waiting, progress.failed)
            for job in _ready(waiting)[: at_once - len(progress.running)]:
                waiting.remove(job)
                progress.running[job.folder] = _started(context, job, threads)
            look()
            wait([process.sentinel for process in progress.running.values()], LOOK_SECONDS)
            for folder in [folder for folder, process in progress.running.items() if not process.is_alive()]:
                status = progress.running.pop(folder).exitcode
                if not by_folder[folder].finished:
                    progress.failed[folder] = _reason(by_folder[folder], status)
        look()
    finally:
        _end(progress.running)


def _without_lost(waiting: Sequence[Job], failed: dict[Path, str]) -> list[Job]:
    """The jobs less those whose predecessor failed, which fail by the same reason."""
    left = []
    for job in waiting:
        if job.after is not None and job.after.folder in failed:
            failed[job.folder] = failed[job.after.folder]
        else:
            left.append(job)
    return left


def _ready(waiting: Sequence[Job]) -> list[Job]:
    return [job for job in waiting if job.after is None or job.after.finished]


def _started(context: multiprocessing.context.ForkServerContext, job: Job, threads: int) -> BaseProcess:
    words = job.command_line()
    process = context.Process(target=work, args=(words, job.log, threads))
    process.start()
    return process


def _reason(job: Job, status: int | None) -> str:
    """The error that a failed command printed last, or how its process ended."""
    lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines() if job.log.is_file() else []
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        return f"ended by {name}" + (", as by a system without memory: give fewer --jobs" if name == "SIGKILL" else "")
    told = next((line for line in reversed(lines) if line.startswith(ERROR)), None)
    return told.removeprefix(ERROR) if told else f"ended with status {status}, see {job.log}"


def _end(running: Mapping[Path, BaseProcess]) -> None:
    """End what still runs, when the study is interrupted: a killed stage goes on later as if it had not been."""
    for process in running.values():
        process.kill()
    for process in running.values():
        process.join()
