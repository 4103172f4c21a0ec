"""What a command prints: once, however many processes train together, and as it is, whatever names hold.

Names of files, cases and classes are never markup: `[b]` and `:smile:` are shown as they are typed. Control characters
are shown as Python writes them, and so is what the screen's encoding lacks.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO, TypeVar

from lightning_utilities.core.rank_zero import rank_zero_only
from rich import table
from rich.console import Console
from rich.panel import Panel
from rich.text import Text
from tqdm import tqdm

WIDTH = 100
"""Columns of bars and tables, so that they line up and logs stay readable."""

Item = TypeVar("Item")

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Variables of launchers, of which the first that is set tells which process this is."""

for _name in _RANKS:
    if not os.environ.get(_name, "0").isdecimal():
        del os.environ[_name]  # no launcher's; Lightning's import would end in a traceback too

# Lightning sets it too, if it is not set yet, but takes seconds to import.
if not hasattr(rank_zero_only, "rank"):
    rank_zero_only.rank = int(next(filter(None, map(os.environ.get, _RANKS)), 0))  # type: ignore[attr-defined]


class Table(table.Table):
    """A table whose title, headings and cells are shown as they are."""

    def __init__(self, *headings: str, title: str | None = None, **options: Any) -> None:
        super().__init__(*headings, title=None if title is None else Text(shown(title), "italic"), **options)
        for column in self.columns:
            column.header = _as_is(column.header)

    def add_column(self, header: Any = "", *arguments: Any, **options: Any) -> None:
        super().add_column(_as_is(header), *arguments, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*map(_as_is, cells), **options)


def shown(text: object, file: TextIO | None = None) -> str:
    """Text as a stream can take it, standard output where none is given.

    Control characters but line feed and tab, and what the stream's encoding lacks, are written as Python does: an
    escape as \\x1b, é in ASCII as \\xe9.
    """
    encoding = getattr(file or sys.stdout, "encoding", None) or "utf-8"
    plain = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(text))
    try:
        return plain.encode(encoding).decode(encoding)
    except UnicodeEncodeError:
        return plain.replace("±", "+/-").encode(encoding, "backslashreplace").decode(encoding)


@rank_zero_only
def say(text: object) -> None:
    """Print a line as it is."""
    print(shown(text), flush=True)


def complain(text: object) -> None:
    """Print what went wrong in a box, as tyro's of options are, without the line breaks that libraries put in."""
    told = Text(shown(" ".join(str(text).split()), sys.stderr), overflow="fold")
    box = Panel(told, title=Text("Error", "bold red"), title_align="left", border_style="red")
    Console(stderr=True).print(box)


def screen() -> Console:
    """What tables are drawn on."""
    return Console(width=None if Console().is_terminal else WIDTH, markup=False, emoji=False, highlight=False)


@rank_zero_only
def show(table: Table) -> None:
    """Print a table."""
    screen().print(table)


def summary_table(title: str, rows: Mapping[str, object]) -> Table:
    """What a command did, a name and a value in each row."""
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    return table


def progress_bar(items: Iterable[Item] | None = None, **options: Any) -> "tqdm[Item]":
    """A bar of progress: tqdm's, by the width of tables; where no terminal shows it, it is written twice a minute."""
    try:
        interval = 0.1 if sys.stderr.isatty() else 30.0
    except (AttributeError, ValueError):  # it is None, closed, or something of the user's
        interval = 30.0
    if sys.stderr is None:
        options["disable"] = True
    return tqdm(items, ncols=WIDTH, file=sys.stderr, mininterval=interval, maxinterval=max(10.0, interval), **options)


def counted(number: int, noun: str) -> str:
    """A number of things: "1 case", "2 cases"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def conclude(title: str, rows: Mapping[str, object]) -> None:
    """The end of every command: its summary."""
    show(summary_table(title, rows))


def speak_alone() -> None:
    """Make this process the main one, whatever a launcher's variables say: nothing trains together with it."""
    rank_zero_only.rank = 0  # type: ignore[attr-defined]


def on_main_process() -> bool:
    """Whether this process is the one that speaks and writes."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def _as_is(cell: Any) -> Any:
    return Text(shown(cell), overflow="fold") if isinstance(cell, str) else cell
