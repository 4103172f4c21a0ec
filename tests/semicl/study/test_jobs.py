"""Jobs on an executor: one that fails says why, and takes with it what needs it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from semicl.errors import SemiclError
from semicl.options import EvaluateOptions, MachineOptions, StudyOptions
from semicl.study import jobs, naive
from semicl.study.jobs import PRELOADED, OwnProcesses, alone_in, opened_executor, run_jobs
from semicl.study.plan import Job
from tests.semicl.conftest import REPOSITORY

WITHOUT_CHECKPOINT = EvaluateOptions(Path("nowhere/model.ckpt"))


def _job(folder: Path, after: Job | None = None) -> Job:
    """An evaluation of a checkpoint that is not there."""
    return Job("evaluate", folder, {}, (WITHOUT_CHECKPOINT,), after, "0" * 8, "cases")


def test_the_error_of_the_command_is_the_reason_and_goes_down_the_chain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = _job(tmp_path / "first")
    second = _job(tmp_path / "second", first)
    other = _job(tmp_path / "other")
    with OwnProcesses(2, 1) as executor:
        failed = run_jobs([first, second, other], executor)
    assert set(failed) == {first.folder, second.folder, other.folder}
    for reason in failed.values():
        assert reason.startswith("nowhere/model.ckpt: no such checkpoint; run the stage that writes it")
    assert not second.folder.exists()
    assert first.log.read_text().startswith("error: nowhere/model.ckpt: no such checkpoint")
    assert capsys.readouterr().out.count(": FAILED, nowhere/model.ckpt: no such checkpoint") == 2


def test_what_is_no_error_of_semicl_is_in_the_log(tmp_path: Path) -> None:
    job = Job("evaluate", tmp_path / "job", {}, (None,), None, "0" * 8, "cases")
    with OwnProcesses(1, 1) as executor:
        failed = run_jobs([job], executor)
    assert failed[job.folder].startswith("AttributeError: ")
    assert failed[job.folder].endswith(f"; see {job.log}")
    assert "Traceback" in job.log.read_text()


def _at_work(place: str) -> float:
    """Note when a call begins and ends."""
    begin = time.monotonic()
    time.sleep(0.5)
    (Path(place) / f"{os.getpid()}-{os.environ.get('CUDA_VISIBLE_DEVICES')}").write_text(f"{begin} {time.monotonic()}")
    return begin


def test_no_more_than_asked_for_at_once_each_in_a_process_and_on_a_gpu_of_its_own(tmp_path: Path) -> None:
    with OwnProcesses(2, 1, ["3", "5"]) as executor:
        assert len([call.result() for call in [executor.submit(_at_work, str(tmp_path)) for _ in range(4)]]) == 4
    files = list(tmp_path.iterdir())
    assert len(files) == 4
    assert {file.name.split("-")[1] for file in files} == {"3", "5"}
    for gpu in "35":
        first, second = sorted(
            tuple(map(float, file.read_text().split())) for file in files if file.name.endswith(f"-{gpu}")
        )
        assert first[1] <= second[0]


def _kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killing(OwnProcesses):
    """Whose first call is killed."""

    killed = False

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        if self.killed:
            return super().submit(function, *arguments, **named)
        self.killed = True
        return super().submit(_kill_itself)


def test_a_killed_job_is_told_from_one_that_failed_and_takes_no_other_along(tmp_path: Path) -> None:
    with Killing(2, 1) as executor:
        failed = run_jobs([_job(tmp_path / "killed"), _job(tmp_path / "other")], executor)
    assert failed[tmp_path / "killed"] == "its process was ended, as by a system without memory: give fewer --jobs"
    assert "no such checkpoint" in failed[tmp_path / "other"]


def _sleep() -> None:
    time.sleep(60)


class Sleeping(OwnProcesses):
    """Whose calls take a minute."""

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        return super().submit(_sleep)


@pytest.fixture
def _heard() -> Iterator[None]:
    """Ctrl-C is heard, whatever runs the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard")
def test_an_interrupted_study_leaves_no_process_behind(tmp_path: Path) -> None:
    begin = time.monotonic()
    timer = Timer(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt), Sleeping(1, 1) as executor:
        run_jobs([_job(tmp_path / "job"), _job(tmp_path / "waiting")], executor)
    assert time.monotonic() - begin < 30
    assert multiprocessing.active_children() == []


def test_a_second_study_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from semicl.study.jobs import alone_in\n"
        f"with alone_in(Path({str(tmp_path / 'o')!r})):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(SemiclError, match="another `semicl table` or `semicl search` is at work"),
            alone_in(tmp_path / "o"),
        ):
            pass
        other.kill()
    with alone_in(tmp_path / "o"):
        pass


def _executor(**options: Any) -> Executor:
    return opened_executor(StudyOptions(**options), MachineOptions(accelerator="cpu")).__enter__()


def test_what_a_cluster_needs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "CONNECT_SECONDS", 0.2)
    pytest.importorskip("distributed")
    with pytest.raises(SemiclError, match=r"--executor tcp://127\.0\.0\.1:9: no scheduler there"):
        _executor(executor="tcp://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SemiclError, match=r"--executor: .*; install it: pip install '\.\[cluster\]'"):
        _executor(executor="tcp://127.0.0.1:9")


def test_what_processes_are_forked_from_lacks_the_losses() -> None:
    """In a process that is forked from one that has them, they compute with one thread."""
    names = {*PRELOADED, *naive.PRELOADED}
    program = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    program += "assert 'semicl_kernels' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_processes_are_forked_from_asks_nothing_of_cuda() -> None:
    """A process that has asked how many GPUs there are forks processes that cannot use them."""
    program = (
        "import importlib, torch; calls = []\n"
        "for name in ('is_available', 'device_count', 'init'):\n"
        "    setattr(torch.cuda, name, lambda name=name: calls.append(name))\n"
        f"for name in {PRELOADED!r}: importlib.import_module(name)\n"
        "assert calls == [], calls"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
