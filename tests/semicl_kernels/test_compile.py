"""The losses inside torch.compile, autocast and what torch.library asks of a registered operation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from semicl_kernels.ops import flat
from semicl_kernels.partition import partition

from .cases import LAYOUTS, Case, lay_out
from .groups import itself_skipped, unit_rows
from .on_device import (
    device_of,
    grouped_logsumexp,
    local_contrastive_loss,
    move,
    nt_xent_loss,
    supervised_contrastive_loss,
)

CASE = Case((2, 2, 20, 9, 7), "ignored")
SCALE = torch.tensor(5.0, dtype=torch.float64)  # as the operators take it
OPTIONS = [
    {},
    {"block_size": 4, "stride": (1, 2), "scope": "image"},
    {"reduction": "none", "denominator": "negatives"},
    {"reduction": "anchor", "normalize": False, "temperature": 2.0, "ignore_index": -100},
]


def compiled(function: Any, compiler: str = "aot_eager") -> Any:
    torch.compiler.reset()
    return torch.compile(function, backend=compiler, fullgraph=True)


def assert_compiles(function: Any, features: Tensor, compiler: str = "aot_eager") -> None:
    """In one graph, to the same value and gradient as without."""
    results = []
    for call in (function, compiled(function, compiler)):
        leaf = features.detach().requires_grad_()
        value = call(leaf)
        results.append((value.detach(), torch.autograd.grad(value.sum(), leaf)[0]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("labelled", [True, False])
def test_local_loss_is_one_graph(backend: str, options: dict[str, Any], labelled: bool) -> None:
    labels = CASE.labels() if labelled else None
    assert_compiles(
        lambda features: local_contrastive_loss(features, labels, backend=backend, **options),
        CASE.features(torch.float32),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_is_one_graph(backend: str, layout: str) -> None:
    """The gradient's layout is known before the features' memory is."""
    labels = CASE.labels()
    assert_compiles(
        lambda features: local_contrastive_loss(lay_out(features, layout), labels, backend=backend),
        CASE.features(torch.float32),
    )
    call = compiled(lambda features: local_contrastive_loss(features, labels, backend=backend))
    leaf = lay_out(CASE.features(torch.float32), layout).requires_grad_()
    call(leaf).backward()
    assert leaf.grad is not None


def test_losses_of_vectors_are_one_graph(backend: str) -> None:
    vectors = unit_rows(24, 20, seed=0).float().reshape(12, 2, 20)
    labels = torch.arange(12) % 3
    assert_compiles(lambda x: supervised_contrastive_loss(x, labels, backend=backend), vectors)
    assert_compiles(lambda x: nt_xent_loss(x[:, 0], x[:, 1], backend=backend), vectors)


def test_primitive_is_one_graph(backend: str) -> None:
    own_rows, *groups = itself_skipped(unit_rows(40, 20, seed=0).float())
    assert_compiles(lambda rows: grouped_logsumexp(rows, *groups, scale=5.0, bound=5.0, backend=backend), own_rows)


def test_within_a_model_and_with_other_shapes(backend: str) -> None:
    """Features made by a layer and a second map of another size, the sizes symbolic."""
    layer = torch.nn.Conv2d(3, 20, 1)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return local_contrastive_loss(layer(images)[:, None], labels[:, None], block_size=4, backend=backend)

    call = torch.compile(loss, backend="aot_eager", fullgraph=True, dynamic=True)
    generator = torch.Generator().manual_seed(0)
    for side in (8, 11):
        images = torch.randn(2, 3, side, side, generator=generator)
        labels = torch.randint(0, 3, (2, side, side), generator=generator)
        torch.testing.assert_close(call(images, labels), loss(images, labels), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_inductor(backend: str) -> None:
    labels = CASE.labels()
    assert_compiles(
        lambda features: local_contrastive_loss(2 * features.tanh(), labels, block_size=4, backend=backend),
        CASE.features(torch.float32),
        compiler="inductor",
    )


@pytest.mark.parametrize("requires_grad", [True, False])
def test_opcheck_of_the_primitive(backend: str, requires_grad: bool) -> None:
    packed = itself_skipped(unit_rows(20, 12, seed=0).float())
    rows, *groups = (move(tensor, device_of(backend)) for tensor in packed)
    torch.library.opcheck(
        torch.ops.semicl.grouped_logsumexp,
        (rows.requires_grad_(requires_grad), *groups, 20, True, SCALE, SCALE, backend),
    )


def one_class(features: Tensor) -> Tensor:
    return torch.ones(features.shape[0], features.shape[1], *features.shape[3:], dtype=torch.int64)


def contrast_arguments(features: Tensor, backend: str, with_gradient: bool = True) -> tuple[Any, ...]:
    """What the contrast takes for one group of one class, every point an anchor."""
    choices = (None, False, False, None, None, SCALE, True, "block", False)
    return features, one_class(features), *choices, with_gradient, backend


def map_arguments(features: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
    """Weights of its rows, and what the map of the same contrast takes."""
    labels = one_class(features)
    parts = partition(labels, None, False, False, None, None, "block")
    return parts.weights, flat(features, parts, labels.numel(), SCALE, True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("requires_grad", [True, False])
def test_opcheck_of_the_contrast(compiled_backend: str, requires_grad: bool, layout: str) -> None:
    features = Case((2, 2, 16, 3, 4), layout=layout).features(torch.float32).requires_grad_(requires_grad)
    torch.library.opcheck(torch.ops.semicl.contrast, contrast_arguments(features, compiled_backend))


def test_opcheck_of_the_loss_alone(compiled_backend: str) -> None:
    features = Case((2, 2, 16, 3, 4)).features(torch.float32)
    torch.library.opcheck(torch.ops.semicl.contrast, contrast_arguments(features, compiled_backend, False))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("requires_grad", [True, False])
def test_opcheck_of_the_map(compiled_backend: str, requires_grad: bool, layout: str) -> None:
    features = Case((2, 2, 16, 3, 4), layout=layout).features(torch.float32).requires_grad_(requires_grad)
    _, problem = map_arguments(features)
    torch.library.opcheck(torch.ops.semicl.contrast_map, (*problem, compiled_backend))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_opcheck_of_the_gradient_of_the_map(compiled_backend: str, dtype: torch.dtype, layout: str) -> None:
    features = Case((2, 2, 16, 3, 4), layout=layout).features(dtype)
    weights, problem = map_arguments(features)
    torch.library.opcheck(torch.ops.semicl.contrast_map_backward, (weights.float(), *problem, compiled_backend))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_opcheck_of_the_gradient_of_the_contrast(
    compiled_backend: str, channels_last: bool, dtype: torch.dtype
) -> None:
    features = Case((2, 2, 16, 3, 4)).features(torch.float32)
    found = torch.ops.semicl.contrast(*contrast_arguments(features, compiled_backend))
    torch.library.opcheck(
        torch.ops.semicl.contrast_backward,
        (found[0], *found, features.shape, channels_last, dtype, compiled_backend),
    )


def test_opcheck_of_the_partition() -> None:
    for block_size, per_image, other_classes_only, reduction in (
        (None, False, False, "block"),
        ([4, 3], True, True, "none"),
    ):
        torch.library.opcheck(
            torch.ops.semicl.partition,
            (CASE.labels(), block_size, per_image, other_classes_only, 0, -100, reduction, False, False),
        )


@pytest.mark.parametrize("options", [(None, False, False, 0, None), ([4, 3], True, True, 0, -100)])
@pytest.mark.parametrize("reduction", ["block", "none"])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_opcheck_of_the_reference(requires_grad: bool, reduction: str, options: tuple[Any, ...]) -> None:
    features = CASE.features(torch.float32).requires_grad_(requires_grad)
    scale = torch.tensor(5.0, dtype=torch.float64)
    task = (features, CASE.labels(), *options, scale, True, reduction)
    torch.library.opcheck(torch.ops.semicl.reference_loss, task)
    grad = torch.ops.semicl.reference_loss(*task).detach()
    torch.library.opcheck(torch.ops.semicl.reference_loss_backward, (grad, features.detach(), *task[1:]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_float32_features_exact(backend: str, dtype: torch.dtype) -> None:
    """Autocast would round the operands of a matrix product; the loss keeps out of it."""
    results = []
    for enabled in (False, True):
        features = CASE.features(torch.float32).requires_grad_()
        with torch.autocast(device_of(backend).type, dtype=dtype, enabled=enabled):
            loss = local_contrastive_loss(features, CASE.labels(), backend=backend)
        loss.backward()
        assert loss.dtype == torch.float32
        results.append((loss.detach(), features.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=0)


def test_autocast_around_a_network(backend: str) -> None:
    """A layer gives bfloat16 features; the loss is float32 all the same and its gradient reaches the layer."""
    device = device_of(backend)
    layer = torch.nn.Conv2d(3, 20, 1).to(device)
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.randint(0, 3, (2, 1, 8, 8), generator=torch.Generator().manual_seed(1)).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        features = layer(images)[:, None]
        loss = local_contrastive_loss(features, labels, backend=backend)
    assert features.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.norm() > 0
    exact = local_contrastive_loss(features.detach().double(), labels, backend="reference")
    assert loss.item() == pytest.approx(exact.item(), abs=0.05)
