"""Repeated calls: with other data and other memory as the first, and never for calls that launch differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from semicl_kernels import available_backends, local_contrastive_loss, partition_kernels
from semicl_kernels.backends import fused, launch_cache, triton

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


class Plain:
    """A kernel that writes what a function makes of its inputs."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.arg_names = ("out", "inputs")

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def run(out: Tensor, *inputs: Tensor) -> None:
            out.copy_(self.function(*inputs))

        return run


class Compiled:
    def __init__(self) -> None:
        self.launches: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *arguments, stream: self.launches.append((grid, arguments, stream))


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls with tensors of the host are repeated, as those with a GPU's are."""
    monkeypatch.setattr(launch_cache, "interpreted", lambda: True)


def scaled(kernel: Kernel, x: Tensor, scale: float = 2.0, name: str = "scaled") -> Tensor:
    """x * scale + the sum of its first two elements, by way of the second half of a temporary."""

    def function() -> tuple[Tensor]:
        _, part = launch_cache.empty((4,), torch.float32, CPU).split(2)
        out = launch_cache.empty(x.shape, torch.float32, CPU)
        launch_cache.launch(kernel, (3,), out, x, part, len(x), scale=scale, FLAG=True)
        return (out,)

    (out,) = launch_cache.repeat(name, scale, (x,), function)
    return out


@pytest.mark.usefixtures("repeated")
def test_a_repeated_call_has_other_data_and_other_memory() -> None:
    kernel = Kernel()
    results = [(x, scaled(kernel, x)) for x in (torch.arange(4.0) + number for number in range(5))]
    assert len({out.data_ptr() for _, out in results}) == len(results)
    for x, out in results:
        assert torch.equal(out, x * 2 + x[:2].sum())
    assert all(launched[4:] == (4, 2.0, True) for launched in kernel.launches)


@pytest.mark.usefixtures("repeated")
def test_a_compiled_kernel_gets_the_addresses_of_the_repeated_call() -> None:
    compiled = Compiled()
    kernel = Kernel(compiled)
    for _ in range(2):
        scaled(kernel, torch.arange(4.0))
    x = torch.arange(4.0)
    out = scaled(kernel, x)
    assert len(kernel.launches) == 2, "the third call goes past the search"
    ((grid, (out_address, x_address, part_address, size, scale, flag), stream),) = compiled.launches
    assert (grid, size, scale, flag, stream) == ((3, 1, 1), 4, 2.0, True, 0)
    assert (out_address, x_address) == (out.data_ptr(), x.data_ptr())
    assert part_address % launch_cache.ALIGNMENT == 8, "two float32 past the beginning of a part"


OTHER_LOOKS = {
    "dtype": torch.arange(4.0).half(),
    "shape": torch.arange(6.0),
    "stride": torch.arange(8.0)[::2],
    "address": torch.arange(5.0)[1:],
}


@pytest.mark.usefixtures("repeated")
@pytest.mark.parametrize("other", OTHER_LOOKS.values(), ids=OTHER_LOOKS.keys())
def test_an_input_that_looks_otherwise_is_another_call(other: Tensor) -> None:
    kernel = Kernel(Compiled())
    for _ in range(3):
        scaled(kernel, torch.arange(4.0))
    before = len(kernel.launches)
    assert torch.equal(scaled(kernel, other), (other * 2 + other[:2].sum()).float())
    assert len(kernel.launches) == before + 1


@pytest.mark.usefixtures("repeated")
def test_other_options_are_another_call() -> None:
    kernel = Kernel(Compiled())
    for scale in (2.0, 3.0, 2.0, 3.0, 2.0, 3.0):
        scaled(kernel, torch.arange(4.0), scale)
    assert [launched[5] for launched in kernel.launches] == [2.0, 3.0, 2.0, 3.0]


@pytest.mark.usefixtures("repeated")
def test_a_call_that_never_comes_again_is_not_recorded() -> None:
    kernel = Kernel(Compiled())
    for number in range(5):
        scaled(kernel, torch.arange(4.0), scale=float(number))
    assert list(launch_cache.remembered.values()) == [None] * 5


