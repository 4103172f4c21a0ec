"""How programs share the gradient's work out: the same gradient by however many, and the same bits every time."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semicl_kernels import available_backends, partition_kernels
from semicl_kernels.backends import fused, launch_cache, tiled, triton
from semicl_kernels.backends.base import Groups, Keys, Positives, Problem
from semicl_kernels.backends.device import chip

from .. import near_equal
from ..accuracy import assert_gradients_follow_rule
from ..groups import Packed, int32, itself_skipped, packed_groups, unit_rows
from ..on_device import device_of, local_contrastive_loss
from ..test_ops import lse_and_gradient, sizes_of

STATE = available_backends()["triton"]
pytestmark = [
    pytest.mark.skipif(STATE != "available", reason=f"backend triton: {STATE}"),
    *([pytest.mark.gpu] if device_of("triton").type == "cuda" else []),
]
SIZES = st.sampled_from((0, 1, 2, 63, 64, 65, 130))


def shared_out(packed: Packed, programs: int, mutual: bool = False) -> Tensor:
    """Return the gradient by so many programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton, "chip", lambda device: chip(device)._replace(programs=programs))
        return lse_and_gradient(packed, torch.float32, "triton", mutual=mutual)[1]


def assert_right(found: Tensor, packed: Packed) -> None:
    truth, plain = (lse_and_gradient(packed, dtype, "reference")[1] for dtype in (torch.float64, torch.float32))
    assert_gradients_follow_rule(found, plain, truth, sizes_of(packed, torch.float32))


@pytest.mark.parametrize(
    ("programs", "channels", "anchors"),
    # The interpreter's tiles sum 8 channels as a whole, 100 in two parts.
    [(1, 8, 200), (2, 8, 70), (5, 8, 200), (5, 100, 70)],
)
def test_any_number_of_programs_gives_the_gradient(programs: int, channels: int, anchors: int) -> None:
    assert_shared_out(itself_skipped(unit_rows(200, channels, seed=0)), anchors, programs)


@pytest.mark.parametrize("programs", [1, 3, 40])
def test_a_triangle_in_blocks_of_columns(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "COLUMNS", 64)
    assert_shared_out(itself_skipped(unit_rows(290, 8, seed=0)), 230, programs)


@pytest.mark.parametrize(("points", "anchors", "programs"), [(700, 3, 40), (1300, 1, 60)])
def test_tiles_in_many_pieces(points: int, anchors: int, programs: int) -> None:
    """The tile with the anchors is that of three programs and more."""
    assert_shared_out(itself_skipped(unit_rows(points, 8, seed=0)), anchors, programs)


def assert_shared_out(packed: Packed, anchors: int, programs: int) -> None:
    packed = packed._replace(anchors=int32([anchors]))
    packed = packed.with_rows(packed.rows.float().double())
    found = shared_out(packed, programs, mutual=True)
    assert_right(found, packed)
    assert torch.equal(found, shared_out(packed, programs, mutual=True))


@settings(max_examples=6)
@given(packed=packed_groups(SIZES, most_channels=20), programs=st.sampled_from((1, 3, 17)))
def test_ragged_groups_are_shared_out_too(packed: Packed, programs: int) -> None:
    packed = packed.with_rows(packed.rows.float().double())
    assert_right(shared_out(packed, programs), packed)


# One class that fills tiles of the interpreter's 64 rows but for its edges, two that share one, background.
LABELS = torch.tensor([1] * 130 + [2] * 20 + [3] * 7 + [0] * 18)


@pytest.mark.parametrize(
    ("dtype", "spread", "one_direction", "denominator", "reduction"),
    [
        (torch.float32, 0.3, False, "all", "block"),
        (torch.float32, 0.005, False, "all", "block"),
        (torch.float32, 0.005, True, "all", "block"),
        (torch.float32, 0.005, True, "negatives", "block"),
        (torch.float32, 0.005, False, "all", "none"),
        (torch.float32, 0.005, False, "negatives", "none"),
        (torch.bfloat16, 0.005, False, "all", "block"),
        (torch.float16, 0.005, True, "all", "none"),
    ],
)
def test_gradients_of_nearly_equal_features(
    dtype: torch.dtype, spread: float, one_direction: bool, denominator: str, reduction: str
) -> None:
    features = near_equal.features_of(LABELS, 32, spread, one_direction).to(dtype)
    loss = partial(local_contrastive_loss, backend="triton")
    assert near_equal.error_ratio(loss, LABELS, features, denominator, reduction) <= 2


