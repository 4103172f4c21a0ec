"""The measures of many cases: summed up, shown, written and read back."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semicl.console import Table
from semicl.data.cases import Case
from semicl.data.checks import read_nifti, stored_image
from semicl.data.classes import IGNORED, Merged, Values
from semicl.data.geometry import affine_in_mm, voxel_size
from semicl.data.nifti_names import is_picture
from semicl.data.volumes import class_numbers
from semicl.errors import SemiclError
from semicl.evaluation.inference import predict_file
from semicl.evaluation.metrics import Agreement, agreement, shown, spread
from semicl.files import read_json, replacing, write_json
from semicl.models.checkpoint import ModelCard
from semicl.models.unet import UNet

MEASURES = {"dice": "Dice", "hd95": "HD95 ({unit})", "surface": "ASD ({unit})"}
"""Their headings."""


def unit_of_distances(cases: Iterable[Case]) -> str:
    """The unit of distances: mm, but pixels of cases that are pictures, which have no mm."""
    kinds = {is_picture(case.image) for case in cases}
    return "mm, pixels of pictures" if len(kinds) > 1 else "pixels" if kinds == {True} else "mm"


@dataclass(frozen=True)
class Evaluation:
    """Measures of every case (rows, in the order of `names`) and foreground class (columns).

    Args:
        names: of the cases.
        classes: the foreground's names.
        dice: (cases, classes); NaN, as the others, in the columns of classes that no label holds.
        hd95: 95th percentile of the Hausdorff distance in mm, of pictures in pixels, (cases, classes).
        surface: average symmetric surface distance in the same, (cases, classes).
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    dice: np.ndarray
    hd95: np.ndarray
    surface: np.ndarray

    @property
    def held(self) -> np.ndarray:
        """Which classes a label of the cases holds, (classes,) bool; the measures of the others are NaN."""
        return ~np.isnan(self.dice).all(0)

    def per_class(self, measure: str) -> np.ndarray:
        """Mean of a measure over cases, (classes,); NaN for a class that no label holds."""
        return np.asarray(getattr(self, measure).mean(0))

    def per_case(self, measure: str) -> np.ndarray:
        """Mean of a measure over the classes that a label holds, (cases,)."""
        return np.asarray(getattr(self, measure)[:, self.held].mean(1))

    def mean_dice(self) -> float:
        """Mean over cases and classes, summed up as in the table, so that both show the same."""
        return float(self.per_case("dice").mean())

    def table(self, title: str, unit: str) -> Table:
        """Mean and standard deviation over cases, a row a class, and over the means of cases in the last row.

        Args:
            title: above it.
            unit: of the distances.
        """
        table = Table("class", title=title, title_justify="left")
        for heading in MEASURES.values():
            table.add_column(heading.format(unit=unit), justify="right")
        for column, name in enumerate(self.classes):
            table.add_row(name, *(shown(getattr(self, measure)[:, column]) for measure in MEASURES))
        table.add_section()
        table.add_row("mean", *(shown(self.per_case(measure)) for measure in MEASURES), style="bold")
        return table

    def write(self, folder: Path, **about: Any) -> None:
        """Write `cases.csv`, a row a case and class, and `results.json`, everything.

        Numbers are written in full: what was rounded before it is averaged or shown is rounded twice. Those of a class
        that no label holds are null, and empty in `cases.csv`.
        """
        with (
            replacing(folder / "cases.csv") as partial,
            partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["case", "class", *MEASURES])
            for row, name in enumerate(self.names):
                for column, label in enumerate(self.classes):
                    values = (getattr(self, measure)[row, column] for measure in MEASURES)
                    writer.writerow([name, label, *map(known, values)])
        per_class = {
            name: {measure: spread(getattr(self, measure)[:, column]) for measure in MEASURES}
            for column, name in enumerate(self.classes)
        }
        per_class["mean"] = {measure: spread(self.per_case(measure)) for measure in MEASURES}
        per_case = {
            name: {measure: [known(value) for value in getattr(self, measure)[row]] for measure in MEASURES}
            for row, name in enumerate(self.names)
        }
        content = about | {"classes": self.classes, "summary": per_class, "cases": per_case}
        write_json(folder / "results.json", content)