@pytest.mark.usefixtures("repeated")
def test_one_tensor_for_two_inputs_is_not_taken_for_two() -> None:
    def difference(x: Tensor, y: Tensor) -> float:
        def function() -> tuple[Tensor]:
            out = launch_cache.empty((2,), torch.float32, CPU)
            launch_cache.launch(Plain(torch.sub), (1,), out, x, y)
            return (out,)

        return float(launch_cache.repeat("difference", None, (x, y), function)[0].sum())

    ones = torch.ones(2)
    for y, expected in ((ones, 0), (torch.zeros(2), 2), (ones, 0), (torch.zeros(2), 2), (torch.zeros(2), 2), (ones, 0)):
        assert difference(ones, y) == expected


@pytest.mark.usefixtures("repeated")
def test_addresses_are_called_with() -> None:
    seen: list[tuple[Any, ...]] = []

    def negated(x: Tensor) -> Tensor:
        def function() -> tuple[Tensor, Tensor]:
            zero = launch_cache.zeros((2, 2), torch.float64, CPU)
            order = launch_cache.empty((3,), torch.float32, CPU)
            launch_cache.launch(Plain(torch.neg), (1,), order, x)
            bits = order.view(torch.int32)
            launch_cache.call(lambda *arguments: seen.append(arguments), [x, zero[1]], None, 5, bits)
            return zero, order

        zero, order = launch_cache.repeat("negated", None, (x,), function)
        ((first, row), nothing, number, last) = seen[-1]
        assert (first, row, last) == (x.data_ptr(), zero[1].data_ptr(), order.data_ptr())
        assert (nothing, number) == (0, 5)
        assert not zero.any()
        zero.fill_(1)
        return order

    for x in (torch.tensor([1.0, 2, 3]) + number for number in range(4)):
        assert torch.equal(negated(x), -x)
    assert len(seen) == 4


@pytest.mark.usefixtures("repeated")
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: launch_cache.call(lambda address: None, torch.zeros(4)) or (), "neither an input"),
        (lambda x: (x,), "must be whole"),
        (lambda x: (launch_cache.empty((4,), torch.float32, CPU)[1:],), "must be whole"),
        (lambda x: launch_cache.repeat("inner", None, (x,), tuple), "has called another"),
    ],
    ids=["a tensor from elsewhere", "an input returned", "a part returned", "nested"],
)
def test_a_function_that_cannot_be_repeated_is_refused(
    function: Callable[[Tensor], tuple[Tensor, ...]], message: str
) -> None:
    x = torch.zeros(4)
    launch_cache.repeat("bad", None, (x,), lambda: function(x))
    with pytest.raises(AssertionError, match=message):
        launch_cache.repeat("bad", None, (x,), lambda: function(x))
    assert torch.equal(scaled(Kernel(), x), x), "nothing of it is left"


@pytest.mark.usefixtures("repeated")
def test_the_longest_unused_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_cache, "MAX_CACHED", 3)
    kernel = Kernel(Compiled())
    for number in range(10):
        for name in ("often", "often", str(number)):
            scaled(kernel, torch.arange(4.0), name=name)
        assert len(launch_cache.remembered) <= 3
    assert len(kernel.launches) == 2 + 10, "what is used often is kept"


# ---- the loss --------------------------------------------------------------------------------------------------------


def loss_and_gradient(features: Tensor, labels: Tensor | None, **options: Any) -> tuple[Tensor, Tensor]:
    features = features.clone().requires_grad_()
    loss = local_contrastive_loss(features, labels, **options)
    return loss.detach(), torch.autograd.grad(loss, features)[0]


def drawn(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features of the shape (B, V, C, *space), and labels."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(shape, generator=generator)
    labels = torch.randint(0, 3, (*shape[:2], *shape[3:]), generator=generator)
    return features.to(device_of("triton")), labels.to(device_of("triton"))


def assert_same_bits(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], what: object = "") -> None:
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True)), what


