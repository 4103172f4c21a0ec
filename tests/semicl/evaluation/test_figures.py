"""Figures show their numbers, and names as they are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from semicl.evaluation.figures import (
    embedding_figure,
    fractions_figure,
    predictions_figure,
    validation_figure,
    write_figure,
)

NAMES = ["$\\frac$", "a$b$c", "_hidden", "[/]", "x_1^2"]


def test_a_line_a_method_through_its_means() -> None:
    series = {"random": [(0.05, 0.7, 0.01), (0.2, 0.8, 0.02)], "ours": [(0.05, 0.75, 0.0)]}
    (axis,) = fractions_figure(series, "heads").axes
    lines = {container.get_label(): container.lines[0] for container in axis.containers}
    assert list(lines) == ["random", "ours"]
    assert lines["random"].get_ydata().tolist() == [0.7, 0.8]
    assert lines["random"].get_xdata() == pytest.approx([0.05, 0.2], rel=0.03)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["5 %", "20 %"]


def test_a_line_of_validations_is_the_mean_over_splits() -> None:
    histories = {"random": [[(10, 0.2), (20, 0.4)], [(12, 0.4), (24, 0.6)]], "ours": [[(10, 0.5)]]}
    axes = validation_figure({"5 %": histories, "10 %": {"ours": [[(30, 0.7), (60, 0.9)]]}}, "heads").axes
    assert [axis.get_title() for axis in axes] == ["5 %", "10 %"]
    *splits, mean = axes[0].lines[:3]
    assert [line.get_xydata().tolist() for line in splits] == [[[10, 0.2], [20, 0.4]], [[12, 0.4], [24, 0.6]]]
    assert mean.get_label() == "random"
    assert mean.get_xydata() == pytest.approx(np.array([[11, 0.3], [22, 0.5]]))
    assert axes[1].lines[-1].get_color() == axes[0].lines[-1].get_color() != mean.get_color()


def _predictions() -> Figure:
    volume = torch.zeros(2, 4, 4)
    labels = {"truth": dict.fromkeys(NAMES, volume.long()), NAMES[0]: dict.fromkeys(NAMES, volume.long())}
    return predictions_figure(dict.fromkeys(NAMES, volume), labels, ["background", *NAMES])


@pytest.mark.parametrize(("depth", "slices"), [(1, set()), (3, {2})])
def test_rows_are_as_high_as_their_images_and_pictures_have_no_slices(depth: int, slices: set[int]) -> None:
    images = {name: torch.zeros(depth, 60, 45) for name in "ab"}
    truth = torch.zeros(depth, 60, 45, dtype=torch.long)
    truth[depth // 2] = 1
    figure = predictions_figure(images, {"truth": dict.fromkeys("ab", truth)}, ["background", "one"])
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == [
        "".join([name, *(f"\nslice {number}" for number in slices)]) for name in "ab"
    ]
    width, height = figure.get_size_inches()
    assert height == pytest.approx(0.75 * width + 0.7)  # two rows and two columns of images of 4 : 3


def _embedding() -> Figure:
    numbers = np.arange(1 + len(NAMES))
    points = np.stack([numbers, numbers], 1).astype(float)
    return embedding_figure({NAMES[0]: points}, {NAMES[0]: numbers}, ["background", *NAMES])


def _fractions() -> Figure:
    return fractions_figure({name: [(0.1, 0.5, 0.1)] for name in NAMES}, NAMES[0])


def _validation() -> Figure:
    return validation_figure({NAMES[0]: {name: [[(1, 0.5)]] for name in NAMES}}, NAMES[0])


@pytest.mark.parametrize("make", [_predictions, _embedding, _fractions, _validation])
def test_names_are_no_formulas_and_none_is_hidden(make: Callable[[], Figure], tmp_path: Path) -> None:
    figure = make()
    write_figure(tmp_path / "figure.png", figure)  # a formula that cannot be read is found when it is drawn
    (legend,) = figure.legends
    shown = [text.get_text().strip().replace(r"\$", "$") for text in legend.get_texts()]
    assert [name for name in shown if name != "background"] == NAMES
