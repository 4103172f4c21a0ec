"""SIGKILL at random moments of `semicl run`, which then goes on to the bits of a run that was left alone.

    python -m tests.semicl.study.kill_run --kills 100

A tiny network learns a tiny phantom. Each trial begins in an empty folder. A child of this process, which has imported
everything, runs the experiment; it is killed, half of the times by the clock, half of the times in front of its n-th
change of a file; then every file is read, and another child goes on. After one to three kills a trial runs to its end,
and its weights, tables, splits and cache are compared with the reference, bit for bit.
"""

import argparse
import csv
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import torch

# Imported before the processes part, so that none of them has to.
from semicl.cli import main
from semicl.commands import evaluate, finetune, prepare, pretrain_global, pretrain_local, run  # noqa: F401
from semicl.data import phantom, volumes  # noqa: F401
from semicl.evaluation import measures  # noqa: F401
from semicl.models import checkpoint  # noqa: F401
from semicl.study import experiment  # noqa: F401
from semicl.training import tcsm, trainer  # noqa: F401

CONFIG = """
data: phantom
prepared: p
output: o
network: {widths: [2, 4], centre: null}
label_fraction: 0.34
prepare: {patch_size: [16, 16], resize: true, phantom_subjects: 5, repeats: 2}
pretrain_global: {schedule: {epochs: 2, batch_size: 60}, channels: 4}
pretrain_local: {schedule: {epochs: 2, batch_size: 20, decay: one-cycle}, channels: 4, loss: {stride: 2}}
finetune: {schedule: {epochs: 3, batch_size: 20}, mixup: 0.4}
"""
MOST_KILLS = 3
"""In one trial."""

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
"""Events of Python's audit that change files, beside "open" for writing."""

NOT_COMPARED = ("seconds", "images a second", "share of time waiting for data", "peak memory (MiB)", "commit", "date")
"""What every run tells of itself alone: times, and the day and the version of the code that it ran with."""

PARTIAL = ".partial-"


