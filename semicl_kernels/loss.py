"""The public losses: functions, and the same as modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .backends import check_backend_name, choose_backend
from .checks import (
    check_bool,
    check_features,
    check_floats,
    check_labels,
    check_point_count,
    check_steps,
    check_views_without_labels,
    check_word,
    checked_temperature,
    integer_or_none,
    steps_of_axes,
)
from .fork_safety import serial_in_children
from .ops import contrast, contrast_map, reference_loss, unit
from .partition import Partition, largest_group
from .partition_kernels import can_count

SCOPES = ("batch", "image")
DENOMINATORS = ("all", "negatives")
REDUCTIONS = ("block", "anchor", "sum", "none")


# ---- the one path from a map to a loss -------------------------------------------------------------------------------


class _Options(NamedTuple):
    """What a loss is computed with, resolved: of the options all that say nothing about the map's axes."""

    temperature: float
    per_image: bool
    other_classes_only: bool
    background: int | None
    ignore_index: int | None
    normalize: bool
    reduction: str


def _resolve(
    temperature: float,
    scope: str,
    denominator: str,
    background: int | None,
    ignore_index: int | None,
    normalize: bool,
    reduction: str,
) -> _Options:
    temperature = checked_temperature(temperature)
    check_word("scope", scope, SCOPES)
    check_word("denominator", denominator, DENOMINATORS)
    check_word("reduction", reduction, REDUCTIONS)
    check_bool("normalize", normalize)
    return _Options(
        temperature,
        scope == "image",
        denominator == "negatives",
        integer_or_none("background", background),
        integer_or_none("ignore_index", ignore_index),
        normalize,
        reduction,
    )


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


