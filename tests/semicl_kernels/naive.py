"""The losses as loops over points in float64, straight from their definition. Slow, and simple enough to be read.

Written on torch scalars, so that autograd gives the gradient of the same lines.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Point:
    place: tuple[int, ...]  # (image, view, *position in the strided map)
    group: Hashable
    label: Hashable
    feature: Tensor


def similarity(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    return (a * b).sum() / temperature


def log_sum_exp(values: Sequence[Tensor]) -> Tensor:
    stacked = torch.stack(list(values))
    largest = stacked.detach().max()
    return largest + (stacked - largest).exp().sum().log()


def anchor_loss(i: Point, group: Sequence[Point], denominator: str, temperature: float) -> Tensor | None:
    """The loss of anchor `i`, or None where it has no positive or no denominator."""
    others = [j for j in group if j is not i]
    positives = [similarity(i.feature, p.feature, temperature) for p in others if p.label == i.label]
    pairs = [
        similarity(i.feature, j.feature, temperature) for j in others if denominator == "all" or j.label != i.label
    ]
    if not positives or not pairs:
        return None
    return log_sum_exp(pairs) - torch.stack(positives).mean()


def per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def unit(vector: Tensor) -> Tensor:
    return vector / vector.square().sum().sqrt()


def points_of_map(
    features: Tensor,
    labels: Tensor | None,
    *,
    stride: int | Sequence[int],
    block_size: int | Sequence[int] | None,
    scope: str,
    ignore_index: int | None,
    normalize: bool,
) -> list[Point]:
    batch, views, _, *space = features.shape
    steps = per_axis(stride, len(space))
    strided = [range(0, size, step) for size, step in zip(space, steps, strict=True)]
    blocks = per_axis(block_size, len(space)) if block_size is not None else ()
    points = []
    for image, view in itertools.product(range(batch), range(views)):
        for position in itertools.product(*(range(len(axis)) for axis in strided)):
            source = tuple(axis[k] for axis, k in zip(strided, position, strict=True))
            label: Hashable = (image, position)  # without labels a point is like its own place in the other views
            if labels is not None:
                label = int(labels[(image, view, *source)])
                if label == ignore_index:
                    continue
            feature = features[(image, view, slice(None), *source)]
            block = tuple(k // size for k, size in zip(position, blocks, strict=bool(blocks)))
            group = (block, image) if scope == "image" else block
            points.append(Point((image, view, *position), group, label, unit(feature) if normalize else feature))
    return points


def losses_by_group(
    points: Iterable[Point], *, temperature: float, denominator: str, background: Hashable
) -> dict[Hashable, dict[tuple[int, ...], Tensor]]:
    """Group -> place of an anchor -> its loss."""
    groups: dict[Hashable, list[Point]] = {}
    for point in points:
        groups.setdefault(point.group, []).append(point)
    losses: dict[Hashable, dict[tuple[int, ...], Tensor]] = {}
    for key, group in groups.items():
        for i in group:
            loss = anchor_loss(i, group, denominator, temperature) if i.label != background else None
            if loss is not None:
                losses.setdefault(key, {})[i.place] = loss
    return losses


def count_anchors(points: Sequence[Point], denominator: str, background: Hashable) -> int:
    """How many points `losses_by_group` gives a loss."""
    members = Counter(point.group for point in points)
    alike = Counter((point.group, point.label) for point in points)

    def is_anchor(point: Point) -> bool:
        same = alike[point.group, point.label]
        pairs = members[point.group] - (same if denominator == "negatives" else 1)
        return point.label != background and same > 1 and pairs > 0

    return sum(map(is_anchor, points))


def reduce(losses: dict[Hashable, dict[tuple[int, ...], Tensor]], reduction: str, features: Tensor) -> Tensor:
    anchors = [loss for group in losses.values() for loss in group.values()]
    if not anchors:
        return features.sum() * 0
    if reduction == "block":
        return torch.stack([torch.stack(list(group.values())).mean() for group in losses.values()]).mean()
    if reduction == "anchor":
        return torch.stack(anchors).mean()
    return torch.stack(anchors).sum()


def loss_map(losses: dict[Hashable, dict[tuple[int, ...], Tensor]], shape: Sequence[int], features: Tensor) -> Tensor:
    flat = {place: loss for group in losses.values() for place, loss in group.items()}
    zero = features.sum() * 0
    return torch.stack([flat.get(place, zero) for place in itertools.product(*map(range, shape))]).reshape(*shape)


def local_contrastive_loss(
    features: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float = 0.1,
    stride: int | Sequence[int] = 1,
    block_size: int | Sequence[int] | None = None,
    scope: str = "batch",
    denominator: str = "all",
    background: int = 0,
    ignore_index: int | None = None,
    normalize: bool = True,
    reduction: str = "block",
) -> Tensor:
    features = features.double()
    points = points_of_map(
        features,
        labels,
        stride=stride,
        block_size=block_size,
        scope=scope,
        ignore_index=ignore_index,
        normalize=normalize,
    )
    losses = losses_by_group(
        points,
        temperature=temperature,
        denominator=denominator,
        background=background if labels is not None else None,
    )
    if reduction != "none":
        return reduce(losses, reduction, features)
    batch, views, _, *space = features.shape
    strided = [len(range(0, size, step)) for size, step in zip(space, per_axis(stride, len(space)), strict=True)]
    return loss_map(losses, (batch, views, *strided), features)


def supervised_contrastive_loss(features: Tensor, labels: Tensor | None = None, *, temperature: float) -> Tensor:
    """Vectors (N, V, C): one group, every point an anchor."""
    count, views, _ = features.shape
    points = [
        Point((n, v), 0, n if labels is None else int(labels[n]), unit(features[n, v].double()))
        for n in range(count)
        for v in range(views)
    ]
    losses = losses_by_group(points, temperature=temperature, denominator="all", background=None)
    return reduce(losses, "anchor", features.double())


def nt_xent_loss(z1: Tensor, z2: Tensor, *, temperature: float) -> Tensor:
    """SimCLR: the positive of a vector is its other view, all the other vectors are in the denominator."""
    rows = [unit(z.double()) for view in (z1, z2) for z in view]
    count = len(z1)
    losses = []
    for i, row in enumerate(rows):
        pairs = [similarity(row, other, temperature) for j, other in enumerate(rows) if j != i]
        losses.append(log_sum_exp(pairs) - similarity(row, rows[(i + count) % (2 * count)], temperature))
    return torch.stack(losses).mean()


def grouped_logsumexp(
    rows: Tensor, offsets: Tensor, anchors: Tensor, skip_low: Tensor, skip_high: Tensor, *, scale: float
) -> Tensor:
    rows = rows.double()
    lse = [rows.sum() * 0 for _ in rows]
    for begin, end, count in zip(offsets[:-1].tolist(), offsets[1:].tolist(), anchors.tolist(), strict=True):
        for i in range(begin, begin + count):
            columns = [j for j in range(begin, end) if not int(skip_low[i]) <= j < int(skip_high[i])]
            if columns:
                lse[i] = log_sum_exp([scale * (rows[i] * rows[j]).sum() for j in columns])
            else:
                lse[i] = lse[i] - torch.inf
    return torch.stack(lse) if lse else rows.sum(1)
