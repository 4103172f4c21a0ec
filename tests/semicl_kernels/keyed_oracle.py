"""The losses with weights, keys and a temperature, and their gradients, from their definition: NumPy loops in float64.

It shares no code with the package. The gradients are worked out by hand: dl_i / ds_ij = softmax_ij - share_ij.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

Array = np.ndarray[Any, Any]


class Truth(NamedTuple):
    loss: Array  # (), or the map (B, V, *space)
    by_features: Array
    by_keys: Array
    by_temperature: float


def unit(vectors: Array, axis: int) -> tuple[Array, Array]:
    lengths = np.linalg.norm(vectors, axis=axis, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12), lengths


def across(gradient: Array, unit_vectors: Array, lengths: Array) -> Array:
    """The gradient by vectors, from that by the same at unit length; rows are vectors."""
    along = (gradient * unit_vectors).sum(1, keepdims=True)
    return np.where(lengths < 1e-12, 0, (gradient - along * unit_vectors) / np.maximum(lengths, 1e-12))


def reduce_weights(weight: Array, group: Array, label: Array, reduction: str) -> Array:
    if reduction in ("sum", "none"):
        return weight
    part = {"anchor": np.zeros_like(group), "block": group, "class": label}[reduction]
    shares = np.zeros_like(weight)
    totals = {name: weight[part == name].sum() for name in set(part.tolist())}
    live = [name for name, total in totals.items() if total > 0]
    for name in live:
        shares[part == name] = weight[part == name] / totals[name] / len(live)
    return shares


def keyed_loss(
    features: Tensor,
    labels: Tensor | None,
    *,
    temperature: float,
    weights: Tensor | None = None,
    keys: Tensor | None = None,
    key_labels: Tensor | None = None,
    key_weights: Tensor | None = None,
    block_size: int | None = None,
    scope: str = "batch",
    denominator: str = "all",
    background: int | None = 0,
    ignore_index: int | None = None,
    normalize: bool = True,
    reduction: str = "block",
    above: Array | None = None,
) -> Truth:
    values = features.double().numpy()
    batch, views, channels, *space = values.shape
    places = list(itertools.product(range(batch), range(views), *map(range, space)))
    raw = np.array([values[(b, v, slice(None), *at)] for b, v, *at in places]).reshape(len(places), channels)
    y = np.array([(b, *at) for b, _, *at in places]).reshape(len(places), -1) @ [1000**k for k in range(1 + len(space))]
    if labels is not None:
        y = np.array([int(labels[place]) for place in places], dtype=np.int64)
    block = np.array([[k // block_size if block_size else 0 for k in at] for _, _, *at in places]).reshape(
        len(places), -1
    )
    group = block @ [1000**k for k in range(len(space))] + (
        10**9 * np.array([p[0] for p in places]) if scope == "image" else 0
    )
    taken = np.array(
        [labels is None or ignore_index is None or label != ignore_index for label in y.tolist()], dtype=bool
    )
    weight = np.ones(len(places)) if weights is None else np.array([float(weights[place]) for place in places])

    raw_keys = np.zeros((0, channels)) if keys is None else keys.double().numpy()
    of_key = np.full(len(raw_keys), -(10**15)) if key_labels is None else key_labels.long().numpy()
    w_key = np.ones(len(raw_keys)) if key_weights is None else key_weights.double().numpy()
    if ignore_index is not None and key_labels is not None:
        w_key = np.where(of_key == ignore_index, 0, w_key)
    x, lengths = unit(raw, 1) if normalize else (raw, np.ones((len(raw), 1)))
    k, key_lengths = unit(raw_keys, 1) if normalize else (raw_keys, np.ones((len(raw_keys), 1)))

    losses, slopes, anchor = np.zeros(len(x)), [], np.zeros(len(x), dtype=bool)
    for i in range(len(x)):
        together = taken & (group == group[i])
        together[i] = False
        positive = np.concatenate([(together & (y == y[i])) * 1.0, (of_key == y[i]) * w_key])
        met = np.concatenate([together * 1.0, w_key])
        if denominator != "all":
            met = np.where(np.concatenate([y, of_key]) == y[i], 0, met)
        foreground = labels is None or background is None or y[i] != background
        if not (taken[i] and foreground and weight[i] > 0 and positive.sum() > 0 and met.sum() > 0):
            continue
        anchor[i] = True
        s = np.concatenate([x, k]) @ x[i] / temperature
        largest = s[met > 0].max()
        e = np.where(met > 0, met * np.exp(np.minimum(s - largest, 0)), 0)
        share = positive / positive.sum()
        if denominator == "pairwise":
            over = largest + np.log(e.sum()) - s
            losses[i] = (share * np.logaddexp(0, over)).sum()
            pull = share * np.exp(-np.logaddexp(0, -over))
            slopes.append((i, e / e.sum() * pull.sum() - pull, s))
            continue
        losses[i] = largest + np.log(e.sum()) - (share * s).sum()
        slopes.append((i, e / e.sum() - share, s))
    weight = np.where(anchor, weight, 0)
    counted = reduce_weights(weight, group, y, reduction)
    factor = np.where(anchor, above.reshape(-1), 0) if above is not None else counted
    by_x, by_k, by_t = np.zeros_like(x), np.zeros_like(k), 0.0
    for i, slope, s in slopes:
        both = np.concatenate([x, k])
        by_x[i] += factor[i] * (slope[:, None] * both).sum(0) / temperature
        by_x += factor[i] * slope[: len(x), None] * x[i] / temperature
        by_k += factor[i] * slope[len(x) :, None] * x[i] / temperature
        by_t -= factor[i] * (slope * s).sum() / temperature
    if normalize:
        by_x, by_k = across(by_x, x, lengths), across(by_k, k, key_lengths)
    gradient = np.zeros_like(values)
    for place, one in zip(places, by_x, strict=True):
        gradient[(place[0], place[1], slice(None), *place[2:])] = one
    loss = losses.reshape(batch, views, *space) if reduction == "none" else np.array((counted * losses).sum())
    return Truth(loss, gradient, by_k, by_t)
