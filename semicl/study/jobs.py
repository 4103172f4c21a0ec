"""The jobs of a study on an executor: processes of this machine, or the workers of a dask cluster.

An executor is `concurrent.futures`' interface. Whatever it is, a job is one call of :func:`work`; one whose process was
killed goes on from its last finished epoch when it is called again.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from multiprocessing.connection import wait
from pathlib import Path
from queue import SimpleQueue
from threading import RLock, Thread
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from semicl.console import progress_bar, say, speak_alone
from semicl.errors import SemiclError
from semicl.files import write_json
from semicl.options import MachineOptions, StudyOptions
from semicl.study.plan import Job

LOCK = ".lock"
CONNECT_SECONDS = 30
PRELOADED = (
    "kornia.augmentation",
    "matplotlib.figure",
    "monai.inferers",
    "monai.losses",
    "monai.metrics",
    "monai.networks.nets",
    "monai.transforms",
    "nibabel",
    "pytorch_lightning",
    "semicl.console",
    "torch.distributed.tensor",
)
"""What the server of the processes imports for all of them: what is slow to import, less semicl_kernels, which computes
with one thread in a process that is forked from its own."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder of a study: two would train the same stages over each other.

    Raises:
        SemiclError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout:
        raise SemiclError(
            f"{folder}: another `semicl table` or `semicl search` is at work here; wait for its end, or give another "
            "--output"
        ) from None


@contextmanager
def opened_executor(study: StudyOptions, machine: MachineOptions) -> Iterator[Executor]:
    """What the jobs of a study are given to, and how many go side by side is said.

    Raises:
        SemiclError: dask.distributed is not installed, or there is no scheduler at the address.
    """
    on_gpu = machine.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if study.executor is None:
        gpus = list(map(str, range(torch.cuda.device_count()))) if on_gpu else []
        jobs = study.jobs or len(gpus) or torch.get_num_threads()
        threads = max(1, torch.get_num_threads() // jobs)
        where = f", one on each GPU ({', '.join(gpus)})" if gpus else ""
        say(f"Jobs: {jobs} at once with {threads} threads each{where}.")
        with OwnProcesses(jobs, threads, gpus) as processes:
            yield processes
        return
    try:
        from distributed import Client
    except ModuleNotFoundError as missing:
        raise SemiclError(f"--executor: {missing}; install it: pip install '.[cluster]'") from missing
    try:
        client = Client(study.executor, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise SemiclError(f"--executor {study.executor}: no scheduler there ({error}); give its address") from error
    with client:
        say(f"Jobs: on the {len(client.scheduler_info(n_workers=-1)['workers'])} workers of {study.executor}.")
        yield client.get_executor(pure=False, **({"resources": {"GPU": 1}} if on_gpu else {}))


class OwnProcesses(Executor):
    """An executor whose every call has a process of its own.

    One that is killed takes no other along, and its peak of memory is that of its own work.

    Args:
        jobs: calls at a time.
        threads: of each process.
        gpus: handed out one to a call; none for a CPU.
    """

    def __init__(self, jobs: int, threads: int, gpus: Sequence[str] = ()) -> None:
        self._calls = ThreadPoolExecutor(jobs)
        self._threads = threads
        self._gpus: SimpleQueue[str | None] = SimpleQueue()
        for number in range(jobs):
            self._gpus.put(gpus[number % len(gpus)] if gpus else None)
        # Forked from a server that has imported the libraries and computed nothing: started at once.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        return self._calls.submit(self._in_a_process, function, *arguments, **named)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._calls.shutdown(wait, cancel_futures=cancel_futures)

    def _in_a_process(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
        gpu = self._gpus.get()
        try:
            with ProcessPoolExecutor(1, self._context, _begin, (self._threads, gpu)) as process:
                return process.submit(function, *arguments, **named).result()
        finally:
            self._gpus.put(gpu)


def _begin(threads: int, gpu: str | None) -> None:
    """What a process does first; a study that was killed cannot end it, and it would meet the study's successor."""
    Thread(target=_die_with_parent, daemon=True).start()
    tqdm.set_lock(RLock())  # its own is of the system, and would outlive a process that is killed
    torch.set_num_threads(threads)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def work(job: Job, place: str) -> None:
    """Do a job, whatever it prints going to its log; on a cluster this is all that a worker is told.

    Args:
        job: the job.
        place: the folder that its paths are told from.
    """
    from semicl.evaluation.evaluate import evaluate
    from semicl.training.train import finetune, pretrain_global, pretrain_local

    commands: dict[str, Callable[..., Any]] = {
        "pretrain-global": pretrain_global,
        "pretrain-local": pretrain_local,
        "finetune": finetune,
        "evaluate": evaluate,
    }
    os.chdir(place)
    speak_alone()
    job.folder.mkdir(parents=True, exist_ok=True)
    # A worker that its scheduler has lost may still be at work on it.
    with FileLock(job.folder / LOCK), job.log.open("w") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            write_json(job.folder / "config.json", job.config)
            commands[job.command](*job.call)
        except SemiclError as error:
            print("error:", error)
            raise
        except BaseException:
            traceback.print_exc()
            raise


def run_jobs(jobs: Sequence[Job], executor: Executor) -> dict[Path, str]:
    """Run every job that is not finished; those after a failed one fail with it, the others go on.

    Args:
        jobs: each once; one that comes after another stands behind it or was run before.
        executor: what runs them.

    Returns:
        Why, by folder, for jobs that failed or whose predecessor did.
    """
    waiting, running, failed = [job for job in jobs if not job.finished], dict[Future[Any], Job](), dict[Path, str]()
    try:
        with progress_bar(total=len(waiting), desc="jobs", unit="job", disable=not waiting) as bar:
            while waiting or running:
                for job in [*waiting]:
                    if job.after is not None and job.after.folder in failed:
                        waiting.remove(job)
                        failed[job.folder] = failed[job.after.folder]
                        bar.update()
                    elif job.after is None or job.after.finished:
                        waiting.remove(job)
                        running[executor.submit(work, job, os.getcwd())] = job
                for future in wait_for(running, return_when=FIRST_COMPLETED).done:
                    job, error = running.pop(future), future.exception()
                    if error is not None:
                        failed[job.folder] = _reason(error, job)
                    say(f"{job.folder}: {'done' if error is None else f'FAILED, {failed[job.folder]}'}")
                    bar.update()
    finally:
        for future in running:
            future.cancel()
        if running:  # interrupted: a killed stage goes on later as if it had not been
            for process in multiprocessing.active_children():
                process.kill()
    return failed


def _reason(error: BaseException, job: Job) -> str:
    """Why a job failed, in a line."""
    if isinstance(error, SemiclError):
        return str(error)
    if isinstance(error, BrokenExecutor):
        return "its process was ended, as by a system without memory: give fewer --jobs"
    return f"{type(error).__name__}: {' '.join(str(error).split())}; see {job.log}"
