"""The registered boundary: every operator with its shapes, its fake and its way to a backend.

``partition`` puts the points in order, and ``grouped_logsumexp`` is the primitive of docs/loss.md. ``contrast`` is the
whole reduced loss from features and labels, with its gradient in the same pass where one is wanted; ``contrast_map`` is
the map of losses of reduction "none", and trusts its groups, which come from ``partition`` alone. ``reference_loss`` is
all of it by the naive backend, which takes nothing from the others. autograd.py holds the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import keyed, partition_kernels
from .autograd import FUNCTIONS, call, has_channels_last, refuse_second_order
from .backends import AVAILABLE, BACKENDS, Fused, Groups, Keys, Problem, accumulator, choose_backend, cpu, reference
from .checks import (
    check_bool,
    check_group_tensors,
    check_groups,
    check_key_groups,
    check_key_tensors,
    check_point_count,
    check_rows,
    checked_scale,
    finite_number,
    integer_or_none,
)
from .fork_safety import serial_in_children
from .keyed import KeyedProblem
from .partition import (
    Partition,
    block_edges,
    captured,
    group_count,
    largest_group,
    places,
    reduction_weights,
    stream_of,
)
from .partition import partition as sorted_partition

MAX_REMEMBERED = 1 << 16  # points without labels whose partition is remembered: 11 MiB of four at most
GROUPS = "Tensor offsets, Tensor anchors, Tensor skip_begin, Tensor skip_end, SymInt largest, bool mutual"
KEYS = "Tensor rows, Tensor keys, Tensor key_begin, Tensor key_end, Tensor? key_weights"
PROBLEM = (
    f"Tensor features, Tensor row_of_point, {GROUPS}, Tensor class_begin, Tensor class_end, Tensor scale, "
    "bool normalize, bool pairwise"
)
TASK = (
    "Tensor features, Tensor? labels, int[]? block_size, bool per_image, bool other_classes_only, int? background, "
    "int? ignore_index, Tensor scale, bool normalize, str reduction"
)
KEYED = (
    "Tensor points, Tensor? keys, Tensor scale, Tensor labels, Tensor? weights, Tensor? key_labels, "
    "Tensor? key_weights, int[]? block_size, bool per_image, bool other_classes_only, int? background, "
    "int? ignore_index, bool pairwise, bool unit, str reduction, bool self_supervised"
)
# Scales and bounds are float64 tensors of no axis on the CPU: a compiled graph then serves any number.
SCHEMAS = {
    "partition": "(Tensor labels, int[]? block_size, bool per_image, bool other_classes_only, int? background, "
    "int? ignore_index, str reduction, bool self_supervised, bool counted) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    "grouped_logsumexp": f"(Tensor rows, {GROUPS}, Tensor scale, Tensor? bound, str backend) -> Tensor",
    "grouped_logsumexp_backward": f"(Tensor grad, Tensor rows, Tensor lse, {GROUPS}, Tensor scale, Tensor? bound, "
    "str backend) -> Tensor",
    "keyed_logsumexp": f"({KEYS}, {GROUPS}, Tensor scale, Tensor? bound, str backend) -> Tensor",
    "keyed_logsumexp_backward": f"(Tensor grad, Tensor lse, bool with_rows, bool with_keys, {KEYS}, {GROUPS}, "
    "Tensor scale, Tensor? bound, str backend) -> (Tensor, Tensor)",
    "contrast": f"({TASK}, bool pairwise, bool with_gradient, str backend) -> (Tensor, Tensor, Tensor)",
    "contrast_backward": "(Tensor grad, Tensor loss, Tensor row_gradient, Tensor row_of_point, SymInt[] size, "
    "bool channels_last, ScalarType dtype, str backend) -> Tensor",
    "contrast_map": f"({PROBLEM}, str backend) -> Tensor",
    "contrast_map_backward": f"(Tensor grad, {PROBLEM}, str backend) -> Tensor",
    "keyed_contrast": f"({KEYED}, bool with_gradient, bool with_key_gradient, str backend) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    "keyed_contrast_backward": "(Tensor grad, Tensor loss, Tensor by_points, Tensor by_keys, Tensor by_scale) "
    "-> (Tensor, Tensor, Tensor)",
    "keyed_contrast_map_backward": f"(Tensor grad, {KEYED}, bool with_key_gradient, str backend) "
    "-> (Tensor, Tensor, Tensor)",
    "reference_loss": f"({TASK}) -> Tensor",
    "reference_loss_backward": f"(Tensor grad, {TASK}) -> Tensor",
}


# ---- partition -------------------------------------------------------------------------------------------------------


def _partition(
    labels: Tensor,
    block_size: Sequence[int] | None,
    per_image: bool,
    other_classes_only: bool,
    background: int | None,
    ignore_index: int | None,
    reduction: str,
    self_supervised: bool,
    counted: bool,
) -> tuple[Tensor, ...]:
    """By sorting, or, where ``counted`` and worth it, by ``partition_kernels``, which need not read labels that tell
    ``self_supervised`` apart."""
    check_point_count("features", labels.numel())
    if reduction not in cpu.REDUCTION_CODES:  # nor do the kernels of a GPU know its weights
        choices = (block_size, per_image, other_classes_only, background, ignore_index)
        parts = Partition(*_partition(labels, *choices, "sum", self_supervised, counted))
        names = labels.reshape(-1)[parts.point_of_row]
        return tuple(parts._replace(weights=reduction_weights(parts.weights, names, parts.offsets, reduction)))
    blocks = None if block_size is None else tuple(block_size)
    options = (labels, blocks, per_image, other_classes_only, background, ignore_index, reduction)
    if (
        counted
        and labels.numel() > 0
        and partition_kernels.is_worth_it(labels.shape, blocks, per_image, self_supervised)
    ):
        return tuple(partition_kernels.partition(*options, self_supervised))
    if labels.device.type == "cpu" and cpu.state() == AVAILABLE:
        edges, groups = block_edges(labels.shape, blocks), group_count(labels.shape, blocks, per_image)
        return cpu.partition(labels, edges, groups, *options[2:], self_supervised)
    return tuple(sorted_partition(*options))


def _partition_fake(labels: Tensor, block_size: list[int] | None, per_image: bool, *options: Any) -> tuple[Tensor, ...]:
    points = labels.numel()
    blocks = None if block_size is None else tuple(block_size)
    count = group_count(labels.shape, blocks, per_image)
    sizes = (points, count + 1, count, points, points, points, points)
    integers = [labels.new_empty(size, dtype=torch.int32) for size in sizes]
    return (
        labels.new_empty(points, dtype=torch.int64),
        *integers,
        labels.new_empty(points, dtype=torch.float64),
    )


# ---- the primitive ---------------------------------------------------------------------------------------------------


def _number(value: Tensor | None) -> float | None:
    return None if value is None else float(value)


def _logsumexp(rows: Tensor, *arguments: Any) -> Tensor:
    *flat, scale, bound, backend = arguments
    groups = Groups(*flat)
    check_groups(groups, len(rows))
    lse = BACKENDS[backend].forward(rows, None, groups, float(scale), _number(bound))
    return lse.to(accumulator(rows.dtype))


def _logsumexp_fake(rows: Tensor, *rest: Any) -> Tensor:
    return rows.new_empty(rows.shape[0], dtype=accumulator(rows.dtype))


def _logsumexp_backward(grad: Tensor, rows: Tensor, lse: Tensor, *arguments: Any) -> Tensor:
    *flat, scale, bound, backend = arguments
    groups = Groups(*flat)
    check_groups(groups, len(rows))
    arguments = (grad, rows, None, lse, groups, None, float(scale), _number(bound), False, True, False)
    return BACKENDS[backend].backward(*arguments)[0].to(rows.dtype).contiguous()


def _logsumexp_backward_fake(grad: Tensor, rows: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(rows, memory_format=torch.contiguous_format)


def _keyed_problem(arguments: tuple[Any, ...]) -> tuple[Tensor, Keys, Groups, float, float | None, str]:
    rows, values, begin, end, weights, *flat, scale, bound, backend = arguments
    groups = Groups(*flat)
    check_key_groups(groups, len(rows), begin, end, len(values))
    nothing = torch.full((len(rows),), -1, dtype=torch.int32, device=rows.device)
    keys = Keys(
        values.to(rows.dtype), begin, end, nothing, None if weights is None else weights.to(accumulator(rows.dtype))
    )
    return rows, keys, groups, float(scale), _number(bound), backend


def _keyed_logsumexp(*arguments: Any) -> Tensor:
    rows, keys, groups, scale, bound, backend = _keyed_problem(arguments)
    return BACKENDS[backend].forward(rows, keys, groups, scale, bound).to(accumulator(rows.dtype))


def _keyed_logsumexp_backward(
    grad: Tensor, lse: Tensor, with_rows: bool, with_keys: bool, *arguments: Any
) -> tuple[Tensor, Tensor]:
    rows, keys, groups, scale, bound, backend = _keyed_problem(arguments)
    wanted = (False, with_rows, with_keys)
    gradients = BACKENDS[backend].backward(grad, rows, keys, lse, groups, None, scale, bound, *wanted)
    by_rows, by_keys = (
        one.to(like.dtype).contiguous() if is_wanted else like.new_empty((0, like.shape[1]))
        for one, like, is_wanted in zip(gradients, (rows, arguments[1]), wanted[1:], strict=True)
    )
    return by_rows, by_keys


def _keyed_logsumexp_backward_fake(
    grad: Tensor, lse: Tensor, with_rows: bool, with_keys: bool, rows: Tensor, keys: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    return rows.new_empty((rows.shape[0] if with_rows else 0, rows.shape[1])), keys.new_empty(
        (keys.shape[0] if with_keys else 0, keys.shape[1])
    )


# ---- the whole contrast ----------------------------------------------------------------------------------------------


def fused(backend: str) -> Fused:
    implementation = BACKENDS[backend].fused
    assert implementation is not None, "the loss asks only backends that have it"
    return implementation


def flat(
    features: Tensor, parts: Partition, largest: int, scale: Tensor, normalize: bool, pairwise: bool = False
) -> tuple[Any, ...]:
    """Return a problem as the operators take it, in the order of PROBLEM; no group has more than ``largest`` rows."""
    groups, classes = parts.groups(largest), (parts.class_begin, parts.class_end)
    return features, parts.row_of_point, *groups, *classes, scale, normalize, pairwise


def unflat(features: Tensor, row_of_point: Tensor, *rest: Any) -> Problem:
    """Return the problem that :func:`flat` took apart."""
    *groups, class_begin, class_end, scale, normalize, pairwise = rest
    return Problem(features, row_of_point, Groups(*groups), class_begin, class_end, float(scale), normalize, pairwise)


def _contrast(
    features: Tensor, labels: Tensor | None, block_size: list[int] | None, per_image: bool, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, its gradient by the rows where it is wanted, and the row of each point."""
    *choices, scale, normalize, reduction, pairwise, with_gradient, backend = arguments
    blocks = None if block_size is None else tuple(block_size)
    shape, device = torch.Size((*features.shape[:2], *features.shape[3:])), features.device
    how = (blocks, per_image, *choices, reduction, labels is None, partition_kernels.can_count(device, backend))
    remembered = labels is None and shape.numel() <= MAX_REMEMBERED and not captured(device)  # see group_of_point
    if labels is not None:
        parts = Partition(*_partition(labels, *how))
    elif remembered:
        parts = partition_of_places(shape, how, device, stream_of(device))
    else:
        parts = partition_of_places.__wrapped__(shape, how, device, 0)
    row_of_point = parts.row_of_point.clone() if remembered else parts.row_of_point  # what is kept is not given away
    groups, classes = parts.groups(largest_group(shape, blocks, per_image)), (parts.class_begin, parts.class_end)
    problem = Problem(features, parts.row_of_point, groups, *classes, float(scale), normalize, pairwise)
    if with_gradient:
        return *fused(backend).contrast(problem, parts.weights), row_of_point
    loss = fused(backend).loss(problem, parts.weights)
    return loss, loss.new_empty((0, 0)), row_of_point


