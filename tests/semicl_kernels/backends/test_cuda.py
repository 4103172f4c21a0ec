"""The CUDA backend's own concerns, its kernels run by an emulated GPU: values, masks, tails, asynchronous work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semicl_kernels import grouped_logsumexp, local_contrastive_loss, nt_xent_loss
from semicl_kernels.backends import AVAILABLE, BACKENDS, Groups, choose_backend, cuda, device, fused, triton

from .. import emulator, near_equal, on_device
from ..accuracy import assert_gradients_follow_rule, assert_values_follow_rule
from ..cases import Case, cases
from ..groups import Packed, int32, itself_skipped, mutually_skipped, packed_groups, unit_rows
from ..test_ops import SCALE, sizes_of
from .test_agreement import assert_agrees

SIZES = st.sampled_from((0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 129, 200))
# Of threads and asynchronous work: the two extremes, and the seeds of random ones.
ORDERS: tuple[str | int, ...] = ("late", "early", 1, 2, 3)


@cache
def machine() -> emulator.Emulator:
    return emulator.Emulator()


@pytest.fixture(scope="module")
def emulated() -> Iterator[pytest.MonkeyPatch]:
    """The backend "cuda" on tensors of the host."""
    if emulator.compiler() is None:
        pytest.skip(emulator.MISSING)
    if device.state() != AVAILABLE or not device.interpreted():
        pytest.skip("Triton's interpreter runs the kernels around the emulated ones: set TRITON_INTERPRET=1")
    cuda.tile_sizes.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "compiled", machine())
        patch.setattr(cuda, "launch_site", lambda device: (0, 0))
        patch.setattr(on_device, "ON_GPU", ())  # it computes on tensors of the host
        on_host = replace(cuda.BACKEND, state=lambda: AVAILABLE, refuses=lambda *_: None)
        patch.setitem(BACKENDS, "cuda", on_host)
        yield patch
    cuda.tile_sizes.cache_clear()


each_dtype = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


def lse_and_gradient(packed: Packed, dtype: torch.dtype, backend: str, **promises: object) -> tuple[Tensor, Tensor]:
    rows = packed.rows.to(dtype).requires_grad_()
    lse = grouped_logsumexp(*packed.with_rows(rows), scale=SCALE, bound=1.01 * SCALE, backend=backend, **promises)
    weights = torch.linspace(-1, 2, len(rows), dtype=lse.dtype)
    (gradient,) = torch.autograd.grad((weights * lse)[torch.isfinite(lse)].sum(), rows)
    return lse.detach(), gradient


def assert_primitive_agrees(packed: Packed, dtype: torch.dtype, **promises: object) -> None:
    packed = packed.with_rows(packed.rows.to(dtype).double())  # the rounding of the input is nobody's error
    truth, true_gradient = lse_and_gradient(packed, torch.float64, "reference")
    plain, plain_gradient = lse_and_gradient(packed, dtype, "reference")
    lse, gradient = lse_and_gradient(packed, dtype, "cuda", **promises)
    finite = torch.isfinite(truth)
    assert torch.equal(lse[~finite].double(), truth[~finite])
    sizes = sizes_of(packed, dtype)
    assert_values_follow_rule(lse[finite], plain[finite], truth[finite], sizes)
    assert_gradients_follow_rule(gradient, plain_gradient, true_gradient, sizes)


@each_dtype
@pytest.mark.parametrize("channels", [1, 32, 33, 128, 256])
def test_channels(dtype: torch.dtype, channels: int, emulated: pytest.MonkeyPatch) -> None:
    assert_primitive_agrees(itself_skipped(unit_rows(150, channels, seed=channels)), dtype, mutual=True)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 129, 300, 385])
def test_counts_of_rows(count: int) -> None:
    assert_primitive_agrees(itself_skipped(unit_rows(count, 40, seed=count)), torch.bfloat16, mutual=True)


def with_multiprocessors(count: int) -> Iterator[None]:
    machine().have_multiprocessors(count)
    cuda.workers.cache_clear()
    yield
    machine().have_multiprocessors(3)
    cuda.workers.cache_clear()


@pytest.fixture(params=[1, 3, 20])
def some_multiprocessors(emulated: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    yield from with_multiprocessors(request.param)


@pytest.mark.usefixtures("some_multiprocessors")
@pytest.mark.parametrize("columns", [128, 384, 32768])
@pytest.mark.parametrize("anchors", [1, 100, 500, 700])
def test_sums_that_tiles_give_to_later_ones(anchors: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one worker and of others; columns that are no anchors; blocks of columns."""
    monkeypatch.setattr(triton, "COLUMNS", columns)
    packed = itself_skipped(unit_rows(700, 16, seed=0))._replace(anchors=int32([anchors]))
    assert_primitive_agrees(packed, torch.bfloat16, mutual=True)


