"""The public losses: functions, and the same as modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .autograd import call, contrast, keyed_contrast, requires_grad
from .backends import BACKENDS, MAX_SQUARED_NORM, accumulator, choose_backend
from .backends.base import NORM_EPS
from .checks import (
    check_features,
    check_floats,
    check_keys,
    check_labels,
    check_point_count,
    check_process_group,
    check_views_without_labels,
    check_weights,
    checked_temperature,
    has_values,
    steps_of_axes,
)
from .distributed import Call, DistributedContrast, agree, checksum, outside_graphs
from .fork_safety import serial_in_children
from .keyed import KeyedProblem
from .ops import flat, unit
from .options import Options
from .partition import Partition, largest_group, places
from .partition_kernels import can_count

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# ---- from a map to a loss --------------------------------------------------------------------------------------------


class Beside(NamedTuple):
    """What a call may give beside features and labels."""

    weights: Tensor | None = None
    keys: Tensor | None = None
    key_labels: Tensor | None = None
    key_weights: Tensor | None = None


NOTHING = Beside()


@serial_in_children
def _places(features: Tensor) -> Tensor:
    """Return labels (B, V, *space) that tell every place of every image apart, the same in all views."""
    batch, views, _, *space = features.shape
    return places(torch.Size((batch, views, *space)), features.device)


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
    options: Options,
    backend: str,
    beside: Beside = NOTHING,
    images: list[int] | None = None,
) -> Tensor:
    """The loss of docs/loss.md on a map (B, V, C, *space), its stride taken, or on vectors (N, V, C).

    ``labels`` are (B, V, *space), or None where every place is a class of its own; ``images`` are those of each
    process, where several share a batch.
    """
    batch, views, _, *space = features.shape
    shape = torch.Size((batch, views, *space))
    blocks = None if options.block_size is None else steps_of_axes("block_size", options.block_size, len(space))
    scale = _scale(features, options)
    background, ignored = (
        None if labels is None else _label_among(labels, label) for label in (options.background, options.ignore_index)
    )
    choices = (blocks, options.scope == "image", options.denominator != "all", background, ignored)
    pairwise = options.denominator == "pairwise"
    keyed = (
        images is not None
        or any(one is not None for one in beside)
        or (pairwise and not BACKENDS[backend].takes_pairwise)
        or requires_grad(scale)
        or (backend == "reference" and options.reduction == "class")
    )
    if keyed:
        # As int64, in which labels of points and of keys are compared.
        labels = None if labels is None else labels.long()
        choices = (*choices[:3], *((None, None) if labels is None else (options.background, options.ignore_index)))
        points = _points(features, options.normalize)
        keys = None if beside.keys is None else _rows(beside.keys, points.dtype, options.normalize)
        weights = None if beside.weights is None else as_floats(beside.weights.reshape(-1))
        key_labels = None if beside.key_labels is None else beside.key_labels.long()
        keyed_problem = KeyedProblem(
            points, keys, scale, _places(features) if labels is None else labels, weights, key_labels,
            beside.key_weights, *choices, pairwise, options.normalize, options.reduction, labels is None,
        )  # fmt: skip
        if images is not None and options.process_group is not None:
            group = options.process_group
            loss = DistributedContrast.apply(*keyed_problem, Call(shape, images, group.rank(), group, backend))
        else:
            loss = keyed_contrast(keyed_problem, backend)
    elif backend == "reference":
        loss = call("reference_loss", features, labels, *choices, scale, options.normalize, options.reduction)
    elif options.reduction == "none":
        classes = _places(features) if labels is None else labels
        counted = can_count(features.device, backend)
        parts = Partition(*torch.ops.semicl.partition(classes, *choices, options.reduction, labels is None, counted))
        largest = largest_group(shape, blocks, options.scope == "image")
        problem = flat(features, parts, largest, scale, options.normalize, pairwise)
        loss = call("contrast_map", *problem, backend)
    else:
        loss = contrast(features, labels, *choices, scale, options.normalize, options.reduction, pairwise, backend)
    return loss.reshape(shape) if options.reduction == "none" else loss


def _scale(features: Tensor, options: Options) -> Tensor:
    """Return 1 / temperature as the operators take it; of a temperature that is a tensor with its graph."""
    temperature = options.temperature
    if not isinstance(temperature, Tensor):
        if torch.compiler.is_compiling():
            return unit(features) / temperature
        return torch.full((), 1 / temperature, dtype=torch.float64, device="cpu")
    if temperature.is_meta:
        raise ValueError("temperature must have a value; got a tensor on the meta device: pass a number")
    if has_values(temperature):
        checked_temperature(temperature.item())
    return 1.0 / temperature.reshape(()).to("cpu", torch.float64)


def as_floats(weights: Tensor) -> Tensor:
    return weights if weights.is_floating_point() else weights.double()


@serial_in_children
def _rows(vectors: Tensor, dtype: torch.dtype, normalize: bool) -> Tensor:
    """Return vectors (M, C), of unit length where that is asked for; one too short for a direction has no gradient."""
    rows = vectors.to(dtype)
    if not normalize:
        return rows
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    scaled = rows / lengths.clamp_min(NORM_EPS)
    if not requires_grad(rows):
        return scaled
    return torch.where(lengths < NORM_EPS, scaled.detach(), scaled)


@serial_in_children
def _points(features: Tensor, normalize: bool) -> Tensor:
    """Return the vectors of a map (M, C), in the order of its labels."""
    return _rows(features.movedim(2, -1).reshape(-1, features.shape[2]), accumulator(features.dtype), normalize)


def _backend(features: Tensor, channels: int, options: Options) -> str:
    """Return the backend that features of so many channels get."""
    temperature = options.temperature
    bound = None if isinstance(temperature, Tensor) or not options.normalize else MAX_SQUARED_NORM / temperature
    return choose_backend(options.backend, features.device, features.dtype, channels, bound)


def _agreed(
    features: Tensor, labels: Tensor | None, options: Options, beside: Beside, check: Callable[[], str]
) -> tuple[str, list[int] | None]:
    """Check the arguments, and return the backend, which ``check`` returns, and the images (samples) of each process,
    where several share a batch."""
    if options.process_group is None or options.process_group.size() == 1:
        return check(), None
    facts: dict[str, Any] = {}
    backend, temperature = "", options.temperature

    def check_and_describe() -> None:
        nonlocal backend
        backend = check()
        images, *others = features.shape
        facts.update({"the call": "a loss"})
        facts.update({"own images": images, "the shape of an image of features (V, C, ...)": others})
        facts.update({"the dtype of features": str(features.dtype), "the kind of device": features.device.type})
        facts.update({"the dtype of labels": None if labels is None else str(labels.dtype)})
        facts.update({"whether backend is 'reference'": options.backend == "reference"})
        facts.update({f"whether there are {name}": one is not None for name, one in beside._asdict().items()})
        facts.update({"the dtype of weights": None if beside.weights is None else str(beside.weights.dtype)})
        facts.update({"the number of keys": None if beside.keys is None else len(beside.keys)})
        facts.update({"key_labels": None if beside.key_labels is None else checksum(beside.key_labels)})
        of_options = {field.name: getattr(options, field.name) for field in fields(Options)}
        if isinstance(temperature, Tensor):
            of_options["temperature"] = temperature.item()
        facts.update({name: repr(one) for name, one in of_options.items() if name not in ("process_group", "backend")})
        if options.reduction == "none":
            wanted = requires_grad(features, beside.keys, temperature if isinstance(temperature, Tensor) else None)
            facts.update({"whether features, keys or temperature require a gradient": wanted})

    said = agree(facts, check_and_describe, options.process_group, _device_of(features, options.process_group))
    return backend, [one["own images"] for one in said]


def _device_of(features: object, group: ProcessGroup) -> torch.device:
    """The device that the group's messages go by, where the features are on another one too."""
    if isinstance(features, Tensor) and features.device.type == "cuda":
        return features.device
    return torch.device("cuda" if torch.distributed.get_backend(group) == "nccl" else "cpu")


