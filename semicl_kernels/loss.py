"""The public losses: functions, and the same as modules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .backends import BACKENDS, LONGEST_SQUARE, accumulator, choose_backend
from .partition import Partition, largest_group

SCOPES = ("batch", "image")
DENOMINATORS = ("all", "negatives")
REDUCTIONS = ("block", "anchor", "sum", "none")
SORTED_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)  # what every torch can sort
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SHORTEST = 1e-12  # as torch.nn.functional.normalize


# ---- checks ----------------------------------------------------------------------------------------------------------


def _check_word(name: str, word: str, words: Sequence[str]) -> None:
    if word not in words:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}; got {word!r}")


def _check_temperature(temperature: float) -> None:
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)):
        raise TypeError(f"temperature must be a number; got {type(temperature).__name__}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite; got {temperature}")


def _per_axis(name: str, sizes: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """Return one integer an axis from an integer or as many integers."""
    values = (sizes,) * axes if isinstance(sizes, int) and not isinstance(sizes, bool) else sizes
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name} must be an integer or a sequence of {axes} integers, one an axis; got {sizes!r}")
    if any(isinstance(value, bool) or not isinstance(value, int) for value in values):
        raise TypeError(f"{name} must be an integer or a sequence of {axes} integers, one an axis; got {sizes!r}")
    if len(values) != axes:
        raise ValueError(f"{name} must have one integer for each of the {axes} axes; got {sizes!r}")
    if any(value < 1 for value in values):
        raise ValueError(f"{name} must be 1 or more; got {sizes!r}")
    return tuple(values)


def _check_label(name: str, label: int | None) -> None:
    if label is not None and (isinstance(label, bool) or not isinstance(label, int)):
        raise TypeError(f"{name} must be an integer or None; got {type(label).__name__}")


def _check_floats(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor; got {type(tensor).__name__}")
    if tensor.dtype not in FLOATS:
        raise TypeError(f"{name} must be of float32, float16, bfloat16 or float64; got {tensor.dtype}")


def _check_features(features: Tensor) -> None:
    _check_floats("features", features)
    if features.dim() not in (5, 6):
        raise ValueError(
            "features must be of shape (B, V, C, height, width) or (B, V, C, depth, height, width); "
            f"got {tuple(features.shape)}"
        )
    if features.shape[2] < 1:
        raise ValueError(f"features must have at least one channel; got {tuple(features.shape)} (B, V, C, *space)")


def _check_labels(labels: Tensor, shape: tuple[int, ...], device: torch.device, layout: str) -> None:
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a tensor or None; got {type(labels).__name__}")
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"labels must be of an integer dtype; got {labels.dtype} (class maps must not be interpolated)")
    if labels.dtype == torch.uint64:
        raise TypeError(
            "labels must be of an integer dtype that int64 can hold; got torch.uint64, so pass labels.long()"
        )
    if tuple(labels.shape) != shape:
        raise ValueError(f"labels must be of shape {shape}, {layout} of the features; got {tuple(labels.shape)}")
    if labels.device != device:
        raise ValueError(f"labels must be on the device of the features, {device}; got {labels.device}")


def _label_among(labels: Tensor, label: int | None) -> int | None:
    """Return the label, or None where the dtype of ``labels`` cannot hold it: compared with them it would wrap."""
    if label is None:
        return None
    limits = torch.iinfo(labels.dtype)
    return label if limits.min <= label <= limits.max else None


# ---- the one path from a map to a loss -------------------------------------------------------------------------------


def _places(features: Tensor) -> Tensor:
    """Return labels (B, V, *space) that tell every place of every image apart, the same in all views."""
    batch, views, _, *space = features.shape
    places = torch.arange(batch * math.prod(space), device=features.device)
    return places.reshape(batch, 1, *space).expand(batch, views, *space)


def _contrast(
    features: Tensor,
    labels: Tensor,
    block_size: tuple[int, ...] | None,
    per_image: bool,
    other_classes_only: bool,
    background: int | None,
    ignore_index: int | None,
    temperature: float,
    normalize: bool,
    reduction: str,
    backend: str,
) -> Tensor:
    """The loss of DESIGN section 2 on a map (B, V, C, *space) with labels (B, V, *space), every option resolved."""
    labels = labels if labels.dtype in SORTED_INTEGERS else labels.long()
    largest = largest_group(labels.shape, block_size, per_image)
    parts = Partition(
        *torch.ops.semicl.partition(
            labels,
            block_size,
            per_image,
            other_classes_only,
            _label_among(labels, background),
            _label_among(labels, ignore_index),
            reduction,
        )
    )
    scale = 1.0 / temperature
    needs_gradient = torch.is_grad_enabled() and features.requires_grad
    if BACKENDS[backend].fused is not None and reduction != "none" and needs_gradient:
        loss, _ = torch.ops.semicl.contrast(
            features,
            parts.row_of_point,
            *parts.groups(largest),
            parts.run_low,
            parts.run_high,
            parts.weights,
            scale,
            normalize,
            backend,
        )
        return loss
    rows = _gather(features, parts.point_of_row, normalize)
    bound = scale * LONGEST_SQUARE if normalize else None
    lse = torch.ops.semicl.grouped_logsumexp(rows, *parts.groups(largest), scale, bound, backend)
    anchor = parts.weights > 0
    each = torch.where(anchor, lse - _positive_means(rows, parts, scale), 0)
    if reduction != "none":
        return torch.dot(each.double(), parts.weights).to(each.dtype)
    values = torch.zeros_like(each).scatter(0, parts.point_of_row, each)
    return values.reshape(labels.shape)


def _gather(features: Tensor, points: Tensor, normalize: bool) -> Tensor:
    """Return the rows (M, C) of the ``points``, of unit length where ``normalize``, in the features' dtype."""
    rows = features.movedim(2, -1).reshape(-1, features.shape[2])[points]
    if not normalize:
        return rows
    wide = rows.to(accumulator(rows.dtype))
    length = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    wide = torch.where(length > SHORTEST, wide, wide.detach())
    return (wide / length.clamp_min(SHORTEST)).to(rows.dtype)


