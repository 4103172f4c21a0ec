"""The naive backend, the one specification that tests and benchmarks share.

The losses as anyone would write them who reads docs/loss.md: of each group the matrix of similarities, masks, a
log-sum-exp and a mean, in plain PyTorch and in the dtype of the features; of narrow ones, only lengths and the sums of
losses are float32. It shares no code with the other backends, which are measured against it, nor their way from labels
to groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .base import AVAILABLE, Backend, Groups, Keys, Positives

NORM_EPS = 1e-12  # of torch.nn.functional.normalize


class Task(NamedTuple):
    """What a loss is computed with."""

    block_size: tuple[int, ...] | None
    per_image: bool
    other_classes_only: bool
    background: int | None
    ignore_index: int | None
    scale: float
    normalize: bool
    reduction: str


class Group(NamedTuple):
    """A group of points that has an anchor."""

    points: Tensor  # (n,): of the map
    classes: Tensor  # (n,)
    anchors: Tensor  # (a,): which of the points


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def points_of(features: Tensor) -> Tensor:
    """Return (points, C)."""
    return features.movedim(2, -1).reshape(-1, features.shape[2])


def unit_vectors(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return vectors of length 1 and the lengths they had, both wide; one of no length stays as it is."""
    exact = points.to(wide(points.dtype))
    lengths = torch.linalg.vector_norm(exact, dim=1, keepdim=True)
    return exact / lengths.clamp_min(NORM_EPS), lengths


def classes_of(features: Tensor, labels: Tensor | None) -> Tensor:
    """Return (B, V, *space) int64; without labels every place of every image is a class, the same in all views."""
    if labels is not None:
        return labels.long()
    batch, views, _, *space = features.shape
    places = torch.arange(batch, device=features.device).reshape(-1, 1, *[1 for _ in space])
    for axis, size in enumerate(space):
        along = torch.arange(size, device=features.device)
        places = places * size + along.reshape([-1 if a == axis else 1 for a in range(len(space))])
    return places.expand(batch, views, *space)


def groups_of(classes: Tensor, task: Task) -> Iterator[Group]:
    """Yield every group that has an anchor, its points less those that are ignored."""
    flat = classes.flatten()
    for points in members_of_groups(classes, task):
        anchors = anchors_among(flat[points], task)
        if len(anchors) > 0:
            yield Group(points, flat[points], anchors)


def anchors_among(classes: Tensor, task: Task) -> Tensor:
    """Return which of the points of a group (n,) are anchors: they have another of their class, and one to meet."""
    _, inverse, counts = classes.unique(return_inverse=True, return_counts=True)
    same_class = counts[inverse]
    is_anchor = same_class > 1
    if task.background is not None:
        is_anchor &= classes != task.background
    if task.other_classes_only:
        is_anchor &= same_class < len(classes)
    return is_anchor.nonzero()[:, 0]


def contrast(x: Tensor, group: Group, task: Task) -> tuple[Tensor, Tensor]:
    """Return the losses (a,) of a group's anchors, of its vectors (n, C), and their derivatives (a, n) by the
    similarities."""
    _, classes, anchors = group
    same = classes[anchors, None] == classes
    itself = anchors[:, None] == torch.arange(len(classes), device=classes.device)
    positives = same & ~itself
    denominator = ~same if task.other_classes_only else ~itself
    s = x[anchors] @ x.T * task.scale
    among_denominator = s.masked_fill(~denominator, -torch.inf)
    count = positives.sum(1, keepdim=True)
    means = (s.masked_fill(~positives, 0) / count).sum(1)
    by_similarity = among_denominator.softmax(1) - positives.to(s.dtype) / count
    return among_denominator.logsumexp(1) - means, by_similarity


def vectors_of(features: Tensor, task: Task) -> Tensor:
    points = points_of(features)
    return unit_vectors(points)[0].to(features.dtype) if task.normalize else points


def anchor_weights(groups: list[Group], reduction: str) -> list[float]:
    """What each anchor of each group counts in the loss."""
    if reduction == "block":
        return [1 / (len(groups) * len(group.anchors)) for group in groups]
    if reduction == "anchor":
        return [1 / sum(len(group.anchors) for group in groups) for _ in groups]
    assert reduction in ("sum", "none"), f"no weights for reduction {reduction!r}"
    return [1.0 for _ in groups]


def loss(features: Tensor, labels: Tensor | None, task: Task) -> Tensor:
    """Return the loss, or with reduction "none" its map (B, V, *space)."""
    with torch.autocast(features.device.type, enabled=False):
        classes, x = classes_of(features, labels), vectors_of(features, task)
        groups = list(groups_of(classes, task))
        each = torch.zeros(classes.numel(), dtype=wide(features.dtype), device=features.device)
        total = each.new_zeros(())
        for group, weight in zip(groups, anchor_weights(groups, task.reduction), strict=True):
            losses = contrast(x[group.points], group, task)[0].to(each.dtype)
            each[group.points[group.anchors]] = losses
            total += (weight * losses).sum()
        return each.reshape(classes.shape) if task.reduction == "none" else total


