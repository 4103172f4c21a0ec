"""What a command prints: once, however many processes train together."""

from collections.abc import Mapping

from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

WIDTH = 100
"""Columns of bars and tables, so that they line up and logs stay readable."""


@rank_zero_only
def say(text: object) -> None:
    """Print a line as it is."""
    print(text, flush=True)


@rank_zero_only
def show(table: Table) -> None:
    """Print a table."""
    Console(width=None if Console().is_terminal else WIDTH).print(table)


def summary_table(title: str, rows: Mapping[str, object]) -> Table:
    """What a command did, a name and a value in each row."""
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    return table


def conclude(title: str, rows: Mapping[str, object]) -> None:
    """The end of every command: its summary."""
    show(summary_table(title, rows))


def on_main_process() -> bool:
    """Whether this process is the one that speaks and writes."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)
