"""What an experiment found: the starts side by side, printed, drawn and written."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from semicl.console import Table, conclude, say, show
from semicl.data.prepared import Prepared
from semicl.evaluation.figures import predictions_figure, write_figure
from semicl.evaluation.inference import class_probabilities
from semicl.evaluation.measures import Evaluation, read_evaluation
from semicl.evaluation.metrics import shown
from semicl.files import write_json
from semicl.models.checkpoint import load_segmentation
from semicl.training.folder import StageFolder

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


def history_title(split: int, times: int) -> str:
    """The words above `history_table`, which tell how many of so many validations it shows where that is not all."""
    some = f" ({COLUMNS} of {times} validations)" if times > COLUMNS else ""
    return f"Validation while fine-tuning, split {split}{some}:"


def verdict(random: Splits, pretrained: Splits) -> str:
    """What the comparison says, whichever way it comes out, and how far it can be trusted."""
    gains = np.concatenate(
        [after.per_case("dice") - before.per_case("dice") for before, after in zip(random, pretrained, strict=True)]
    )
    direction = "raised" if gains.mean() > 0 else "lowered" if gains.mean() < 0 else "did not change"
    if len(gains) == 1:
        text = f"Pre-training {direction} the Dice of the only test case by {abs(gains.mean()):.3f}."
        return f"{text} One case, one split and one seed: an illustration, not a benchmark."
    text = (
        f"Pre-training {direction} the mean Dice by {abs(gains.mean()):.3f}; it was better on {(gains > 0).sum()} of "
        f"{len(gains)} test cases."
    )
    return text if len(random) > 1 else f"{text} One split and one seed: an illustration, not a benchmark."


def _number(values: Sequence[float]) -> str:
    there = [value for value in values if not np.isnan(value)]
    return f"{there[0]:.3f}" if len(values) == len(there) == 1 else shown(there)


PICTURED = 5
"""Test volumes in the picture."""

TITLES = {"random": "random start", "global": "global contrast", "pretrained": "pre-trained"}


def conclude_experiment(
    output: Path, prepared: Prepared, splits: Sequence[int], tuned: Mapping[str, Sequence[StageFolder]]
) -> None:
    """Show and write results.json and predictions.png of an experiment whose stages are all finished.

    Args:
        output: the experiment's folder.
        prepared: its data.
        splits: numbers of the splits.
        tuned: by start, the folder of fine-tuning of each split.
    """
    evaluations = {start: [read_evaluation(folder.test) for folder in folders] for start, folders in tuned.items()}
    histories = {start: folders[0].summary()["validation"] for start, folders in tuned.items()}
    _draw(output / "predictions.png", prepared, splits[0], {start: folders[0] for start, folders in tuned.items()})
    say(history_title(splits[0], len(next(iter(histories.values())))))
    show(history_table({TITLES[start]: history for start, history in histories.items()}))
    cases = sum(len(evaluation.names) for evaluation in next(iter(evaluations.values())))
    of = "split" if len(splits) == 1 else "splits"
    say(f"{cases} test cases of {prepared.name}, {of} {', '.join(map(str, splits))}:")
    show(comparison_table({TITLES[start]: found for start, found in evaluations.items()}))
    words = ""
    if {"random", "pretrained"} <= set(evaluations):
        words = verdict(evaluations["random"], evaluations["pretrained"])
        say(words)
    write_json(
        output / "results.json",
        {
            "data": prepared.name,
            "verdict": words,
            "test_dice": {start: [e.mean_dice() for e in found] for start, found in evaluations.items()},
            "validation_dice_by_step": histories,
            "splits": list(splits),
            "seconds": _seconds(output),
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "lightning": version("pytorch-lightning"),
                "monai": version("monai"),
            },
            "threads": torch.get_num_threads(),
        },
    )
    conclude(
        "Experiment",
        {
            **{
                f"test Dice, {TITLES[start]}": f"{sum(e.mean_dice() for e in found) / len(found):.3f}"
                for start, found in evaluations.items()
            },
            "pictures and numbers": f"{output}/predictions.png, results.json, split-*/finetune-*/test/cases.csv",
            "logs": f"tensorboard --logdir {output}",
        },
    )


def _seconds(output: Path) -> dict[str, float]:
    """What each stage took, by its place in the experiment's folder."""
    stages = sorted(path.parent for path in output.glob("split-*/*/summary.json"))
    return {str(stage.relative_to(output)): StageFolder(stage).summary()["seconds"] for stage in stages}


def _draw(path: Path, prepared: Prepared, split: int, tuned: Mapping[str, StageFolder]) -> None:
    """Draw the first test volumes of a split, as the networks see them, under each network's labels."""
    cases = [case for case in prepared.split(split).test if case.label is not None][:PICTURED]
    images = {case.name: torch.tensor(prepared.image(case)) for case in cases}
    labels = {"truth": {case.name: torch.tensor(prepared.label(case)).long() for case in cases}}
    for start, folder in tuned.items():
        network, card = load_segmentation(folder.model)
        labels[TITLES[start]] = {
            name: class_probabilities(network, image, card.grid.patch_size).argmax(0) for name, image in images.items()
        }
    shown = {name: image[0] for name, image in images.items()}
    write_figure(path, predictions_figure(shown, labels, list(prepared.classes)))
