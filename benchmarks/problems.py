"""The shapes that are measured, with label maps like those of real slices.

A sparse shape has one connected organ in each image, cut into its classes, the same in all views. A dense shape has no
labels: every point is an anchor, its positive the same place in the other view, and all points are one group. Vectors
are samples without a map, (N, V, C): NT-Xent without labels, SupCon with labels and no background.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

TEMPERATURE = 0.1
BACKGROUND = 0
VIEWS = 2


def type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def blocks_of(image: Tensor, edge: int | None) -> list[Tensor]:
    """Cut the last two axes into squares of ``edge``, the last ones smaller; None for one block."""
    edge = edge or max(image.shape[-2:])
    return [tile for rows in image.split(edge, -2) for tile in rows.split(edge, -1)]


@dataclass(frozen=True)
class Block:
    """One group of the loss that has an anchor."""

    points: int
    anchors: int


@dataclass(frozen=True)
class Shape:
    """What a problem is made from. ``classes`` counts the background; 0 classes is the self-supervised form."""

    name: str
    family: str  # "sparse", "dense", "full" or "vectors"
    batch: int
    channels: int
    height: int
    width: int
    classes: int = 0
    foreground: float = 1.0  # share of the points of every image
    block: int | None = None
    seed: int = 0
    around: str | None = None  # what features lie around: a center of their "class", "one" of all, or nothing
    spread: float = 1.0  # standard deviation of the features there

    @property
    def points(self) -> int:
        return self.batch * VIEWS * self.height * self.width

    def feature_bytes(self, dtype: torch.dtype = torch.float32) -> int:
        return self.points * self.channels * dtype.itemsize

    def labels(self) -> Tensor | None:
        """Return labels (B, V, H, W) int64, the same in both views, or None."""
        if self.classes == 0:
            return None
        generator = torch.Generator().manual_seed(self.seed)
        if self.family == "vectors":
            labels = torch.randint(1, self.classes, (self.batch, 1, 1, 1), generator=generator)
            return labels.expand(-1, VIEWS, -1, -1)
        maps = [organ(self.height, self.width, self.foreground, self.classes, generator) for _ in range(self.batch)]
        return torch.stack(maps)[:, None].expand(-1, VIEWS, -1, -1).contiguous()

    def blocks(self) -> list[Block]:
        """The groups that have an anchor; the estimates of cost are sums over them."""
        labels = self.labels()
        if labels is None:
            return [Block(self.points, self.points)]
        # In two views every label occurs twice, so that every foreground point has a positive.
        counts = [Block(tile.numel(), int((tile != BACKGROUND).sum())) for tile in blocks_of(labels, self.block)]
        return [block for block in counts if block.anchors > 0]


@dataclass(frozen=True)
class Problem:
    """What a provider gets."""

    features: Tensor  # (B, V, C, H, W), a leaf that requires its gradient
    labels: Tensor | None  # (B, V, H, W) int64, or None: a point's positives are its place in the other views
    block: int | None  # edge of the blocks, None for one block

    @property
    def vectors(self) -> Tensor | None:
        """The features as samples (N, V, C), where they are no maps."""
        return self.features[..., 0, 0] if self.features.shape[-2:] == (1, 1) else None


def build(shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Problem:
    """Return the problem of a shape: normal features, rounded to ``dtype`` from the same float32 numbers."""
    generator = torch.Generator().manual_seed(shape.seed + 1)
    size = (shape.batch, VIEWS, shape.channels, shape.height, shape.width)
    features, labels = torch.randn(size, generator=generator), shape.labels()
    if shape.around is not None:
        classes = places(features) if labels is None else labels
        index = torch.zeros_like(classes) if shape.around == "one" else classes.unique(return_inverse=True)[1]
        centers = torch.randn((int(index.max()) + 1, shape.channels), generator=generator)
        features = centers[index].movedim(-1, 2) + shape.spread * features
    leaf = features.to(device, dtype).requires_grad_()
    return Problem(leaf, None if labels is None else labels.to(device), shape.block)


def nearly_equal(shape: Shape, around: str, spread: float) -> Shape:
    """Return the shape with features as a trained network makes them: around a center of each class, or one of all."""
    return replace(shape, name=f"{shape.name}, {around} +- {spread:g}", around=around, spread=spread)


def identities(problem: Problem) -> Tensor:
    """Return labels (B, V, H, W): the problem's own, or numbers that tell all places apart, the same in all views."""
    return problem.labels if problem.labels is not None else places(problem.features)


