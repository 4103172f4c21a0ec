"""Graphs that are captured once and called with other inputs: their gradients, and how many there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.fx.experimental.proxy_tensor import make_fx

from semicl_kernels import (
    LocalContrastiveLoss,
    NTXentLoss,
    SupervisedContrastiveLoss,
    grouped_logsumexp,
    local_contrastive_loss,
    nt_xent_loss,
    ops,
)
from semicl_kernels.partition import partition

from .cases import Case
from .groups import itself_skipped, unit_rows

CASE = Case((1, 2, 8, 5, 4), "random", seed=4)
FEATURES, LABELS = CASE.features(torch.float32), CASE.labels()
TEMPERATURES = [0.1 + 0.05 * number for number in range(10)]
BACKENDS = ["cpu", "tiled", "reference"]


class Loss(torch.nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return local_contrastive_loss(features, labels, **self.options)


def exported(module: torch.nn.Module) -> Callable[..., Tensor]:
    return torch.export.export(module, (FEATURES, LABELS)).module()


def decomposed(module: torch.nn.Module) -> Callable[..., Tensor]:
    return torch.export.export(module, (FEATURES, LABELS)).run_decompositions().module()


def traced(module: torch.nn.Module) -> Callable[..., Tensor]:
    return torch.jit.trace(module, (FEATURES, LABELS), check_trace=False)


def symbolically_traced(module: torch.nn.Module) -> Callable[..., Tensor]:
    return make_fx(module)(FEATURES, LABELS)


def compiled_without_gradient(module: torch.nn.Module) -> Callable[..., Tensor]:
    torch.compiler.reset()
    call = torch.compile(module, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        call(FEATURES, LABELS)
    return call


@pytest.mark.filterwarnings("ignore")  # of what is on its way out in torch.jit
@pytest.mark.parametrize("capture", [exported, decomposed, traced, symbolically_traced, compiled_without_gradient])
@pytest.mark.parametrize("reduction", ["block", "none"])
@pytest.mark.parametrize("name", BACKENDS)
def test_graph_captured_without_a_gradient_has_one(
    name: str, reduction: str, capture: Callable[[torch.nn.Module], Callable[..., Tensor]]
) -> None:
    module = Loss(backend=name, reduction=reduction)
    graph = capture(module)
    gradients = []
    for call in (module, graph):
        features = FEATURES.clone().requires_grad_()
        call(features, LABELS).sum().backward()
        assert features.grad is not None
        gradients.append(features.grad)
    assert gradients[0].norm() > 0
    torch.testing.assert_close(gradients[1], gradients[0])


class KeyedLoss(torch.nn.Module):
    def forward(self, *given: Tensor) -> Tensor:
        features, labels, weights, keys, key_labels, key_weights, temperature = given
        beside = {"weights": weights, "keys": keys, "key_labels": key_labels, "key_weights": key_weights}
        return local_contrastive_loss(features, labels, **beside, temperature=temperature)


def keyed_arguments(keys: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(keys)
    weights, temperature = torch.rand(LABELS.shape, generator=generator), torch.tensor(0.1 + 0.01 * keys)
    return (
        *(FEATURES, LABELS, weights, torch.randn(keys, 8, generator=generator), torch.arange(keys) % 3),
        *(torch.rand(keys, generator=generator) + 0.1, temperature),
    )


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_keys_weights_and_a_temperature_are_traced(mode: str) -> None:
    graph = make_fx(KeyedLoss(), tracing_mode=mode)(*keyed_arguments(5))
    other = (*keyed_arguments(5)[:-1], torch.tensor(0.4))
    torch.testing.assert_close(graph(*other), KeyedLoss()(*other))


@pytest.mark.xfail(
    torch.__version__.startswith("2.9."), reason="torch 2.9 exports guards that name an unknown L", strict=True
)
@pytest.mark.parametrize("strict", [False, True])
def test_any_number_of_keys_may_follow_an_export(strict: bool) -> None:
    axis = torch.export.Dim("keys", min=2, max=1000)
    shapes = (*[None] * 3, *[{0: axis}] * 3, None)
    graph = torch.export.export(KeyedLoss(), keyed_arguments(5), dynamic_shapes=(shapes,), strict=strict).module()
    other = keyed_arguments(9)
    torch.testing.assert_close(graph(*other), KeyedLoss()(*other))


def test_gradient_of_a_captured_loss_is_of_first_order_too() -> None:
    features = FEATURES.clone().requires_grad_()
    loss = symbolically_traced(Loss(backend="cpu"))(features, LABELS)
    (gradient,) = torch.autograd.grad(loss, features, create_graph=True)
    with pytest.raises(RuntimeError, match="first-order"):
        gradient.sum().backward()


def example_arguments(name: str) -> tuple[Any, ...]:
    """Arguments that the operator takes, on the cpu backend."""
    parts = partition(LABELS, None, False, False, 0, None, "block")
    groups = parts.groups(LABELS.numel())
    scale = torch.tensor(5.0, dtype=torch.float64)
    rows = unit_rows(LABELS.numel(), 8, seed=0).float()
    primitive = (*groups, scale, scale, "cpu")
    problem = (FEATURES, parts.row_of_point, *groups, parts.class_begin, parts.class_end, scale, True, False)
    task = (None, False, False, 0, None, scale, True, "block")
    contrast = (FEATURES, LABELS, *task, False, True, "cpu")
    loss, row_gradient, row_of_point = torch.ops.semicl.contrast(*contrast)
    lse = torch.ops.semicl.grouped_logsumexp(rows, *primitive)
    keys, weights = rows[:5].clone(), torch.ones(LABELS.numel())
    ranges = [torch.zeros(len(parts.anchors), dtype=torch.int32) + bound for bound in (0, 5)]
    keyed_primitive = (rows, keys, *ranges, None, *primitive)
    choices = (None, False, False, 0, None, False, True)
    keyed = (rows, keys, scale, LABELS, weights, torch.arange(5), torch.ones(5), *choices, "block", False)
    keyed_map = (*keyed[:-2], "none", False)
    keyed_found = torch.ops.semicl.keyed_contrast(*keyed, True, True, "cpu")
    return {
        "partition": (LABELS, None, False, False, 0, None, "block", False, False),
        "grouped_logsumexp": (rows, *primitive),
        "grouped_logsumexp_backward": (lse, rows, lse, *primitive),
        "keyed_logsumexp": keyed_primitive,
        "keyed_logsumexp_backward": (lse, lse, True, True, *keyed_primitive),
        "keyed_contrast": (*keyed, True, True, "cpu"),
        "keyed_contrast_backward": (loss, *keyed_found),
        "keyed_contrast_map_backward": (weights, *keyed_map, True, "cpu"),
        "reference_loss": (FEATURES, LABELS, *task),
        "reference_loss_backward": (loss, FEATURES, LABELS, *task),
        "contrast": contrast,
        "contrast_map": (*problem, "cpu"),
        "contrast_map_backward": (parts.weights.float(), *problem, "cpu"),
        "contrast_backward": (
            loss, loss, row_gradient, row_of_point, FEATURES.shape, False, torch.float32, "cpu",
        ),
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", ops.SCHEMAS)
def test_operator_differentiates_or_refuses(name: str) -> None:
    """By every argument that can require a gradient, called as a captured graph calls it."""
    operator, arguments = getattr(torch.ops.semicl, name), example_arguments(name)
    for number, argument in enumerate(arguments):
        if not isinstance(argument, Tensor) or not argument.is_floating_point():
            continue
        leaf = argument.detach().clone().requires_grad_()
        try:
            results = operator(*arguments[:number], leaf, *arguments[number + 1 :])
            result = results[0] if isinstance(results, tuple) else results
            result.sum().backward()
        except RuntimeError as refusal:
            if "semicl" not in str(refusal):  # torch's own, of a result without a gradient
                raise
        else:
            assert leaf.grad is not None, f"argument {number}"


# A graph of the first number alone, and one of any number: torch makes no float symbolic before it has changed.
MOST_GRAPHS = 2


def count_graphs(function: Callable[[float], Tensor], compiler: str = "aot_eager") -> int:
    """Compile the function of a number, compare it with itself for ten of them, and return how many graphs it took."""
    torch.compiler.reset()
    counter = CompileCounterWithBackend(compiler)
    call = torch.compile(function, backend=counter, fullgraph=True)
    for number in TEMPERATURES:
        assert torch.equal(call(number), function(number))
    return int(counter.frame_count)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"reduction": "none", "normalize": False}])
def test_one_graph_serves_all_temperatures(name: str, options: dict[str, Any]) -> None:
    def loss(temperature: float) -> Tensor:
        return local_contrastive_loss(FEATURES, LABELS, temperature=temperature, backend=name, **options)

    assert count_graphs(loss) <= MOST_GRAPHS


def test_one_graph_serves_all_temperatures_of_vectors_and_scales_of_rows() -> None:
    rows, *groups = itself_skipped(unit_rows(12, 8, seed=0).float())
    assert count_graphs(lambda t: nt_xent_loss(rows[:6], rows[6:], temperature=t, backend="cpu")) <= MOST_GRAPHS
    for bound in (None, 2.0):
        assert count_graphs(lambda s: grouped_logsumexp(rows, *groups, scale=s, bound=bound)) <= MOST_GRAPHS  # noqa: B023
    assert count_graphs(lambda s: grouped_logsumexp(rows, *groups, scale=s, bound=2 * s)) <= MOST_GRAPHS


def test_one_graph_serves_all_temperatures_with_a_gradient() -> None:
    def gradient(temperature: float) -> Tensor:
        return (local_contrastive_loss(2 * leaf, LABELS, temperature=temperature, backend="cpu")).sum()

    leaf = FEATURES.clone().requires_grad_()
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    call = torch.compile(gradient, backend=counter, fullgraph=True)
    for temperature in TEMPERATURES:
        compiled, eager = (torch.autograd.grad(f(temperature), leaf)[0] for f in (call, gradient))
        torch.testing.assert_close(compiled, eager)
    assert counter.frame_count <= MOST_GRAPHS


def test_one_graph_serves_a_criterion_whose_temperature_is_scheduled() -> None:
    criterion = LocalContrastiveLoss(backend="cpu")

    def loss(temperature: float) -> Tensor:
        return local_contrastive_loss(FEATURES, LABELS, temperature=temperature, backend="cpu")

    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    call = torch.compile(criterion, backend=counter, fullgraph=True)
    for temperature in [*TEMPERATURES, *range(1, 12)]:
        criterion.temperature = temperature
        assert torch.equal(call(FEATURES, LABELS), loss(temperature))
    assert counter.frame_count <= MOST_GRAPHS


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("criterion", [LocalContrastiveLoss(), SupervisedContrastiveLoss(), NTXentLoss()])
def test_exported_with_a_dynamic_axis_of_any_size(criterion: torch.nn.Module, strict: bool) -> None:
    axis = torch.export.Dim("n")
    inputs: dict[str, Tensor] = {
        "features": FEATURES.expand(2, *FEATURES.shape[1:]).clone(),
        "labels": LABELS.repeat(2, 1, 1, 1),
    }
    if isinstance(criterion, SupervisedContrastiveLoss):
        inputs = {"features": torch.randn(6, 2, 8), "labels": torch.arange(6) % 2}
    if isinstance(criterion, NTXentLoss):
        inputs = {"z1": torch.randn(6, 8), "z2": torch.randn(6, 8)}
    shapes = {name: {0: axis} for name in inputs}
    graph = torch.export.export(criterion, (), inputs, dynamic_shapes=shapes, strict=strict).module()
    larger = {name: torch.cat([tensor, tensor.flip(0)]) for name, tensor in inputs.items()}
    torch.testing.assert_close(graph(**larger), criterion(**larger))


@pytest.mark.parametrize("strict", [True, False])
def test_exported_with_a_map_of_any_size(strict: bool) -> None:
    """Of an example that is as high and wide as it has channels."""
    axes = dict.fromkeys((3, 4), torch.export.Dim.DYNAMIC)
    shapes = ({**axes}, {axis - 1: kind for axis, kind in axes.items()})
    case = Case((1, 2, 8, 8, 8), "random", seed=4)
    graph = torch.export.export(
        Loss(), (case.features(torch.float32), case.labels()), dynamic_shapes=shapes, strict=strict
    ).module()
    other = Case((1, 2, 8, 12, 5), "random", seed=5)
    arguments = (other.features(torch.float32), other.labels())
    torch.testing.assert_close(graph(*arguments), Loss()(*arguments))
