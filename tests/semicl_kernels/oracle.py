"""The losses and their gradients from their definition, in NumPy: loops from labels to pairs, then dense masks.

It judges every backend, the reference too, and shares no code with any. The gradient is worked out by hand:
dl_i / ds_ij = softmax_ij over D(i) - 1 / |P(i)| over P(i); with "pairwise", the second times sigmoid(lse_i - s_ij) and
the first times the mean of those.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
NO_LENGTH = 1e-12


class Point(NamedTuple):
    place: tuple[int, ...]  # (image, view, *position in the strided map)
    source: tuple[Any, ...]  # index of its features
    group: Hashable
    label: Hashable


@dataclass(frozen=True)
class Truth:
    value: Tensor  # the loss, or its map
    gradient: Tensor  # of the loss, or of the sum of the map times `above`


def per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def points_of_map(
    shape: Sequence[int],
    labels: Tensor | None,
    *,
    stride: int | Sequence[int],
    block_size: int | Sequence[int] | None,
    scope: str,
    ignore_index: int | None,
) -> list[Point]:
    batch, views, _, *space = shape
    strided = [range(0, size, step) for size, step in zip(space, per_axis(stride, len(space)), strict=True)]
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
            block = tuple(k // size for k, size in zip(position, blocks, strict=bool(blocks)))
            group = (block, image) if scope == "image" else block
            points.append(Point((image, view, *position), (image, view, slice(None), *source), group, label))
    return points


def count_anchors(points: Sequence[Point], denominator: str, background: Hashable) -> int:
    return int(pairs_of(points, denominator, background).anchor.sum())


class Pairs(NamedTuple):
    anchor: Array  # (n,) bool
    positive: Array  # (n, n) bool: j in P(i)
    compared: Array  # (n, n) bool: j in D(i)


def numbered(names: Sequence[Hashable]) -> Array:
    """Return integers that are equal where the names are."""
    number = {name: k for k, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], dtype=np.int64)


def pairs_of(points: Sequence[Point], denominator: str, background: Hashable) -> Pairs:
    group, label = (numbered([getattr(point, what) for point in points]) for what in ("group", "label"))
    together = (group[:, None] == group) & ~np.eye(len(points), dtype=bool)
    same = label[:, None] == label
    positive = together & same
    compared = together if denominator == "all" else together & ~same
    foreground = np.array([point.label != background for point in points], dtype=bool)
    return Pairs(foreground & positive.any(1) & compared.any(1), positive, compared)


def anchor_losses(x: Array, pairs: Pairs, temperature: float, pairwise: bool) -> tuple[Array, Array]:
    """Return (n,) the losses, 0 where there is no anchor, and (n, n) their derivatives by the similarities."""
    s = x @ x.T / x.dtype.type(temperature)
    rows = pairs.anchor
    compared, positive, s = pairs.compared[rows], pairs.positive[rows], s[rows]
    largest = np.where(compared, s, -np.inf).max(1, keepdims=True, initial=-np.inf)
    exponentials = np.where(compared, np.exp(np.where(compared, s, largest) - largest), 0)
    total = exponentials.sum(1, keepdims=True)
    count = positive.sum(1, keepdims=True)
    losses, by_similarity = np.zeros(len(x), x.dtype), np.zeros(pairs.positive.shape, x.dtype)
    if pairwise:
        over = np.where(positive, largest + np.log(total) - s, 0)
        losses[rows] = np.where(positive, np.logaddexp(0, over), 0).sum(1) / count[:, 0]
        pulls = np.where(positive, np.exp(-np.logaddexp(0, -over)), 0) / count.astype(x.dtype)
        by_similarity[rows] = exponentials / total * pulls.sum(1, keepdims=True) - pulls
        return losses, by_similarity
    losses[rows] = (largest + np.log(total) - np.where(positive, s, 0).sum(1, keepdims=True) / count)[:, 0]
    by_similarity[rows] = exponentials / total - positive / count.astype(x.dtype)
    return losses, by_similarity


def reduction_weights(points: Sequence[Point], anchor: Array, reduction: str) -> Array:
    """Return (n,): what the loss of each anchor counts in the reduced loss."""
    of_group = Counter(point.group for point, is_anchor in zip(points, anchor, strict=True) if is_anchor)
    if reduction == "block":
        share = [1 / max(1, of_group[point.group]) for point in points]
        return np.array(share) * anchor / max(1, len(of_group))
    return anchor / max(1, anchor.sum()) if reduction == "anchor" else anchor * 1.0


def of_points(
    features: Tensor,
    points: Sequence[Point],
    *,
    temperature: float,
    denominator: str,
    background: Hashable,
    normalize: bool,
    reduction: str,
    above: Array | None,
    exact: Any,
) -> tuple[Array, Array, Array]:
    """Return (n,) the losses of the points, (n,) what each counts, and the gradient by the features."""
    values = features.detach().double().numpy().astype(exact)
    x = np.array([values[point.source] for point in points], exact).reshape(len(points), features.shape[2])
    lengths = np.sqrt((x * x).sum(1, keepdims=True))
    if normalize:
        x = x / np.maximum(lengths, NO_LENGTH)
    pairs = pairs_of(points, denominator, background)
    losses, by_similarity = anchor_losses(x, pairs, temperature, denominator == "pairwise")
    weights = reduction_weights(points, pairs.anchor, reduction).astype(exact)
    if above is not None:
        weights = weights * above.astype(exact)
    by_similarity = by_similarity * weights[:, None]
    by_x = (by_similarity + by_similarity.T) @ x / exact(temperature)
    if normalize:
        across = by_x - (by_x * x).sum(1, keepdims=True) * x
        by_x = np.where(lengths > NO_LENGTH, across / np.maximum(lengths, NO_LENGTH), 0)
    gradient = np.zeros(values.shape, exact)
    for point, row in zip(points, by_x, strict=True):
        gradient[point.source] = row
    return losses, weights, gradient


def tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.asarray(array).astype(np.float64))


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
    above: Tensor | None = None,
    exact: Any = np.float64,
) -> Truth:
    """The truth of the public function of this name. ``above`` (B, V, *strided space) weighs the map of losses;
    ``exact`` is NumPy's type to compute in."""
    points = points_of_map(
        features.shape, labels, stride=stride, block_size=block_size, scope=scope, ignore_index=ignore_index
    )
    background_label: Hashable = background if labels is not None else None
    place = tuple(np.array([point.place for point in points], np.int64).reshape(len(points), len(features.shape) - 1).T)
    losses, weights, gradient = of_points(
        features,
        points,
        temperature=temperature,
        denominator=denominator,
        background=background_label,
        normalize=normalize,
        reduction=reduction,
        above=None if above is None else above.double().numpy()[place],
        exact=exact,
    )
    value = (losses * weights).sum()
    if reduction == "none":
        batch, views, _, *space = features.shape
        steps = per_axis(stride, len(space))
        strided = [len(range(0, size, step)) for size, step in zip(space, steps, strict=True)]
        value = np.zeros((batch, views, *strided), exact)
        value[place] = losses
    return Truth(tensor(value), tensor(gradient))


