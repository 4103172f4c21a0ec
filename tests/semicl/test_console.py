"""What is printed is what was meant, whatever names hold and whatever the screen can show."""

import io
import sys
import time
from collections.abc import Callable

import pytest

from semicl.console import Table, complain, progress_bar, say, show, summary_table
from tests.semicl.conftest import unboxed

NAMES = ["scan [copy].nii.gz", "[x]", "[/]", "[bold]a", ":smile:", "a\\[b]", "[link=file:///etc]x[/link]", "{0} %s"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_never_markup(capsys: pytest.CaptureFixture[str], name: str) -> None:
    table = Table(name, "other", title=f"about {name}")
    table.add_column(name)
    table.add_row(name, "1", style="bold")
    show(table)
    assert capsys.readouterr().out.count(name) == 4
    show(summary_table(name, {name: name}))
    assert capsys.readouterr().out.count(name) == 3
    say(name)
    assert capsys.readouterr().out == f"{name}\n"
    complain(name)
    assert unboxed(capsys.readouterr().err) == f"Error {name}"


def test_a_long_name_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    show(summary_table("title", {"a" * 300: "b" * 300}))
    text = capsys.readouterr().out
    assert (text.count("a"), text.count("b")) == (300, 300)


def test_control_characters_do_not_reach_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    show(summary_table("title", {"a\x1b[31m": "b\rc"}))
    say("\x1b]0;title\x07")
    complain("a\x1b[2J\nb")
    written = capsys.readouterr()
    assert r"a\x1b[31m" in written.out
    assert r"b\rc" in written.out
    assert r"\x1b]0;title\x07" in written.out
    assert unboxed(written.err) == "Error a\\x1b[2J b"


@pytest.mark.parametrize(
    ("print_name", "stream"),
    [
        (say, "stdout"),
        (complain, "stderr"),
        (lambda name: show(summary_table(name, {name: f"0.5 ± 0.1 {name}"})), "stdout"),
    ],
    ids=["say", "complain", "show"],
)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_name_is_printed_in_any_encoding(
    monkeypatch: pytest.MonkeyPatch, print_name: Callable[[str], None], stream: str, encoding: str
) -> None:
    name = "Gefäß 心\udce9"  # the last is a byte of a file's name that is no UTF-8
    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, stream, written)
    print_name(name)
    written.flush()
    text = "".join(written.buffer.getvalue().decode(encoding).split())
    shown = {"ascii": "Gef\\xe4\\xdf\\u5fc3", "latin-1": "Gefäß\\u5fc3", "utf-8": "Gefäß心"}
    assert text.count(shown[encoding] + "\\udce9") in (1, 3)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_log_is_not_filled_by_bars(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    for _ in progress_bar(range(4), desc="steps"):
        time.sleep(0.15)
    shown = screen.getvalue().split("\r")
    assert (len(shown) > 4) == terminal, shown
    assert "4/4" in shown[-1]


class _Mute:
    """A stream without `isatty`."""

    def write(self, text: str) -> None:
        """Take it."""

    def flush(self) -> None:
        """Nothing to do."""


@pytest.mark.parametrize("stream", [None, _Mute()], ids=["none", "without isatty"])
def test_a_bar_needs_no_screen(monkeypatch: pytest.MonkeyPatch, stream: object) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress_bar(range(3), desc="steps")) == [0, 1, 2]