def _positive_means(rows: Tensor, parts: Partition, scale: float) -> Tensor:
    """Return (M,): the mean of scale x_i . x_p over the other rows p of i's class run.

    It needs no pairs: the sum over p of x_i . x_p is x_i . (sum of the run - x_i) (DESIGN section 3).
    """
    wide = rows.to(accumulator(rows.dtype))
    sums = torch.ops.semicl.run_sums(wide, parts.run_low, parts.run_high)
    count = (parts.run_high - parts.run_low - 1).clamp_min(1)
    return scale * (wide * (sums - wide)).sum(1) / count


# ---- public functions ------------------------------------------------------------------------------------------------


def local_contrastive_loss(
    features: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float = 0.1,
    stride: int | Sequence[int] = 1,
    block_size: int | Sequence[int] | None = None,
    scope: str = "batch",
    denominator: str = "all",
    background: int | None = 0,
    ignore_index: int | None = None,
    normalize: bool = True,
    reduction: str = "block",
    backend: str = "auto",
) -> Tensor:
    """Compute the supervised local contrastive loss of Hu et al. (MICCAI 2021), exactly, in linear memory.

    Every pixel is pulled towards the pixels of its class and pushed from all others in its block; DESIGN section 2 has
    the formulas. Time is proportional to (foreground points x points) of each block.

    Args:
        features: (B, V, C, height, width) or (B, V, C, depth, height, width): B images, V views, C channels; float32,
            float16, bfloat16 or, with backend "tiled" or "reference", float64; any strides.
        labels: (B, V, *space), any integer dtype. None is the self-supervised form: a point's positives are the same
            place in the other views, and every point is an anchor.
        temperature: what the similarities are divided by.
        stride: take every stride-th point of each axis; an integer, or one for each axis.
        block_size: the size of the blocks that the (strided) map is cut into; blocks at the edge may be smaller. An
            integer, one for each axis, or None for one block.
        scope: "batch": a block contrasts with the same block of all images and views; "image": of the same image.
        denominator: "all" points of the block but the anchor itself, or its "negatives" alone.
        background: the label whose points are never anchors; None if there is none. Without labels it is not used.
        ignore_index: the label whose points are left out altogether.
        normalize: scale every feature vector to unit length first: x / max(|x|, 1e-12). A shorter vector has no
            direction, and its gradient is zero.
        reduction: "block": the mean over each block's anchors, then over the blocks that have one; "anchor": the mean
            over all anchors; "sum"; "none": the map of the anchors' losses.
        backend: "auto" or a name of :func:`available_backends`.

    Returns:
        A scalar, or with reduction "none" a map (B, V, *strided space) that is 0 where there is no anchor; float64 for
        float64 features, else float32. Without any anchor the loss is 0 and its gradient zero. Differentiable once.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape, value or device, or the backend cannot be used.
    """
    _check_features(features)
    _check_temperature(temperature)
    _check_word("scope", scope, SCOPES)
    _check_word("denominator", denominator, DENOMINATORS)
    _check_word("reduction", reduction, REDUCTIONS)
    _check_label("background", background)
    _check_label("ignore_index", ignore_index)
    batch, views, _, *space = features.shape
    steps = _per_axis("stride", stride, len(space))
    blocks = None if block_size is None else _per_axis("block_size", block_size, len(space))
    if labels is not None:
        _check_labels(labels, (batch, views, *space), features.device, "(B, V, *space)")
    name = choose_backend(backend, features.device, features.dtype, features.shape[2])

    if any(step > 1 for step in steps):
        taken = tuple(slice(None, None, step) for step in steps)
        features = features[(slice(None), slice(None), slice(None), *taken)]
        labels = None if labels is None else labels[(slice(None), slice(None), *taken)]
    if labels is None:
        labels, background, ignore_index = _places(features), None, None
    return _contrast(
        features,
        labels,
        blocks,
        scope == "image",
        denominator == "negatives",
        background,
        ignore_index,
        float(temperature),
        bool(normalize),
        reduction,
        name,
    )


