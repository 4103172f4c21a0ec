"""The Triton backend: checks nothing, allocates, and launches the kernels of ``semicl_kernels.triton_kernels``.

NVIDIA from sm_80 on and AMD CDNA 3; with ``TRITON_INTERPRET=1`` in the environment Triton's interpreter runs the same
kernels on tensors of the CPU, for tests. Nothing waits for the device: how much work there is is found out there, by
persistent programs.
"""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .base import AVAILABLE, LONGEST_SQUARE, Backend, Groups, Problem
from .levels import level

MOST_CHANNELS = 512  # of triton_kernels.tiles
LEAST_CHANNELS = 16
# With exp(-2 x 32) every exponential is a normal number, and its inverse leaves float32 room for the gradients' sizes.
SAFE_BOUND = 32.0
LOG2_E = math.log2(math.e)
# More panels give more programs work, each panel costs 4 bytes a row.
PANELS = 32
PROGRAMS_PER_MULTIPROCESSOR = 2
GROUPS_AT_ONCE = 1024
RUN_TILE = 64  # rows whose runs are summed in one product
HEADS_AT_ONCE = 32
CHANNELS_AT_ONCE = 64  # of the passes over rows alone
TILE_ELEMENTS = 4096  # of a tile that is moved
# Products and sums may be fused; said explicitly, as Triton's default changes.
OPTIONS = {"enable_fp_fusion": True}


def interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@torch.compiler.assume_constant_result
def state() -> str:
    return find_state()


@cache
def find_state() -> str:
    if find_spec("triton") is None:
        return "triton is not installed: it comes with torch for GPUs, else run `pip install triton`"
    if interpreted():
        return AVAILABLE
    if not torch.cuda.is_available():
        return "torch sees no GPU; if there is one, install a torch for it (https://pytorch.org/get-started)"
    if torch.version.hip is None and torch.cuda.get_device_capability() < (8, 0):
        return "the GPU is older than sm_80 (Ampere): use backend='tiled'"
    return AVAILABLE


def refuses(device: torch.device, dtype: torch.dtype, channels: int) -> str | None:
    if device.type != ("cpu" if interpreted() else "cuda"):
        return f"tensors on {device}; it takes tensors on a GPU"
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"{dtype}; it takes float32, bfloat16 and float16 (backend='tiled' takes float64)"
    if channels > MOST_CHANNELS:
        return f"{channels} channels; it takes {MOST_CHANNELS} at most (backend='tiled' takes any number)"
    return None


class Chip(NamedTuple):
    """What a device is to the tile table, and how many programs fill it."""

    architecture: str
    programs: int


@cache
def chip(device: torch.device) -> Chip:
    if device.type == "cpu":
        return Chip("interpreter", 3)
    properties = torch.cuda.get_device_properties(device)
    programs = PROGRAMS_PER_MULTIPROCESSOR * properties.multi_processor_count
    if torch.version.hip is not None:
        return Chip("gfx942", programs)
    major = properties.major
    return Chip("sm_100" if major >= 10 else "sm_90" if major == 9 else "sm_80", programs)


def plane_count(dtype: torch.dtype) -> int:
    """How many planes of 16 bits carry rows of this dtype; ``torch.get_float32_matmul_precision()`` asks for 24 bits
    ("highest"), or is content with fewer."""
    if dtype != torch.float32:
        return 1
    return 3 if torch.get_float32_matmul_precision() == "highest" else 2


