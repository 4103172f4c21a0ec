"""A job that fails says why, and takes with it what needs it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from semicl.study.plan import Job
from semicl.study.runner import Progress, run_jobs
from tests.semicl.conftest import REPOSITORY


def _job(folder: Path, after: Job | None = None) -> Job:
    """A stage of a prepared folder that is not there."""
    return Job("finetune", folder, {}, ("--prepared", "nowhere"), after, "0" * 8)


def test_the_error_of_the_command_is_the_reason_and_goes_down_the_chain(tmp_path: Path) -> None:
    first = _job(tmp_path / "first")
    second = _job(tmp_path / "second", first)
    other = _job(tmp_path / "other")
    progress = Progress()
    run_jobs([first, second, other], at_once=2, threads=1, progress=progress, look=lambda: None)
    assert progress.running == {}
    assert set(progress.failed) == {first.folder, second.folder, other.folder}
    for reason in progress.failed.values():
        assert reason.startswith("nowhere/prepared.json: no such file; run `semicl prepare")
    assert not second.folder.exists()


def test_no_more_than_asked_for_at_once(tmp_path: Path) -> None:
    progress = Progress()
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, len(progress.running))

    run_jobs([_job(tmp_path / str(number)) for number in range(5)], 2, 1, progress, look)
    assert most == 2


def test_a_killed_job_is_told_from_one_that_failed(tmp_path: Path) -> None:
    progress = Progress()

    def kill() -> None:
        for process in progress.running.values():
            process.kill()

    run_jobs([_job(tmp_path / "job")], 1, 1, progress, kill)
    assert progress.failed[tmp_path / "job"].startswith(
        f"ended by {signal.SIGKILL.name}, as by a system without memory"
    )


def test_an_interrupted_study_leaves_no_process_behind(tmp_path: Path) -> None:
    progress = Progress()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs([_job(tmp_path / "job")], 1, 1, progress, interrupt)
    assert not any(process.is_alive() for process in progress.running.values())
    assert len(progress.running) == 1


@pytest.mark.slow
def test_what_workers_are_forked_from_asks_nothing_of_cuda() -> None:
    """A process that has asked how many GPUs there are forks processes that cannot use them."""
    program = (
        "import torch; calls = []\n"
        "for name in ('is_available', 'device_count', 'init'):\n"
        "    setattr(torch.cuda, name, lambda name=name: calls.append(name))\n"
        "import semicl.study.worker\n"
        "assert calls == [], calls"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
