"""How programs share the gradient's work out: the same gradient by however many, and the same bits every time."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semicl_kernels import available_backends, partition_kernels
from semicl_kernels.backends import fused, launch_cache, triton
from semicl_kernels.backends.base import Groups, Problem
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
    return Problem(features, own, groups, own * 0, own * 0 + len(own), 10.0, normalize)


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