def _options(features: object, **options: Any) -> Options:
    """Return the options of a call; where this process refuses them, the others of its group are told."""
    group = options["process_group"]
    if group is None:
        return Options(**options)
    check_process_group(group)
    try:
        return Options(**options)
    except Exception as error:  # whatever it is, the others wait to be told
        if group.size() > 1:
            agree({}, partial(_refuse, error), group, _device_of(features, group))
        raise


def _refuse(error: Exception) -> None:
    raise error


def _local(features: Tensor, labels: Tensor | None, options: Options, beside: Beside = NOTHING) -> Tensor:
    if options.process_group is not None and torch.compiler.is_compiling():
        return outside_graphs(_local)(features, labels, options, beside)

    def check() -> str:
        check_features(features)
        batch, views, channels, *space = features.shape
        steps_of_axes("stride", options.stride, len(space))
        if options.block_size is not None:
            steps_of_axes("block_size", options.block_size, len(space))
        if labels is None:
            check_views_without_labels(views)
        else:
            check_labels(labels, (batch, views, *space), features.device, "(B, V, *space)", channels=channels)
        if beside.weights is not None:
            check_weights(beside.weights, (batch, views, *space), features.device, "(B, V, *space)")
        _check_keys(features, channels, labels, beside)
        return _backend(features, channels, options)

    backend, images = _agreed(features, labels, options, beside, check)
    steps = steps_of_axes("stride", options.stride, features.dim() - 3)
    if any(step > 1 for step in steps):
        taken = tuple(slice(None, None, step) for step in steps)
        features = features[(slice(None), slice(None), slice(None), *taken)]
        labels = None if labels is None else labels[(slice(None), slice(None), *taken)]
        weights = None if beside.weights is None else beside.weights[(slice(None), slice(None), *taken)]
        beside = beside._replace(weights=weights)
    check_point_count("features", features.numel() // features.shape[2])
    return _contrast(features, labels, options, backend, beside, images)


def _check_keys(features: Tensor, channels: int, labels: Tensor | None, beside: Beside) -> None:
    _, keys, key_labels, key_weights = beside
    if keys is not None:
        check_keys(features, channels, labels is not None, keys, key_labels, key_weights)
    elif key_labels is not None or key_weights is not None:
        raise ValueError("key_labels and key_weights are of keys; got no keys")


# Every vector is an anchor, and each has the same weight.
OF_VECTORS: dict[str, Any] = {"background": None, "reduction": "anchor"}


def _vectors(
    features: Tensor,
    labels: Tensor | None,
    options: Options,
    beside: Beside,
    backend: str,
    images: list[int] | None,
) -> Tensor:
    """The mean contrast of vectors (N, V, C), one group; labels and weights (N,) or None.

    Vectors are a map whose space has no axis, a single place.
    """
    check_point_count("features", features.shape[0] * features.shape[1])

    def of_points(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[:, None].expand(features.shape[:2])

    beside = beside._replace(weights=of_points(beside.weights))
    return _contrast(features, of_points(labels), options, backend, beside, images)


# ---- public functions ------------------------------------------------------------------------------------------------


def local_contrastive_loss(
    features: Tensor,
    labels: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    keys: Tensor | None = None,
    key_labels: Tensor | None = None,
    key_weights: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    stride: int | Sequence[int] = 1,
    block_size: int | Sequence[int] | None = None,
    scope: str = "batch",
    denominator: str = "all",
    background: int | None = 0,
    ignore_index: int | None = None,
    normalize: bool = True,
    reduction: str = "block",
    backend: str = "auto",
    process_group: ProcessGroup | None = None,
) -> Tensor:
    """Compute the supervised local contrastive loss of Hu et al. (MICCAI 2021), exactly, in linear memory.

    Every pixel is pulled toward the pixels of its class and pushed from all others in its block. Anchor i has the loss
    ``l_i = log sum over j in D(i) of exp(f_i . f_j / temperature) - mean over p in P(i) of f_i . f_p / temperature``,
    P(i) being the other points of its class and D(i) its denominator; docs/loss.md of the source has all of it. Time is
    proportional to (foreground points x points) of each block.

    Args:
        features: (B, V, C, height, width) or (B, V, C, depth, height, width): B images, V views, C channels; float32,
            float16, bfloat16 or, with backend "tiled" or "reference", float64; any strides.
        labels: (B, V, *space), any integer dtype. None is the self-supervised form: a point's positives are the same
            place in the other views, of which there must be one, and every point is an anchor.
        weights: (B, V, *space), 0 or more: what each anchor counts in its mean, with reduction "none" only whether it
            is one. A point of weight 0 is no anchor, but still a positive and a negative of others.
        keys: (K, C), more points that every anchor meets, in every block; never anchors. They have a gradient where
            they require one.
        key_labels: (K,), any integer dtype; needed with labels, and None without them: all keys are then negatives.
        key_weights: (K,), from 1e-30 to 1e30: how many points each key counts for.
        temperature: what the similarities are divided by; a tensor of one number may be learned.
        stride: take every stride-th point of each axis; an integer, or one for each axis.
        block_size: the size of the blocks that the (strided) map is cut into; blocks at the edge may be smaller. An
            integer, one for each axis, or None for one block.
        scope: "batch": a block contrasts with the same block of all images and views; "image": of the same image.
        denominator: "all" points of the block but the anchor itself, or its "negatives" alone; "pairwise" compares each
            positive with the negatives, and is the mean over the positives of log(1 + sum_n exp(s_in - s_ip)).
        background: the label whose points are never anchors; None if there is none. Without labels it is not used.
        ignore_index: the label whose points are left out altogether.
        normalize: scale every feature vector to unit length first: x / max(|x|, 1e-12). A shorter vector has no
            direction, and its gradient is zero; one of 1e19 or more has a square that float32 does not hold.
        reduction: "block": the mean over each block's anchors, then over the blocks that have one; "anchor": the mean
            over all anchors; "class": the mean over the anchors of each class, then over the classes that have one;
            "sum"; "none": the map of the anchors' losses.
        backend: "auto" or a name of :func:`available_backends`.
        process_group: whose processes share the batch: each gives its part, and all get the loss of the whole. Its
            gradient is scaled for DistributedDataParallel's mean (docs/distributed.md). None: this process alone.

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
    options = _options(
        features,
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
        process_group=process_group,
    )
    return _local(features, labels, options, Beside(weights, keys, key_labels, key_weights))


def nt_xent_loss(
    z1: Tensor,
    z2: Tensor,
    *,
    keys: Tensor | None = None,
    key_weights: Tensor | None = None,
    temperature: float | Tensor = 0.5,
    backend: str = "auto",
    process_group: ProcessGroup | None = None,
) -> Tensor:
    """Compute NT-Xent of SimCLR (Chen et al., ICML 2020) on two views.

    Args:
        z1: (N, C), the embeddings of one view; normalized inside.
        z2: (N, C), of the other; row i of both shows the same sample.
        keys: (K, C), more negatives of every anchor; normalized inside. They have a gradient where they require one.
        key_weights: (K,), from 1e-30 to 1e30: how many negatives each key counts for.
        temperature: what the similarities are divided by; a tensor of one number may be learned.
        backend: "auto" or a name of :func:`available_backends`.
        process_group: whose processes share the batch: each gives its part, and all get the loss of the whole. Its
            gradient is scaled for DistributedDataParallel's mean (docs/distributed.md). None: this process alone.

    Returns:
        A scalar, the mean over the 2 N anchors; float64 for float64 input, else float32.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape, value or device, or the backend cannot be used.
        RuntimeError: if the features are transformed by torch.func or have a forward-mode tangent.
    """
    options = _options(z1, temperature=temperature, backend=backend, process_group=process_group, **OF_VECTORS)
    return _nt_xent(z1, z2, options, Beside(keys=keys, key_weights=key_weights))


@serial_in_children
def _as_views(z1: Tensor, z2: Tensor) -> Tensor:
    """Return (N, 2, C) of two views (N, C)."""
    return torch.stack([z1, z2], dim=1)


def _nt_xent(z1: Tensor, z2: Tensor, options: Options, beside: Beside) -> Tensor:
    if options.process_group is not None and torch.compiler.is_compiling():
        return outside_graphs(_nt_xent)(z1, z2, options, beside)

    def check() -> str:
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
        _check_keys(z1, z1.shape[1], None, beside)
        return _backend(z1, z1.shape[1], options)

    agreed = _agreed(z1, None, options, beside, check)
    return _vectors(_as_views(z1, z2), None, options, beside, *agreed)


def supervised_contrastive_loss(
    features: Tensor,
    labels: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    keys: Tensor | None = None,
    key_labels: Tensor | None = None,
    key_weights: Tensor | None = None,
    temperature: float | Tensor = 0.07,
    backend: str = "auto",
    process_group: ProcessGroup | None = None,
) -> Tensor:
    """Compute the supervised contrastive loss (Khosla et al., NeurIPS 2020, "out") of vectors.

    Args:
        features: (N, V, C): N samples in V views; normalized inside.
        labels: (N,), any integer dtype; None makes every sample its own class (SimCLR), of two views or more.
        weights: (N,), 0 or more: what each sample's anchors count in the mean.
        keys: (K, C), more points that every anchor meets, a queue for example; normalized inside.
        key_labels: (K,); needed with labels, None without them: all keys are then negatives.
        key_weights: (K,), from 1e-30 to 1e30: how many points each key counts for.
        temperature: what the similarities are divided by; a tensor of one number may be learned.
        backend: "auto" or a name of :func:`available_backends`.
        process_group: whose processes share the batch: each gives its part, and all get the loss of the whole. Its
            gradient is scaled for DistributedDataParallel's mean (docs/distributed.md). None: this process alone.

    Returns:
        A scalar, the mean over the anchors that have a positive; float64 for float64 features, else float32. There is
        no background: every class is contrasted.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape, value or device, or the backend cannot be used.
        RuntimeError: if the features are transformed by torch.func or have a forward-mode tangent.
    """
    options = _options(features, temperature=temperature, backend=backend, process_group=process_group, **OF_VECTORS)
    return _supervised(features, labels, options, Beside(weights, keys, key_labels, key_weights))


def _supervised(features: Tensor, labels: Tensor | None, options: Options, beside: Beside) -> Tensor:
    if options.process_group is not None and torch.compiler.is_compiling():
        return outside_graphs(_supervised)(features, labels, options, beside)

    def check() -> str:
        check_floats("features", features)
        if features.dim() != 3 or features.shape[2] < 1:
            raise ValueError(
                f"features must be of shape (N, V, C) with C >= 1; got {tuple(features.shape)}: pass features[:, None] "
                "of one view, torch.stack([view1, view2], 1) of two"
            )
        if labels is None:
            check_views_without_labels(features.shape[1])
        else:
            check_labels(labels, (features.shape[0],), features.device, "(N,)")
        if beside.weights is not None:
            check_weights(beside.weights, (features.shape[0],), features.device, "(N,)")
        _check_keys(features, features.shape[2], labels, beside)
        return _backend(features, features.shape[2], options)

    return _vectors(features, labels, options, beside, *_agreed(features, labels, options, beside, check))


# ---- modules ---------------------------------------------------------------------------------------------------------


class _OptionsModule(nn.Module):
    """A module with the options of a loss as attributes, which are read and set one by one.

    A new value is checked at once, as all were when the module was made. An attribute that is no option is refused by
    these classes, not by classes that are made from them.
    """

    names: ClassVar[tuple[str, ...]] = tuple(field.name for field in fields(Options))
    _options: Options

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._set_options(Options(**options))

    @property
    def options(self) -> Mapping[str, Any]:
        """The options by name, to be read; they are set as attributes."""
        return MappingProxyType({name: getattr(self._options, name) for name in self.names})

    def __getattr__(self, name: str) -> Any:
        if name not in self.names:
            return super().__getattr__(name)
        try:
            return super().__getattr__(name)  # a parameter
        except AttributeError:
            return getattr(self._options, name)

    def _current(self) -> Options:
        """The options, with the temperature that is the module's parameter now, where it is one."""
        temperature = self.temperature
        options = self._options
        if temperature is options.temperature:
            return options
        values = {field.name: getattr(options, field.name) for field in fields(Options)}
        return _options(temperature, **{**values, "temperature": temperature})

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.names:
            self._set_options(replace(self._options, **{name: value}))
            return
        ours = type(self).__module__ == __name__
        if ours and not name.startswith("_") and "_options" in self.__dict__ and not hasattr(self, name):
            nearest = get_close_matches(name, self.names, 1, 0)
            raise AttributeError(
                f"{type(self).__name__} has no option {name!r}; do you mean {nearest[0]!r}? "
                f"It has {', '.join(self.names)}"
            )
        super().__setattr__(name, value)

    def _set_options(self, options: Options) -> None:
        """Set the options. A temperature that is a parameter is trained, moved and saved with the module."""
        if "_options" in self.__dict__:
            del self._options  # torch registers no parameter under the name of an attribute
        if "temperature" in dict(self.named_parameters(recurse=False)):
            del self.temperature
        if isinstance(options.temperature, nn.Parameter):
            self.register_parameter("temperature", options.temperature)
        self._options = options

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.names})

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class LocalContrastiveLoss(_OptionsModule):
    """:func:`local_contrastive_loss` as a module with the same options."""

    def __init__(
        self,
        *,
        temperature: float | Tensor = 0.1,
        stride: int | Sequence[int] = 1,
        block_size: int | Sequence[int] | None = None,
        scope: str = "batch",
        denominator: str = "all",
        background: int | None = 0,
        ignore_index: int | None = None,
        normalize: bool = True,
        reduction: str = "block",
        backend: str = "auto",
        process_group: ProcessGroup | None = None,
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
            process_group=process_group,
        )

    def forward(
        self,
        features: Tensor,
        labels: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        keys: Tensor | None = None,
        key_labels: Tensor | None = None,
        key_weights: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of ``features`` (B, V, C, *space) with ``labels`` (B, V, *space), and what else
        :func:`local_contrastive_loss` takes."""
        return _local(features, labels, self._current(), Beside(weights, keys, key_labels, key_weights))


class NTXentLoss(_OptionsModule):
    """:func:`nt_xent_loss` as a module with the same options."""

    names = ("temperature", "backend", "process_group")

    def __init__(
        self,
        *,
        temperature: float | Tensor = 0.5,
        backend: str = "auto",
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__(temperature=temperature, backend=backend, process_group=process_group, **OF_VECTORS)

    def forward(
        self, z1: Tensor, z2: Tensor, *, keys: Tensor | None = None, key_weights: Tensor | None = None
    ) -> Tensor:
        """Return the loss of two views (N, C), with more negatives ``keys`` (K, C)."""
        return _nt_xent(z1, z2, self._current(), Beside(keys=keys, key_weights=key_weights))


class SupervisedContrastiveLoss(_OptionsModule):
    """:func:`supervised_contrastive_loss` as a module with the same options."""

    names = ("temperature", "backend", "process_group")

    def __init__(
        self,
        *,
        temperature: float | Tensor = 0.07,
        backend: str = "auto",
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__(temperature=temperature, backend=backend, process_group=process_group, **OF_VECTORS)

    def forward(
        self,
        features: Tensor,
        labels: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        keys: Tensor | None = None,
        key_labels: Tensor | None = None,
        key_weights: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of ``features`` (N, V, C) with ``labels`` (N,), and what else
        :func:`supervised_contrastive_loss` takes."""
        return _supervised(features, labels, self._current(), Beside(weights, keys, key_labels, key_weights))