def run_child(folder: Path, before: Callable[[], None] = lambda: None) -> int:
    """Start `semicl run` in a child of this process; returns its number."""
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        log = os.open("output.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        before()
        code = main(["run", "--config", "config.yaml"])
        sys.stdout.flush()
        os._exit(code)
    return child


def ended(child: int) -> int:
    """Wait for a child; its exit status, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def on_changes(act: Callable[[int], None]) -> None:
    """From now on, act in front of every change of a file that this process makes; they are counted from 1."""
    numbers = itertools.count(1)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in CHANGES:
            act(next(numbers))

    sys.addaudithook(hook)


def die_at(change: int) -> None:
    """From now on, this process kills itself in front of a change of a file."""
    on_changes(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == change else None)


def torn_files(folder: Path) -> Iterator[str]:
    """Files of an experiment that are half-written; what is named so, and logs, which grow line by line, may be."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name.startswith(PARTIAL) or "logs" in path.relative_to(folder).parts:
            continue
        try:
            _read(path)
        except Exception as error:  # whatever the damage leads to
            yield f"{path}: {type(error).__name__}: {error}"


def _read(path: Path) -> None:
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".npy":
        np.load(path)
    elif path.suffix == ".ckpt":
        torch.load(path, weights_only=True)
    elif path.suffix == ".csv":
        assert path.read_bytes().endswith(b"\n")
        with path.open(newline="") as file:
            assert len({len(row) for row in csv.reader(file)}) == 1
    elif path.suffix == ".png":
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
    elif path.suffix == ".gz":
        np.asarray(nibabel.load(path).dataobj)


def content(folder: Path) -> dict[str, str]:
    """A hash of what each file of a finished experiment tells, less times and costs; logs left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.is_file() and "logs" not in place.parts and place.name not in ("output.txt", "config.yaml"):
            found[str(place)] = hashlib.sha256(_told(path)).hexdigest()
    return found


def _told(path: Path) -> bytes:
    if path.suffix == ".ckpt":
        state = torch.load(path, weights_only=True)
        return repr([(name, value.numpy().tobytes()) for name, value in state["state_dict"].items()]).encode()
    if path.name in ("summary.json", "results.json", "prepared.json"):
        told = json.loads(path.read_text())
        for name in (*NOT_COMPARED, "date"):
            told.pop(name, None)
        for state in told.get("files", {}).values():
            del state["modified"], state["changed"]
        told.pop("source", None)
        for case in told["cases"] if path.name == "prepared.json" else ():
            case["image"], case["label"] = Path(case["image"]).name, Path(case["label"]).name
        return json.dumps(told).encode()
    return path.read_bytes()


def _write(pipe: int) -> None:
    os.write(pipe, b".")


class Reference:
    """A run that is left alone, and what it showed.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        new_experiment(folder)
        counts, ours = os.pipe()
        started = time.monotonic()
        child = run_child(folder, lambda: on_changes(lambda _: _write(ours)))
        os.close(ours)
        self.changes = 0
        with os.fdopen(counts, "rb") as pipe:
            while block := pipe.read(4096):
                self.changes += len(block)
        if ended(child) != 0:
            raise SystemExit((folder / "output.txt").read_text())
        self.seconds = time.monotonic() - started
        self.content = content(folder)


def new_experiment(folder: Path) -> None:
    """Write the config."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)


def trial(folder: Path, reference: Reference, chance: random.Random, kills: int, by_clock: bool | None = None) -> int:
    """Kill a run some times, then let it come to its end.

    Args:
        folder: a new one.
        reference: what it must come to.
        chance: of the moments.
        kills: at most; a run that was faster ends before.
        by_clock: whether the clock or the changes of files tell the moment; None: either.

    Returns:
        How often it was killed.

    Raises:
        AssertionError: a file is half-written, the run cannot go on, or it comes to something else.
    """
    new_experiment(folder)
    killed = 0
    for _ in range(kills):
        if chance.random() < 0.5 if by_clock is None else by_clock:
            moment = chance.uniform(0, reference.seconds)
            what = f"after {moment:.2f} s"
            child = run_child(folder)
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
        else:
            number = chance.randint(1, reference.changes)
            what = f"in front of change {number}"
            child = run_child(folder, lambda number=number: die_at(number))
        status = ended(child)
        assert status in (0, -signal.SIGKILL), f"{folder}, to be killed {what}: {_last_lines(folder)}"
        killed += status != 0
        torn = list(torn_files(folder))
        assert not torn, f"{folder}, killed {what}: {torn}"
    status = ended(run_child(folder))
    assert status == 0, f"{folder}: cannot go on: {_last_lines(folder)}"
    now = content(folder)
    names = {*now, *reference.content}
    other = sorted(name for name in names if now.get(name) != reference.content.get(name))
    assert not other, f"{folder}, killed {what} last: differs in {other}"
    return killed


def _last_lines(folder: Path) -> str:
    return "\n".join((folder / "output.txt").read_text().splitlines()[-20:])


def command() -> int:
    """Kill as often as it is asked for; the exit code is 1 where one trial went wrong."""
    parser = argparse.ArgumentParser(description="SIGKILL at random moments of `semicl run`, and what became of it.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(options.seed)
    killed = failed = number = 0
    with tempfile.TemporaryDirectory() as scratch:
        reference = Reference(Path(scratch) / "reference")
        print(f"left alone: {reference.seconds:.1f} s, {reference.changes} changes of files", flush=True)
        while killed < options.kills:
            folder = Path(scratch) / f"trial-{number}"
            try:
                killed += trial(folder, reference, chance, min(chance.randint(1, MOST_KILLS), options.kills - killed))
                shutil.rmtree(folder)
            except AssertionError as error:
                failed += 1
                killed += 1
                print(f"WRONG: {error}", flush=True)
            number += 1
            print(f"{killed} kills in {number} runs, {failed} went wrong", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(command())
