"""What a process of a study does: one command line of `semicl`, whatever it prints going to a file."""

import os
import signal
import sys
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread

import torch

# Imported before the processes part, so that none of them has to.
import semicl.evaluation.measures
import semicl.training.tcsm
import semicl.training.trainer  # noqa: F401
from semicl.cli import main
from semicl.evaluation import evaluate  # noqa: F401


def work(words: list[str], log: Path, threads: int) -> None:
    """Run a command line; the status of the process is the command's."""
    Thread(target=_die_with_parent, daemon=True).start()
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    print("semicl", *words, flush=True)
    torch.set_num_threads(threads)
    sys.exit(main(words))


def _die_with_parent() -> None:
    """A study that was killed cannot end its processes; one that went on alone would meet its successor."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
