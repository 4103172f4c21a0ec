"""Panels: of whole tiles, 32 of them at most, or 64 where each is long."""

from __future__ import annotations

import pytest

from semicl_kernels.backends import fused


@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("largest", [1, 64, 1000, 20_000, 49_151, 49_152, 300_000])
def test_panels_are_of_whole_tiles_and_bounded(side: int, largest: int) -> None:
    span = fused.row_block_size(largest, side)
    panels = -(-largest // span)
    assert span % side == 0
    if largest < 49_152:
        assert panels <= 32
        assert panels == 32 or span < -(-largest // 32) + side
    else:
        assert 32 < panels <= 64
        assert span >= 768