def _contrast_vectors(features: Tensor, labels: Tensor | None, temperature: float, backend: str) -> Tensor:
    """The mean contrast of vectors (N, V, C), one group; labels (N,) or None."""
    name = choose_backend(backend, features.device, features.dtype, features.shape[2])
    maps = features[..., None, None]
    ids = _places(maps) if labels is None else labels.reshape(-1, 1, 1, 1).expand(maps.shape[0], maps.shape[1], 1, 1)
    return _contrast(maps, ids, None, False, False, None, None, float(temperature), True, "anchor", name)


def nt_xent_loss(z1: Tensor, z2: Tensor, *, temperature: float = 0.5, backend: str = "auto") -> Tensor:
    """Compute NT-Xent of SimCLR (Chen et al., ICML 2020) on two views.

    Args:
        z1: (N, C), the embeddings of one view; normalised inside.
        z2: (N, C), of the other; row i of both shows the same sample.
        temperature: what the similarities are divided by.
        backend: "auto" or a name of :func:`available_backends`.

    Returns:
        A scalar, the mean over the 2 N anchors; float64 for float64 input, else float32.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape, value or device, or the backend cannot be used.
    """
    _check_floats("z1", z1)
    _check_floats("z2", z2)
    _check_temperature(temperature)
    if z1.dim() != 2 or z1.shape[1] < 1:
        raise ValueError(f"z1 must be of shape (N, C) with C >= 1; got {tuple(z1.shape)}")
    if z2.shape != z1.shape:
        raise ValueError(f"z2 must be of the shape of z1, {tuple(z1.shape)}; got {tuple(z2.shape)}")
    if z2.dtype != z1.dtype:
        raise TypeError(f"z2 must be of the dtype of z1, {z1.dtype}; got {z2.dtype}")
    if z2.device != z1.device:
        raise ValueError(f"z2 must be on the device of z1, {z1.device}; got {z2.device}")
    return _contrast_vectors(torch.stack([z1, z2], dim=1), None, temperature, backend)


def supervised_contrastive_loss(
    features: Tensor, labels: Tensor | None = None, *, temperature: float = 0.07, backend: str = "auto"
) -> Tensor:
    """Compute the supervised contrastive loss (Khosla et al., NeurIPS 2020, "out") of vectors.

    Args:
        features: (N, V, C): N samples in V views; normalised inside.
        labels: (N,), any integer dtype; None makes every sample its own class (SimCLR).
        temperature: what the similarities are divided by.
        backend: "auto" or a name of :func:`available_backends`.

    Returns:
        A scalar, the mean over the anchors that have a positive; float64 for float64 features, else float32. There is
        no background: every class is contrasted.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape, value or device, or the backend cannot be used.
    """
    _check_floats("features", features)
    _check_temperature(temperature)
    if features.dim() != 3 or features.shape[2] < 1:
        raise ValueError(f"features must be of shape (N, V, C) with C >= 1; got {tuple(features.shape)}")
    if labels is not None:
        _check_labels(labels, (features.shape[0],), features.device, "(N,)")
    return _contrast_vectors(features, labels, temperature, backend)


# ---- modules ---------------------------------------------------------------------------------------------------------


class _OptionsModule(nn.Module):
    """A module that holds the keyword options of a loss and shows them."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class LocalContrastiveLoss(_OptionsModule):
    """:func:`local_contrastive_loss` as a module with the same options."""

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        stride: int | Sequence[int] = 1,
        block_size: int | Sequence[int] | None = None,
        scope: str = "batch",
        denominator: str = "all",
        background: int | None = 0,
        ignore_index: int | None = None,
        normalize: bool = True,
        reduction: str = "block",
        backend: str = "auto",
    ) -> None:
        super().__init__(
            temperature=temperature,
            stride=stride,
            block_size=block_size,
            scope=scope,
            denominator=denominator,
            background=background,
            ignore_index=ignore_index,
            normalize=normalize,
            reduction=reduction,
            backend=backend,
        )

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss of ``features`` (B, V, C, *space) with ``labels`` (B, V, *space)."""
        return local_contrastive_loss(features, labels, **self.options)


class NTXentLoss(_OptionsModule):
    """:func:`nt_xent_loss` as a module with the same options."""

    def __init__(self, *, temperature: float = 0.5, backend: str = "auto") -> None:
        super().__init__(temperature=temperature, backend=backend)

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Return the loss of two views (N, C)."""
        return nt_xent_loss(z1, z2, **self.options)


class SupervisedContrastiveLoss(_OptionsModule):
    """:func:`supervised_contrastive_loss` as a module with the same options."""

    def __init__(self, *, temperature: float = 0.07, backend: str = "auto") -> None:
        super().__init__(temperature=temperature, backend=backend)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss of ``features`` (N, V, C) with ``labels`` (N,)."""
        return supervised_contrastive_loss(features, labels, **self.options)