@lru_cache(maxsize=4)
def partition_of_places(shape: torch.Size, how: tuple[Any, ...], device: torch.device, stream: int) -> Partition:
    """Return the partition of points without labels, which depends on their shape alone."""
    return Partition(*_partition(places(shape, device), *how))


def _contrast_fake(features: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    *_, with_gradient, backend = rest
    loss = features.new_empty((), dtype=accumulator(features.dtype))
    points, channels = features.numel() // features.shape[2], fused(backend).row_channels(features.shape[2])
    rows = features.new_empty(points, dtype=torch.int32)
    return loss, loss.new_empty((points, channels) if with_gradient else (0, 0)), rows


def _empty_map(like: Tensor, size: list[int], channels_last: bool, dtype: torch.dtype) -> Tensor:
    """Return memory for a map (B, V, C, *space) of this size, contiguous or with its channels innermost."""
    if not channels_last:
        return like.new_empty(size, dtype=dtype)
    batch, views, channels, *space = size
    return like.new_empty((batch, views, *space, channels), dtype=dtype).movedim(-1, 2)


def _contrast_backward(
    grad: Tensor,
    loss: Tensor,
    row_gradient: Tensor,
    row_of_point: Tensor,
    size: list[int],
    channels_last: bool,
    dtype: torch.dtype,
    backend: str,
) -> Tensor:
    """The loss is the one argument that the graph of the features reaches: without it a derivative of the gradient
    would be taken for zero, and not be refused."""
    out = _empty_map(row_gradient, size, channels_last, dtype)
    fused(backend).scatter(row_gradient, grad, row_of_point, out)
    return out


def _contrast_backward_fake(
    grad: Tensor,
    loss: Tensor,
    row_gradient: Tensor,
    row_of_point: Tensor,
    size: list[int],
    channels_last: bool,
    dtype: torch.dtype,
    backend: str,
) -> Tensor:
    return _empty_map(row_gradient, size, channels_last, dtype)


# ---- the map of losses -----------------------------------------------------------------------------------------------


def _contrast_map(*arguments: Any) -> Tensor:
    """Return (M,): the losses of the points in the order of the map, 0 where there is no anchor."""
    *problem, backend = arguments
    whole = unflat(*problem)
    losses = fused(backend).anchor_losses(whole)
    return torch.where(whole.row_of_point >= 0, losses[whole.row_of_point.clamp_min(0)], 0.0)


def _contrast_map_fake(features: Tensor, row_of_point: Tensor, *rest: Any) -> Tensor:
    return features.new_empty(row_of_point.shape[0], dtype=accumulator(features.dtype))


def _contrast_map_backward(grad: Tensor, *arguments: Any) -> Tensor:
    """The gradient by the features, of which nothing was kept: a contrast with the gradient from above as weights."""
    *problem, backend = arguments
    whole = unflat(*problem)
    live = whole.row_of_point >= 0
    weights = torch.zeros_like(grad)
    weights[whole.row_of_point[live]] = grad[live]
    out = _gradient_map(whole.features)
    fused(backend).map_gradient(whole, weights, out)
    return out


def _contrast_map_backward_fake(grad: Tensor, features: Tensor, *rest: Any) -> Tensor:
    return _gradient_map(features)


def _gradient_map(features: Tensor) -> Tensor:
    return _empty_map(features, list(features.shape), has_channels_last(features), features.dtype)


# ---- the contrast with keys and weights ------------------------------------------------------------------------------


def _keyed(
    problem: KeyedProblem, above: Tensor | None, with_gradient: bool, with_keys: bool, backend: str
) -> keyed.Result:
    with torch.autocast(problem.points.device.type, enabled=False):
        if backend == "reference":
            return keyed.Result(*reference.keyed_contrast(problem, above, with_keys))
        return keyed.contrast(problem, above, with_gradient, with_keys, backend)


def _keyed_contrast(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the reduced loss and its gradients by points, keys and scale, or the map (M,) of losses and none."""
    problem, (with_gradient, with_keys, backend) = KeyedProblem.unflat(arguments)
    is_map = problem.reduction == "none"
    result = _keyed(problem, None, with_gradient and not is_map, with_keys, backend)
    loss = result.losses if is_map else torch.dot(result.weights, result.losses)
    return loss.to(problem.points.dtype), result.by_points, result.by_keys, result.by_scale.cpu()


def _keyed_contrast_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    problem, (with_gradient, with_keys, _) = KeyedProblem.unflat(arguments)
    points, is_map = problem.points, problem.reduction == "none"
    gradient = with_gradient and not is_map
    by_points = points.new_empty((points.shape[0] if gradient else 0, points.shape[1]))
    loss = points.new_empty((points.shape[0],) if is_map else ())
    return loss, by_points, _key_gradient(problem, gradient and with_keys), _scalar(points)


def _key_gradient(problem: KeyedProblem, wanted: bool) -> Tensor:
    points, keys = problem.points, problem.keys
    return points.new_empty((keys.shape[0] if keys is not None and wanted else 0, points.shape[1]))


def _scalar(like: Tensor) -> Tensor:
    return like.new_empty((), dtype=torch.float64, device="cpu")


def _keyed_contrast_backward(
    grad: Tensor, loss: Tensor, by_points: Tensor, by_keys: Tensor, by_scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss is an argument as it is one of ``contrast_backward``."""
    return grad * by_points, grad * by_keys, grad.double().cpu() * by_scale


def _keyed_contrast_backward_fake(
    grad: Tensor, loss: Tensor, by_points: Tensor, by_keys: Tensor, by_scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(by_points), torch.empty_like(by_keys), torch.empty_like(by_scale)


def _keyed_contrast_map_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    problem, (with_keys, backend) = KeyedProblem.unflat(arguments)
    result = _keyed(problem, grad, True, with_keys, backend)
    return result.by_points, result.by_keys, result.by_scale.cpu()


def _keyed_contrast_map_backward_fake(grad: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    problem, (with_keys, _) = KeyedProblem.unflat(arguments)
    return torch.empty_like(problem.points), _key_gradient(problem, with_keys), _scalar(problem.points)


# ---- the reference ---------------------------------------------------------------------------------------------------


def _task(block_size: list[int] | None, *rest: Any) -> reference.Task:
    per_image, other_classes_only, background, ignore_index, scale, normalize, reduction = rest
    blocks = None if block_size is None else tuple(block_size)
    choices = (per_image, other_classes_only, background, ignore_index)
    return reference.Task(blocks, *choices, float(scale), normalize, reduction)


def _reference_loss(features: Tensor, labels: Tensor | None, *task: Any) -> Tensor:
    return reference.loss(features, labels, _task(*task))


def _reference_loss_fake(features: Tensor, labels: Tensor | None, *task: Any) -> Tensor:
    batch, views, _, *space = features.shape
    shape = (batch, views, *space) if task[-1] == "none" else ()
    return features.new_empty(shape, dtype=accumulator(features.dtype))


def _reference_loss_backward(grad: Tensor, features: Tensor, labels: Tensor | None, *task: Any) -> Tensor:
    out = _gradient_map(features)
    return out.copy_(reference.gradient(grad, features, labels, _task(*task)))


def _reference_loss_backward_fake(grad: Tensor, features: Tensor, *rest: Any) -> Tensor:
    return _gradient_map(features)


# ---- registration ----------------------------------------------------------------------------------------------------


IMPLEMENTATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "partition": (_partition, _partition_fake),
    "grouped_logsumexp": (_logsumexp, _logsumexp_fake),
    "grouped_logsumexp_backward": (_logsumexp_backward, _logsumexp_backward_fake),
    "keyed_logsumexp": (_keyed_logsumexp, _logsumexp_fake),
    "keyed_logsumexp_backward": (_keyed_logsumexp_backward, _keyed_logsumexp_backward_fake),
    "contrast": (_contrast, _contrast_fake),
    "contrast_backward": (_contrast_backward, _contrast_backward_fake),
    "contrast_map": (_contrast_map, _contrast_map_fake),
    "contrast_map_backward": (_contrast_map_backward, _contrast_map_backward_fake),
    "keyed_contrast": (_keyed_contrast, _keyed_contrast_fake),
    "keyed_contrast_backward": (_keyed_contrast_backward, _keyed_contrast_backward_fake),
    "keyed_contrast_map_backward": (_keyed_contrast_map_backward, _keyed_contrast_map_backward_fake),
    "reference_loss": (_reference_loss, _reference_loss_fake),
    "reference_loss_backward": (_reference_loss_backward, _reference_loss_backward_fake),
}


def _products(name: str, arguments: tuple[Any, ...]) -> int:
    """Products of pairs: similarities once, and in a gradient their weights times rows for both points of a pair."""
    if name in ("contrast", "keyed_contrast"):
        with_gradient = arguments[-2 if name == "contrast" else -3]
        return 3 if with_gradient else 1
    if name in ("partition", "contrast_backward", "keyed_contrast_backward"):
        return 0
    return 3 if name.endswith("_backward") else 1


def _flops(name: str) -> Callable[..., int | torch.SymInt]:
    """Return an operator's formula for torch's FlopCounterMode: its products of all pairs of points.

    As torch counts attention with a mask, this is what plain PyTorch would compute, from shapes alone: every point of
    the map meets as many points as the largest group may have. Labels, which tell anchors from others, are not read.
    """

    def formula(*arguments: Any, out_shape: Any = None) -> int | torch.SymInt:
        count = _products(name, arguments)
        if count == 0:
            return 0
        if name.startswith("keyed_logsumexp"):
            rows, keys = arguments[4 if name.endswith("_backward") else 0 :][:2]
            return 2 * count * rows.numel() * keys[0]
        if name.startswith("keyed_contrast"):
            problem, _ = KeyedProblem.unflat(arguments[1 if name.endswith("_backward") else 0 :])
            shapes: Any = problem  # in the place of tensors
            largest = largest_group(shapes.labels, shapes.block_size, shapes.per_image)
            return 2 * count * shapes.points.numel() * (largest + (0 if shapes.keys is None else shapes.keys[0]))
        if name == "contrast" or name.startswith("reference_loss"):
            features, _, blocks, per_image = arguments[1 if name.endswith("_backward") else 0 :][:4]
            largest = largest_group(torch.Size((*features[:2], *features[3:])), blocks, per_image)
            return 2 * count * largest * features.numel()
        most = next(one for one in arguments if isinstance(one, (int, torch.SymInt)))
        maps = [one for one in arguments if isinstance(one, torch.Size) and len(one) > 1]
        return 2 * count * most * maps[0].numel()

    return formula


def _register(library: torch.library.Library) -> None:
    for name, schema in SCHEMAS.items():
        function, fake = IMPLEMENTATIONS[name]
        library.define(name + schema)
        library.impl(name, serial_in_children(function), "CompositeExplicitAutograd")
        torch.library.register_fake(f"semicl::{name}", fake, lib=library)
        if name in FUNCTIONS:
            of = FUNCTIONS[name]
            torch.library.register_autograd(f"semicl::{name}", of.backward, setup_context=of.save, lib=library)
        elif name.endswith("_backward"):
            torch.library.register_autograd(f"semicl::{name}", refuse_second_order, lib=library)
        register_flop_formula(getattr(torch.ops.semicl, name))(_flops(name))


if hasattr(torch.ops.semicl, "library"):
    raise RuntimeError(
        "semicl_kernels.ops cannot be loaded a second time into one process (importlib.reload, %autoreload): torch "
        "keeps its operators for as long as the process lives. Restart Python"
    )
# Kept where it lives as long as the process: captured graphs call the operators.
torch.ops.semicl.library = torch.library.Library("semicl", "DEF")  # type: ignore[attr-defined]
_register(torch.ops.semicl.library)


def grouped_logsumexp(
    rows: Tensor,
    offsets: Tensor,
    anchors: Tensor,
    skip_begin: Tensor,
    skip_end: Tensor,
    *,
    keys: Tensor | None = None,
    key_begin: Tensor | None = None,
    key_end: Tensor | None = None,
    key_weights: Tensor | None = None,
    scale: float = 1.0,
    bound: float | None = None,
    largest: int | None = None,
    mutual: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Compute ``lse_i = log sum over j in D(i) of exp(scale x_i . x_j)`` for every anchor i (docs/loss.md).

    Group g is the rows ``[offsets[g], offsets[g + 1])``, its anchors are the first ``anchors[g]`` of them, and D(i) is
    the group without the rows ``[skip_begin[i], skip_end[i])``. Rows past ``offsets[-1]`` belong to no group.

    With ``keys`` the rows of group g meet the keys ``[key_begin[g], key_end[g])`` instead, and skipped ranges are of
    keys: ``lse_i = log sum over j in D(i) of key_weights_j exp(scale x_i . y_j)``.

    Args:
        rows: (M, C), float32, float16, bfloat16 or, where the backend can, float64.
        offsets: (G + 1,) int32, ascending from 0 or more to M or less.
        anchors: (G,) int32, from 0 to the size of the group.
        skip_begin: (M,) int32, absolute rows.
        skip_end: (M,) int32, absolute rows; an empty range leaves nothing out.
        keys: (K, C), in the dtype of the rows.
        key_begin: (G,) int32; the ranges of two groups may overlap.
        key_end: (G,) int32.
        key_weights: (K,), from 1e-30 to 1e30; None: 1.
        scale: what every product is multiplied by, 1 / temperature.
        bound: a number that no ``scale x_i . x_j`` exceeds, i = j included, where one is known; it may save a pass.
        largest: a number of rows that no group exceeds, where one is known; it may save memory on a GPU.
        mutual: promises that j lies in i's range exactly when i lies in j's; it may save half of the products.
        backend: "auto" or a name of :func:`available_backends`.

    Returns:
        (M,) float64 for float64 rows, else float32: lse_i for anchors (-inf where D(i) is empty, with a zero gradient),
        0 for all other rows. Differentiable once, by ``rows`` and ``keys``.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if an argument has the wrong shape, value or device, or the backend cannot be used.
        RuntimeError: if ``rows`` is transformed by torch.func or has a forward-mode tangent.
    """
    check_rows(rows)
    scale = checked_scale(scale)
    bound = None if bound is None else finite_number("bound", bound)
    largest = integer_or_none("largest", largest)
    if largest is not None and largest < 0:
        raise ValueError(f"largest must be 0 or more; got {largest}")
    check_bool("mutual", mutual)
    integers = {"offsets": offsets, "anchors": anchors, "skip_begin": skip_begin, "skip_end": skip_end}
    check_group_tensors(rows, **integers)
    check_key_tensors(rows, offsets, keys, key_begin, key_end, key_weights)
    count = rows.shape[0]
    known = bound if scale > 0 and mutual else None
    name = choose_backend(backend, rows.device, rows.dtype, rows.shape[1], known)
    contiguous = [tensor.contiguous() for tensor in integers.values()]
    largest = count if largest is None else min(largest, count)
    one = unit(rows)
    numbers = (one * scale, None if bound is None else one * bound)
    if keys is None:
        return call("grouped_logsumexp", rows, *contiguous, largest, mutual, *numbers, name)
    assert key_begin is not None
    assert key_end is not None
    ranges = (key_begin.contiguous(), key_end.contiguous())
    return call("keyed_logsumexp", rows, keys, *ranges, key_weights, *contiguous, largest, False, *numbers, name)


def unit(like: Tensor) -> Tensor:
    """Return the number one as the operators take a scale. A number times it, or it by a number, stays any number in a
    compiled graph, where the number alone would be that graph's constant."""
    return like.new_ones((), dtype=torch.float64, device="cpu")
