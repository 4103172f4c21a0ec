"""The registered boundary: every operation with its shapes, its gradient and its way to a backend.

``partition`` puts the points in order and ``grouped_logsumexp`` is the primitive of docs/loss.md. The whole contrast is
one operation: ``contrast`` is the reduced loss with its gradient in one pass, ``contrast_loss`` the same loss where no
gradient is wanted, and ``contrast_map`` the map of losses of reduction "none". These trust their groups, which come
from ``partition`` alone. ``reference_loss`` is all of it by the naive backend, which takes nothing from the others. A
loss's gradient is an operation whose own derivative raises: gradients are of first order only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import partition_kernels
from .backends import AVAILABLE, BACKENDS, Fused, FusedMap, Groups, Problem, accumulator, choose_backend, cpu, reference
from .checks import (
    check_bool,
    check_group_tensors,
    check_groups,
    check_rows,
    checked_scale,
    finite_number,
    integer_or_none,
)
from .fork_safety import serial_in_children
from .partition import block_edges, group_count, largest_group, partition

Differentiate = Callable[..., tuple[Tensor | None, ...]]
Save = Callable[[Any, Any, Any], None]

GROUPS = "Tensor offsets, Tensor anchors, Tensor skip_low, Tensor skip_high, SymInt largest, bool mutual"
PROBLEM = (
    f"Tensor features, Tensor row_of_point, {GROUPS}, Tensor run_low, Tensor run_high, Tensor scale, bool normalize"
)
TASK = (
    "Tensor features, Tensor? labels, int[]? block_size, bool per_image, bool other_classes_only, int? background, "
    "int? ignore_index, Tensor scale, bool normalize, str reduction"
)
# Scales and bounds are float64 tensors of no axis on the CPU: a compiled graph then serves any number.
SCHEMAS = {
    "partition": "(Tensor labels, int[]? block_size, bool per_image, bool other_classes_only, int? background, "
    "int? ignore_index, str reduction, bool every_place, bool counted) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    "grouped_logsumexp": f"(Tensor rows, {GROUPS}, Tensor scale, Tensor? bound, str backend) -> Tensor",
    "grouped_logsumexp_backward": f"(Tensor grad, Tensor rows, Tensor lse, {GROUPS}, Tensor scale, Tensor? bound, "
    "str backend) -> Tensor",
    "contrast": f"({PROBLEM}, Tensor weights, str backend) -> (Tensor, Tensor)",
    "contrast_loss": f"({PROBLEM}, Tensor weights, str backend) -> Tensor",
    "contrast_map": f"({PROBLEM}, str backend) -> Tensor",
    "contrast_map_backward": f"(Tensor grad, {PROBLEM}, str backend) -> Tensor",
    "contrast_backward": "(Tensor grad, Tensor loss, Tensor row_gradient, Tensor row_of_point, SymInt[] size, "
    "bool channels_last, ScalarType dtype, str backend) -> Tensor",
    "reference_loss": f"({TASK}) -> Tensor",
    "reference_loss_backward": f"(Tensor grad, {TASK}) -> Tensor",
}


# ---- partition -------------------------------------------------------------------------------------------------------


def _partition(
    labels: Tensor,
    block_size: list[int] | None,
    per_image: bool,
    other_classes_only: bool,
    background: int | None,
    ignore_index: int | None,
    reduction: str,
    every_place: bool,
    counted: bool,
) -> tuple[Tensor, ...]:
    """By sorting, or, where ``counted`` and worth it, by ``partition_kernels``, which need not read labels that tell
    ``every_place`` apart."""
    blocks = None if block_size is None else tuple(block_size)
    options = (labels, blocks, per_image, other_classes_only, background, ignore_index, reduction)
    if counted and labels.numel() > 0 and partition_kernels.is_worth_it(labels.shape, blocks, per_image, every_place):
        return tuple(partition_kernels.partition(*options, every_place))
    if labels.device.type == "cpu" and cpu.state() == AVAILABLE:
        edges, groups = block_edges(labels.shape, blocks), group_count(labels.shape, blocks, per_image)
        return cpu.partition(labels, edges, groups, *options[2:], every_place)
    return tuple(partition(*options))


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
    return BACKENDS[backend].forward(rows, groups, float(scale), _number(bound))


def _logsumexp_fake(rows: Tensor, *rest: Any) -> Tensor:
    return rows.new_empty(rows.shape[0], dtype=accumulator(rows.dtype))


def _logsumexp_backward(grad: Tensor, rows: Tensor, lse: Tensor, *arguments: Any) -> Tensor:
    *flat, scale, bound, backend = arguments
    groups = Groups(*flat)
    check_groups(groups, len(rows))
    return BACKENDS[backend].backward(grad, rows, lse, groups, float(scale), _number(bound))


def _logsumexp_backward_fake(grad: Tensor, rows: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(rows, memory_format=torch.contiguous_format)


def _save_for_logsumexp(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    rows, *groups, ctx.largest, ctx.mutual, scale, bound, ctx.backend = inputs
    ctx.save_for_backward(rows, output, scale, bound, *groups)


def _differentiate_logsumexp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    rows, lse, scale, bound, *groups = ctx.saved_tensors
    gradient = torch.ops.semicl.grouped_logsumexp_backward(
        grad, rows, lse, *groups, ctx.largest, ctx.mutual, scale, bound, ctx.backend
    )
    return gradient, *[None] * 9


# ---- the whole contrast ----------------------------------------------------------------------------------------------


def fused(backend: str) -> Fused:
    found = BACKENDS[backend].fused
    assert found is not None, "the loss asks only backends that have it"
    return found


def fused_map(backend: str) -> FusedMap:
    found = BACKENDS[backend].fused_map
    assert found is not None, "the loss asks only backends that have it"
    return found


def _problem(features: Tensor, row_of_point: Tensor, *rest: Any) -> Problem:
    *groups, run_low, run_high, scale, normalize = rest
    return Problem(features, row_of_point, Groups(*groups), run_low, run_high, float(scale), normalize)


def _contrast(*arguments: Any) -> tuple[Tensor, Tensor]:
    *problem, weights, backend = arguments
    return fused(backend).contrast(_problem(*problem), weights)


def _contrast_fake(features: Tensor, row_of_point: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    channels = fused(rest[-1]).row_channels(features.shape[2])
    dtype = accumulator(features.dtype)
    loss = features.new_empty((), dtype=dtype)
    return loss, features.new_empty((row_of_point.shape[0], channels), dtype=dtype)


def _contrast_loss(*arguments: Any) -> Tensor:
    *problem, weights, backend = arguments
    return fused(backend).loss(_problem(*problem), weights)


def _contrast_loss_fake(features: Tensor, *rest: Any) -> Tensor:
    return features.new_empty((), dtype=accumulator(features.dtype))


def has_channels_last(features: Tensor) -> bool:
    """Whether the channels are innermost in memory, as the gradient's then are."""
    return features.shape[2] > 1 and features.stride(2) == 1


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


