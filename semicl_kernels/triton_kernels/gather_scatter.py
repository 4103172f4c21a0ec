"""Features on their way to rows and back.

A map has any strides. Its points are numbered in the order of (B, V, *space), which :class:`Layout` describes with as
few axes as the strides allow: one, for a contiguous map. :func:`gather_rows` reads a tile of points with all their
channels, scales each to unit length and writes it as planes (see ``split_bf16``) where its row is.
:func:`through_normalization` leads a gradient by the rows through that scaling, and :func:`scatter_rows` brings it to
the map. Rows are numbered -1 where a point takes no part: it is not read, and its gradient is zero. :func:`split_rows`
is for rows that come as float32 rows already.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from .split_bf16 import rounded, split
from .tile_scheduler import count_work


class Layout(NamedTuple):
    """The points of a map: sizes and strides of the axes, slowest first, and the channels' stride."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    channel_stride: int

    @classmethod
    def of(cls, features: Tensor) -> Layout:
        """Return the layout of a map (B, V, C, *space)."""
        axes = [axis for axis in range(features.dim()) if axis != 2 and features.shape[axis] != 1]
        sizes: list[int] = []
        strides: list[int] = []
        for axis in axes:
            size, stride = features.shape[axis], features.stride(axis)
            if sizes and strides[-1] == size * stride:
                sizes[-1] *= size
                strides[-1] = stride
            else:
                sizes.append(size)
                strides.append(stride)
        missing = 5 - len(sizes)
        return cls((1,) * missing + tuple(sizes), (0,) * missing + tuple(strides), features.stride(2))


