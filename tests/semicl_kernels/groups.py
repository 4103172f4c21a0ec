"""Packed rows and groups for the primitive, made from a seed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor


class Packed(NamedTuple):
    """What `grouped_logsumexp` takes, in its order."""

    rows: Tensor
    offsets: Tensor
    anchors: Tensor
    skip_begin: Tensor
    skip_end: Tensor

    def with_rows(self, rows: Tensor) -> Packed:
        return self._replace(rows=rows)


def int32(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def unit_rows(count: int, channels: int, seed: int) -> Tensor:
    values = torch.randn(count, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(values, dim=1)


def itself_skipped(rows: Tensor) -> Packed:
    """One group of anchors, each against all the others."""
    own = torch.arange(len(rows), dtype=torch.int32)
    return Packed(rows, int32([0, len(rows)]), int32([len(rows)]), own, own + 1)


def mutually_skipped(packed: Packed, by_class: bool) -> Packed:
    """The same groups, every row skipping itself or a run of its group that it lies in."""
    low, high = [], []
    for begin, end in zip(packed.offsets[:-1].tolist(), packed.offsets[1:].tolist(), strict=True):
        for i in range(begin, end):
            run = begin + (i - begin) // 70 * 70
            low.append(run if by_class else i)
            high.append(min(run + 70, end) if by_class else i + 1)
    return packed._replace(
        skip_begin=torch.tensor(low, dtype=torch.int32), skip_end=torch.tensor(high, dtype=torch.int32)
    )


@st.composite
def packed_groups(draw: st.DrawFn, sizes: st.SearchStrategy[int], most_channels: int) -> Packed:
    """Groups of drawn sizes, empty ones too, with any count of anchors; ranges that skip nothing, some or all."""
    lengths = draw(st.lists(sizes, min_size=1, max_size=5))
    begins = [sum(lengths[:g]) for g in range(len(lengths) + 1)]
    anchors = [draw(st.one_of(st.just(0), st.just(n), st.integers(0, n))) for n in lengths]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    skip_begin, skip_end = [], []
    for begin, length in zip(begins, lengths, strict=False):
        kind = draw(st.sampled_from(("itself", "some", "all", "none")))
        for i in range(begin, begin + length):
            low, high = sorted(torch.randint(begin, begin + length + 1, (2,), generator=generator).tolist())
            ranges = {"itself": (i, i + 1), "some": (low, high), "all": (begin, begin + length), "none": (low, low)}
            skip_begin.append(ranges[kind][0])
            skip_end.append(ranges[kind][1])
    rows = unit_rows(begins[-1], draw(st.integers(1, most_channels)), draw(st.integers(0, 2**16)))
    return Packed(rows, int32(begins), int32(anchors), int32(skip_begin), int32(skip_end))