def read_evaluation(folder: Path) -> Evaluation:
    """What `Evaluation.write` wrote.

    Raises:
        SemiclError: it is missing or damaged.
    """
    path = folder / "results.json"
    try:
        content = read_json(path)
        cases = content["cases"]
        arrays = (np.array([case[measure] for case in cases.values()], float) for measure in MEASURES)
        return Evaluation(tuple(cases), tuple(content["classes"]), *arrays)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SemiclError(f"{path}: not readable ({error}); run `semicl evaluate` again") from error


def evaluate_cases(
    network: UNet,
    card: ModelCard,
    cases: Iterable[Case],
    values: Values | None = None,
    merged: Merged | None = None,
) -> Evaluation:
    """Predict every case and compare it with its label file, in the file's own geometry.

    The measures of a class that no label holds are NaN: it cannot be found, and to miss it is no merit.

    Args:
        network: ready to predict.
        card: its own.
        cases: those without a label are left out.
        values: of its classes in the label files, by name; default: those that it was trained with.
        merged: other values of the label files, and those that they count as, if they are not ignored.

    Raises:
        SemiclError: no case has a label, no label holds a class, or a file cannot be used.
    """
    measured = (
        (case.name, *_judge(network, card, case, case.label, values or card.classes, merged))
        for case in cases
        if case.label is not None
    )
    return _summed_up(measured, list(card.classes))


def evaluate_files(pairs: Iterable[tuple[Case, Path]], classes: Mapping[str, int]) -> Evaluation:
    """Compare other label files with those of cases, as :func:`evaluate_cases` does with predictions.

    Args:
        pairs: labelled cases and the label files to judge, which lie where the cases' own lie.
        classes: names and values in all of the files, the background first.

    Raises:
        SemiclError: there is no pair, no label holds a class, or a file cannot be used.
    """
    values = list(classes.values())

    def judged(case: Case, file: Path) -> tuple[str, Agreement, np.ndarray]:
        assert case.label is not None
        array, volume = read_nifti(case.label)
        prediction, truth = (class_numbers(each, values) for each in (read_nifti(file)[0], array))
        spacing = voxel_size(affine_in_mm(volume, stored_image(case.image)))
        measured = agreement(torch.from_numpy(prediction), torch.from_numpy(truth), len(values), spacing)
        return case.name, measured, np.unique(truth)

    return _summed_up((judged(*pair) for pair in pairs), list(classes))


def _summed_up(measured: Iterable[tuple[str, Agreement, np.ndarray]], classes: Sequence[str]) -> Evaluation:
    """The measures of cases, each with its name and the numbers of the classes that its label holds."""
    names, measures, held = [], [], np.zeros(len(classes), bool)
    for name, found, there in measured:
        names.append(name)
        measures.append(found)
        held[there] = True
    if not names:
        raise SemiclError("no case has a label file to compare with; give a folder with labels")
    if not held[1:].any():
        raise SemiclError(f"no label file holds {', '.join(classes[1:])}; give labels of these classes")
    # In the precision in which it is read back, so that both are averaged alike.
    stacked = (np.stack([getattr(one, measure) for one in measures]).astype(np.float64) for measure in MEASURES)
    judged = (np.where(held[1:], each, np.nan) for each in stacked)
    return Evaluation(tuple(names), tuple(classes[1:]), *judged)


def _judge(
    network: UNet, card: ModelCard, case: Case, label: Path, values: Values, merged: Merged | None
) -> tuple[Agreement, np.ndarray]:
    """The measures of a case, and the numbers of the classes that its label holds."""
    array, volume = read_nifti(label)
    prediction = predict_file(network, card, case.image, case.more)
    if tuple(prediction.shape) != array.shape:
        raise SemiclError(
            f"{label}: shape {array.shape} differs from its image's {tuple(prediction.shape)}; export the label on "
            "the image's grid"
        )
    there = [number for number, value in enumerate(values.values()) if value is not None]
    numbers = class_numbers(array, [value for value in values.values() if value is not None], merged)
    of_number = torch.full((IGNORED + 1,), IGNORED)
    of_number[: len(there)] = torch.tensor(there)
    truth = of_number[torch.from_numpy(numbers).long()]
    spacing = voxel_size(affine_in_mm(volume, stored_image(case.image)))
    return agreement(prediction, truth, len(card.classes), spacing), truth[truth != IGNORED].unique().numpy()


def known(value: float) -> float | None:
    """A number for a file, whatever its type; None for NaN, which stands for a class that no label holds."""
    return None if np.isnan(value) else float(value)