def gradient(grad: Tensor, features: Tensor, labels: Tensor | None, task: Task) -> Tensor:
    """Return the gradient by the features of ``grad`` times the loss, or of the sum of ``grad`` times its map."""
    with torch.autocast(features.device.type, enabled=False):
        classes, x = classes_of(features, labels), vectors_of(features, task)
        groups = list(groups_of(classes, task))
        out = torch.zeros_like(x)
        for group, weight in zip(groups, anchor_weights(groups, task.reduction), strict=True):
            anchors, vectors = group.points[group.anchors], x[group.points]
            above = grad.flatten()[anchors] if task.reduction == "none" else grad * weight
            by_product = contrast(vectors, group, task)[1] * (task.scale * above.reshape(-1, 1)).to(x.dtype)
            out[anchors] += by_product @ vectors
            out[group.points] += by_product.T @ vectors[group.anchors]
        if task.normalize:
            unit, lengths = unit_vectors(points_of(features))
            exact = out.to(unit.dtype)
            across = (exact - (exact * unit).sum(1, keepdim=True) * unit) / lengths
            # A vector of no length has no direction; points of no part may hold anything.
            across = torch.where((lengths > NORM_EPS) & (out != 0).any(1, keepdim=True), across, 0)
            out = across.to(features.dtype)
        batch, views, channels, *space = features.shape
        return out.reshape(batch, views, *space, channels).movedim(-1, 2)


# ---- with keys and weights -------------------------------------------------------------------------------------------