def _save_for_contrast(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, row_of_point, *_, ctx.backend = inputs
    # The features themselves are not kept: they may be changed or freed before the backward.
    ctx.size, ctx.dtype = features.shape, features.dtype
    ctx.channels_last = has_channels_last(features)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output, row_of_point)


def _differentiate_contrast(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 14
    gradient = torch.ops.semicl.contrast_backward(
        grad, *ctx.saved_tensors, ctx.size, ctx.channels_last, ctx.dtype, ctx.backend
    )
    return gradient, *[None] * 13


def _save_for_contrast_loss(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.largest, ctx.mutual, run_low, run_high, scale, ctx.normalize, weights, ctx.backend = inputs
    ctx.save_for_backward(*tensors, run_low, run_high, scale, weights)


def _differentiate_contrast_loss(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Of a graph that was captured where no gradient was wanted: the loss is computed again, with its gradient."""
    features, row_of_point, *groups, run_low, run_high, scale, weights = ctx.saved_tensors
    problem = (features, row_of_point, *groups, ctx.largest, ctx.mutual, run_low, run_high, scale, ctx.normalize)
    loss, row_gradient = torch.ops.semicl.contrast(*problem, weights, ctx.backend)
    channels_last = has_channels_last(features)
    gradient = torch.ops.semicl.contrast_backward(
        grad, loss, row_gradient, row_of_point, features.shape, channels_last, features.dtype, ctx.backend
    )
    return gradient, *[None] * 13


# ---- the map of losses -----------------------------------------------------------------------------------------------


def _contrast_map(*arguments: Any) -> Tensor:
    """Return (M,): the losses of the points in the order of the map, 0 where there is no anchor."""
    *flat, backend = arguments
    problem = _problem(*flat)
    losses = fused_map(backend).anchor_losses(problem)
    return torch.where(problem.row_of_point >= 0, losses[problem.row_of_point.clamp_min(0)], 0.0)


def _contrast_map_fake(features: Tensor, row_of_point: Tensor, *rest: Any) -> Tensor:
    return features.new_empty(row_of_point.shape[0], dtype=accumulator(features.dtype))


def _contrast_map_backward(grad: Tensor, *arguments: Any) -> Tensor:
    """The gradient by the features, of which nothing was kept: a contrast with the gradient from above as weights."""
    *flat, backend = arguments
    problem = _problem(*flat)
    live = problem.row_of_point >= 0
    weights = torch.zeros_like(grad)
    weights[problem.row_of_point[live]] = grad[live]
    out = _gradient_map(problem.features)
    fused_map(backend).map_gradient(problem, weights, out)
    return out


def _contrast_map_backward_fake(grad: Tensor, features: Tensor, *rest: Any) -> Tensor:
    return _gradient_map(features)


def _gradient_map(features: Tensor) -> Tensor:
    return _empty_map(features, list(features.shape), has_channels_last(features), features.dtype)


def _save_for_contrast_map(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.largest, ctx.mutual, run_low, run_high, scale, ctx.normalize, ctx.backend = inputs
    ctx.save_for_backward(*tensors, run_low, run_high, scale)


def _differentiate_contrast_map(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, run_low, run_high, scale = ctx.saved_tensors
    gradient = torch.ops.semicl.contrast_map_backward(
        grad, *tensors, ctx.largest, ctx.mutual, run_low, run_high, scale, ctx.normalize, ctx.backend
    )
    return gradient, *[None] * 12


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


def _save_for_reference_loss(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, labels, *ctx.choices, scale, ctx.normalize, ctx.reduction = inputs
    ctx.save_for_backward(features, labels, scale)


def _differentiate_reference_loss(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    features, labels, scale = ctx.saved_tensors
    gradient = torch.ops.semicl.reference_loss_backward(
        grad, features, labels, *ctx.choices, scale, ctx.normalize, ctx.reduction
    )
    return gradient, *[None] * 9


# ---- registration ----------------------------------------------------------------------------------------------------


def _refuse_second_order(ctx: Any, *grads: Any) -> Any:
    raise RuntimeError(
        "the contrastive losses of semicl_kernels have first-order gradients only; a derivative of their gradient was "
        "asked for (backward through a gradient taken with create_graph=True). Use a plain PyTorch loss for that."
    )


IMPLEMENTATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "partition": (_partition, _partition_fake),
    "grouped_logsumexp": (_logsumexp, _logsumexp_fake),
    "grouped_logsumexp_backward": (_logsumexp_backward, _logsumexp_backward_fake),
    "reference_loss": (_reference_loss, _reference_loss_fake),
    "reference_loss_backward": (_reference_loss_backward, _reference_loss_backward_fake),
    "contrast": (_contrast, _contrast_fake),
    "contrast_loss": (_contrast_loss, _contrast_loss_fake),
    "contrast_map": (_contrast_map, _contrast_map_fake),
    "contrast_map_backward": (_contrast_map_backward, _contrast_map_backward_fake),
    "contrast_backward": (_contrast_backward, _contrast_backward_fake),
}
# By the first argument; none but the partition, of integers alone, is without.
GRADIENTS: dict[str, tuple[Save | None, Differentiate]] = {
    "grouped_logsumexp": (_save_for_logsumexp, _differentiate_logsumexp),
    "reference_loss": (_save_for_reference_loss, _differentiate_reference_loss),
    "contrast": (_save_for_contrast, _differentiate_contrast),
    "contrast_loss": (_save_for_contrast_loss, _differentiate_contrast_loss),
    "contrast_map": (_save_for_contrast_map, _differentiate_contrast_map),
    "grouped_logsumexp_backward": (None, _refuse_second_order),
    "contrast_backward": (None, _refuse_second_order),
    "contrast_map_backward": (None, _refuse_second_order),
    "reference_loss_backward": (None, _refuse_second_order),
}


# Products of pairs in each: similarities once, and their weights times rows for both points of a pair.
PRODUCTS = {"grouped_logsumexp": 1, "grouped_logsumexp_backward": 3, "contrast": 3, "contrast_loss": 1}
PRODUCTS |= {"contrast_map": 1, "contrast_map_backward": 3, "reference_loss": 1, "reference_loss_backward": 3}


def _save(name: str, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keep what the gradient needs; refuse a gradient that there is no formula for."""
    save, _ = GRADIENTS[name]
    if save is None:
        return
    if any(ctx.needs_input_grad[1:]):
        raise RuntimeError(
            f"semicl::{name} has a gradient by its first argument alone, and another one requires a gradient: "
            "detach() it"
        )
    save(ctx, inputs, output)


def differentiable(name: str) -> Callable[..., Any]:
    """Return the operation for calls from Python: with a Function of our own where a gradient is wanted at once.

    The operation itself differentiates wherever a captured graph calls it, but goes through its schema to do so, at
    a cost that grows with the square of the number of arguments.
    """
    operation = getattr(torch.ops.semicl, name).default

    def forward(ctx: Any, *arguments: Any) -> Any:
        output = operation(*arguments)
        _save(name, ctx, arguments, output)
        return output

    functions = {"forward": staticmethod(forward), "backward": staticmethod(GRADIENTS[name][1])}
    function: Any = type(f"Differentiable_{name}", (torch.autograd.Function,), functions)

    def call(first: Tensor, *others: Any) -> Any:
        captured = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
        if first.requires_grad and torch.is_grad_enabled() and not captured:
            return function.apply(first, *others)
        return operation(first, *others)

    return call


def _products(name: str) -> Callable[..., int | torch.SymInt]:
    """Return an operator's formula for torch's FlopCounterMode: its products of all pairs of points.

    As torch counts attention with a mask, this is what plain PyTorch would compute, from shapes alone: every point of
    the map meets as many points as the largest group may have. Labels, which tell anchors from others, are not read.
    """

    count = PRODUCTS.get(name, 0)

    def formula(*arguments: Any, out_shape: Any = None) -> int | torch.SymInt:
        if count == 0:
            return 0
        if name.startswith("reference_loss"):
            features, _, blocks, per_image = arguments[len(arguments) - 10 :][:4]
            largest = largest_group(torch.Size((*features[:2], *features[3:])), blocks, per_image)
            return 2 * count * largest * features.numel()
        most = next(one for one in arguments if isinstance(one, (int, torch.SymInt)))
        maps = [one for one in arguments if isinstance(one, torch.Size) and len(one) > 1]
        return 2 * count * most * maps[0].numel()

    return formula


class _Registration(NamedTuple):
    """What the process has registered. It lasts as long as the process, so that reloaded modules and graphs that were
    captured before use the same operations."""

    library: torch.library.Library
    schemas: dict[str, str]


def _register() -> None:
    library = torch.library.Library("semicl", "DEF")
    for name, schema in SCHEMAS.items():
        library.define(name + schema)
        library.impl(name, serial_in_children(_now("IMPLEMENTATIONS", name, 0)), "CompositeExplicitAutograd")
        torch.library.register_fake(f"semicl::{name}", _now("IMPLEMENTATIONS", name, 1), lib=library)
        if name in GRADIENTS:
            torch.library.register_autograd(
                f"semicl::{name}",
                _now("GRADIENTS", name, 1),
                setup_context=lambda name=name, **values: _names()["_save"](name, **values),
                lib=library,
            )
        register_flop_formula(getattr(torch.ops.semicl, name))(_products(name))
    torch.ops.semicl.registration = _Registration(library, SCHEMAS)  # type: ignore[attr-defined]


def _names() -> dict[str, Any]:
    """What this module, or the one imported in its place, calls by which name."""
    return vars(sys.modules[__name__]) if __name__ in sys.modules else globals()


def _now(table: str, name: str, number: int) -> Callable[..., Any]:
    """Return a function that calls the one which the module's table holds at the time: loaded again it has new ones."""

    def call(*arguments: Any) -> Any:
        return _names()[table][name][number](*arguments)

    return call


_registration = getattr(torch.ops.semicl, "registration", None)
if _registration is None:
    _register()
elif _registration.schemas != SCHEMAS:
    raise RuntimeError(
        "the operators of semicl_kernels.ops have other arguments than those that this process registered: they "
        "cannot be reloaded, so restart Python"
    )

contrast, contrast_map = differentiable("contrast"), differentiable("contrast_map")
differentiable_logsumexp, reference_loss = differentiable("grouped_logsumexp"), differentiable("reference_loss")


def grouped_logsumexp(
    rows: Tensor,
    offsets: Tensor,
    anchors: Tensor,
    skip_low: Tensor,
    skip_high: Tensor,
    *,
    scale: float = 1.0,
    bound: float | None = None,
    largest: int | None = None,
    mutual: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Compute ``lse_i = log sum over j in D(i) of exp(scale x_i . x_j)`` for every anchor i (docs/loss.md).

    Group g is the rows ``[offsets[g], offsets[g + 1])``, its anchors are the first ``anchors[g]`` of them, and D(i) is
    the group without the rows ``[skip_low[i], skip_high[i])``. Rows past ``offsets[-1]`` belong to no group.

    Args:
        rows: (M, C), float32, float16, bfloat16 or, where the backend can, float64.
        offsets: (G + 1,) int32, ascending from 0 or more to M or less.
        anchors: (G,) int32, from 0 to the size of the group.
        skip_low: (M,) int32, absolute rows.
        skip_high: (M,) int32, absolute rows; an empty range leaves nothing out.
        scale: what every product is multiplied by, 1 / temperature.
        bound: a number that no ``scale x_i . x_j`` exceeds, i = j included, where one is known; it may save a pass.
        largest: a number of rows that no group exceeds, where one is known; it may save memory on a GPU.
        mutual: promises that j lies in i's range exactly when i lies in j's; it may save half of the products.
        backend: "auto" or a name of :func:`available_backends`.

    Returns:
        (M,) float64 for float64 rows, else float32: lse_i for anchors (-inf where D(i) is empty, with a zero gradient),
        0 for all other rows. Differentiable once, by ``rows``.

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
    integers = {"offsets": offsets, "anchors": anchors, "skip_low": skip_low, "skip_high": skip_high}
    check_group_tensors(rows, **integers)
    count = rows.shape[0]
    name = choose_backend(backend, rows.device, rows.dtype, rows.shape[1])
    contiguous = [tensor.contiguous() for tensor in integers.values()]
    largest = count if largest is None else min(largest, count)
    one = unit(rows)
    numbers = (one * scale, None if bound is None else one * bound)
    return differentiable_logsumexp(rows, *contiguous, largest, mutual, *numbers, name)


def unit(like: Tensor) -> Tensor:
    """Return the number one as the operators take a scale. A number times it, or it by a number, stays any number in a
    compiled graph, where the number alone would be that graph's constant."""
    return like.new_ones((), dtype=torch.float64, device="cpu")
