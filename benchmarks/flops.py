"""Floating-point operations of a shape, by formula and by count. A multiply-add is two.

With a anchors and n points in a block, C channels, over the blocks that have an anchor:

    dense       6 n n C   one product of similarities and two for its gradient, every point against every point
    anchored    6 a n C   the same with rows restricted to anchors: what the strongest plain PyTorch executes
    tiled       2 C (a n - a a / 2) + 4 C (a n + (n - a) a)   what the GPU kernels execute: forward, the triangle of
                anchors once for both; backward, every row's similarities again and their product with the rows
    executed    2 x the multiply-adds that the compiled CPU code counts, tiles' ragged edges left out
"""

from __future__ import annotations

from collections.abc import Callable

from semicl_kernels.backends import cpu

from .problems import Shape


def dense(shape: Shape) -> int:
    return sum(6 * block.points**2 * shape.channels for block in shape.blocks())


def anchored(shape: Shape) -> int:
    return sum(6 * block.anchors * block.points * shape.channels for block in shape.blocks())


def tiled(shape: Shape) -> int:
    sizes = [(block.anchors, block.points) for block in shape.blocks()]
    return sum(shape.channels * (2 * (a * n - a * a // 2) + 4 * (a * n + (n - a) * a)) for a, n in sizes)


def executed(call: Callable[[], object]) -> int:
    before = cpu.executed_multiply_adds()
    call()
    return 2 * (cpu.executed_multiply_adds() - before)
