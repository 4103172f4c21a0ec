"""Pictures: predictions over images, points by class, Dice by label fraction and by steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from semicl.data.classes import IGNORED
from semicl.files import replacing

COLOURS = colormaps["Set1"]
OPACITY = 0.55


def predictions_figure(
    images: Mapping[str, Tensor], labels: Mapping[str, Mapping[str, Tensor]], classes: Sequence[str]
) -> Figure:
    """A figure with one row a volume: its slice with the largest true area, bare and under each label map.

    Args:
        images: (depth, height, width) in [0, 1] of each volume, by name.
        labels: for each column's title, the class numbers (depth, height, width) of each volume, by name; the first
            column is the truth, which alone chooses the slice.
        classes: names of the classes, the background first.
    """
    columns = ["image", *labels]
    truth = next(iter(labels.values()))
    heights = [min(max(0.5, image.shape[-1] / image.shape[-2]), 3.0) for image in images.values()]
    figure = Figure(figsize=(2.1 * len(columns), 2.1 * sum(heights) + 0.7), layout="constrained")
    axes = figure.subplots(len(images), len(columns), squeeze=False, height_ratios=heights)
    for row, (name, image) in enumerate(images.items()):
        slice_number = int(((truth[name] > 0) & (truth[name] != IGNORED)).sum((1, 2)).argmax())
        for column, title in enumerate(columns):
            axis = axes[row, column]
            axis.imshow(_upright(image[slice_number]), cmap="gray", vmin=0, vmax=1)
            if title in labels:
                axis.imshow(_overlay(_upright(labels[title][name][slice_number]), len(classes)))
            axis.set(xticks=[], yticks=[], title=_as_is(title) if row == 0 else "")
        place = f"\nslice {slice_number + 1}" if len(image) > 1 else ""
        axes[row, 0].set_ylabel(f"{_as_is(name)}{place}", fontsize=7)
    handles = [Patch(color=COLOURS(k - 1), label=_as_is(name)) for k, name in enumerate(classes) if k > 0]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
    return figure


def embedding_figure(
    points: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], classes: Sequence[str]
) -> Figure:
    """A figure with one panel a network: its points (N, 2), coloured by class number (N,).

    Args:
        points: by the panel's title.
        labels: by the panel's title.
        classes: names of the classes, the background first.
    """
    figure = Figure(figsize=(4.6 * len(points), 4.8), layout="constrained")
    for axis, (title, places) in zip(figure.subplots(1, len(points), squeeze=False)[0], points.items(), strict=True):
        for number, name in enumerate(classes):
            own = places[labels[title] == number]
            colour = "0.7" if number == 0 else COLOURS(number - 1)
            axis.scatter(own[:, 0], own[:, 1], s=6, color=colour, label=_as_is(name), linewidths=0)
        axis.set(xticks=[], yticks=[], title=_as_is(title))
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)), markerscale=3, frameon=False)
    return figure


def fractions_figure(series: Mapping[str, Sequence[tuple[float, float, float | None]]], title: str) -> Figure:
    """A figure of Dice against the fraction of labels, a line a method.

    Args:
        series: for each method, its fractions with mean and standard deviation of Dice, None where there is none.
        title: of the figure.
    """
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axis = figure.subplots()
    fractions = sorted({fraction for points in series.values() for fraction, _, _ in points})
    colours = colormaps["tab20"]
    for number, (method, points) in enumerate(series.items()):
        # Side by side, or the bars of methods that are close to each other would lie on one another.
        aside = 1 + 0.02 * (number - (len(series) - 1) / 2)
        places, means, deviations = zip(*((fraction * aside, mean, sd) for fraction, mean, sd in points), strict=True)
        bars = [deviation or 0.0 for deviation in deviations]
        colour = colours(number % 20)
        axis.errorbar(places, means, bars, marker="o", capsize=3, color=colour, label=_as_is(method))
    axis.set_xscale("log")
    axis.set_xticks(fractions, [f"{100 * fraction:.3g} %" for fraction in fractions])
    axis.minorticks_off()
    axis.set(xlabel="fraction of the labels", ylabel="Dice, mean and deviation over splits", title=_as_is(title))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def validation_figure(panels: Mapping[str, Mapping[str, Sequence[Sequence[tuple[int, float]]]]], title: str) -> Figure:
    """A figure of Dice on validation volumes against the steps of fine-tuning, a line a method.

    Args:
        panels: by their titles, for each method the history of each split: after how many steps, and the Dice. A line
            is the mean over splits, as far as all of them go, pale lines are the splits.
        title: of the figure.
    """
    figure = Figure(figsize=(min(5 * len(panels) + 2, 18), 5.2), layout="constrained")
    methods = list(dict.fromkeys(method for histories in panels.values() for method in histories))
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (name, histories) in zip(axes, panels.items(), strict=True):
        for method, splits in histories.items():
            # Ten colours that differ; in tab20 the pale lines of one method look like another.
            colour = colormaps["tab10" if len(methods) <= 10 else "tab20"](methods.index(method) % 20)
            for history in splits:
                axis.plot(*zip(*history, strict=True), color=colour, alpha=0.3, linewidth=1)
            # Steps of an epoch differ a little between splits: the means are of one validation each.
            means = [np.mean(moment, axis=0) for moment in zip(*splits, strict=False)]
            axis.plot(*zip(*means, strict=True), color=colour, marker=".", label=_as_is(method))
        axis.set(xlabel="steps of fine-tuning", title=_as_is(name))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("validation Dice, mean over splits")
    figure.suptitle(_as_is(title))
    known = {name: line for axis in axes for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG."""
    with replacing(path) as partial:
        figure.savefig(partial, dpi=150)


def _as_is(name: str) -> str:
    """A name for matplotlib, which takes what stands between two dollars for a formula, and hides "_name"."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def _upright(plane: Tensor) -> np.ndarray:
    """Anterior up: the axes of a slice run to the right and to the front, those of a picture down and to the right."""
    return plane.T.flip(0).numpy()


def _overlay(labels: np.ndarray, classes: int) -> np.ndarray:
    """Class numbers (H, W) as colours (H, W, 4), the background clear, grey what is ignored."""
    palette = np.zeros((IGNORED + 1, 4))
    palette[1:classes] = [(*COLOURS(k - 1)[:3], OPACITY) for k in range(1, classes)]
    palette[IGNORED] = 0.5
    return palette[labels]
