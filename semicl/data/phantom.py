"""Synthetic volumes for when there are no real ones: a body with organs of three classes among look-alikes, in noise.

A phantom shows that the pipeline works. It says nothing about patients, and whoever prints its numbers says so.
"""

import json
from pathlib import Path

import nibabel
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from semicl.files import replacing

CLASSES = ("background", "large organ", "small organ", "paired organ")
SHAPE = (60, 64, 20)
LOOKALIKES = 4
SPINE, FAT = len(CLASSES), len(CLASSES) + 1
"""Tissue of the body that is no organ."""

BRIGHTNESS = (0.0, 0.15, -0.17, 0.24, 0.42, -0.24)
"""Of each tissue, over that of the body, in a scan of contrast 1."""

SCANS_PER_SUBJECT = 2


def write_phantom(folder: Path, subjects: int, seed: int, channels: int = 1) -> None:
    """Write a Decathlon folder of `subjects` subjects, two scans each, the same for the same seed.

    The scans of a subject share their anatomy and differ in contrast, intensity scale, shading and noise, like the
    cases 2k-1 and 2k of the hippocampus task. Several channels are the last axis of an image.
    `dataset.json` is written last: a folder that has one is whole.
    """
    training = []
    for number in range(1, SCANS_PER_SUBJECT * subjects + 1):
        name = f"phantom_{number:03d}.nii.gz"
        image, label = phantom_scan(seed, number)
        more = [phantom_scan(seed, number, channel)[0] for channel in range(1, channels)]
        _write(folder / "imagesTr" / name, torch.stack([image, *more], -1).numpy() if more else image.numpy())
        _write(folder / "labelsTr" / name, label.numpy())
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    description = {
        "name": "Phantom",
        "description": f"synthetic volumes, seed {seed}; not patients",
        "labels": {str(k): name for k, name in enumerate(CLASSES)},
        "training": training,
    }
    with replacing(folder / "dataset.json") as partial:
        partial.write_text(json.dumps(description, indent=2), encoding="utf-8")


def phantom_scan(seed: int, number: int, channel: int = 0) -> tuple[Tensor, Tensor]:
    """A channel of scan `number` (from 1): image (H, W, D) float32 in its own units, label (H, W, D) uint8, 0 to 3."""
    subject = (number + SCANS_PER_SUBJECT - 1) // SCANS_PER_SUBJECT
    tissue, body, organs = _anatomy(_generator(seed, 0, subject))
    return _image(tissue, body, _generator(seed, 1, number, *([channel] if channel else []))), organs


def _generator(*key: int) -> torch.Generator:
    words = np.random.SeedSequence(key).generate_state(2, dtype=np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def _uniform(low: float, high: float, size: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(size, generator=generator)


def _smooth(channels: int, cells: int, generator: torch.Generator) -> Tensor:
    """Smooth random fields (channels, H, W, D) with about `cells` bumps an axis."""
    coarse = torch.randn(1, channels, cells, cells, cells, generator=generator)
    return interpolate(coarse, SHAPE, mode="trilinear", align_corners=True)[0]


def _ellipsoid(points: Tensor, centre: Tensor, radii: Tensor) -> Tensor:
    """Where points (3, H, W, D) lie inside an ellipsoid, (H, W, D) bool."""
    return (((points - centre.view(3, 1, 1, 1)) / radii.view(3, 1, 1, 1)) ** 2).sum(0) < 1


def _anatomy(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Tissue (H, W, D) where look-alikes have that of an organ, body (H, W, D) bool, organs (H, W, D) uint8.

    The axes run to the right, to the front and up: in a slice the spine is at the back, the paired organ beside it.
    """
    axes = [torch.linspace(-1, 1, size) for size in SHAPE]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij")) + 0.05 * _smooth(3, 5, generator)
    body, within = (
        _ellipsoid(points, torch.zeros(3), torch.tensor([x, y, 1.7])) for x, y in ((0.93, 0.85), (0.84, 0.75))
    )
    shift, growth = _uniform(-0.06, 0.06, 3, generator), float(_uniform(0.88, 1.12, 1, generator))
    tissue = torch.where(within, 0, FAT).to(torch.uint8)
    for _ in range(LOOKALIKES):
        radii = _uniform(0.07, 0.15, 3, generator)
        kind = int(torch.randint(1, len(CLASSES), (1,), generator=generator))
        tissue[_ellipsoid(points, _uniform(-0.6, 0.6, 3, generator), radii) & within] = kind
    tissue[_ellipsoid(points, torch.tensor([0.0, -0.52, 0.0]), torch.tensor([0.13, 0.15, 3.0]))] = SPINE
    organs = torch.zeros(SHAPE, dtype=torch.uint8)
    places: list[tuple[int, tuple[float, float, float], tuple[float, float, float]]] = [
        (1, (-0.40, 0.12, 0.0), (0.34, 0.44, 0.85)),
        (1, (-0.10, 0.38, 0.1), (0.40, 0.22, 0.60)),
        (2, (0.08, 0.02, 0.1), (0.17, 0.19, 0.60)),
        (3, (-0.40, -0.44, 0.0), (0.15, 0.20, 0.70)),
        (3, (0.42, -0.40, 0.0), (0.15, 0.20, 0.70)),
    ]
    for label, place, size in places:
        centre = torch.tensor(place) + shift + _uniform(-0.04, 0.04, 3, generator)
        organs[_ellipsoid(points, centre, growth * torch.tensor(size)) & within] = label
    return torch.where(organs > 0, organs, tissue), body, organs


def _image(tissue: Tensor, body: Tensor, generator: torch.Generator) -> Tensor:
    contrast = float(_uniform(0.7, 1.3, 1, generator))
    brightness = 0.45 + contrast * torch.tensor(BRIGHTNESS)
    image = brightness[tissue.long()] * body
    image = image + body * (0.04 * _smooth(1, 12, generator)[0] + 0.07 * _smooth(1, 3, generator)[0])
    image = image + 0.07 * torch.randn(SHAPE, generator=generator)
    scale = 10 ** float(_uniform(2.0, 6.0, 1, generator))
    return (image.clamp(min=0) * scale).float()


def _write(path: Path, array: np.ndarray) -> None:
    with replacing(path) as partial:
        image = nibabel.Nifti1Image(array, np.eye(4))
        image.header.set_xyzt_units("mm")
        nibabel.save(image, partial)
