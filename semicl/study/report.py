"""Evaluations of several starts side by side: as tables and as a sentence."""

from collections.abc import Mapping, Sequence

import numpy as np

from semicl.console import Table
from semicl.evaluation.measures import Evaluation
from semicl.evaluation.spread import shown

Splits = Sequence[Evaluation]
"""One evaluation for each split."""


def comparison_table(starts: Mapping[str, Splits]) -> Table:
    """Dice of each class and their mean for each start: mean over splits, and its deviation where there are several."""
    table = Table("Dice")
    for heading in starts:
        table.add_column(heading, justify="right")
    classes = next(iter(starts.values()))[0].classes
    for column, name in enumerate(classes):
        found = ([e.per_class("dice")[column] for e in splits] for splits in starts.values())
        table.add_row(name, *map(_number, found))
    table.add_section()
    table.add_row("mean", *(_number([e.mean_dice() for e in splits]) for splits in starts.values()), style="bold")
    return table


def history_table(starts: Mapping[str, Sequence[tuple[int, float]]]) -> Table:
    """Validation Dice of each start by fine-tuning steps: shows a head start that a final number may hide."""
    first = next(iter(starts.values()))
    shown = sorted({round(place) for place in np.linspace(0, len(first) - 1, COLUMNS)})
    table = Table("Dice after", *(f"{first[place][0]} steps" for place in shown))
    for name, history in starts.items():
        table.add_row(name, *(f"{history[place][1]:.3f}" for place in shown))
    return table


COLUMNS = 6
"""Moments that fit a table."""


def verdict(random: Splits, pretrained: Splits) -> str:
    """What the comparison says, whichever way it comes out, and how far it can be trusted."""
    gains = np.concatenate(
        [after.per_case("dice") - before.per_case("dice") for before, after in zip(random, pretrained, strict=True)]
    )
    direction = "raised" if gains.mean() > 0 else "lowered" if gains.mean() < 0 else "did not change"
    if len(gains) == 1:
        text = f"Pre-training {direction} the Dice of the only test volume by {abs(gains.mean()):.3f}."
        return f"{text} One volume, one split and one seed: an illustration, not a benchmark."
    text = (
        f"Pre-training {direction} the mean Dice by {abs(gains.mean()):.3f}; it was better on {(gains > 0).sum()} of "
        f"{len(gains)} test volumes."
    )
    return text if len(random) > 1 else f"{text} One split and one seed: an illustration, not a benchmark."


def _number(values: Sequence[float]) -> str:
    there = [value for value in values if not np.isnan(value)]
    return f"{there[0]:.3f}" if len(values) == len(there) == 1 else shown(there)
