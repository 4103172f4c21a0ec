"""A stage that was killed, in a step or in a write, resumes to the weights of one that was not."""

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semicl.data.prepare import prepare
from semicl.data.prepared import Prepared
from semicl.options import PrepareOptions, SourceOptions
from tests.semicl.conftest import TINY, error_of, one_schedule, run_command, same_weights


def _die_at(number: int) -> Callable[[], None]:
    """A function that kills its process when it is called for the `number`-th time."""
    calls = itertools.count(1)

    def call() -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return call


def _die_in_a_step(number: int) -> None:
    """From now on, die in the middle of a step: after the gradient, before the weights."""
    step, die = torch.optim.Adam.step, _die_at(number)

    def mortal(self: torch.optim.Adam, closure: Callable[[], float]) -> object:
        def with_gradient() -> float:
            loss = closure()
            die()
            return loss

        return step(self, with_gradient)

    torch.optim.Adam.step = mortal  # type: ignore[assignment,method-assign]


def _die_in_a_write(number: int) -> None:
    """From now on, die in the middle of writing a checkpoint."""
    save, die = torch.save, _die_at(number)

    def mortal(content: object, path: Path) -> None:
        save(content, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        die()
        path.write_bytes(whole)

    torch.save = mortal  # type: ignore[assignment]


KILLERS = {"step": _die_in_a_step, "write": _die_in_a_write}

QUEUE = ("--local_weight", "0.1", "--local_warm_up", "1", "--local_scale", "2", "--local_queue", "4")
FIXMATCH = ("--fixmatch.weight", "1", "--fixmatch.confidence", "0.6", *QUEUE)
REPEATED = ("--schedule.steps_per_epoch", "9")
"""More than the labelled slices make."""

STAGES = {
    "global": ("pretrain-global", *TINY, *one_schedule(3)),
    "local": ("pretrain-local", *TINY, *one_schedule(3, 4), "--label_fraction", "0.2", "--schedule.decay", "one-cycle"),
    "fine-tune": ("finetune", *TINY, *one_schedule(3, 8), "--label_fraction", "0.2", "--mixup", "0.4"),
    "patches": ("finetune", *TINY, *one_schedule(3, 16), "--label_fraction", "0.2"),
    "tcsm": ("finetune", *TINY, *one_schedule(3, 8), "--label_fraction", "0.2", "--tcsm.weight", "1"),
    "fixmatch": ("finetune", *TINY, *one_schedule(3, 8), *REPEATED, "--label_fraction", "0.2", *FIXMATCH),
}


def _killed(what: str, number: int, words: list[object]) -> None:
    """Run a command in a process of its own, which kills itself."""
    child = os.fork()
    if child == 0:
        KILLERS[what](number)
        run_command(*words)
        os._exit(1)  # it was to be killed
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.fixture(scope="module")
def data(prepared: Prepared, phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The prepared folder of each stage; that of patches has slices larger than one."""
    source = SourceOptions(str(phantom), tmp_path_factory.mktemp("prepared"))
    patches = prepare(source, PrepareOptions(patch_size=(24, 32), repeats=1)).folder
    return dict.fromkeys(STAGES, prepared.folder) | {"patches": patches}


@pytest.fixture(scope="module")
def uninterrupted(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The weights of each stage, trained without a break."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    for name, words in STAGES.items():
        assert run_command(*words, "--prepared", data[name], "--output", folder / name) == 0
    return {name: folder / name / "model.ckpt" for name in STAGES}


# A checkpoint a epoch in pre-training: the second write is that of the second epoch. Fine-tuning writes the best too.
@pytest.mark.parametrize(
    ("name", "what", "number"),
    [
        ("global", "step", 20),
        ("local", "write", 2),
        ("fine-tune", "step", 8),
        ("fine-tune", "write", 3),
        ("patches", "step", 20),
        ("tcsm", "step", 8),
        ("fixmatch", "step", 12),
    ],
)
def test_a_killed_stage_resumes_to_the_same_weights(
    data: dict[str, Path],
    tmp_path: Path,
    uninterrupted: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    name: str,
    what: str,
    number: int,
) -> None:
    output = tmp_path / "stage"
    words = [*STAGES[name], "--prepared", data[name], "--output", output]
    _killed(what, number, words)
    assert (output / "last.ckpt").is_file()
    assert not (output / "summary.json").exists()
    assert len(list(output.glob(".partial-*"))) == (what == "write")
    assert "holds an unfinished stage; give --resume" in error_of(capsys, *words)
    assert run_command(*words, "--resume") == 0
    assert f"{output}: goes on where it was interrupted." in capsys.readouterr().out
    assert same_weights(output / "model.ckpt", uninterrupted[name])
    assert list(output.glob(".partial-*")) == []


def test_a_damaged_state_is_named(prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "stage"
    words = [*STAGES["global"], "--prepared", prepared.folder, "--output", output]
    _killed("step", 20, words)
    (output / "last.ckpt").write_bytes((output / "last.ckpt").read_bytes()[:3000])
    line = error_of(capsys, *words, "--resume")
    assert f"{output}/last.ckpt: " in line
    assert "--overwrite" in line
