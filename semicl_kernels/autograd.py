"""Gradients of the operators.

Each is a ``torch.autograd.Function`` around an operator of ops.py. A call from Python applies the Function. A captured
graph calls the operator, which ops.py registers with the same ``save`` and ``backward``; from Python that would cost
more, by the square of the number of arguments. So would a method ``setup_context``: torch then binds all arguments to
their names in every call. Gradients are of first order: the backward operators refuse to be differentiated.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .keyed import KeyedProblem

Gradients = tuple[Tensor | None, ...]


def has_channels_last(features: Tensor) -> bool:
    """Whether a map has its channels innermost in memory, as its gradient then has; no for vectors (N, V, C)."""
    return features.dim() > 3 and features.shape[2] > 1 and features.stride(2) == 1


def save_values(ctx: Any, *values: Any) -> None:
    """Keep tensors and other values for :func:`saved_values`."""
    ctx.save_for_backward(*[value if isinstance(value, Tensor) else None for value in values])
    ctx.others = [None if isinstance(value, Tensor) else value for value in values]


def saved_values(ctx: Any) -> list[Any]:
    pairs = zip(ctx.saved_tensors, ctx.others, strict=True)
    return [other if tensor is None else tensor for tensor, other in pairs]


def _only_first(ctx: Any, gradient: Tensor | None) -> Gradients:
    return gradient, *[None] * (len(ctx.needs_input_grad) - 1)


def _refuse_others(ctx: Any, operator: str, count: int = 1) -> None:
    """Refuse a gradient by another argument than the first ``count``: there is no formula for one."""
    if any(ctx.needs_input_grad[count:]):
        raise RuntimeError(
            f"semicl::{operator} has no gradient by its arguments after the first {count}, and one of them requires a "
            "gradient: detach() it"
        )


def _by_first_alone(name: str, saves_output: bool = False) -> Any:
    """Return the Function of an operator with a gradient by its first argument alone.

    Its backward operator takes the gradient and the inputs; with ``saves_output`` the output after the first of them.
    """

    def forward(ctx: Any, *inputs: Any) -> Tensor:
        output: Tensor = getattr(torch.ops.semicl, name).default(*inputs)
        save(ctx, inputs, output)
        return output

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _refuse_others(ctx, name)
        first, *others = inputs
        save_values(ctx, first, *([output] if saves_output else []), *others)

    def backward(ctx: Any, grad: Tensor) -> Gradients:
        operator = getattr(torch.ops.semicl, f"{name}_backward").default
        return _only_first(ctx, operator(grad, *saved_values(ctx)))

    methods = {one.__name__: staticmethod(one) for one in (forward, save, backward)}
    return type(name, (torch.autograd.Function,), {"DIFFERENTIABLE": 1, **methods})


class KeyedLogsumexp(torch.autograd.Function):
    DIFFERENTIABLE = 2  # rows and keys, the first arguments

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        output = torch.ops.semicl.keyed_logsumexp.default(*inputs)
        KeyedLogsumexp.save(ctx, inputs, output)
        return output

    @staticmethod
    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _refuse_others(ctx, "keyed_logsumexp", KeyedLogsumexp.DIFFERENTIABLE)
        save_values(ctx, output, *inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        lse, *inputs = saved_values(ctx)
        wanted = ctx.needs_input_grad[: KeyedLogsumexp.DIFFERENTIABLE]
        gradients = torch.ops.semicl.keyed_logsumexp_backward.default(grad, lse, *wanted, *inputs)
        first = (one if is_wanted else None for one, is_wanted in zip(gradients, wanted, strict=True))
        return *first, *[None] * (len(ctx.needs_input_grad) - KeyedLogsumexp.DIFFERENTIABLE)


class Contrast(torch.autograd.Function):
    DIFFERENTIABLE = 1  # features, the first argument

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        output = torch.ops.semicl.contrast.default(*inputs)
        Contrast.save(ctx, inputs, output)
        return output

    @staticmethod
    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        _refuse_others(ctx, "contrast")
        features, *_, with_gradient, backend = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.with_gradient = with_gradient
        if with_gradient:
            # Without the features themselves: they may be changed or freed before the backward.
            ctx.save_for_backward(*output)
            ctx.others = (features.shape, has_channels_last(features), features.dtype, backend)
        else:
            save_values(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> Gradients:
        if grad is None:
            return _only_first(ctx, None)
        if ctx.with_gradient:
            output, others = ctx.saved_tensors, ctx.others
        else:
            # A graph that was captured where no gradient was wanted: the loss is computed again.
            features, *task, _, backend = saved_values(ctx)
            output = torch.ops.semicl.contrast.default(features, *task, True, backend)
            others = (features.shape, has_channels_last(features), features.dtype, backend)
        return _only_first(ctx, torch.ops.semicl.contrast_backward.default(grad, *output, *others))


class KeyedContrast(torch.autograd.Function):
    DIFFERENTIABLE = 3  # points, keys and scale, the first arguments

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        output = torch.ops.semicl.keyed_contrast.default(*inputs)
        KeyedContrast.save(ctx, inputs, output)
        return output

    @staticmethod
    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _refuse_others(ctx, "keyed_contrast", KeyedContrast.DIFFERENTIABLE)
        problem, (with_gradient, with_keys, backend) = KeyedProblem.unflat(inputs)
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.is_map, ctx.with_gradient, ctx.with_keys = problem.reduction == "none", with_gradient, with_keys
        if with_gradient and not ctx.is_map:
            save_values(ctx, *output)
        else:
            save_values(ctx, *problem, with_keys, backend)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> Gradients:
        others = (None,) * (len(ctx.needs_input_grad) - KeyedContrast.DIFFERENTIABLE)
        if grad is None:
            return None, None, None, *others
        saved = saved_values(ctx)
        if ctx.is_map:
            by_points, by_keys, by_scale = torch.ops.semicl.keyed_contrast_map_backward.default(grad, *saved)
        else:
            if not ctx.with_gradient:
                # A graph that was captured where no gradient was wanted: the loss is computed again.
                *problem, with_keys, backend = saved
                saved = torch.ops.semicl.keyed_contrast.default(*problem, True, with_keys, backend)
            by_points, by_keys, by_scale = torch.ops.semicl.keyed_contrast_backward.default(grad, *saved)
        return by_points, by_keys if ctx.with_keys else None, by_scale, *others


def refuse_second_order(ctx: Any, *grads: Any) -> Any:
    """The gradient of every backward operator."""
    raise RuntimeError(
        "the contrastive losses of semicl_kernels have first-order gradients only; a derivative of their gradient was "
        "asked for (backward through a gradient taken with create_graph=True). Use a plain PyTorch loss for that."
    )


FUNCTIONS: dict[str, Any] = {
    "grouped_logsumexp": _by_first_alone("grouped_logsumexp", saves_output=True),
    "keyed_logsumexp": KeyedLogsumexp,
    "contrast": Contrast,
    "contrast_map": _by_first_alone("contrast_map"),
    "keyed_contrast": KeyedContrast,
    "reference_loss": _by_first_alone("reference_loss"),
}


# ---- calls from Python -----------------------------------------------------------------------------------------------


def _captured() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]


def requires_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def call(name: str, *inputs: Any) -> Any:
    """Call an operator, from Python by its Function where a gradient is wanted."""
    if not _captured():
        function = FUNCTIONS[name]
        if requires_grad(*inputs[: function.DIFFERENTIABLE]):
            return function.apply(*inputs)
    return getattr(torch.ops.semicl, name).default(*inputs)


def contrast(features: Tensor, *others: Any) -> Tensor:
    """Return the loss; its gradient is computed where the features require one."""
    *task, backend = others
    with_gradient = requires_grad(features)
    # Without call(): in a loss of few points its lookups would be 1 % of the time.
    function = Contrast.apply if with_gradient and not _captured() else torch.ops.semicl.contrast.default
    return function(features, *task, with_gradient, backend)[0]


def keyed_contrast(problem: KeyedProblem, backend: str) -> Tensor:
    """Return the loss; gradients by keys are computed where they require one."""
    with_gradient = requires_grad(problem.points, problem.keys, problem.scale)
    loss: Tensor = call("keyed_contrast", *problem, with_gradient, requires_grad(problem.keys), backend)[0]
    return loss
