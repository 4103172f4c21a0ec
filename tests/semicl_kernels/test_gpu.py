"""What only a real GPU can show: nothing waits for the host, graphs, launches, memory, the same bits, autocast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from semicl_kernels import available_backends, local_contrastive_loss

from .backends.test_agreement import assert_agrees
from .cases import Case, cases
from .on_device import ON_GPU, device_of

BACKENDS = available_backends()
MIB = 2**20
# Whatever the number of blocks, 1 or 144: partition, gather, passes, scatter, and the one that torch begins with.
MOST_LAUNCHES = 12

pytestmark = pytest.mark.gpu


def reason(name: str) -> str | None:
    if not ON_GPU:
        return f"needs a GPU: {BACKENDS[name] if BACKENDS[name] != 'available' else 'the interpreter is on'}"
    return None if BACKENDS[name] == "available" else f"backend {name}: {BACKENDS[name]}"


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.skipif(reason(name) is not None, reason=str(reason(name))))
        for name in ("triton", "cuda")
    ]
)
def gpu_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def skip_refused(backend: str, dtype: torch.dtype, normalize: bool = True) -> None:
    if backend == "cuda" and (dtype == torch.float32 or not normalize):
        pytest.skip("backend 'cuda' takes bfloat16 and float16 with a fixed maximum")


def problem(
    backend: str, side: int = 48, channels: int = 64, dtype: torch.dtype = torch.bfloat16, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Features (2, 2, C, side, side) that require their gradient, and labels of three classes and a background."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 2, channels, side, side, generator=generator)
    labels = torch.randint(0, 4, (2, 1, side, side), generator=generator).expand(2, 2, side, side)
    device = device_of(backend)
    return features.to(device, dtype).requires_grad_(), labels.to(device)


def loss_and_gradient(features: Tensor, labels: Tensor, backend: str, **options: object) -> tuple[Tensor, Tensor]:
    loss = local_contrastive_loss(features, labels, block_size=16, backend=backend, **options)
    return loss, torch.autograd.grad(loss, features)[0]


@pytest.fixture
def waiting_is_an_error() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("waiting_is_an_error")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("options", [{}, {"denominator": "negatives", "ignore_index": 3}, {"normalize": False}])
def test_nothing_waits_from_labels_to_gradient(
    gpu_backend: str, options: dict[str, object], dtype: torch.dtype
) -> None:
    skip_refused(gpu_backend, dtype, "normalize" not in options)
    features, labels = problem(gpu_backend, dtype=dtype)
    loss_and_gradient(features, labels, gpu_backend, **options)  # compiling may wait
    torch.cuda.set_sync_debug_mode("error")
    loss_and_gradient(features, labels, gpu_backend, **options)


def test_a_captured_graph_replays_on_new_data(gpu_backend: str) -> None:
    features, labels = problem(gpu_backend)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        loss_and_gradient(features, labels, gpu_backend)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = loss_and_gradient(features, labels, gpu_backend)
    for seed in (1, 2):
        other_features, other_labels = problem(gpu_backend, seed=seed)
        with torch.no_grad():
            features.copy_(other_features)
        labels.copy_(other_labels)
        graph.replay()
        expected = loss_and_gradient(other_features, other_labels, gpu_backend)
        for found, right in zip(captured, expected, strict=True):
            assert torch.equal(found, right)


@pytest.mark.parametrize("block_size", [48, 4])
def test_launches_do_not_grow_with_the_blocks(gpu_backend: str, block_size: int) -> None:
    features, labels = problem(gpu_backend)

    def call() -> None:
        loss = local_contrastive_loss(features, labels, block_size=block_size, backend=gpu_backend)
        torch.autograd.grad(loss, features)

    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    launches = [e.name for e in seen.events() if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
    assert 0 < len(launches) <= MOST_LAUNCHES, launches


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_same_bits_from_run_to_run(gpu_backend: str, dtype: torch.dtype) -> None:
    skip_refused(gpu_backend, dtype)
    features, labels = problem(gpu_backend, side=128, dtype=dtype)
    first = loss_and_gradient(features, labels, gpu_backend)
    for _ in range(5):
        for found, right in zip(loss_and_gradient(features, labels, gpu_backend), first, strict=True):
            assert torch.equal(found, right)


def test_autocast_changes_nothing(gpu_backend: str) -> None:
    skip_refused(gpu_backend, torch.float32)
    features, labels = problem(gpu_backend, dtype=torch.float32)
    expected = loss_and_gradient(features, labels, gpu_backend)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        found = loss_and_gradient(features, labels, gpu_backend)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_one_compiled_graph(gpu_backend: str) -> None:
    skip_refused(gpu_backend, torch.float32)
    features, labels = problem(gpu_backend, dtype=torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(loss_of_a_model, fullgraph=True)
    expected = loss_of_a_model(features, labels, gpu_backend)
    found = compiled(features, labels, gpu_backend)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(loss, features)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3 * float(gradients[1].abs().max()))


def loss_of_a_model(features: Tensor, labels: Tensor, backend: str) -> Tensor:
    return local_contrastive_loss(2 * features.tanh(), labels, block_size=16, backend=backend)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_agrees_with_the_reference(gpu_backend: str, dtype: torch.dtype) -> None:
    @settings(max_examples=150)
    @given(case=cases(largest_side=40, most_channels=256))
    def agrees(case: Case) -> None:
        assert_agrees(gpu_backend, replace(case, options={**case.options, "normalize": True}), dtype)

    agrees()


def test_memory_is_linear(gpu_backend: str) -> None:
    """At most four times the features and 64 MiB; all pairs of the one group would be 8 GiB in bfloat16."""
    features, labels = problem(gpu_backend, side=128)

    def call() -> None:
        loss = local_contrastive_loss(features, labels, backend=gpu_backend)
        torch.autograd.grad(loss, features)

    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    extra = torch.cuda.max_memory_allocated() - before
    assert extra <= 4 * features.numel() * features.element_size() + 64 * MIB


def test_one_group_of_many_points(gpu_backend: str) -> None:
    """More pairs than an int32 counts."""
    skip_refused(gpu_backend, torch.float32)
    features, labels = problem(gpu_backend, side=160, channels=16, dtype=torch.float32)
    results = []
    for name in (gpu_backend, "tiled"):
        loss = local_contrastive_loss(features, labels, backend=name)
        results.append((loss.detach(), torch.autograd.grad(loss, features)[0]))
    (loss, gradient), (true_loss, true_gradient) = results
    torch.testing.assert_close(loss, true_loss, rtol=1e-5, atol=1e-5)
    assert float((gradient - true_gradient).norm() / true_gradient.norm()) < 1e-4
