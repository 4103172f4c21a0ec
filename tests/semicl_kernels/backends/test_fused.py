"""Row blocks: of whole tiles, 32 of them at most, or 64 where each is long."""

from __future__ import annotations

import pytest

from semicl_kernels.backends import fused


@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("largest", [1, 64, 1000, 20_000, 49_151, 49_152, 300_000])
def test_row_blocks_are_of_whole_tiles_and_bounded(side: int, largest: int) -> None:
    rows = fused.row_block_size(largest, side)
    row_blocks = -(-largest // rows)
    assert rows % side == 0
    if largest < 49_152:
        assert row_blocks <= 32
        assert row_blocks == 32 or rows < -(-largest // 32) + side
    else:
        assert 32 < row_blocks <= 64
        assert rows >= 768
