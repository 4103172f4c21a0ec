"""SIGTERM is heard as Ctrl-C by the first process alone, which ends the others."""

import os
import signal
import subprocess
import sys

import pytest

from semicl import cli, interruption
from semicl.interruption import end_others, interruptible
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


def test_a_process_that_another_started_leaves_signals_to_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with interruptible():
        for number in interruption.SIGNALS:
            signal.raise_signal(number)


def test_the_others_are_ended_even_if_they_hear_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", program])
    monkeypatch.setattr(interruption, "OTHERS", [other])
    with interruptible():
        end_others()
    with pytest.raises(ProcessLookupError):
        os.kill(other.pid, 0)
    assert other.returncode == 0