def keyed_contrast(task: Any, above: Tensor | None, with_keys: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return what ``keyed.contrast`` does of the same problem: the matrix of each group, masks, and its softmax."""
    points, labels, weights, scale = task.points, task.labels, task.weights, float(task.scale)
    flat = labels.flatten().long()
    weight = points.new_ones(len(points), dtype=torch.float64) if weights is None else weights.double()
    y = points[:0] if task.keys is None else task.keys
    of_keys = y.new_ones(len(y)) if task.key_weights is None else task.key_weights.to(y.dtype)
    classes = task.key_labels
    if classes is not None and task.ignore_index is not None:
        of_keys = of_keys * (classes != task.ignore_index)
    each, anchors = points.new_zeros(len(points), dtype=torch.float64), torch.zeros_like(flat, dtype=torch.bool)
    group_of, solved = torch.zeros_like(flat), []
    with torch.autocast(points.device.type, enabled=False):
        for number, members in enumerate(members_of_groups(labels, task)):
            own = flat[members]
            same, itself = own[:, None] == own, torch.eye(len(own), dtype=torch.bool, device=own.device)
            same_key = torch.zeros((len(own), len(y)), dtype=torch.bool, device=own.device)
            if classes is not None:
                same_key = own[:, None] == classes
            positive = torch.cat([(same & ~itself).to(y.dtype), same_key * of_keys], 1)
            left_out = torch.cat([same, same_key] if task.other_classes_only else [itself, same_key & False], 1)
            met = ~left_out & torch.cat([torch.ones_like(own, dtype=torch.bool), of_keys > 0])
            anchor = (positive.sum(1) > 0) & met.any(1) & (weight[members] > 0)
            if task.background is not None:
                anchor &= own != task.background
            columns = torch.cat([points[members], y])
            s = points[members][anchor] @ columns.T * scale
            logits = (s + torch.cat([s.new_zeros(len(own)), of_keys.log()])).masked_fill(~met[anchor], -torch.inf)
            share = positive[anchor] / positive[anchor].sum(1, keepdim=True)
            rows, lse = members[anchor], logits.logsumexp(1)
            losses, slope = lse - (share * s).sum(1), logits.softmax(1) - share
            if task.pairwise:
                over = lse[:, None] - s
                losses = (share * torch.logaddexp(over, torch.zeros_like(over))).sum(1)
                by_positive = share * over.sigmoid()
                slope = logits.softmax(1) * by_positive.sum(1, keepdim=True) - by_positive
            each[rows] = losses.double()
            anchors[rows], group_of[members] = True, number
            solved.append((rows, members, columns, s, slope))
    weight = torch.where(anchors, weight, 0.0)
    reduced = reduced_weights(weight, group_of, flat, task.reduction)
    factor = reduced if above is None else torch.where(anchors, above.double(), 0.0)
    by_points, by_keys, by_scale = torch.zeros_like(points), torch.zeros_like(y), factor.new_zeros(())
    for rows, members, columns, s, slope in solved:
        slope = slope * factor[rows, None].to(slope.dtype)
        by_columns = scale * slope.T @ points[rows]
        by_points[rows] += scale * slope @ columns
        by_points[members] += by_columns[: len(members)]
        by_keys += by_columns[len(members) :]
        by_scale += (slope * s).sum().double() / scale
    return each, reduced, by_points, by_keys if with_keys else torch.zeros_like(y[:0]), by_scale.cpu()


def members_of_groups(labels: Tensor, task: Any) -> Iterator[Tensor]:
    """Yield the points of every group, less those that are ignored."""
    batch, _, *space = labels.shape
    numbers, flat = torch.arange(labels.numel(), device=labels.device).reshape(labels.shape), labels.flatten()
    edges = task.block_size or [max(size, 1) for size in space]
    images = [slice(b, b + 1) for b in range(batch)] if task.per_image else [slice(None)]
    corners = itertools.product(*[range(0, size, edge) for size, edge in zip(space, edges, strict=True)])
    for corner, image in itertools.product(corners, images):
        block = [slice(first, first + edge) for first, edge in zip(corner, edges, strict=True)]
        points = numbers[(image, slice(None), *block)].flatten()
        yield points if task.ignore_index is None else points[flat[points] != task.ignore_index]


def reduced_weights(weight: Tensor, groups: Tensor, classes: Tensor, reduction: str) -> Tensor:
    """Return what each loss counts, of its weight in its mean."""
    if reduction in ("sum", "none") or not weight.any():
        return weight
    weight = weight / weight.max()  # their sum then holds
    parts = {"anchor": torch.zeros_like(groups), "block": groups, "class": classes}[reduction]
    names = [name for name in parts.unique().tolist() if weight[parts == name].sum() > 0]
    out = torch.zeros_like(weight)
    for name in names:
        out[parts == name] = weight[parts == name] / weight[parts == name].sum() / len(names)
    return out


# ---- the primitive ---------------------------------------------------------------------------------------------------


class Pairs(NamedTuple):
    """The anchors of a group and what they meet, and s_ij plus the logarithm of j's weight, -inf outside D(i)."""

    anchors: slice
    columns: slice
    s: Tensor


def pairs_of(rows: Tensor, keys: Keys | None, groups: Groups, scale: float) -> Iterator[Pairs]:
    offsets, anchors = groups.offsets.tolist(), groups.anchors.tolist()
    columns = rows if keys is None else keys.values
    begins, ends = (offsets[:-1], offsets[1:]) if keys is None else (keys.begin.tolist(), keys.end.tolist())
    number = torch.arange(len(columns), device=rows.device)
    for first, count, begin, end in zip(offsets, anchors, begins, ends, strict=False):
        own, every = slice(first, first + count), slice(begin, end)
        s = rows[own] @ columns[every].T * scale
        if keys is not None and keys.weights is not None:
            s = s + keys.weights[every].log().to(s.dtype)
        left_out = (number[every] >= groups.skip_begin[own, None]) & (number[every] < groups.skip_end[own, None])
        yield Pairs(own, every, s.masked_fill(left_out, -torch.inf))


def forward(rows: Tensor, keys: Keys | None, groups: Groups, scale: float, bound: float | None) -> Tensor:
    lse = rows.new_zeros(len(rows), dtype=wide(rows.dtype))
    with torch.autocast(rows.device.type, enabled=False):
        for group in pairs_of(rows, keys, groups, scale):
            lse[group.anchors] = group.s.logsumexp(1).to(lse.dtype)
    return lse


def backward(
    grad: Tensor,
    rows: Tensor,
    keys: Keys | None,
    lse: Tensor,
    groups: Groups,
    positives: Positives | None,
    scale: float,
    bound: float | None,
    unit_rows: bool,
    with_rows: bool,
    with_keys: bool,
) -> tuple[Tensor, Tensor]:
    """Of the primitive alone, without positives: the losses have their own gradients."""
    assert positives is None, "the losses of this backend do not ask the primitive"
    columns = rows if keys is None else keys.values
    by_rows, by_keys = torch.zeros_like(rows), torch.zeros_like(columns)
    with torch.autocast(rows.device.type, enabled=False):
        for group in pairs_of(rows, keys, groups, scale):
            empty = lse[group.anchors, None] == -torch.inf
            softmax = group.s.softmax(1).masked_fill(empty, 0)
            weights = softmax * (scale * grad[group.anchors, None]).to(rows.dtype)
            by_rows[group.anchors] += weights @ columns[group.columns]
            by_keys[group.columns] += weights.T @ rows[group.anchors]
    return (by_rows + by_keys, by_keys[:0]) if keys is None else (by_rows, by_keys)


def refuses(device: torch.device, dtype: torch.dtype, channels: int, bound: float | None) -> str | None:
    return None


def not_asked(*arguments: Any, **options: Any) -> Any:
    """Stands for the terms of the positives: :func:`keyed_contrast` has its own."""
    raise AssertionError("the losses of this backend do not ask the primitive")


BACKEND = Backend("reference", lambda: AVAILABLE, refuses, forward, backward, not_asked, not_asked, None)
