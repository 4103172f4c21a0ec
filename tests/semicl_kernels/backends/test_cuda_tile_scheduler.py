"""Schedules and layouts of the CUDA kernels, run on the host: every pair is visited once, every value has its place."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks import problems
from benchmarks.plan import FULL512
from semicl_kernels.backends import cuda, triton

from .. import emulator
from ..groups import Packed, int32, mutually_skipped, packed_groups

if emulator.compiler() is None:
    pytest.skip(emulator.MISSING, allow_module_level=True)

SHAPES = [(64, 64), (64, 32), (128, 128)]
SIZES = st.sampled_from((0, 1, 2, 31, 33, 64, 65, 127, 129, 200, 300))


@pytest.fixture(scope="module")
def machine() -> emulator.Emulator:
    return emulator.Emulator()


def problem_of(machine: emulator.Emulator, packed: Packed) -> tuple[emulator.Problem, list[Tensor]]:
    """Return what the loops over these groups take, and the tensors it points to."""
    groups, count = packed[1:], len(packed.rows)
    tensors = list(groups)
    addresses = [tensor.data_ptr() for tensor in tensors]
    problem = machine.problem(0, 0, 0, 0, count, 32, addresses, len(packed.anchors), 1.0, 1.0)
    return problem, tensors


def visits(
    machine: emulator.Emulator, packed: Packed, of_gradient: bool, shape: tuple[int, int], columns: int, workers: int
) -> Tensor:
    """Return (M, M): how often the loops of a pass come by each pair."""
    problem, _tensors = problem_of(machine, packed)
    counts = torch.zeros(len(packed.rows), len(packed.rows), dtype=torch.int32)
    machine.visit_pairs(problem, of_gradient, shape, columns, workers, counts.data_ptr())
    return counts


def in_denominators(packed: Packed) -> Tensor:
    """Return (M, M) bool: whether the column is in the denominator of the row, an anchor."""
    count = len(packed.rows)
    wanted = torch.zeros(count, count, dtype=torch.bool)
    for begin, end, anchors in zip(packed.offsets[:-1], packed.offsets[1:], packed.anchors, strict=True):
        wanted[begin : begin + anchors, begin:end] = True
    columns = torch.arange(count)
    return wanted & ~((columns >= packed.skip_begin[:, None]) & (columns < packed.skip_end[:, None]))


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=25)
@given(
    packed=packed_groups(SIZES, most_channels=1),
    tiles=st.sampled_from((1, 2, 1000)),
    workers=st.sampled_from((1, 2, 3, 7, 60)),
)
def test_every_pair_is_summed_once_for_both(
    machine: emulator.Emulator, shape: tuple[int, int], by_class: bool, packed: Packed, tiles: int, workers: int
) -> None:
    """However many share the work; the emulator sees to it that partial tiles have places of their own."""
    packed = mutually_skipped(packed, by_class)
    assert torch.equal(visits(machine, packed, False, shape, tiles * shape[0], workers), in_denominators(packed).int())


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (128, 64)])
@settings(max_examples=25)
@given(packed=packed_groups(SIZES, most_channels=1), workers=st.sampled_from((1, 2, 3, 7, 60)))
def test_gradient_comes_by_every_pair_with_an_anchor_once(
    machine: emulator.Emulator, shape: tuple[int, int], by_class: bool, packed: Packed, workers: int
) -> None:
    packed = mutually_skipped(packed, by_class)
    found = visits(machine, packed, True, shape, 0, workers)
    assert (found <= 1).all()
    wanted = in_denominators(packed)
    assert (found.bool() | ~(wanted | wanted.T)).all()


SHAPES_OF_BENCHMARKS = {shape.name: shape for shape in (*problems.SHAPES, FULL512)}


@pytest.mark.parametrize(
    ("name", "sums", "gradient"),
    [
        ("hippocampus16", (4, 1), (5, 1)),
        ("dense-4096-128", (5, 1), (7, 2)),
        ("dense-8192-128", (17, 1), (32, 1)),
        ("dense-16384-128", (63, 2), (125, 2)),
        ("mmwhs32", (108, 3), (217, 4)),
        ("full512", (22704, 192), (45836, 12)),
    ],
)
def test_steps_of_the_block_with_the_most_to_do(
    machine: emulator.Emulator, name: str, sums: tuple[int, int], gradient: tuple[int, int]
) -> None:
    """Of 132, (steps, partial tiles): the table of docs/gpu.md."""
    blocks = SHAPES_OF_BENCHMARKS[name].blocks()
    offsets = int32([0, *itertools.accumulate(block.points for block in blocks)])
    own = torch.arange(int(offsets[-1]), dtype=torch.int32)
    packed = Packed(own, offsets, int32([block.anchors for block in blocks]), own, own + 1)
    problem, _tensors = problem_of(machine, packed)
    assert machine.visit_pairs(problem, False, (128, 128), triton.COLUMNS, 132, 0) == sums
    assert machine.visit_pairs(problem, True, (128, 128), 0, 132, 0) == gradient


def test_python_repeats_the_same_constants(machine: emulator.Emulator) -> None:
    """The schedule is one, whoever runs it (docs/gpu.md)."""
    pytest.importorskip("triton")
    from semicl_kernels.triton_kernels import gradient, tile_scheduler

    named = (tile_scheduler.PROLOGUE_COST, tile_scheduler.MIN_STREAM_K_RANGE, gradient.HEADROOM)
    prologue_cost, least_range, headroom = (int(one.value) for one in named)
    expected = [prologue_cost, least_range, cuda.MAX_ROWS, headroom]
    assert machine.integers("constants", count=4) == expected


@pytest.mark.parametrize("channels", [32, 64, 128, 256])
def test_chunks_of_a_tile_have_places_of_their_own_and_columns_no_bank_conflict(
    machine: emulator.Emulator, channels: int
) -> None:
    places = torch.tensor(machine.integers("chunks", channels, count=64 * channels // 8)).reshape(64, -1)
    assert torch.equal(places.flatten().sort().values, torch.arange(64 * channels // 8) * 16)
    banks = places.reshape(8, 8, -1) % 128 // 16  # groups of four banks, for the rows of each 8 x 8 matrix
    assert (banks.sort(1).values == torch.arange(8)[:, None]).all()


@pytest.mark.parametrize("columns", [32, 64, 128])
def test_fragments_cover_the_accumulator(machine: emulator.Emulator, columns: int) -> None:
    found = torch.tensor(machine.integers("fragments", columns, count=32 * columns)).reshape(-1, 2)
    assert torch.equal((found[:, 0] * columns + found[:, 1]).sort().values, torch.arange(16 * columns))


def test_reduced_sums_are_shared_out_among_the_lanes_of_a_column(machine: emulator.Emulator) -> None:
    found = torch.tensor(machine.integers("reduced", count=128)).reshape(8, 4, 4)
    for lane in range(4):
        assert torch.equal(found[:, lane].flatten().sort().values, torch.arange(32))