class TestTheLoss:
    pytestmark = needs_triton

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize(
        ("labelled", "options"),
        [(True, {"block_size": 5}), (False, {"denominator": "negatives", "normalize": False})],
        ids=["labels", "places"],
    )
    def test_repeated_on_new_data(self, dtype: torch.dtype, labelled: bool, options: dict[str, Any]) -> None:
        def result(seed: int) -> tuple[Tensor, Tensor]:
            features, labels = drawn(1, 2, 20, 9, 7, seed=seed)
            return loss_and_gradient(features.to(dtype), labels if labelled else None, backend="triton", **options)

        repeated = [result(seed) for seed in (0, 0, 1)][-1]
        assert any(recording is not None for recording in launch_cache.remembered.values())
        launch_cache.forget()
        assert_same_bits(repeated, result(1))

    def test_other_options_and_layouts_are_other_calls(self) -> None:
        """Whatever may change from call to call: each result is that of a call with nothing remembered."""
        features, labels = drawn(2, 2, 16, 2, 3)
        calls: list[tuple[Tensor, Tensor | None, dict[str, Any]]] = [
            (features, labels, {}),
            (features, labels, {"temperature": 0.2}),
            (features, labels, {"normalize": False}),
            (features, labels, {"block_size": 2}),
            (features, labels, {"block_size": (1, 2)}),
            (features, labels, {"scope": "image"}),
            (features, labels, {"denominator": "negatives"}),
            (features, labels, {"background": None}),
            (features, labels, {"ignore_index": 2}),
            (features, labels, {"reduction": "sum"}),
            (features, labels, {"stride": 2}),
            (features, labels.to(torch.uint8), {}),
            (features, labels.mT.contiguous().mT, {}),
            (features, None, {}),
            (features.movedim(2, -1).contiguous().movedim(-1, 2), labels, {}),
            (features.bfloat16(), labels, {}),
            (features.half(), labels, {}),
        ]
        expected = []
        for one, other, options in calls:
            launch_cache.forget()
            expected.append(loss_and_gradient(one, other, backend="triton", **options))
        launch_cache.forget()
        for _ in range(3):
            for (one, other, options), right in zip(calls, expected, strict=True):
                found = loss_and_gradient(one, other, backend="triton", **options)
                assert_same_bits(found, right, options)

    def test_without_gradient_and_with(self) -> None:
        features, labels = drawn(1, 2, 16, 4, 4)
        expected = loss_and_gradient(features, labels, backend="triton")
        for _ in range(3):
            assert torch.equal(local_contrastive_loss(features, labels, backend="triton"), expected[0])
            assert_same_bits(loss_and_gradient(features, labels, backend="triton"), expected)

    def test_another_precision_is_another_call(self) -> None:
        features, labels = drawn(1, 2, 16, 4, 4)
        before = torch.get_float32_matmul_precision()
        results: dict[str, tuple[Tensor, Tensor]] = {}
        try:
            for precision in ("highest", "high", "highest", "high", "highest", "high"):
                torch.set_float32_matmul_precision(precision)
                found = loss_and_gradient(features, labels, backend="triton")
                assert_same_bits(found, results.setdefault(precision, found), precision)
        finally:
            torch.set_float32_matmul_precision(before)
        assert not torch.equal(results["high"][1], results["highest"][1])

    def test_hooks_may_save_the_gradient_in_another_dtype(self) -> None:
        features, labels = drawn(1, 2, 16, 4, 4)
        exact = loss_and_gradient(features, labels, backend="triton")
        for _ in range(3):
            with torch.autograd.graph.saved_tensors_hooks(narrow, lambda saved: saved):
                rounded = loss_and_gradient(features, labels, backend="triton")[1]
            torch.testing.assert_close(rounded, exact[1], rtol=2e-2, atol=1e-5)
            assert_same_bits(loss_and_gradient(features, labels, backend="triton"), exact)

    def test_nothing_but_launches_is_done_with_tensors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a function under repeat did beside, a repeated call would leave out."""
        done: set[str] = set()
        launching = False

        class Watching(TorchDispatchMode):
            def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if not launching:
                    done.add(operation.overloadpacket.__name__)
                return operation(*args, **(kwargs or {}))

        def watched(name: str, options: Any, inputs: Any, function: Any) -> Any:
            with Watching():
                return function()

        def unwatched(kernel: Any, *arguments: Any, **options: Any) -> None:
            nonlocal launching
            launching = True
            launch_cache.launch(kernel, *arguments, **options)
            launching = False

        for module in (fused, partition_kernels):
            monkeypatch.setattr(module, "repeat", watched)
        for module in (fused, triton, partition_kernels):
            monkeypatch.setattr(module, "launch", unwatched)
        features, labels = drawn(1, 2, 16, 4, 4)
        for dtype in (torch.float32, torch.float16):
            for given in (labels, None):
                loss_and_gradient(features.to(dtype), given, backend="triton")
        assert done == {"empty", "split_with_sizes", "unbind"}


def narrow(saved: Tensor) -> Tensor:
    return saved.bfloat16() if saved.dtype == torch.float32 else saved
