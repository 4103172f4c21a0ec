"""Rows in planes: how they are loaded, split and multiplied.

Rows come in *planes* of a 16-bit dtype, (PLANES, M, C): one plane of float16 or bfloat16 rows, or two or three planes
of bfloat16 whose sum is a float32 row to 16 or 24 bits. Products of planes run on tensor cores from shared memory in
either layout, at the rate of three TF32 products but without their splitting of every tile in registers.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

# Triton decides when a kernel is defined whether the interpreter will run it.
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def load_tile(
    rows, first, last, channel,
    COUNT: tl.constexpr, C: tl.constexpr, WIDTH: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Return (COUNT, WIDTH) of one plane, from row ``first`` and from ``channel`` on.

    Zero past the C channels and, where MASKED, from row ``last`` on.
    """
    i, c = tl.arange(0, COUNT), tl.arange(0, WIDTH)
    # 64 bits for where the tile is, 32 for what is in it.
    pointers = rows + (tl.cast(first, tl.int64) * C + channel) + (i[:, None] * C + c[None, :])
    if MASKED:
        return tl.load(pointers, mask=(first + i < last)[:, None] & (channel + c < C)[None, :], other=0.0)
    elif C % WIDTH == 0:
        return tl.load(pointers)
    else:
        return tl.load(pointers, mask=(channel + c < C)[None, :], other=0.0)


@triton.jit
def load_transposed_tile(
    rows, first, last, channel, COUNT: tl.constexpr, C: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    """Return (WIDTH, COUNT): the masked tile of :func:`load_tile`, transposed.

    A right operand that stays through a loop must be loaded so: Triton 3.9 stores a transposed one to shared memory
    again for every product.
    """
    i, c = tl.arange(0, COUNT), tl.arange(0, WIDTH)
    pointers = rows + (tl.cast(first, tl.int64) * C + channel) + (i[None, :] * C + c[:, None])
    return tl.load(pointers, mask=(first + i < last)[None, :] & (channel + c < C)[:, None], other=0.0)


@triton.jit
def load_rows(
    rows, M, first, last, channel,
    COUNT: tl.constexpr, C: tl.constexpr, WIDTH: tl.constexpr, PLANES: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Return the tiles of :func:`load_tile` of every plane, a tuple."""
    plane = tl.cast(M, tl.int64) * C
    tile = load_tile(rows, first, last, channel, COUNT, C, WIDTH, MASKED)
    if PLANES == 1:
        return (tile,)
    elif PLANES == 2:
        return tile, load_tile(rows + plane, first, last, channel, COUNT, C, WIDTH, MASKED)
    else:
        second = load_tile(rows + plane, first, last, channel, COUNT, C, WIDTH, MASKED)
        return tile, second, load_tile(rows + 2 * plane, first, last, channel, COUNT, C, WIDTH, MASKED)


@triton.jit
def load_columns(
    rows, M, first, last, channel,
    COUNT: tl.constexpr, C: tl.constexpr, WIDTH: tl.constexpr, PLANES: tl.constexpr,
):  # fmt: skip
    """Return the tiles of :func:`load_transposed_tile` of every plane, a tuple."""
    plane = tl.cast(M, tl.int64) * C
    tile = load_transposed_tile(rows, first, last, channel, COUNT, C, WIDTH)
    if PLANES == 1:
        return (tile,)
    elif PLANES == 2:
        return tile, load_transposed_tile(rows + plane, first, last, channel, COUNT, C, WIDTH)
    else:
        second = load_transposed_tile(rows + plane, first, last, channel, COUNT, C, WIDTH)
        return tile, second, load_transposed_tile(rows + 2 * plane, first, last, channel, COUNT, C, WIDTH)


@triton.jit
def transposed(planes, PLANES: tl.constexpr):
    """Return every plane transposed."""
    if PLANES == 1:
        return (tl.trans(planes[0]),)
    elif PLANES == 2:
        return tl.trans(planes[0]), tl.trans(planes[1])
    else:
        return tl.trans(planes[0]), tl.trans(planes[1]), tl.trans(planes[2])


@triton.jit
def rounded(value, dtype: tl.constexpr):
    """Return float32 values in ``dtype``, rounded to the nearest."""
    if INTERPRETED and dtype == tl.bfloat16:
        # For the interpreter, which cuts the bits off, and of a denormal number makes another one.
        bits = value.to(tl.int32, bitcast=True)
        bits = tl.where(value == value, (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000, bits)
        return bits.to(tl.float32, bitcast=True).to(tl.bfloat16)
    else:
        return value.to(dtype)


@triton.jit
def split(value, dtype: tl.constexpr, PLANES: tl.constexpr):
    """Return float32 values as planes: the value rounded to ``dtype``, what is then missing rounded, and so on."""
    first = rounded(value, dtype)
    if PLANES == 1:
        return (first,)
    else:
        rest = value - first.to(tl.float32)
        second = rounded(rest, dtype)
        if PLANES == 2:
            return first, second
        else:
            return first, second, rounded(rest - second.to(tl.float32), dtype)


@triton.jit
def sum_planes(planes, PLANES: tl.constexpr):
    """Return the float32 values that the planes carry."""
    value = planes[0].to(tl.float32)
    if PLANES >= 2:
        value += planes[1].to(tl.float32)
    if PLANES == 3:
        value += planes[2].to(tl.float32)
    return value


@triton.jit
def plane_product(a, b, acc):
    """Return acc + a b in float32."""
    if INTERPRETED:
        # For the interpreter, which multiplies the bits of bfloat16 as if they were integers.
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc=acc, input_precision="ieee")
    else:
        return tl.dot(a, b, acc=acc)


@triton.jit
def product(a, b, acc, PLANES: tl.constexpr):
    """Return acc + a b in float32: of two planes three products, of three six, the smallest first.

    The products left out are 2^-16, or 2^-24, of the largest: what 16, or 24, bits lose anyway.
    """
    if PLANES == 3:
        acc = plane_product(a[1], b[1], acc)
        acc = plane_product(a[0], b[2], acc)
        acc = plane_product(a[2], b[0], acc)
    if PLANES >= 2:
        acc = plane_product(a[0], b[1], acc)
        acc = plane_product(a[1], b[0], acc)
    return plane_product(a[0], b[0], acc)


@triton.jit
def deep_similarities(
    rows, M, first, last, others, N, other_first, other_last,
    COUNT: tl.constexpr, OTHERS: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, WIDTH: tl.constexpr,
    PLANES: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Return (COUNT, OTHERS): products of two tiles of rows, WIDTH channels at a time, nothing held.

    For rows too long to stay in shared memory: both operands are streamed, as in any matrix product.
    """
    s = tl.zeros((COUNT, OTHERS), dtype=tl.float32)
    for channel in tl.range(0, CP, WIDTH, num_stages=STAGES):
        x = load_rows(rows, M, first, last, channel, COUNT, C, WIDTH, PLANES, True)
        other = load_rows(others, N, other_first, other_last, channel, OTHERS, C, WIDTH, PLANES, True)
        s = product(x, transposed(other, PLANES), s, PLANES)
    return s
