"""SIGTERM is heard as Ctrl-C, of processes that train together by the first alone."""

import signal
from threading import Thread

import pytest

from semicl import cli
from semicl.training import interruption
from semicl.training.interruption import interruptible, take_signals
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


def test_a_process_that_is_not_the_first_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    with interruptible():
        monkeypatch.setattr(interruption, "on_main_process", lambda: False)
        take_signals()
        assert [signal.getsignal(number) for number in interruption.SIGNALS] == [signal.SIG_DFL, signal.SIG_DFL]


def test_the_first_process_hears_it_again_after_another_has_taken_the_signal() -> None:
    with interruptible():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        take_signals()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


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