def places(features: Tensor) -> Tensor:
    """Return (B, V, H, W): numbers that tell all places apart, the same in all views."""
    batch, views, _, height, width = features.shape
    numbers = torch.arange(1, batch * height * width + 1, device=features.device)
    return numbers.reshape(batch, 1, height, width).expand(batch, views, height, width)


# ---- label maps ------------------------------------------------------------------------------------------------------


def organ(height: int, width: int, share: float, classes: int, generator: torch.Generator) -> Tensor:
    """Return a label map (H, W) int64: one connected organ of ``share`` of the points, classes 1, 2, ... its parts.

    The organ is star-shaped with a wavy outline, near the middle. Its parts are the points nearest to each of
    ``classes - 1`` of its points that lie far apart, so none is empty.
    """
    count = round(share * height * width)
    if count < classes - 1:
        raise ValueError(f"{count} points of foreground cannot hold {classes - 1} classes")
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    center = (0.5 + 0.2 * (torch.rand(2, generator=generator) - 0.5)) * torch.tensor([height, width])
    y, x = rows + 0.5 - center[0], columns + 0.5 - center[1]
    score = torch.hypot(y, x) / outline(torch.atan2(y, x), generator)
    inside = score.flatten().argsort(stable=True)[:count]
    places = torch.stack([rows.flatten()[inside], columns.flatten()[inside]], 1).double()
    labels = torch.zeros(height * width, dtype=torch.int64)
    labels[inside] = 1 + torch.cdist(places, far_apart(places, classes - 1)).argmin(1)
    return labels.reshape(height, width)


def outline(angle: Tensor, generator: torch.Generator) -> Tensor:
    """Return the relative radius of a closed smooth curve at the ``angle``, any shape: an ellipse with waves on it."""
    phases = 2 * math.pi * torch.rand(3, generator=generator)
    waves = [depth * torch.cos(k * angle + phases[k - 2]) for k, depth in ((2, 0.2), (3, 0.1), (4, 0.05))]
    return 1 + sum(waves, torch.zeros_like(angle))


def far_apart(places: Tensor, count: int) -> Tensor:
    """Return ``count`` of the places (n, 2): the last one, then always the one farthest from those chosen."""
    chosen = [len(places) - 1]
    distance = torch.full((len(places),), torch.inf, dtype=places.dtype)
    while len(chosen) < count:
        distance = torch.minimum(distance, torch.cdist(places, places[chosen[-1:]])[:, 0])
        chosen.append(int(distance.argmax()))
    return places[chosen]


# ---- the shapes ------------------------------------------------------------------------------------------------------


def dense(points: int, channels: int) -> Shape:
    """All ``points`` in one group, every one an anchor; a power of two."""
    side = 1 << (points.bit_length() - 2) // 2
    return Shape(f"dense-{points}-{channels}", "dense", 1, channels, side, points // VIEWS // side)


def nt_xent(samples: int) -> Shape:
    return Shape(f"nt-xent-{samples}", "vectors", samples, 128, 1, 1)


def supcon(samples: int) -> Shape:
    return Shape(f"supcon-{samples}", "vectors", samples, 128, 1, 1, 11)


def hippocampus(block: int) -> Shape:
    return Shape(f"hippocampus{block}", "sparse", 4, 128, 64, 64, 3, 0.06, block)


def mmwhs(block: int) -> Shape:
    return Shape(f"mmwhs{block}", "sparse", 4, 128, 160, 160, 8, 0.2, block)


SHAPES = (
    hippocampus(16),
    hippocampus(32),
    mmwhs(16),
    mmwhs(32),
    *(dense(points, channels) for channels in (64, 128, 256) for points in (1024, 2048, 4096, 8192, 16384)),
    Shape("full", "full", 1, 64, 160, 160, 8, 0.2),
    *(loss(samples) for loss in (nt_xent, supcon) for samples in (16, 64, 256, 1024, 4096)),
)
