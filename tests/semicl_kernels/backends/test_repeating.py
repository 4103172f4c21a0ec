"""Repeated calls: with other data and other memory as the first, and never for calls that launch differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from semicl_kernels import available_backends, local_contrastive_loss
from semicl_kernels.backends import repeating

from ..on_device import device_of

STATE = available_backends()["triton"]
needs_triton = [
    pytest.mark.skipif(STATE != "available", reason=f"backend triton: {STATE}"),
    *([pytest.mark.gpu] if device_of("triton").type == "cuda" else []),
]
CPU = torch.device("cpu")


# ---- the mechanism, with kernels that are plain functions ------------------------------------------------------------


class Kernel:
    """As much of a kernel of Triton's as a launch takes; ``compiled`` is what it returns, as a JIT function does."""

    arg_names = ("out", "x", "part", "size", "scale", "FLAG")

    def __init__(self, compiled: Any = None) -> None:
        self.compiled = compiled
        self.launches: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        def run(out: Tensor, x: Tensor, part: Tensor, size: int, scale: float, FLAG: bool) -> Any:
            self.launches.append((grid, out, x, part, size, scale, FLAG))
            part.copy_(x[: len(part)])
            out.copy_(x * scale + part.sum())
            return self.compiled

        return run


class Compiled:
    def __init__(self) -> None:
        self.launches: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *arguments, stream: self.launches.append((grid, arguments, stream))


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of the host are repeated with, as those of a GPU are."""
    monkeypatch.setattr(repeating, "interpreted", lambda: True)


def scaled(kernel: Kernel, x: Tensor, scale: float = 2.0, key: str = "scaled") -> Tensor:
    """x * scale + the sum of its first two elements, made in a temporary that is the second half of another."""

    def function() -> tuple[Tensor]:
        _, part = repeating.empty((4,), torch.float32, CPU).split(2)
        out = repeating.empty(x.shape, torch.float32, CPU)
        repeating.launch(kernel, (3,), out, x, part, len(x), scale=scale, FLAG=True)
        return (out,)

    (out,) = repeating.repeat((key, x.shape, scale), (x,), CPU, function)
    return out


@pytest.mark.usefixtures("repeated")
def test_a_repeated_call_has_other_data_and_other_memory() -> None:
    kernel = Kernel()
    results = [(x, scaled(kernel, x)) for x in (torch.arange(4.0), torch.arange(4.0) + 7, torch.zeros(4))]
    assert len({out.data_ptr() for _, out in results}) == len(results)
    for x, out in results:
        assert torch.equal(out, x * 2 + x[:2].sum())
    assert all(launched[4:] == (4, 2.0, True) for launched in kernel.launches)


@pytest.mark.usefixtures("repeated")
def test_a_compiled_kernel_gets_the_addresses_of_the_repeated_call() -> None:
    compiled = Compiled()
    kernel = Kernel(compiled)
    scaled(kernel, torch.arange(4.0))
    x = torch.arange(4.0)
    out = scaled(kernel, x)
    assert len(kernel.launches) == 1, "the second call goes past the search"
    ((grid, (out_address, x_address, part_address, size, scale, flag), stream),) = compiled.launches
    assert (grid, size, scale, flag, stream) == ((3, 1, 1), 4, 2.0, True, 0)
    assert (out_address, x_address) == (out.data_ptr(), x.data_ptr())
    assert part_address % repeating.ALIGNMENT == 8, "two float32 past the beginning of a piece"


@pytest.mark.usefixtures("repeated")
def test_another_key_is_recorded_anew() -> None:
    kernel = Kernel(Compiled())
    for scale in (2.0, 3.0, 2.0):
        scaled(kernel, torch.arange(4.0), scale)
    assert [launched[5] for launched in kernel.launches] == [2.0, 3.0]


@pytest.mark.usefixtures("repeated")
def test_inputs_at_odd_addresses_are_not_repeated() -> None:
    kernel = Kernel(Compiled())
    for _ in range(3):
        odd = torch.arange(5.0)[1:]
        assert torch.equal(scaled(kernel, odd), odd * 2 + odd[:2].sum())
    assert len(kernel.launches) == 3


@pytest.mark.usefixtures("repeated")
def test_one_tensor_in_two_places_is_not_taken_for_two() -> None:
    def difference(x: Tensor, y: Tensor) -> float:
        def function() -> tuple[Tensor]:
            return (repeating.apply(torch.sub, repeating.empty((2,), torch.float32, CPU), x, y),)

        return float(repeating.repeat("difference", (x, y), CPU, function)[0].sum())

    ones = torch.ones(2)
    for y, expected in ((ones, 0), (torch.zeros(2), 2), (ones, 0)):
        assert difference(ones, y) == expected


@pytest.mark.usefixtures("repeated")
def test_addresses_are_called_with() -> None:
    seen: list[tuple[Any, ...]] = []

    def twice(x: Tensor) -> Tensor:
        def function() -> tuple[Tensor, Tensor]:
            zero = repeating.zeros((2, 2), torch.float64, CPU)
            order = repeating.apply(torch.neg, repeating.empty((3,), torch.float32, CPU), x)
            repeating.call(lambda *arguments: seen.append(arguments), [x, zero[1]], None, 5, order)
            return zero, order

        zero, order = repeating.repeat("twice", (x,), CPU, function)
        ((first, row), nothing, number, last) = seen[-1]
        assert (first, row, last) == (x.data_ptr(), zero[1].data_ptr(), order.data_ptr())
        assert (nothing, number) == (0, 5)
        assert not zero.any()
        zero.fill_(1)
        return order

    for x in (torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 5, 6])):
        assert torch.equal(twice(x), -x)
    assert len(seen) == 2


@pytest.mark.usefixtures("repeated")
def test_a_tensor_from_elsewhere_is_noticed() -> None:
    stranger = torch.zeros(4)
    with pytest.raises(AssertionError, match="neither an input"):
        repeating.repeat("stranger", (), CPU, lambda: repeating.call(lambda address: None, stranger) or ())  # type: ignore[func-returns-value]


@pytest.mark.usefixtures("repeated")
def test_a_failed_call_is_not_recorded() -> None:
    def fails() -> tuple[Tensor, ...]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        repeating.repeat("fails", (), CPU, fails)
    kernel = Kernel()
    x = torch.arange(4.0)
    assert torch.equal(scaled(kernel, x), x * 2 + 1)
    assert torch.equal(scaled(kernel, x), x * 2 + 1)


@pytest.mark.usefixtures("repeated")
def test_recordings_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeating, "MOST_RECORDINGS", 3)
    kernel = Kernel(Compiled())
    for number in range(10):
        scaled(kernel, torch.arange(4.0), key=str(number))
        assert len(repeating._recordings) <= 3


# ---- the loss --------------------------------------------------------------------------------------------------------


def loss_and_gradient(features: Tensor, labels: Tensor | None, **options: Any) -> tuple[Tensor, Tensor]:
    features = features.clone().requires_grad_()
    loss = local_contrastive_loss(features, labels, **options)
    return loss.detach(), torch.autograd.grad(loss, features)[0]


class TestTheLoss:
    pytestmark = needs_triton

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("labelled", [True, False], ids=["labels", "places"])
    @pytest.mark.parametrize("options", [{"block_size": 5}, {"denominator": "negatives", "normalize": False}])
    def test_repeated_on_new_data(self, dtype: torch.dtype, labelled: bool, options: dict[str, Any]) -> None:
        device = device_of("triton")
        generator = torch.Generator().manual_seed(0)
        problems = [
            (
                torch.randn(1, 2, 20, 9, 7, generator=generator).to(device, dtype),
                torch.randint(0, 3, (1, 2, 9, 7), generator=generator).to(device) if labelled else None,
            )
            for _ in range(2)
        ]
        repeating.forget()
        repeated = [loss_and_gradient(*problem, backend="triton", **options) for problem in problems][1]
        repeating.forget()
        alone = loss_and_gradient(*problems[1], backend="triton", **options)
        assert all(torch.equal(one, other) for one, other in zip(repeated, alone, strict=True))

    def test_other_looks_are_other_calls(self) -> None:
        """Whatever of a call may change while its tensors stay: each result is that of a call with nothing recorded."""
        device = device_of("triton")
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(2, 2, 16, 6, 6, generator=generator).to(device)
        labels = torch.randint(0, 3, (2, 2, 6, 6), generator=generator).to(device)
        calls: list[tuple[Tensor, Tensor | None, dict[str, Any]]] = [
            (features, labels, {}),
            (features, labels, {"temperature": 0.2}),
            (features, labels, {"normalize": False}),
            (features, labels, {"block_size": 3}),
            (features, labels, {"block_size": 4}),
            (features, labels, {"scope": "image"}),
            (features, labels, {"denominator": "negatives"}),
            (features, labels, {"background": None}),
            (features, labels, {"ignore_index": 2}),
            (features, labels, {"reduction": "sum"}),
            (features, labels, {"stride": 2}),
            (features, labels.to(torch.uint8), {}),
            (features, labels.transpose(2, 3).contiguous().transpose(2, 3), {}),
            (features, None, {}),
            (features.movedim(2, -1).contiguous().movedim(-1, 2), labels, {}),
            (features.bfloat16(), labels, {}),
        ]

        expected = []
        for one, other, options in calls:
            repeating.forget()
            expected.append(loss_and_gradient(one, other, backend="triton", **options))
        repeating.forget()
        for _ in range(2):
            for (one, other, options), right in zip(calls, expected, strict=True):
                found = loss_and_gradient(one, other, backend="triton", **options)
                assert all(torch.equal(a, b) for a, b in zip(found, right, strict=True)), options
