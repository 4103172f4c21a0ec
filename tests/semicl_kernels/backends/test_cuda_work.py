"""Schedules and layouts of the CUDA kernels, run on the host: every pair is visited once, every value has its place."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from .. import emulator
from ..groups import Packed, packed_groups

if emulator.compiler() is None:
    pytest.skip(emulator.MISSING, allow_module_level=True)

SIDES = [(64, 64), (64, 32), (32, 32), (128, 128)]
SIZES = st.sampled_from((0, 1, 2, 31, 33, 64, 65, 127, 129, 200, 300))


@pytest.fixture(scope="module")
def machine() -> emulator.Emulator:
    return emulator.Emulator()


def visits(
    machine: emulator.Emulator, packed: Packed, sides: tuple[int, int], panels: int, triangle: bool | None
) -> Tensor:
    """Return (M, M): how often the kernels' loops come by each pair. Panels are of ``panels`` owned tiles."""
    groups, count = packed[1:], len(packed.rows)
    order = torch.argsort(groups[0].diff() * groups[1], descending=True).int()
    tensors = [*groups, order]
    problem = machine.problem(
        0, 0, 0, 0, 0, count, 32, [tensor.data_ptr() for tensor in tensors], len(order), bool(triangle),
        panels * sides[0], True, 1.0, 1.0, 1.0, 0,
    )  # fmt: skip
    counts = torch.zeros(count, count, dtype=torch.int32)
    machine.visits(problem, *sides, triangle, counts.data_ptr())
    return counts


def in_denominators(packed: Packed) -> Tensor:
    """Return (M, M) bool: whether the column is in the denominator of the row, an anchor."""
    count = len(packed.rows)
    wanted = torch.zeros(count, count, dtype=torch.bool)
    for begin, end, anchors in zip(packed.offsets[:-1], packed.offsets[1:], packed.anchors, strict=True):
        wanted[begin : begin + anchors, begin:end] = True
    columns = torch.arange(count)
    return wanted & ~((columns >= packed.skip_low[:, None]) & (columns < packed.skip_high[:, None]))


def skip_mutually(packed: Packed, by_class: bool) -> Packed:
    """The same groups, every row skipping itself or a run of its group that it lies in."""
    low, high = [], []
    for begin, end in zip(packed.offsets[:-1].tolist(), packed.offsets[1:].tolist(), strict=True):
        for i in range(begin, end):
            run = begin + (i - begin) // 70 * 70
            low.append(run if by_class else i)
            high.append(min(run + 70, end) if by_class else i + 1)
    return packed._replace(
        skip_low=torch.tensor(low, dtype=torch.int32), skip_high=torch.tensor(high, dtype=torch.int32)
    )


@pytest.mark.parametrize("sides", SIDES)
@settings(max_examples=25)
@given(packed=packed_groups(SIZES, most_channels=1), panels=st.integers(1, 3))
def test_every_pair_is_summed_once(
    machine: emulator.Emulator, sides: tuple[int, int], packed: Packed, panels: int
) -> None:
    assert torch.equal(visits(machine, packed, sides, panels, triangle=False), in_denominators(packed).int())


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("sides", SIDES)
@settings(max_examples=25)
@given(packed=packed_groups(SIZES, most_channels=1), panels=st.integers(1, 3))
def test_every_pair_of_the_triangle_is_summed_once_for_both(
    machine: emulator.Emulator, sides: tuple[int, int], by_class: bool, packed: Packed, panels: int
) -> None:
    packed = skip_mutually(packed, by_class)
    assert torch.equal(visits(machine, packed, sides, panels, triangle=True), in_denominators(packed).int())


@pytest.mark.parametrize("sides", [*SIDES, (128, 64), (32, 16)])
@settings(max_examples=25)
@given(packed=packed_groups(SIZES, most_channels=1))
def test_gradient_comes_by_every_pair_with_an_anchor_once(
    machine: emulator.Emulator, sides: tuple[int, int], packed: Packed
) -> None:
    found = visits(machine, packed, sides, 1, triangle=None)
    assert (found <= 1).all()
    wanted = in_denominators(packed)
    assert (found.bool() | ~(wanted | wanted.T)).all()


@pytest.mark.parametrize("channels", [32, 64, 128, 256])
def test_pieces_of_a_tile_have_places_of_their_own_and_columns_no_bank_conflict(
    machine: emulator.Emulator, channels: int
) -> None:
    places = torch.tensor(machine.integers("pieces", channels, count=64 * channels // 8)).reshape(64, -1)
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