@pytest.fixture
def many_multiprocessors(emulated: pytest.MonkeyPatch) -> Iterator[None]:
    yield from with_multiprocessors(37)


@pytest.mark.usefixtures("many_multiprocessors")
@pytest.mark.parametrize(("points", "anchors"), [(900, 1), (1500, 130)])
def test_tiles_in_many_pieces(points: int, anchors: int) -> None:
    """Of more workers than tiles, several have a piece of the same."""
    packed = itself_skipped(unit_rows(points, 32, seed=0))._replace(anchors=int32([anchors]))
    assert_primitive_agrees(packed, torch.bfloat16, mutual=True)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("count", [1, 5, 255, 256, 700])
def test_the_work_of_groups_is_counted(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "COLUMNS", 512)
    generator = torch.Generator().manual_seed(count)
    sizes = torch.randint(0, 40, (count,), generator=generator) * torch.randint(0, 40, (count,), generator=generator)
    anchors = (sizes * torch.rand(count, generator=generator)).int()
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).int()
    own = torch.arange(int(offsets[-1]), dtype=torch.int32)
    groups = Groups(offsets, anchors, own, own + 1, int(sizes.max()), True)
    pairs = cuda.Pairs(torch.zeros(1, len(own), 32, dtype=torch.bfloat16), groups, 10.0, 10.1)
    pairs.count_work()
    from semicl_kernels.triton_kernels import tile_scheduler

    sizes, anchors = sizes.long(), anchors.long()
    assert torch.equal(pairs.tile_ends.long(), torch.where(anchors > 0, -(-sizes // pairs.tile_rows), 0).cumsum(0))
    rows, n = 128, 128
    with_anchor, tiles = -(-anchors // rows), torch.where(anchors > 0, -(-sizes // rows), 0)
    long, short = (-(-rows // n) + tile_scheduler.PROLOGUE_COST.value for rows in (sizes, anchors))
    steps = with_anchor * long + (tiles - with_anchor) * short
    assert torch.equal(pairs.gradient_ends, steps.cumsum(0))
    before = torch.arange(pairs.blocks) * pairs.columns  # each block
    columns = (sizes[:, None] - before).clamp(0, pairs.columns)
    of_block = torch.where(columns > 0, -(-torch.minimum(anchors[:, None], before + pairs.columns) // rows), 0)
    past = (of_block - before // rows).clamp(min=0)
    sums = of_block * (-(-columns // n) + tile_scheduler.PROLOGUE_COST.value) - past * (past - 1) // 2
    assert torch.equal(pairs.sums_ends, sums.flatten().cumsum(0))


def class_runs(sizes: list[int], anchors: int) -> Packed:
    """One group whose rows skip the run, of these sizes, that they lie in."""
    ends = torch.tensor(sizes).cumsum(0).tolist()
    low = [end - size for size, end in zip(sizes, ends, strict=True) for _ in range(size)]
    high = [end for size, end in zip(sizes, ends, strict=True) for _ in range(size)]
    rows = unit_rows(ends[-1], 24, seed=len(sizes))
    return Packed(rows, int32([0, ends[-1]]), int32([anchors]), int32(low), int32(high))


@each_dtype
@pytest.mark.parametrize("sizes", [[300, 1, 260], [64, 128, 192], [561], [1, 560], [270, 291]])
def test_tiles_that_every_row_skips_are_passed_over(
    dtype: torch.dtype, sizes: list[int], emulated: pytest.MonkeyPatch
) -> None:
    for anchors in (sum(sizes), sizes[0]):
        assert_primitive_agrees(class_runs(sizes, anchors), dtype, mutual=True)


@pytest.mark.usefixtures("emulated")
@each_dtype
def test_rows_of_other_groups_never_count(dtype: torch.dtype) -> None:
    """Not even infinite ones: tiles are loaded past the end of a group."""
    packed = itself_skipped(unit_rows(120, 40, seed=0).to(dtype))._replace(offsets=int32([7, 91]), anchors=int32([80]))
    expected = lse_and_gradient(packed, dtype, "cuda", mutual=True)
    poisoned = packed.rows.clone()
    poisoned[:7], poisoned[91:] = torch.inf, torch.nan
    actual = lse_and_gradient(packed.with_rows(poisoned), dtype, "cuda", mutual=True)
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)


@pytest.fixture
def one_multiprocessor(emulated: pytest.MonkeyPatch) -> Iterator[None]:
    yield from with_multiprocessors(1)


@each_dtype
@pytest.mark.parametrize("channels", [40, 128, 256])
@pytest.mark.usefixtures("one_multiprocessor")
def test_bits_are_the_same_in_every_order(dtype: torch.dtype, channels: int, emulated: pytest.MonkeyPatch) -> None:
    """Of threads, warps, warp groups and all that is asynchronous. One block goes round its rings of buffers more than
    once; the last tiles are ragged."""
    packed = itself_skipped(unit_rows(300, channels, seed=0))
    packed = packed.with_rows(packed.rows.to(dtype).double())._replace(anchors=int32([130]))
    first = lse_and_gradient(packed, dtype, "cuda", mutual=True)
    for order in ORDERS[1:]:
        with machine().in_order(order):
            again = lse_and_gradient(packed, dtype, "cuda", mutual=True)
        assert all(torch.equal(one, other) for one, other in zip(again, first, strict=True)), order


@pytest.mark.usefixtures("emulated")
def test_orders_are_what_they_say() -> None:
    def turns(order: str | int, warps: int = 6, rounds: int = 100) -> list[tuple[int, ...]]:
        with machine().in_order(order):
            numbers = machine().integers("turns", warps, rounds, count=warps * rounds)
        return [tuple(numbers[begin : begin + warps]) for begin in range(0, len(numbers), warps)]

    every = {order: turns(order) for order in ORDERS}
    assert every["late"][0] == (0, 1, 2, 3, 4, 5)
    assert every["early"][0] == (5, 4, 3, 2, 1, 0)
    for seed in ORDERS[2:]:
        assert {tuple(sorted(one)) for one in every[seed]} == {every["late"][0]}
        assert len(set(every[seed])) > 10
    assert len({tuple(one) for one in every.values()}) == len(ORDERS), "each seed has an order of its own"
    assert {order: turns(order) for order in ORDERS} == every


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("fence", "message"),
    [
        ("fence_async", r"wgmma or TMA meets what thread \d+ stored in shared memory and did not fence"),
        ("publish_barriers", "a copy counts at a barrier that was not published"),
    ],
)
def test_a_missing_fence_is_found(order: str | int, fence: str, message: str, emulated: pytest.MonkeyPatch) -> None:
    """The rows past a ragged group's last are cleared in shared memory, then multiplied by wgmma."""
    packed = itself_skipped(unit_rows(70, 32, seed=0))
    with machine().in_order(order):
        lse_and_gradient(packed, torch.bfloat16, "cuda", mutual=True)
        with machine().without(fence), pytest.raises(RuntimeError, match=message):
            lse_and_gradient(packed, torch.bfloat16, "cuda", mutual=True)


@each_dtype
@settings(max_examples=12)
@given(packed=packed_groups(SIZES, most_channels=40), by_class=st.booleans(), order=st.sampled_from(ORDERS))
def test_ragged_groups(
    dtype: torch.dtype, emulated: pytest.MonkeyPatch, packed: Packed, by_class: bool, order: str | int
) -> None:
    with machine().in_order(order):
        assert_primitive_agrees(mutually_skipped(packed, by_class), dtype, mutual=True)


@each_dtype
@settings(max_examples=8)
@given(case=cases(largest_side=12, most_channels=40), order=st.sampled_from(ORDERS))
def test_losses(dtype: torch.dtype, emulated: pytest.MonkeyPatch, case: Case, order: str | int) -> None:
    with machine().in_order(order):
        assert_agrees("cuda", replace(case, options={**case.options, "normalize": True}), dtype)


# One class that fills tiles of 128 rows but for its edges, two that share one, background.
LABELS = torch.tensor([1] * 270 + [2] * 20 + [3] * 7 + [0] * 18)


@pytest.mark.usefixtures("emulated")
@each_dtype
@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_gradients_of_nearly_equal_features(dtype: torch.dtype, denominator: str) -> None:
    features = near_equal.features_of(LABELS, 32, 0.005, False).to(dtype)
    loss = partial(local_contrastive_loss, backend="cuda")
    assert near_equal.error_ratio(loss, LABELS, features, denominator) <= 2


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(("bound", "mutual"), [(None, True), (10.1, False), (33.0, True)])
def test_the_passes_refuse_what_they_cannot_compute(bound: float | None, mutual: bool) -> None:
    """Also where nobody chose the backend by :func:`choose_backend`."""
    groups = Groups(*itself_skipped(unit_rows(10, 32, seed=0))[1:], 10, mutual)
    with pytest.raises(ValueError, match=r"'cuda' got no fixed maximum; it takes .*use backend='triton'"):
        cuda.Pairs(torch.zeros(1, 10, 32, dtype=torch.bfloat16), groups, 10.0, bound)


@pytest.mark.usefixtures("emulated")
def test_rows_without_a_bound_are_triton_s() -> None:
    """As those of a loss with weights or keys are."""
    packed = itself_skipped(unit_rows(10, 32, seed=0))
    rows, groups = packed.rows.bfloat16(), Groups(*packed[1:], 10, True)
    lse = triton.forward(rows, None, groups, 10.0, None)
    assert torch.equal(cuda.forward(rows, None, groups, 10.0, None), lse)
    above = torch.linspace(-1, 2, 10)
    relative = (above, rows, None, lse, groups, None, 10.0, None, True, True, False)
    assert torch.equal(cuda.backward(*relative)[0], triton.backward(*relative)[0])


@pytest.fixture
def on_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled code and Triton are there, and the GPU is Hopper."""
    monkeypatch.setattr(device, "interpreted", lambda: False)
    monkeypatch.setattr(cuda, "is_hopper", lambda device: True)
    for name, backend in (("cuda", cuda.BACKEND), ("triton", BACKENDS["triton"])):
        monkeypatch.setitem(BACKENDS, name, replace(backend, state=lambda: AVAILABLE))


GPU = torch.device("cuda", 0)


@pytest.mark.usefixtures("on_hopper")
@pytest.mark.parametrize(
    ("dtype", "channels", "bound", "said"),
    [
        (torch.float64, 8, 10.1, r"got torch.float64; it takes bfloat16 and float16.*'triton'.*'tiled' for float64"),
        (torch.float32, 8, 10.1, r"got torch.float32; it takes bfloat16 and float16: use backend='triton'"),
        (torch.bfloat16, 300, 10.1, r"got 300 channels; it takes 256 at most: use backend='triton'"),
        (torch.bfloat16, 8, 33.0, r"got exponents of up to 33; it takes a fixed maximum.*use backend='triton'"),
        (torch.float16, 8, None, r"got no bound of the exponents; it takes a fixed maximum.*use backend='triton'"),
    ],
)
def test_what_it_refuses_is_told_and_is_triton_s(
    dtype: torch.dtype, channels: int, bound: float | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        choose_backend("cuda", GPU, dtype, channels, bound)
    expected = "triton" if dtype != torch.float64 else "tiled"
    assert choose_backend("auto", GPU, dtype, channels, bound) == expected


@pytest.mark.usefixtures("on_hopper")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_fixed_maximum_is_taken_on_hopper_where_it_is_asked_for(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_backend("cuda", GPU, dtype, 256, fused.SAFE_BOUND) == "cuda"
    assert choose_backend("auto", GPU, dtype, 256, fused.SAFE_BOUND) == "triton", "until a GPU has run it"
    monkeypatch.setattr(cuda, "is_hopper", lambda device: False)
    with pytest.raises(ValueError, match=r"got tensors on cuda:0, which is no Hopper GPU .*use backend='triton'"):
        choose_backend("cuda", GPU, dtype, 256, fused.SAFE_BOUND)


def test_bounds_that_calls_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """None where features are not normalized, skips are not known to be mutual, or the scale is not positive."""
    told: list[float | None] = []

    def refuses(place: torch.device, dtype: torch.dtype, channels: int, bound: float | None) -> str | None:
        told.append(bound)
        return None

    monkeypatch.setitem(BACKENDS, "tiled", replace(BACKENDS["tiled"], refuses=refuses))
    features, packed = torch.randn(1, 2, 8, 4, 4), itself_skipped(unit_rows(5, 8, seed=0))
    local_contrastive_loss(features, temperature=0.07, backend="tiled")
    local_contrastive_loss(features, temperature=0.07, normalize=False, backend="tiled")
    nt_xent_loss(torch.randn(4, 8), torch.randn(4, 8), temperature=0.5, backend="tiled")
    for options in ({"bound": 3.0, "mutual": True}, {"bound": 3.0}, {"mutual": True}, {"bound": 3.0, "scale": -1.0}):
        grouped_logsumexp(*packed, backend="tiled", **{"mutual": True, **options} if "scale" in options else options)
    assert told == [1.01 * (1 / 0.07), None, 1.01 * (1 / 0.5), 3.0, None, None, None]


def test_what_is_asked_of_it_is_constant_in_a_compiled_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo warns of a cached function that it traces."""
    monkeypatch.setattr(cuda, "capability", lambda device: cuda.HOPPER)

    def asked(x: Tensor) -> Tensor:
        refusal = cuda.refuses(GPU, torch.bfloat16, 3 * x.shape[0], 10.0)
        return x if refusal is None else x + len(cuda.state())

    traced = torch.compile(asked, fullgraph=True, dynamic=True, backend="eager")
    assert torch.equal(traced(torch.zeros(5)), torch.zeros(5))
    assert torch.equal(traced(torch.zeros(100)), torch.full((100,), float(len(cuda.state()))))