def plain_pytorch(
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
    """The loss with the same masks in plain PyTorch, in the dtype of the features, differentiated by autograd."""
    points = points_of_map(
        features.shape, labels, stride=stride, block_size=block_size, scope=scope, ignore_index=ignore_index
    )
    pairs = pairs_of(points, denominator, background if labels is not None else None)
    anchor, positive, compared = (torch.from_numpy(mask) for mask in pairs)
    index = torch.tensor([[*p.source[:2], *p.source[3:]] for p in points], dtype=torch.int64)
    x = features.movedim(2, -1)[tuple(index.reshape(len(points), features.dim() - 1).T)]
    x = torch.nn.functional.normalize(x, dim=1) if normalize else x
    s = (x @ x.T / temperature)[anchor]
    losses = s.masked_fill(~compared[anchor], -torch.inf).logsumexp(1)
    positives, counts = positive[anchor], positive[anchor].sum(1)
    if denominator == "pairwise":
        terms = torch.nn.functional.softplus((losses[:, None] - s).masked_fill(~positives, 0))
        losses = terms.masked_fill(~positives, 0).sum(1) / counts
    else:
        losses = losses - s.masked_fill(~positives, 0).sum(1) / counts
    weights = torch.from_numpy(reduction_weights(points, pairs.anchor, reduction))[anchor].to(features.dtype)
    if reduction != "none":
        return (losses * weights).sum()
    batch, views, _, *space = features.shape
    sizes = [len(range(0, size, step)) for size, step in zip(space, per_axis(stride, len(space)), strict=True)]
    place = torch.tensor([p.place for p in points], dtype=torch.int64).reshape(len(points), features.dim() - 1)
    return losses.new_zeros(batch, views, *sizes).index_put(tuple(place[anchor].T), losses)


def supervised_contrastive_loss(features: Tensor, labels: Tensor | None = None, *, temperature: float) -> Truth:
    """Vectors (N, V, C): one group, every point an anchor."""
    classes = None if labels is None else labels.reshape(-1, 1, 1, 1).expand(*features.shape[:2], 1, 1)
    found = local_contrastive_loss(
        features[..., None, None],
        classes,
        temperature=temperature,
        background=-(2**62),
        reduction="anchor",
    )
    return Truth(found.value, found.gradient[..., 0, 0])


def grouped_logsumexp(
    rows: Tensor,
    offsets: Tensor,
    anchors: Tensor,
    skip_begin: Tensor,
    skip_end: Tensor,
    *,
    scale: float,
    above: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return lse (M,), and the gradient (M, C) of the sum of ``above`` times it, less where it is infinite."""
    x, weights = rows.detach().double().numpy(), above.double().numpy()
    lse, gradient = np.zeros(len(x)), np.zeros(x.shape)
    for begin, end, count in zip(offsets[:-1].tolist(), offsets[1:].tolist(), anchors.tolist(), strict=True):
        for i in range(begin, begin + count):
            columns = [j for j in range(begin, end) if not int(skip_begin[i]) <= j < int(skip_end[i])]
            if not columns:
                lse[i] = -np.inf
                continue
            s = scale * x[columns] @ x[i]
            exponentials = np.exp(s - s.max())
            lse[i] = s.max() + np.log(exponentials.sum())
            softmax = weights[i] * scale * exponentials / exponentials.sum()
            gradient[i] += softmax @ x[columns]
            np.add.at(gradient, columns, softmax[:, None] * x[i])
    return tensor(lse), tensor(gradient)