def _contrast(
    features: Tensor,
    labels: Tensor | None,
    block_size: tuple[int, ...] | None,
    options: _Options,
    backend: str,
) -> Tensor:
    """The loss of docs/loss.md on a map (B, V, C, *space) with labels (B, V, *space), or None where every place is a
    class of its own."""
    temperature, per_image, other_classes_only, background, ignore_index, normalize, reduction = options
    scale = unit(features) / temperature
    every_place = labels is None
    background, ignore_index = (None if labels is None else _label_among(labels, x) for x in (background, ignore_index))
    if backend == "reference":
        choice = (per_image, other_classes_only, background, ignore_index)
        return reference_loss(features, labels, block_size, *choice, scale, normalize, reduction)
    if labels is None:
        labels = _places(features)
    largest = largest_group(labels.shape, block_size, per_image)
    parts = Partition(
        *torch.ops.semicl.partition(
            labels,
            block_size,
            per_image,
            other_classes_only,
            background,
            ignore_index,
            reduction,
            every_place,
            can_count(labels.device, backend),
        )
    )
    runs = (parts.run_low, parts.run_high)
    problem = (features, parts.row_of_point, *parts.groups(largest), *runs, scale, normalize)
    if reduction == "none":
        return contrast_map(*problem, backend).reshape(labels.shape)
    if torch.is_grad_enabled() and features.requires_grad:
        return contrast(*problem, parts.weights, backend)[0]
    return torch.ops.semicl.contrast_loss(*problem, parts.weights, backend)


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
    check_features(features)
    options = _resolve(temperature, scope, denominator, background, ignore_index, normalize, reduction)
    batch, views, _, *space = features.shape
    steps = steps_of_axes("stride", stride, len(space))
    blocks = None if block_size is None else steps_of_axes("block_size", block_size, len(space))
    if labels is None:
        check_views_without_labels(views)
    else:
        check_labels(labels, (batch, views, *space), features.device, "(B, V, *space)")
    name = choose_backend(backend, features.device, features.dtype, features.shape[2])

    if any(step > 1 for step in steps):
        taken = tuple(slice(None, None, step) for step in steps)
        features = features[(slice(None), slice(None), slice(None), *taken)]
        labels = None if labels is None else labels[(slice(None), slice(None), *taken)]
    check_point_count("features", features.numel() // features.shape[2])
    return _contrast(features, labels, blocks, options, name)


def _contrast_vectors(features: Tensor, labels: Tensor | None, temperature: float, backend: str) -> Tensor:
    """The mean contrast of vectors (N, V, C), one group; labels (N,) or None."""
    check_point_count("features", features.shape[0] * features.shape[1])
    name = choose_backend(backend, features.device, features.dtype, features.shape[2])
    maps = features[..., None, None]
    ids = None if labels is None else labels.reshape(-1, 1, 1, 1).expand(maps.shape[0], maps.shape[1], 1, 1)
    return _contrast(maps, ids, None, _Options(temperature, False, False, None, None, True, "anchor"), name)


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
    check_floats("z1", z1)
    check_floats("z2", z2)
    temperature = checked_temperature(temperature)
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
    check_floats("features", features)
    temperature = checked_temperature(temperature)
    if features.dim() != 3 or features.shape[2] < 1:
        raise ValueError(f"features must be of shape (N, V, C) with C >= 1; got {tuple(features.shape)}")
    if labels is None:
        check_views_without_labels(features.shape[1])
    else:
        check_labels(labels, (features.shape[0],), features.device, "(N,)")
    return _contrast_vectors(features, labels, temperature, backend)


# ---- modules ---------------------------------------------------------------------------------------------------------


class _OptionsModule(nn.Module):
    """A module that holds the keyword options of a loss, shows them and lets them be changed one by one.

    Every option is an attribute. A new value is checked at once, as all were when the module was made, and an attribute
    that is no option is refused by these classes, not by classes that are made from them.
    """

    _check: ClassVar[Callable[..., None]]  # raises TypeError or ValueError if an option is not what the loss takes

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._check(**options)
        self._options = options

    @property
    def options(self) -> Mapping[str, Any]:
        """The options by name, to be read; they are changed as attributes."""
        return MappingProxyType(self._options)

    def __getattr__(self, name: str) -> Any:
        options = self.__dict__.get("_options", {})
        return options[name] if name in options else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        options = self.__dict__.get("_options", {})
        if name in options:
            changed = {**options, name: value}
            self._check(**changed)
            self.__dict__["_options"] = changed
            return
        ours = type(self).__module__ == __name__
        if ours and options and not name.startswith("_") and not hasattr(self, name):
            nearest = get_close_matches(name, options, 1, 0)
            raise AttributeError(
                f"{type(self).__name__} has no option {name!r}; do you mean {nearest[0]!r}? It has {', '.join(options)}"
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__.get("_options", {}):
            raise AttributeError(f"option {name!r} of {type(self).__name__} cannot be deleted: give it another value")
        super().__delattr__(name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._options})

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self._options.items())


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

    @staticmethod
    def _check(**options: Any) -> None:
        check_steps("stride", options.pop("stride"))
        block_size = options.pop("block_size")
        if block_size is not None:
            check_steps("block_size", block_size)
        check_backend_name(options.pop("backend"))
        _resolve(**options)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss of ``features`` (B, V, C, *space) with ``labels`` (B, V, *space)."""
        return local_contrastive_loss(features, labels, **self._options)


class _VectorsModule(_OptionsModule):
    @staticmethod
    def _check(**options: Any) -> None:
        checked_temperature(options["temperature"])
        check_backend_name(options["backend"])


class NTXentLoss(_VectorsModule):
    """:func:`nt_xent_loss` as a module with the same options."""

    def __init__(self, *, temperature: float = 0.5, backend: str = "auto") -> None:
        super().__init__(temperature=temperature, backend=backend)

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Return the loss of two views (N, C)."""
        return nt_xent_loss(z1, z2, **self._options)


class SupervisedContrastiveLoss(_VectorsModule):
    """:func:`supervised_contrastive_loss` as a module with the same options."""

    def __init__(self, *, temperature: float = 0.07, backend: str = "auto") -> None:
        super().__init__(temperature=temperature, backend=backend)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss of ``features`` (N, V, C) with ``labels`` (N,)."""
        return supervised_contrastive_loss(features, labels, **self._options)