def padded(channels: int) -> int:
    """The power of two that a tile's channels are padded to, at least what a tensor core multiplies."""
    return max(LEAST_CHANNELS, 1 << (channels - 1).bit_length())


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Makes the device of the tensors the one that kernels are launched on."""
    return nullcontext() if device.type == "cpu" else torch.cuda.device(device)


def split(rows: Tensor) -> Tensor:
    """Return (planes, M, C) of rows (M, C): the planes whose sum they are."""
    from ..triton_kernels import maps

    planes = plane_count(rows.dtype)
    if planes == 1:
        return rows.contiguous()[None]
    out = torch.empty((planes, *rows.shape), dtype=torch.bfloat16, device=rows.device)
    grid = (-(-rows.numel() // TILE_ELEMENTS),)
    maps.split_rows[grid](rows.contiguous(), out, rows.numel(), PLANES=planes, BLOCK=TILE_ELEMENTS, **OPTIONS)
    return out


class Pairs:
    """The passes over the pairs of packed rows: what their launches share, and one method for each.

    ``rows`` is (planes, M, C), contiguous.
    """

    def __init__(self, rows: Tensor, groups: Groups, scale: float, bound: float | None) -> None:
        from ..triton_kernels import tiles, work

        self.rows, self.groups, self.scale = rows, groups, scale
        self.planes, self.count, self.channels = rows.shape
        self.group_total = len(groups.anchors)
        self.chip = chip(rows.device)
        self.grid = (self.chip.programs,)
        self.padded = padded(self.channels)
        self.rate = scale * LOG2_E
        # Since the bound holds for a row's product with itself, no product of two rows is below minus the bound.
        self.bounded = bound is not None and scale > 0 and abs(bound) <= SAFE_BOUND
        self.shift = bound * LOG2_E if self.bounded and bound is not None else 0.0
        # Whether each similarity of two anchors is computed once for both.
        self.triangle = self.bounded and groups.mutual
        self.sums_tile = tiles.tile(self.chip.architecture, "sums", self.planes, self.padded)
        self.gradient_tile = tiles.tile(self.chip.architecture, "gradient", self.planes, self.padded)
        if not self.triangle:
            self.gradient_tile = self.gradient_tile.halved()
        side = self.sums_tile.owned
        self.span = side * max(1, -(-groups.largest // (side * PANELS)))
        self.slots = max(1, -(-groups.largest // self.span))
        self.sizes = {"C": self.channels, "CP": self.padded, "PLANES": self.planes}
        self.pair_ends, self.tile_ends = groups.offsets.new_empty((2, self.group_total))
        work.count_work[(1,)](
            groups.offsets,
            groups.anchors,
            self.pair_ends,
            self.tile_ends,
            self.group_total,
            self.span,
            TRIANGLE=self.triangle,
            ROWS=self.gradient_tile.owned,
            CHUNK=GROUPS_AT_ONCE,
            **OPTIONS,
        )

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.rows.device)

    def slot_sums(self) -> Tensor:
        """Return (slots, M): each anchor's sums over the panels of its group."""
        from ..triton_kernels import logsumexp

        tile = self.sums_tile
        slots = self.empty(self.slots, self.count).zero_()
        common = (self.rows, *self.groups.tensors, self.pair_ends, slots)
        numbers = (self.count, self.group_total, self.span, self.rate)
        sizes = {
            "WIDTH": tile.width or self.padded,
            "OWNED": tile.owned,
            "STREAMED": tile.streamed,
            "STAGES": tile.stages,
            "num_warps": tile.warps,
            **self.sizes,
            **OPTIONS,
        }
        if self.bounded:
            logsumexp.sum_pairs[self.grid](*common, *numbers, self.shift, TRIANGLE=self.triangle, **sizes)
        else:
            logsumexp.log_sum_pairs[self.grid](*common, *numbers, **sizes)
        return slots

    def logsumexp(self) -> Tensor:
        """Return (M,): the log-sum-exp of the anchors, 0 for other rows."""
        from ..triton_kernels import logsumexp

        slots = self.slot_sums()
        lse = self.empty(self.count).zero_()
        logsumexp.store_logsumexp[self.grid](
            slots,
            self.groups.offsets,
            self.groups.anchors,
            self.tile_ends,
            lse,
            self.count,
            self.group_total,
            self.span,
            self.shift,
            BOUNDED=self.bounded,
            ROWS=self.gradient_tile.owned,
            **OPTIONS,
        )
        return lse

    def peak(self, weights: Tensor) -> Tensor | None:
        """The largest weight, by which float16 weights of pairs are scaled; other dtypes have range enough."""
        return weights.abs().amax() if self.rows.dtype == torch.float16 else None

    def factors(self, grad: Tensor, lse: Tensor, peak: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what :meth:`gradient` takes, (M,) each, from the gradient by the log-sum-exps."""
        from ..triton_kernels import gradient

        factors, shifts = self.empty(2, self.count)
        gradient.pair_factors[self.grid](
            grad.float().contiguous(),
            lse.contiguous(),
            self.groups.offsets,
            self.groups.anchors,
            self.tile_ends,
            factors,
            shifts,
            self.group_total,
            self.shift,
            peak,
            BOUNDED=self.bounded,
            ROWS=self.gradient_tile.owned,
            **OPTIONS,
        )
        return factors, shifts

    def gradient(self, factors: Tensor, shifts: Tensor, peak: Tensor | None, out: Tensor) -> None:
        """Write the gradient by the rows of groups with an anchor to ``out`` (M, C)."""
        from ..triton_kernels import gradient

        tile = self.gradient_tile
        gradient.row_gradient[self.grid](
            self.rows,
            self.count,
            *self.groups.tensors,
            self.tile_ends,
            factors,
            shifts,
            out,
            self.group_total,
            self.scale,
            self.rate,
            self.shift,
            peak,
            WIDTH=tile.width or self.padded,
            OUT=tile.out or self.padded,
            ROWS=tile.owned,
            STREAMED=tile.streamed,
            MUTUAL=self.groups.mutual,
            BOUNDED=self.bounded,
            STAGES=tile.stages,
            num_warps=tile.warps,
            **self.sizes,
            **OPTIONS,
        )


def forward(rows: Tensor, groups: Groups, scale: float, bound: float | None) -> Tensor:
    if rows.numel() == 0 or len(groups.anchors) == 0:
        return torch.zeros(len(rows), dtype=torch.float32, device=rows.device)
    with on(rows.device):
        return Pairs(split(rows), groups, scale, bound).logsumexp()


def backward(grad: Tensor, rows: Tensor, lse: Tensor, groups: Groups, scale: float, bound: float | None) -> Tensor:
    out = torch.zeros(rows.shape, dtype=torch.float32, device=rows.device)
    if rows.numel() == 0 or len(groups.anchors) == 0:
        return out.to(rows.dtype)
    with on(rows.device):
        pairs = Pairs(split(rows), groups, scale, bound)
        grad, unit = level(grad, groups)
        peak = pairs.peak(grad)
        pairs.gradient(*pairs.factors(grad, lse, peak), peak, out)
    return out.mul_(unit[:, None]).to(rows.dtype)


class Weighed(NamedTuple):
    """The weighted loss, and what its gradient needs of the passes that led to it."""

    loss: Tensor  # float32, a scalar
    pairs: Pairs
    inverse_lengths: Tensor  # (M,)
    sums: Tensor  # (M, C), of run_sums
    factors: Tensor  # (M,), with shifts and peak what Pairs.gradient takes
    shifts: Tensor  # (M,)
    peak: Tensor | None


def sizes_of_rows(pairs: Pairs) -> dict[str, Any]:
    """The constants of the passes over rows alone."""
    width = min(CHANNELS_AT_ONCE, pairs.padded)
    return {"WIDTH": width, "ROWS": pairs.gradient_tile.owned, **pairs.sizes, **OPTIONS}


def weigh(problem: Problem, weights: Tensor) -> Weighed:
    """Gather the rows of a map and sum their weighted losses."""
    from ..triton_kernels import runs

    groups, runs_of_rows, scale = problem.groups, (problem.run_low, problem.run_high), problem.scale
    rows, inverse_lengths = gather(problem.features, problem.row_of_point, problem.normalize)
    pairs = Pairs(rows, groups, scale, scale * LONGEST_SQUARE if problem.normalize else None)
    sums = run_sums(pairs, weights, *runs_of_rows)
    slots, peak = pairs.slot_sums(), pairs.peak(weights)
    factors, shifts = pairs.empty(2, pairs.count)
    losses = pairs.empty(pairs.chip.programs, dtype=torch.float64)
    runs.anchor_losses[pairs.grid](
        rows,
        slots,
        sums,
        weights,
        *runs_of_rows,
        groups.offsets,
        groups.anchors,
        pairs.tile_ends,
        factors,
        shifts,
        losses,
        pairs.count,
        pairs.group_total,
        pairs.span,
        scale,
        pairs.shift,
        peak,
        BOUNDED=pairs.bounded,
        **sizes_of_rows(pairs),
    )
    return Weighed(losses.sum().float(), pairs, inverse_lengths, sums, factors, shifts, peak)


class TritonFused:
    """The whole contrast in kernels: gather, log-sum-exp with its gradient, positives, normalisation, scatter."""

    def row_channels(self, channels: int) -> int:
        return channels

    def loss(self, problem: Problem, weights: Tensor) -> Tensor:
        device = problem.features.device
        if len(problem.row_of_point) == 0:
            return torch.zeros((), dtype=torch.float32, device=device)
        with on(device):
            return weigh(problem, weights).loss

    def contrast(self, problem: Problem, weights: Tensor) -> tuple[Tensor, Tensor]:
        from ..triton_kernels import runs

        features, groups = problem.features, problem.groups
        count, channels = len(problem.row_of_point), features.shape[2]
        gradient = torch.empty((count, channels), dtype=torch.float32, device=features.device)
        if count == 0:
            return torch.zeros((), dtype=torch.float32, device=features.device), gradient
        with on(features.device):
            weighed = weigh(problem, weights)
            pairs = weighed.pairs
            pairs.gradient(weighed.factors, weighed.shifts, weighed.peak, gradient)
            runs.finish_gradient[pairs.grid](
                gradient,
                pairs.rows,
                weighed.sums,
                weights,
                problem.run_low,
                problem.run_high,
                weighed.inverse_lengths,
                groups.offsets,
                groups.anchors,
                pairs.tile_ends,
                count,
                pairs.group_total,
                problem.scale,
                NORMALIZE=problem.normalize,
                **sizes_of_rows(pairs),
            )
            return weighed.loss, gradient

    def scatter(self, row_gradient: Tensor, factor: Tensor, row_of_point: Tensor, out: Tensor) -> None:
        from ..triton_kernels import maps

        count, channels = row_gradient.shape
        if count == 0:
            return
        points = points_at_once(channels)
        with on(out.device):
            maps.scatter_rows[(-(-count // points),)](
                row_gradient,
                factor.float(),
                row_of_point,
                out,
                *maps.Layout.of(out),
                count,
                C=channels,
                CP=padded(channels),
                POINTS=points,
                **OPTIONS,
            )


def points_at_once(channels: int) -> int:
    return max(16, TILE_ELEMENTS // padded(channels))


def gather(features: Tensor, row_of_point: Tensor, normalize: bool) -> tuple[Tensor, Tensor]:
    """Return the rows (planes, M, C) of a map and (M,) what they were multiplied by."""
    from ..triton_kernels import maps

    count, channels, planes = len(row_of_point), features.shape[2], plane_count(features.dtype)
    dtype = torch.bfloat16 if planes > 1 else features.dtype
    rows = torch.empty((planes, count, channels), dtype=dtype, device=features.device)
    inverse_lengths = torch.empty(count, dtype=torch.float32, device=features.device)
    points = points_at_once(channels)
    maps.gather_rows[(-(-count // points),)](
        features,
        *maps.Layout.of(features),
        row_of_point,
        rows,
        inverse_lengths,
        count,
        NORMALIZE=normalize,
        C=channels,
        CP=padded(channels),
        POINTS=points,
        PLANES=planes,
        **OPTIONS,
    )
    return rows, inverse_lengths


def run_sums(pairs: Pairs, weights: Tensor, run_low: Tensor, run_high: Tensor) -> Tensor:
    """Return (M, C): the sums of the runs of rows with a weight, at the first row of each."""
    from ..triton_kernels import runs

    tiles, width = -(-pairs.count // RUN_TILE), min(CHANNELS_AT_ONCE, pairs.padded)
    grid = (tiles, pairs.padded // width)
    sums, heads = pairs.empty(pairs.count, pairs.channels), pairs.empty(tiles, pairs.channels)
    runs.sum_runs_in_tiles[grid](
        pairs.rows,
        weights,
        run_low,
        run_high,
        sums,
        heads,
        pairs.count,
        C=pairs.channels,
        WIDTH=width,
        ROWS=RUN_TILE,
        PLANES=pairs.planes,
        **OPTIONS,
    )
    runs.join_runs[grid](
        weights,
        run_low,
        run_high,
        sums,
        heads,
        pairs.count,
        C=pairs.channels,
        WIDTH=width,
        ROWS=RUN_TILE,
        AT_ONCE=HEADS_AT_ONCE,
        **OPTIONS,
    )
    return sums


BACKEND = Backend("triton", state, refuses, forward, backward, TritonFused())
