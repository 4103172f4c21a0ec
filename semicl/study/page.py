"""One page of an experiment and a comparison of the loss: a file of HTML that needs no other."""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from jinja2 import Environment, StrictUndefined

from semicl import own_version
from semicl.evaluation.measures import read_evaluation
from semicl.files import read_json, replacing
from semicl.study.naive import HEADINGS, Comparison, threads_in_words
from semicl.study.report import TITLES
from semicl.training.folder import StageFolder

LOSS = "loss.png"
"""The comparison's picture, in an experiment's folder."""


@dataclass(frozen=True)
class _Table:
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_page(output: Path, comparison: Comparison, options: dict[str, Any], phantom: bool, predict: str) -> Path:
    """Write index.html into the folder of a finished experiment, which holds its pictures; return the page.

    Args:
        output: the experiment's folder.
        comparison: of the loss.
        options: the command's, as plain values.
        phantom: whether the volumes are made ones.
        predict: the command line that predicts with what was trained.
    """
    results = read_json(output / "results.json")
    text = _template().render(
        phantom=phantom,
        percent=f"{100 * options['label_fraction']:.3g}",
        threads=threads_in_words(comparison.threads),
        memory=f"{comparison.memory / 2**30:.0f}",
        limit=f"{comparison.limit:.0f}",
        difference=difference(comparison),
        loss=_Table(HEADINGS, [comparison.row(side) for side in comparison.calls["fused"]]),
        dice=_dice(output, results),
        history=_history(results["validation_dice_by_step"]),
        stages=_Table(("stage", "seconds"), [(name, f"{seconds:.0f}") for name, seconds in results["seconds"].items()]),
        verdict=results["verdict"],
        versions={**results["versions"], "semicl": own_version()},
        options=yaml.safe_dump(json.loads(json.dumps(options, default=str)), sort_keys=False),
        predict=predict,
        pictures={"loss": _inline(output / LOSS), "predictions": _inline(output / "predictions.png")},
    )
    with replacing(output / "index.html") as partial:
        partial.write_text(text, encoding="utf-8")
    return output / "index.html"


def difference(comparison: Comparison) -> str:
    """How far the losses of both differ, where both were measured."""
    naive, fused = comparison.calls["naive"], comparison.calls["fused"]
    relative = max(abs(naive[side].loss / fused[side].loss - 1) for side in naive)
    return f"differ by {relative:.0e} of their value at most" if relative else "are the same to the last digit"


def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(files("semicl.study").joinpath("page.html").read_text(encoding="utf-8"))


def _dice(output: Path, results: dict[str, Any]) -> _Table:
    """Test Dice of each class, in the first split."""
    starts = list(results["test_dice"])
    tests = [StageFolder(output / f"split-{results['splits'][0]}" / f"finetune-{start}").test for start in starts]
    found = [read_evaluation(test) for test in tests]
    rows = [
        (name, *(f"{each.per_class('dice')[column]:.3f}" for each in found))
        for column, name in enumerate(found[0].classes)
    ]
    means = ("mean", *(f"{each.mean_dice():.3f}" for each in found))
    return _Table(("Dice", *_titles(starts)), [*rows, means])


def _history(histories: dict[str, Sequence[tuple[int, float]]]) -> _Table:
    """Validation Dice: a row for each start, a column for each validation."""
    steps = [f"{step} steps" for step, _ in next(iter(histories.values()))]
    rows = [
        (title, *(f"{dice:.3f}" for _, dice in history))
        for title, history in zip(_titles(histories), histories.values(), strict=True)
    ]
    return _Table(("start", *steps), rows)


def _titles(starts: Iterable[str]) -> list[str]:
    return [TITLES[start] for start in starts]


def _inline(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