@triton.jit
def point_offsets(points, sizes, strides):
    """Return where the points are in memory; five axes."""
    rest = points
    at = (rest % sizes[4]).to(tl.int64) * strides[4]
    rest = rest // sizes[4]
    at += (rest % sizes[3]).to(tl.int64) * strides[3]
    rest = rest // sizes[3]
    at += (rest % sizes[2]).to(tl.int64) * strides[2]
    rest = rest // sizes[2]
    at += (rest % sizes[1]).to(tl.int64) * strides[1]
    return at + (rest // sizes[1]).to(tl.int64) * strides[0]


@triton.jit
def keep_length(value, dtype: tl.constexpr, TRIES: tl.constexpr):
    """Return unit rows (rows, C) times a number near 1, such that their length, rounded to ``dtype``, is nearest to 1.

    Rounding makes unit rows longer or shorter. The similarities of two classes are then off by the same amount all
    together. Of 2 TRIES + 1 numbers from 1 - EPS / 8 to 1 + EPS / 8 the best one is taken: lengths are off by half to a
    third as much, directions by no more. Numbers further from 1 would leave fewer that are near enough.
    """
    EPS: tl.constexpr = 2**-7 if dtype == tl.bfloat16 else 2**-10  # torch.finfo(dtype).eps
    best = tl.full((value.shape[0],), 1.0, dtype=tl.float32)
    x = rounded(value, dtype).to(tl.float32)
    least = tl.abs(tl.sum(x * x, 1) - 1.0)
    for k in tl.static_range(2 * TRIES):
        number = 1.0 + EPS / 8 * ((k + 1 if k >= TRIES else k) - TRIES) / TRIES
        x = rounded(value * number, dtype).to(tl.float32)
        error = tl.abs(tl.sum(x * x, 1) - 1.0)
        best = tl.where(error < least, number, best)
        least = tl.minimum(error, least)
    return value * best[:, None]


@triton.jit
def gather_rows(
    features,
    sizes,
    strides,
    channel_stride,
    row_of_point,  # (M,) int32
    rows,  # (PLANES, M, ROW), written; zeros past the C channels
    vectors,  # (M,) int64, written: where the row's vector begins in the map
    inverse_lengths,  # (M,) float32, written; 0 for rows too short to have a direction
    offsets,  # (G + 1,) int32; what follows is count_work's
    anchors,
    sums_ends,
    gradient_ends,
    tile_ends,
    M,
    G,
    BLOCKS,
    NORMALIZE: tl.constexpr,
    C: tl.constexpr,
    ROW: tl.constexpr,
    CP: tl.constexpr,
    POINTS: tl.constexpr,
    PLANES: tl.constexpr,
    SUMS_PASS: tl.constexpr,  # as the rest, count_work's
    SUMS_M: tl.constexpr,
    SUMS_N: tl.constexpr,
    COLUMNS,
    GRADIENT_M: tl.constexpr,
    GRADIENT_N: tl.constexpr,
    PARTS: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Write the points' features as rows, of unit length where NORMALIZE. The first program counts the work too."""
    if tl.program_id(0) == 0:
        count_work(
            offsets, anchors, sums_ends, gradient_ends, tile_ends, G, BLOCKS,
            SUMS_PASS, SUMS_M, SUMS_N, COLUMNS, GRADIENT_M, GRADIENT_N, PARTS, TILE_ROWS, CHUNK,
        )  # fmt: skip
    points = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    row = tl.load(row_of_point + points, mask=points < M, other=-1)
    c = tl.arange(0, CP)
    mask = (row >= 0)[:, None] & (c < C)[None, :]
    vector = point_offsets(points, sizes, strides)
    at = vector[:, None] + c.to(tl.int64)[None, :] * channel_stride
    value = tl.load(features + at, mask=mask, other=0.0).to(tl.float32)
    if NORMALIZE:
        tl.store(vectors + row, vector, mask=row >= 0)
        length = tl.sqrt(tl.sum(value * value, 1))
        short = length < 1e-12
        inverse = 1.0 / tl.where(short, 1e-12, length)
        # A row so short has no direction: its gradient is zero.
        tl.store(inverse_lengths + row, tl.where(short, 0.0, inverse), mask=row >= 0)
        value = value * inverse[:, None]
        if PLANES == 1:
            # A row too short to have a direction is no unit row.
            value = tl.where(short[:, None], value, keep_length(value, rows.dtype.element_ty, 8))
    to = row.to(tl.int64)[:, None] * ROW + c[None, :]
    mask = (row >= 0)[:, None] & (c < ROW)[None, :]
    plane = tl.cast(M, tl.int64) * ROW
    parts = split(value, rows.dtype.element_ty, PLANES)
    tl.store(rows + to, parts[0], mask=mask)
    if PLANES >= 2:
        tl.store(rows + plane + to, parts[1], mask=mask)
    if PLANES == 3:
        tl.store(rows + 2 * plane + to, parts[2], mask=mask)


@triton.jit
def through_normalization(
    value, row, inside, features, channel_stride, vectors, inverse_lengths, C: tl.constexpr, CP: tl.constexpr
):
    """Return the gradient (rows, CP) by the vectors that rows were made from, of that by the rows: its part across the
    vector, over the vector's length.

    The vectors are those of the map. A row is rounded, and the part of the gradient along a rounded row may be larger
    than all that is left of it across the vector.
    """
    c = tl.arange(0, CP)
    # Channels first: points of the map lie side by side more often than channels.
    at = tl.load(vectors + row, mask=inside, other=0)[None, :] + c.to(tl.int64)[:, None] * channel_stride
    vector = tl.trans(tl.load(features + at, mask=inside[None, :] & (c < C)[:, None], other=0.0))
    inverse = tl.load(inverse_lengths + row, mask=inside, other=0.0)[:, None]
    unit = vector.to(tl.float32) * inverse
    along = tl.sum(unit * value, 1)[:, None]
    return (value - along * unit) * inverse


@triton.jit
def scatter_rows(
    gradient,  # (M, ROW) float32
    factor,  # () float32
    row_of_point,  # (M,) int32
    out,
    sizes,
    strides,
    channel_stride,
    M,
    C: tl.constexpr,
    ROW: tl.constexpr,
    CP: tl.constexpr,
    POINTS: tl.constexpr,
):
    """Write ``factor`` times the rows' gradient to their points, zero to points without a row."""
    points = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    row = tl.load(row_of_point + points, mask=points < M, other=-1)
    c = tl.arange(0, CP)
    inside = (points < M)[:, None] & (c < C)[None, :]
    pointers = gradient + row.to(tl.int64)[:, None] * ROW + c[None, :]
    value = tl.load(pointers, mask=(row >= 0)[:, None] & inside, other=0.0) * tl.load(factor)
    value = tl.where((row >= 0)[:, None], value, 0.0)
    at = point_offsets(points, sizes, strides)[:, None] + c.to(tl.int64)[None, :] * channel_stride
    tl.store(out + at, rounded(value, out.dtype.element_ty), mask=inside)


@triton.jit
def split_rows(rows, planes, size, PLANES: tl.constexpr, BLOCK: tl.constexpr):
    """Write the ``size`` float32 elements of ``rows`` as PLANES bfloat16 planes."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    parts = split(tl.load(rows + i, mask=i < size, other=0.0), planes.dtype.element_ty, PLANES)
    tl.store(planes + i, parts[0], mask=i < size)
    tl.store(planes + size + i, parts[1], mask=i < size)
    if PLANES == 3:
        tl.store(planes + size + size + i, parts[2], mask=i < size)  # 2 * size may not fit an int32
