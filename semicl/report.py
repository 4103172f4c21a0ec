"""Two evaluations side by side: as a table, as a sentence, as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from semicl.evaluate import Evaluation
from semicl.files import replacing


def comparison_table(classes: Sequence[str], random: Evaluation, pretrained: Evaluation) -> Table:
    """Dice of each foreground class and their mean: random start, pre-trained start, difference."""
    table = Table("Dice")
    for heading in ("random start", "pre-trained", "difference"):
        table.add_column(heading, justify="right")
    for name, before, after in zip(classes[1:], random.per_class(), pretrained.per_class(), strict=True):
        table.add_row(name, *_numbers(before, after))
    table.add_section()
    table.add_row("mean", *_numbers(random.mean(), pretrained.mean()), style="bold")
    return table


def history_table(random: Sequence[tuple[int, float]], pretrained: Sequence[tuple[int, float]]) -> Table:
    """Validation Dice of both starts by fine-tuning steps: shows a head start that a final number may hide."""
    table = Table("Dice after", *(f"{step} steps" for step, _ in random))
    for name, history in (("random start", random), ("pre-trained", pretrained)):
        table.add_row(name, *(f"{dice:.3f}" for _, dice in history))
    return table


def verdict(random: Evaluation, pretrained: Evaluation) -> str:
    """What the comparison says, whichever way it comes out, and how far one run can be trusted."""
    gains = pretrained.per_volume() - random.per_volume()
    direction = "raised" if gains.mean() > 0 else "lowered" if gains.mean() < 0 else "did not change"
    return (
        f"Pre-training {direction} the mean Dice by {abs(gains.mean()):.3f}; it was better on {(gains > 0).sum()} of "
        f"{len(gains)} test volumes. One split and one seed: an illustration, not a benchmark."
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file; paths become text."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2, default=str) + "\n")


def evaluation_json(evaluation: Evaluation, classes: Sequence[str]) -> dict[str, Any]:
    """Mean, per-class and per-volume Dice as plain numbers."""
    return {
        "mean_dice": round(evaluation.mean(), 4),
        "dice_per_class": dict(zip(classes[1:], _rounded(evaluation.per_class()), strict=True)),
        "dice_per_volume": {n: _rounded(d) for n, d in zip(evaluation.names, evaluation.dice, strict=True)},
    }


def _numbers(before: float, after: float) -> tuple[str, str, str]:
    return f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
