"""Pictures of predictions over images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from semicl.files import replacing

COLOURS = colormaps["Set1"]
OPACITY = 0.55


def write_predictions(
    path: Path, images: Mapping[str, Tensor], labels: Mapping[str, Mapping[str, Tensor]], classes: Sequence[str]
) -> None:
    """Write a PNG with one row a volume: its slice with the largest true area, bare and under each label map.

    Args:
        path: the PNG.
        images: slices (D, 1, S, S) of each volume, by name.
        labels: for each column's title, the labels (D, S, S) of each volume, by name; the first column is the truth,
            which alone chooses the slice.
        classes: names of the classes, the background first.
    """
    columns = ["image", *labels]
    truth = next(iter(labels.values()))
    figure = Figure(figsize=(2.1 * len(columns), 2.1 * len(images) + 0.7), layout="constrained")
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    for row, (name, image) in enumerate(images.items()):
        slice_number = int((truth[name] > 0).sum((1, 2)).argmax())
        for column, title in enumerate(columns):
            axis = axes[row, column]
            axis.imshow(_upright(image[slice_number, 0]), cmap="gray", vmin=0, vmax=1)
            if title in labels:
                axis.imshow(_overlay(_upright(labels[title][name][slice_number]), len(classes)))
            axis.set(xticks=[], yticks=[], title=title if row == 0 else "")
        axes[row, 0].set_ylabel(f"{name}\nslice {slice_number + 1}", fontsize=7)
    handles = [Patch(color=COLOURS(k - 1), label=name) for k, name in enumerate(classes) if k > 0]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=150)


def _upright(plane: Tensor) -> np.ndarray:
    """Anterior up: the axes of a slice run to the right and to the front, those of a picture down and to the right."""
    return plane.T.flip(0).numpy()


def _overlay(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels (H, W) as colours (H, W, 4), the background clear."""
    palette = np.array([(0.0, 0.0, 0.0, 0.0), *((*COLOURS(k - 1)[:3], OPACITY) for k in range(1, classes))])
    return palette[labels]
