"""The public losses: functions, and the same as modules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .autograd import contrast, contrast_map, reference_loss
from .backends import MAX_SQUARED_NORM, choose_backend
from .checks import (
    check_features,
    check_floats,
    check_labels,
    check_point_count,
    check_views_without_labels,
    steps_of_axes,
)
from .fork_safety import serial_in_children
from .ops import flat, unit
from .options import Options
from .partition import Partition, largest_group
from .partition_kernels import can_count

# ---- from a map to a loss --------------------------------------------------------------------------------------------


@serial_in_children
def _places(features: Tensor) -> Tensor:
    """Return labels (B, V, *space) that tell every place of every image apart, the same in all views."""
    batch, views, _, *space = features.shape
    places = torch.arange(batch * math.prod(space), device=features.device)
    return places.reshape(batch, 1, *space).expand(batch, views, *space)


def _label_among(labels: Tensor, label: int | None) -> int | None:
    """Return the label, or None where the dtype of ``labels`` cannot hold it: compared with them it would wrap."""
    if label is None:
        return None
    low, high = (0, 1) if labels.dtype == torch.bool else _limits(labels.dtype)
    return label if low <= label <= high else None


def _limits(dtype: torch.dtype) -> tuple[int, int]:
    limits = torch.iinfo(dtype)
    return limits.min, limits.max


def _contrast(features: Tensor, labels: Tensor | None, options: Options, backend: str) -> Tensor:
    """The loss of docs/loss.md on a map (B, V, C, *space), its stride taken.

    ``labels`` are (B, V, *space), or None where every place is a class of its own.
    """
    batch, views, _, *space = features.shape
    shape = torch.Size((batch, views, *space))
    blocks = None if options.block_size is None else steps_of_axes("block_size", options.block_size, len(space))
    scale = unit(features) / options.temperature
    background, ignored = (
        None if labels is None else _label_among(labels, label) for label in (options.background, options.ignore_index)
    )
    choices = (blocks, options.scope == "image", options.denominator == "negatives", background, ignored)
    if backend == "reference":
        loss = reference_loss(features, labels, *choices, scale, options.normalize, options.reduction)
    else:
        shown = _places(features) if labels is None else labels
        counted = can_count(features.device, backend)
        parts = Partition(*torch.ops.semicl.partition(shown, *choices, options.reduction, labels is None, counted))
        largest = largest_group(shape, blocks, options.scope == "image")
        problem = flat(features, parts, largest, scale, options.normalize)
        if options.reduction == "none":
            loss = contrast_map(*problem, backend)
        else:
            differentiable = torch.is_grad_enabled() and features.requires_grad
            loss, _ = contrast(*problem, parts.weights, differentiable, backend)
    return loss.reshape(shape) if options.reduction == "none" else loss


def _backend(features: Tensor, options: Options) -> str:
    """Return the backend that a map (B, V, C, *space), or vectors (N, V, C), get."""
    bound = MAX_SQUARED_NORM / options.temperature if options.normalize else None
    return choose_backend(options.backend, features.device, features.dtype, features.shape[2], bound)


def _local(features: Tensor, labels: Tensor | None, options: Options) -> Tensor:
    check_features(features)
    batch, views, _, *space = features.shape
    steps = steps_of_axes("stride", options.stride, len(space))
    if options.block_size is not None:
        steps_of_axes("block_size", options.block_size, len(space))
    if labels is None:
        check_views_without_labels(views)
    else:
        check_labels(labels, (batch, views, *space), features.device, "(B, V, *space)")
    backend = _backend(features, options)
    if any(step > 1 for step in steps):
        taken = tuple(slice(None, None, step) for step in steps)
        features = features[(slice(None), slice(None), slice(None), *taken)]
        labels = None if labels is None else labels[(slice(None), slice(None), *taken)]
    check_point_count("features", features.numel() // features.shape[2])
    return _contrast(features, labels, options, backend)


# Every vector is an anchor, and each has the same weight.
OF_VECTORS: dict[str, Any] = {"background": None, "reduction": "anchor"}


def _vectors(features: Tensor, labels: Tensor | None, options: Options) -> Tensor:
    """The mean contrast of vectors (N, V, C), one group; labels (N,) or None."""
    check_point_count("features", features.shape[0] * features.shape[1])
    backend = _backend(features, options)
    maps = features[..., None, None]
    ids = None if labels is None else labels.reshape(-1, 1, 1, 1).expand(maps.shape[0], maps.shape[1], 1, 1)
    return _contrast(maps, ids, options, backend)


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

    Every pixel is pulled towards the pixels of its class and pushed from all others in its block. Anchor i has the loss
    ``l_i = log sum over j in D(i) of exp(f_i . f_j / temperature) - mean over p in P(i) of f_i . f_p / temperature``,
    P(i) being the other points of its class and D(i) its denominator; docs/loss.md of the source has all of it. Time is
    proportional to (foreground points x points) of each block.

    Args:
        features: (B, V, C, height, width) or (B, V, C, depth, height, width): B images, V views, C channels; float32,
            float16, bfloat16 or, with backend "tiled" or "reference", float64; any strides.
        labels: (B, V, *space), any integer dtype. None is the self-supervised form: a point's positives are the same
            place in the other views, of which there must be one, and every point is an anchor.
        temperature: what the similarities are divided by.
        stride: take every stride-th point of each axis; an integer, or one for each axis.
        block_size: the size of the blocks that the (strided) map is cut into; blocks at the edge may be smaller. An
            integer, one for each axis, or None for one block.
        scope: "batch": a block contrasts with the same block of all images and views; "image": of the same image.
        denominator: "all" points of the block but the anchor itself, or its "negatives" alone.
        background: the label whose points are never anchors; None if there is none. Without labels it is not used.
        ignore_index: the label whose points are left out altogether.
        normalize: scale every feature vector to unit length first: x / max(|x|, 1e-12). A shorter vector has no
            direction, and its gradient is zero; one of 1e19 or more has a square that float32 does not hold.
        reduction: "block": the mean over each block's anchors, then over the blocks that have one; "anchor": the mean
            over all anchors; "sum"; "none": the map of the anchors' losses.
        backend: "auto" or a name of :func:`available_backends`.

    Returns:
        A scalar, or with reduction "none" a map (B, V, *strided space) that is 0 where there is no anchor; float64 for
        float64 features, else float32. Without any anchor the loss is 0 and its gradient zero. Differentiable once.
        Backend "reference" rounds the gradient by float16 vectors of unit length to float16 on the way, as plain
        PyTorch does: it may overflow where the others' does not.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape, value or device, or the backend cannot be used.
        RuntimeError: if the features are transformed by torch.func or have a forward-mode tangent.
    """
    options = Options(
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
    return _local(features, labels, options)


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
        RuntimeError: if the features are transformed by torch.func or have a forward-mode tangent.
    """
    return _nt_xent(z1, z2, Options(temperature=temperature, backend=backend, **OF_VECTORS))


@serial_in_children
def _as_views(z1: Tensor, z2: Tensor) -> Tensor:
    """Return (N, 2, C) of two views (N, C)."""
    return torch.stack([z1, z2], dim=1)


def _nt_xent(z1: Tensor, z2: Tensor, options: Options) -> Tensor:
    check_floats("z1", z1)
    check_floats("z2", z2)
    if z1.dim() != 2 or z1.shape[1] < 1:
        raise ValueError(f"z1 must be of shape (N, C) with C >= 1; got {tuple(z1.shape)}")
    if z2.shape != z1.shape:
        raise ValueError(f"z2 must be of the shape of z1, {tuple(z1.shape)}; got {tuple(z2.shape)}")
    if z2.dtype != z1.dtype:
        raise TypeError(f"z2 must be of the dtype of z1, {z1.dtype}; got {z2.dtype}")
    if z2.device != z1.device:
        raise ValueError(f"z2 must be on the device of z1, {z1.device}; got {z2.device}")
    return _vectors(_as_views(z1, z2), None, options)


def supervised_contrastive_loss(
    features: Tensor, labels: Tensor | None = None, *, temperature: float = 0.07, backend: str = "auto"
) -> Tensor:
    """Compute the supervised contrastive loss (Khosla et al., NeurIPS 2020, "out") of vectors.

    Args:
        features: (N, V, C): N samples in V views; normalised inside.
        labels: (N,), any integer dtype; None makes every sample its own class (SimCLR), of two views or more.
        temperature: what the similarities are divided by.
        backend: "auto" or a name of :func:`available_backends`.

    Returns:
        A scalar, the mean over the anchors that have a positive; float64 for float64 features, else float32. There is
        no background: every class is contrasted.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape, value or device, or the backend cannot be used.
        RuntimeError: if the features are transformed by torch.func or have a forward-mode tangent.
    """
    return _supervised(features, labels, Options(temperature=temperature, backend=backend, **OF_VECTORS))


def _supervised(features: Tensor, labels: Tensor | None, options: Options) -> Tensor:
    check_floats("features", features)
    if features.dim() != 3 or features.shape[2] < 1:
        raise ValueError(
            f"features must be of shape (N, V, C) with C >= 1; got {tuple(features.shape)}: pass features[:, None] of "
            "one view, torch.stack([view1, view2], 1) of two"
        )
    if labels is None:
        check_views_without_labels(features.shape[1])
    else:
        check_labels(labels, (features.shape[0],), features.device, "(N,)")
    return _vectors(features, labels, options)


# ---- modules ---------------------------------------------------------------------------------------------------------


class _OptionsModule(nn.Module):
    """A module with the options of a loss as attributes, which are read and set one by one.

    A new value is checked at once, as all were when the module was made. An attribute that is no option is refused by
    these classes, not by classes that are made from them.
    """

    names: ClassVar[tuple[str, ...]] = tuple(field.name for field in fields(Options))

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = Options(**options)

    @property
    def options(self) -> Mapping[str, Any]:
        """The options by name, to be read; they are set as attributes."""
        return MappingProxyType({name: getattr(self._options, name) for name in self.names})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._options, name) if name in self.names else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.names:
            self._options = replace(self._options, **{name: value})
            return
        ours = type(self).__module__ == __name__
        if ours and not name.startswith("_") and "_options" in self.__dict__ and not hasattr(self, name):
            nearest = get_close_matches(name, self.names, 1, 0)
            raise AttributeError(
                f"{type(self).__name__} has no option {name!r}; do you mean {nearest[0]!r}? "
                f"It has {', '.join(self.names)}"
            )
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.names})

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
        return _local(features, labels, self._options)


class NTXentLoss(_OptionsModule):
    """:func:`nt_xent_loss` as a module with the same options."""

    names = ("temperature", "backend")

    def __init__(self, *, temperature: float = 0.5, backend: str = "auto") -> None:
        super().__init__(temperature=temperature, backend=backend, **OF_VECTORS)

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Return the loss of two views (N, C)."""
        return _nt_xent(z1, z2, self._options)


class SupervisedContrastiveLoss(_OptionsModule):
    """:func:`supervised_contrastive_loss` as a module with the same options."""

    names = ("temperature", "backend")

    def __init__(self, *, temperature: float = 0.07, backend: str = "auto") -> None:
        super().__init__(temperature=temperature, backend=backend, **OF_VECTORS)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss of ``features`` (N, V, C) with ``labels`` (N,)."""
        return _supervised(features, labels, self._options)