@pytest.mark.parametrize("reduction", ["block", "none"])
@pytest.mark.parametrize("count", [1, 130])
def test_short_vectors_beside_one_that_dwarfs_them(count: int, reduction: str) -> None:
    """Taken from a sum of all, what is short beside 1e5 would be lost; also where a class is of many tiles."""
    labels = torch.tensor([1] * (count + 1) + [2, 2])
    x = torch.zeros(1, 1, 2, 1, len(labels))
    x[0, 0, 0, 0, labels == 1] = 1e-3
    x[0, 0, 0, 0, count // 2] = 1e5
    x[0, 0, 1, 0, labels == 2] = 1
    options = {"temperature": 1.0, "normalize": False, "reduction": reduction}
    found = local_contrastive_loss(x, labels[None, None, None], **options, backend="triton")
    true = local_contrastive_loss(x.double(), labels[None, None, None], **options, backend="reference")
    torch.testing.assert_close(found.double(), true, rtol=1e-5, atol=2e-5)


def test_launches_of_a_loss_and_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def launch(kernel: Any, *arguments: Any, **options: Any) -> None:
        names.append(kernel.fn.__name__)
        launch_cache.launch(kernel, *arguments, **options)

    for module in (fused, triton, partition_kernels):
        monkeypatch.setattr(module, "launch", launch)
    features = torch.randn(1, 2, 16, 12, 12).bfloat16().to(device_of("triton")).requires_grad_()
    labels = torch.randint(0, 3, (1, 2, 12, 12))
    local_contrastive_loss(features, labels, backend="triton").backward()
    of_labels = ["count_classes", "sum_chunks", "sum_groups", "place_points"]
    of_pairs = ["gather_rows", "sum_pairs", "sum_edges", "anchor_losses", "row_gradient", "finish_rows", "scatter_rows"]
    assert names == of_labels + of_pairs


def problem_of(features: Tensor, normalize: bool = True) -> Problem:
    """All points of a map as the anchors of one group and one class."""
    own = torch.arange(features[:, :, 0].numel(), dtype=torch.int32, device=features.device)
    count = int32([len(own)]).to(features.device)
    groups = Groups(torch.cat([count * 0, count]), count, own, own + 1, len(own), True)
    return Problem(features, own, groups, own * 0, own * 0 + len(own), 10.0, normalize, False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [17, 48, 128])
def test_unit_rows_of_one_plane_keep_their_length(dtype: torch.dtype, channels: int) -> None:
    """Rounded to the nearest they are longer or shorter than 1 by about twice as much."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 1, channels, 8, 8, generator=generator).to(dtype).to(device_of("triton"))
    problem = problem_of(features)
    (rows,) = gathered = torch.empty(triton.planes_of(problem), 64, channels, dtype=dtype, device=features.device)
    fused.gather(problem, gathered, triton.Pairs(gathered, problem.groups, 10.0, 10.1))
    unit = torch.nn.functional.normalize(problem.features.double().movedim(2, -1).reshape(64, channels), dim=1)
    kept, nearest = rows.double(), unit.to(dtype).double()
    assert (kept.norm(dim=1) - 1).abs().mean() < (nearest.norm(dim=1) - 1).abs().mean() / 1.5
    # Their direction is off by no more: a row may be rounded as a multiple of the vector, not otherwise.
    assert (torch.nn.functional.normalize(kept, dim=1) - unit).norm() < 1.2 * (nearest - unit).norm()


@pytest.mark.parametrize(
    ("dtype", "channels", "normalize", "planes"),
    [
        (torch.bfloat16, 16, True, 2),
        (torch.float16, 16, True, 2),
        (torch.bfloat16, 17, True, 1),
        (torch.bfloat16, 16, False, 1),
        (torch.float32, 16, True, 3),
    ],
)
def test_unit_rows_of_few_channels_are_two_planes(
    dtype: torch.dtype, channels: int, normalize: bool, planes: int
) -> None:
    assert triton.planes_of(problem_of(torch.zeros(1, 1, channels, 2, 2, dtype=dtype), normalize)) == planes


# ---- the two functions, with positives and with keys -----------------------------------------------------------------


class Drawn(NamedTuple):
    """What the two functions take."""

    rows: Tensor
    keys: Keys | None
    groups: Groups
    positives: Positives
    grad: Tensor
    more: Tensor  # (M,): what the log-sum-exps have beside these pairs

    def solve(self, backend: Any, dtype: torch.dtype, lse: Tensor | None, with_positives: bool = True) -> list[Tensor]:
        """The log-sum-exps, and the gradients by rows and keys relative to ``lse``, or to these and more."""
        rows, keys = self.rows.to(dtype), self.keys
        if keys is not None:
            keys = keys._replace(values=keys.values.to(dtype))
        found = backend.forward(rows, keys, self.groups, SCALE, None)
        if lse is None:
            lse = torch.where(found.isfinite(), found + self.more, found)
        positives = self.positives if with_positives else None
        grads = backend.backward(
            self.grad, rows, keys, lse, self.groups, positives, SCALE, None, False, True, keys is not None
        )
        return [lse, found, *grads]


SCALE = 10.0
# Groups of 0, 1 and 70 rows, some no anchors; rows before the first and past the last; keys shared by groups, a group
# without keys, and keys of no group.
OFFSETS, ANCHORS = [2, 2, 3, 73, 143, 150], [0, 1, 70, 66, 7]
KEY_BEGIN, KEY_END = [0, 0, 20, 3, 130], [50, 90, 140, 75, 130]


def draw(channels: int, weighted: bool, seed: int = 0) -> Drawn:
    generator = torch.Generator().manual_seed(seed)
    count, key_count = OFFSETS[-1] + 5, KEY_END[2] + 10
    number = torch.arange(count)
    group = (torch.searchsorted(torch.tensor(OFFSETS), number, right=True) - 1).clamp(0, len(ANCHORS) - 1)
    place = number - torch.tensor(OFFSETS)[group]
    anchor = (place >= 0) & (place < torch.tensor(ANCHORS)[group])
    low, high = torch.tensor(KEY_BEGIN)[group], torch.tensor(KEY_END)[group]
    begin = low + (torch.rand(count, generator=generator) * (high - low + 1)).long()
    end = torch.minimum(begin + torch.randint(0, 40, (count,), generator=generator), high)
    # The one or the other denominator, by groups; one row with an empty one.
    skips = group % 2 == 0
    skip_begin, skip_end = torch.where(skips, begin, 0), torch.where(skips, end, 0)
    skip_begin[20], skip_end[20] = 0, key_count
    itself = torch.where(number % 3 == 0, torch.minimum(begin + 1, (end - 1).clamp_min(0)), -1)
    weights = torch.rand(key_count, generator=generator) * 3 + 0.1 if weighted else None
    values = unit_rows(key_count, channels, seed + 1)
    keys = Keys(values, int32(KEY_BEGIN), int32(KEY_END), itself.int(), weights)
    groups = Groups(int32(OFFSETS), int32(ANCHORS), skip_begin.int(), skip_end.int(), 70, False)
    grad = torch.randn(count, generator=generator, dtype=torch.float64)
    pulls = torch.where(anchor, grad.abs() * torch.rand(count, generator=generator) / 10, 0)
    more = torch.rand(count, generator=generator, dtype=torch.float64)
    return Drawn(unit_rows(count, channels, seed), keys, groups, Positives(begin.int(), end.int(), pulls), grad, more)


def moved(value: Any) -> Any:
    """The same on the device of the backend."""
    if isinstance(value, Tensor):
        return value.to(device_of("triton"))
    return type(value)(*map(moved, value)) if isinstance(value, tuple) else value


def assert_errors_are_small(drawn: Drawn, dtype: torch.dtype, with_positives: bool = True) -> None:
    """Of float32 rows as those of plain PyTorch; of others what the weights of pairs are rounded by."""
    drawn = drawn._replace(rows=drawn.rows.to(dtype).double())
    if drawn.keys is not None:
        drawn = drawn._replace(keys=drawn.keys._replace(values=drawn.keys.values.to(dtype).double()))
    lse, *truth = drawn.solve(tiled, torch.float64, None, with_positives)
    _, *plain = drawn.solve(tiled, torch.float32, lse, with_positives)
    _, *found = (one.cpu() for one in moved(drawn).solve(triton, dtype, moved(lse), with_positives))
    assert [one.dtype for one in found] == [torch.float64, torch.float32, torch.float32]
    finite = truth[0].isfinite()
    assert torch.equal(found[0][~finite], truth[0][~finite])
    rounding = torch.finfo(dtype).eps / 2 if dtype != torch.float32 else 0.0
    for number, (one, ours, theirs) in enumerate(zip(truth, found, plain, strict=True)):
        one, ours, theirs = (each[finite] if number == 0 else each for each in (one, ours, theirs))
        allowed = 2 * float((theirs - one).norm()) + (rounding * float(one.norm()) if number > 0 else 0)
        assert float((ours - one).norm()) <= allowed, number


@pytest.mark.parametrize(
    ("dtype", "channels", "weighted", "with_positives"),
    [
        (torch.float32, 8, True, True),
        # The interpreter's tiles sum so many channels in parts.
        (torch.float32, 100, False, True),
        (torch.bfloat16, 33, True, True),
        (torch.float16, 33, False, True),
        (torch.float16, 160, True, False),
    ],
)
def test_rows_against_keys(dtype: torch.dtype, channels: int, weighted: bool, with_positives: bool) -> None:
    assert_errors_are_small(draw(channels, weighted), dtype, with_positives)


@pytest.mark.parametrize("programs", [1, 40])
def test_keys_in_any_number_of_parts(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "chip", lambda device: chip(device)._replace(programs=programs))
    assert_errors_are_small(draw(8, True, seed=3), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("by_class", [False, True])
def test_a_square_with_positives(dtype: torch.dtype, by_class: bool) -> None:
    """Every row its own pull, relative to the log-sum-exps of these pairs and more."""
    packed = itself_skipped(unit_rows(150, 20, seed=2))
    begin = torch.arange(150, dtype=torch.int32) // 67 * 67
    end = (begin + 67).clamp(max=150)
    skips = (begin, end) if by_class else (packed.skip_begin, packed.skip_end)
    # Those of the last class are no anchors.
    groups = Groups(packed.offsets, int32([134]), *skips, 150, True)
    drawn = draw(20, False)
    pulls = torch.where(begin < 134, drawn.positives.pulls[:150] + 0.01, 0)
    square = drawn._replace(rows=packed.rows, keys=None, groups=groups, positives=Positives(begin, end, pulls))
    assert_errors_are_small(square._replace(grad=drawn.grad[:150], more=drawn.more[:150]), dtype)


def test_what_is_not_asked_for_is_left_out() -> None:
    drawn = moved(draw(8, False))
    rows, keys = drawn.rows.float(), drawn.keys._replace(values=drawn.keys.values.float())
    lse = triton.forward(rows, keys, drawn.groups, SCALE, None)
    fixed = (drawn.grad, rows, keys, lse, drawn.groups, drawn.positives, SCALE, None, True)
    both = triton.backward(*fixed, True, True)
    for with_rows, with_keys in ((True, False), (False, True)):
        one = triton.backward(*fixed, with_rows, with_keys)
        for found, whole, wanted in zip(one, both, (with_rows, with_keys), strict=True):
            assert torch.equal(found, whole if wanted else whole[:0])


@pytest.mark.skipif(device_of("triton").type != "cuda", reason="needs a GPU")
def test_passes_over_keys_wait_for_nothing() -> None:
    drawn = moved(draw(8, True))
    first = drawn.solve(triton, torch.float32, None)  # compiling may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = drawn.solve(triton, torch.float32, None)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(map(torch.equal, first, again))


@pytest.mark.parametrize(("count", "key_count"), [(0, 3), (3, 0), (0, 0)])
def test_no_rows_and_no_keys(count: int, key_count: int) -> None:
    ends = int32([0, count])
    nothing = torch.zeros(count, dtype=torch.int32)
    keys = Keys(torch.ones(key_count, 4), int32([0]), int32([key_count]), nothing - 1, torch.ones(key_count))
    groups = Groups(ends, ends[1:], nothing, nothing, count, False)
    rows, grad = torch.ones(count, 4), torch.ones(count)
    rows, keys, groups, grad, nothing = map(moved, (rows, keys, groups, grad, nothing))
    lse = triton.forward(rows, keys, groups, SCALE, None)
    assert torch.equal(lse.cpu(), torch.full((count,), -torch.inf, dtype=torch.float64))
    positives = Positives(nothing, nothing, grad)
    by_rows, by_keys = triton.backward(grad, rows, keys, lse, groups, positives, SCALE, None, True, True, True)
    assert torch.equal(by_rows.cpu(), torch.zeros(count, 4))
    assert torch.equal(by_keys.cpu(), torch.zeros(key_count, 4))
