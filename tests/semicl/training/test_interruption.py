"""SIGTERM is heard as Ctrl-C by the first process alone, which ends the others."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from semicl import cli
from semicl.training import interruption
from semicl.training.interruption import FIRST_PROCESS, adopt, end_children, interruptible, take_signals
from tests.semicl.conftest import error_of


def test_sigterm_ends_a_command_with_a_line_and_leaves_the_handlers_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [signal.getsignal(number) for number in interruption.SIGNALS]
    monkeypatch.setattr(cli, "_run", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert "interrupted; call it again to go on" in error_of(capsys, "finetune", code=130)
    assert [signal.getsignal(number) for number in interruption.SIGNALS] == before


def test_a_second_signal_does_not_disturb_the_end() -> None:
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        for number in interruption.SIGNALS:
            signal.raise_signal(number)


def test_a_process_that_the_first_one_started_leaves_signals_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv(FIRST_PROCESS, str(os.getppid()))
    with interruptible():
        for number in interruption.SIGNALS:
            signal.raise_signal(number)


def test_a_process_that_another_launcher_started_hears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with interruptible(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_a_process_that_the_first_one_started_dies_with_it() -> None:
    child = (
        "import os, time; from semicl.training.interruption import interruptible\n"
        "with interruptible():\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(60)"
    )
    first = (
        "import os, subprocess, sys; from semicl.training.interruption import interruptible\n"
        "with interruptible():\n"
        f"    subprocess.run([sys.executable, '-c', {child!r}], env=os.environ | {{'LOCAL_RANK': '1'}})"
    )
    process = subprocess.Popen([sys.executable, "-c", first], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        number = int(process.stdout.readline())
        process.kill()
        process.wait()
    end = time.monotonic() + 30
    while _is_running(number):
        assert time.monotonic() < end, "the child outlives the first process"
        time.sleep(0.1)


def _is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_outside_of_a_command_the_handlers_are_left_alone() -> None:
    before = [signal.getsignal(number) for number in interruption.SIGNALS]
    take_signals()
    assert [signal.getsignal(number) for number in interruption.SIGNALS] == before


def test_a_command_runs_in_a_thread_that_gets_no_signals(capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    thread = Thread(target=lambda: codes.append(cli.main(["no-command"])))
    thread.start()
    thread.join()
    assert codes == [2]


def test_the_children_are_ended_even_if_they_hear_nothing() -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    children = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    with interruptible():
        adopt(children)
        end_children()
    for child in children:
        assert child.returncode == 0
        with pytest.raises(ProcessLookupError):
            os.kill(child.pid, 0)
