"""The Triton backend: checks nothing, allocates, and launches the kernels of ``semicl_kernels.triton_kernels``.

NVIDIA from sm_80 on and AMD CDNA 3; with ``TRITON_INTERPRET=1`` in the environment Triton's interpreter runs the same
kernels on tensors of the CPU, for tests. Nothing waits for the device: how much work there is is found out there, by
persistent programs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..triton_kernels import tile_configs
from ..triton_kernels.tile_configs import Tile
from . import base, tiled
from .base import Backend, Groups, Keys, Problem
from .device import ALIGNMENT, GROUPS_AT_ONCE, OPTIONS, TILE_ELEMENTS, chip, on, padded, runs_on, state
from .fused import LOG2_E, Contrast, GpuFused, PartialSums, exponents, grad_absmax_of, power_of_two
from .grad_scaling import group_of_rows, level
from .launch_cache import empty, launch, zeros
from .positives import pairwise_apart, positive_sums, pulls_of_classes, softplus

MAX_TILE_ROWS = 64  # of the passes over rows alone
COLUMNS = 32768  # of a block of the triangle: a program has so many sums of later anchors
FINISHED_ELEMENTS = 2048  # of the gradient, by one program: an estimate, not measured on a GPU
MAX_CHANNELS = 512  # of triton_kernels.tile_configs
FEW_CHANNELS = 16  # the least that a tensor core sums over


def refuses(device: torch.device, dtype: torch.dtype, channels: int, bound: float | None) -> str | None:
    if not runs_on(device):
        return f"tensors on {device}; it takes tensors on a GPU"
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"{dtype}; it takes float32, bfloat16 and float16 (backend='tiled' takes float64)"
    if channels > MAX_CHANNELS:
        return f"{channels} channels; it takes {MAX_CHANNELS} at most (backend='tiled' takes any number)"
    return None


def plane_count(dtype: torch.dtype) -> int:
    """How many planes of 16 bits carry rows of this dtype; ``torch.get_float32_matmul_precision()`` asks for 24 bits
    ("highest"), or is content with fewer."""
    if dtype != torch.float32:
        return 1
    return 3 if torch.get_float32_matmul_precision() == "highest" else 2


def planes_of(problem: Problem) -> int:
    """How many planes carry the gathered rows of a problem.

    Unit rows of few 16-bit channels are up to half a unit of the last place too long or too short, whichever way they
    are rounded; in two planes they are not, and so short a product costs little beside its exponential.
    """
    planes, channels = plane_count(problem.features.dtype), problem.features.shape[2]
    return max(planes, 2) if problem.normalize and channels <= FEW_CHANNELS else planes


def split(rows: Tensor) -> Tensor:
    """Return (planes, M, C) of rows (M, C): the planes whose sum they are."""
    from ..triton_kernels import gather_scatter

    planes, rows = plane_count(rows.dtype), rows.contiguous()
    if planes == 1:
        # Copied sixteen bytes at a time, which a view may not begin at.
        return (rows if rows.data_ptr() % ALIGNMENT == 0 else rows.clone())[None]
    out = torch.empty((planes, *rows.shape), dtype=torch.bfloat16, device=rows.device)
    grid = (-(-rows.numel() // TILE_ELEMENTS),)
    launch(gather_scatter.split_rows, grid, rows, out, rows.numel(), PLANES=planes, BLOCK=TILE_ELEMENTS, **OPTIONS)
    return out


class Pass(NamedTuple):
    tile: Tile
    workers: int


class Pairs:
    """The passes over the pairs of packed rows: what their launches share, and one method for each.

    ``rows`` is (planes, M, C), contiguous. See fused.Pairs.
    """

    def __init__(self, rows: Tensor, groups: Groups, scale: float, bound: float | None) -> None:
        from ..triton_kernels import tile_scheduler

        self.rows, self.groups, self.scale = rows, groups, scale
        self.planes, self.count, self.channels = rows.shape
        self.group_total = len(groups.anchors)
        self.grid = (chip(rows.device).programs,)
        self.padded = padded(self.channels)
        self.scale_log2, self.bounded, self.shift = exponents(scale, bound)
        # Whether each similarity of two anchors is computed once for both.
        self.triangle = self.bounded and groups.mutual
        (self.sums_tile, self.sums_workers), (self.gradient_tile, self.gradient_workers) = self.plan()
        self.tile_rows = min(MAX_TILE_ROWS, self.sums_tile.block_m)
        self.sizes = {"C": self.channels, "CP": self.padded, "PLANES": self.planes}
        # The gradient's channels are summed in parts where they are many.
        self.part_channels = self.gradient_tile.out or self.padded
        tiles = max(1, -(-groups.largest // self.sums_tile.block_m))
        self.columns = min(COLUMNS, tiles * self.sums_tile.block_m)
        self.blocks = max(1, -(-groups.largest // self.columns)) if self.triangle else 1
        self.sums_ends = self.empty(self.group_total * self.blocks, dtype=torch.int64)
        self.gradient_ends = self.empty(self.group_total, dtype=torch.int64)
        self.tile_ends = self.empty(self.group_total, dtype=torch.int32)
        self.work_tables = (groups.offsets, groups.anchors, self.sums_ends, self.gradient_ends, self.tile_ends)
        self.join_sizes = {
            "TILE_ROWS": self.tile_rows,
            "SUMS_M": self.sums_tile.block_m,
            "SUMS_N": self.sums_tile.block_n,
            "COLUMNS": self.columns,
            "SUMS_PASS": (tile_scheduler.TRIANGLE if self.triangle else tile_scheduler.RECTANGLE).value,
        }
        self.work_sizes = {
            "G": self.group_total,
            "BLOCKS": self.blocks,
            **self.join_sizes,
            "GRADIENT_M": self.gradient_tile.block_m,
            "GRADIENT_N": self.gradient_tile.block_n,
            "PARTS": self.padded // self.part_channels,
            "CHUNK": GROUPS_AT_ONCE,
        }

    def count_work(self) -> None:
        """Count the work, which the passes find their own in. A contrast does it where it gathers its rows."""
        from ..triton_kernels import tile_scheduler

        launch(tile_scheduler.count_work, (1,), *self.work_tables, **self.work_sizes, **OPTIONS)

    def plan(self) -> tuple[Pass, Pass]:
        """Return the tiles of the forward and the backward pass, and how many programs share each."""
        architecture, programs = chip(self.rows.device)
        sums, gradient = (
            tile_configs.tile(architecture, name, self.planes, self.padded) for name in ("sums", "gradient")
        )
        if not self.triangle:
            gradient = gradient.halved()
        passes = [Pass(tile, tile_configs.workers(tile, programs)) for tile in (sums, gradient)]
        return passes[0], passes[1]

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return empty(shape, dtype, self.rows.device)

    def partial_sums(self) -> PartialSums:
        """Return the sums of anchors over their denominators in partials."""
        from ..triton_kernels import logsumexp

        tile, sums = self.sums_tile, self.empty_sums()
        common = (self.rows, *self.groups.tensors, self.sums_ends)
        sizes = {
            "WIDTH": tile.width or self.padded,
            "BLOCK_M": tile.block_m,
            "BLOCK_N": tile.block_n,
            "STAGES": tile.stages,
            "num_warps": tile.warps,
            **self.sizes,
        }
        grid, numbers = (self.sums_workers,), (self.count, self.group_total)
        if self.bounded:
            launch(
                logsumexp.sum_pairs,
                grid,
                *common,
                sums.own,
                sums.given,
                *numbers,
                self.blocks,
                self.scale_log2,
                self.shift,
                COLUMNS=self.columns,
                PASS=self.join_sizes["SUMS_PASS"],
                **sizes,
                **OPTIONS,
            )
        else:
            # Fused, product and difference would make of the maximum's own exponent its rounding error, not 0.
            more = (sums.own, *numbers, sums.own.shape[1], self.scale_log2)
            launch(logsumexp.log_sum_pairs, grid, *common, *more, **sizes, enable_fp_fusion=False)
        return sums

    def empty_sums(self) -> PartialSums:
        """Return memory for the partials: of whole M tiles, of 2 partial tiles a worker, and what workers give."""
        places = 2 * self.sums_workers * self.sums_tile.block_m
        own = self.empty(1 if self.bounded else 2, self.blocks * self.count + places)
        given = self.empty(self.count + self.sums_workers * self.columns) if self.triangle else None
        return PartialSums(own, given, self.sums_ends)

    def join_numbers(self, sums: PartialSums) -> tuple[Any, ...]:
        """Return the numbers that a join takes beside the partials."""
        return self.count, self.group_total, self.blocks, self.sums_workers, sums.own.shape[1], self.shift

    def logsumexp(self) -> Tensor:
        """Return (M,) float64: the log-sum-exp of the anchors, 0 for other rows."""
        from ..triton_kernels import logsumexp

        sums, lse = self.partial_sums(), zeros((self.count,), torch.float64, self.rows.device)
        launch(
            logsumexp.store_logsumexp,
            self.grid,
            *sums,
            self.groups.offsets,
            self.groups.anchors,
            self.tile_ends,
            lse,
            *self.join_numbers(sums),
            BOUNDED=self.bounded,
            **self.join_sizes,
            **OPTIONS,
        )
        return lse

    def row_scales(self, grad: Tensor, lse: Tensor, grad_absmax: Tensor | None) -> Tensor:
        """Return what :meth:`gradient` takes, (2, M), from the gradient by the log-sum-exps, which is 0 for rows that
        are no anchors."""
        return row_scales(in_units(grad, grad_absmax), lse, self.shift if self.bounded else None)

    def gradient(
        self, row_scales: Tensor, grad_absmax: Tensor | None, out: Tensor, contrast: Contrast | None = None
    ) -> None:
        """Write the gradient by the rows of groups with an anchor to ``out`` (M, C), float32."""
        from ..triton_kernels import gradient

        kind = gradient.NONE if contrast is None else gradient.BY_CLASS if contrast.by_class else gradient.BY_ROW
        tile = self.gradient_tile
        partials = self.partial_tiles()
        launch(
            gradient.row_gradient,
            (self.gradient_workers,),
            self.rows,
            self.count,
            *self.groups.tensors,
            self.gradient_ends,
            *row_scales,
            *((None,) * 3 if contrast is None else contrast.positives),
            partials,
            out,
            self.group_total,
            self.scale,
            self.scale_log2,
            self.shift,
            grad_absmax,
            WIDTH=tile.width or self.padded,
            MUTUAL=self.groups.mutual,
            BOUNDED=self.bounded,
            POSITIVES=kind.value,
            PLANES=self.planes,
            STAGES=tile.stages,
            num_warps=tile.warps,
            **self.gradient_sizes(),
        )
        self.finish(partials, out, contrast)

    def partial_tiles(self) -> Tensor:
        return self.empty(2 * self.gradient_workers, self.gradient_tile.block_m, self.part_channels)

    def gradient_sizes(self) -> dict[str, Any]:
        return {
            "C": self.channels,
            "CP": self.padded,
            "OUT": self.part_channels,
            "BLOCK_M": self.gradient_tile.block_m,
            "BLOCK_N": self.gradient_tile.block_n,
            **OPTIONS,
        }

    def finish(self, partials: Tensor, out: Tensor, contrast: Contrast | None) -> None:
        """Add up the partial tiles of the gradient, and the losses, and lead it through the normalization."""
        from ..triton_kernels import gradient

        rows = min(FINISHED_ELEMENTS // self.padded, self.tile_rows, self.gradient_tile.block_m)
        normalization, losses, loss = (None, None, None) if contrast is None else contrast.finish
        launch(
            gradient.finish_rows,
            (self.count // self.tile_rows + self.group_total, self.tile_rows // rows),
            self.groups.offsets,
            self.groups.anchors,
            self.tile_ends,
            self.gradient_ends,
            partials,
            out,
            *(normalization or (None,) * 4),
            losses,
            loss,
            self.group_total,
            self.gradient_workers,
            0 if losses is None else len(losses),
            CHANNELS=self.channels if normalization is None else normalization.features.shape[2],
            TILE_ROWS=self.tile_rows,
            ROWS=rows,
            LOSSES=1 if losses is None else power_of_two(len(losses)),
            **self.gradient_sizes(),
        )


def in_units(values: Tensor, grad_absmax: Tensor | None) -> Tensor:
    """Return weights by which those of pairs stay within the range of float16, where there is a largest one."""
    from ..triton_kernels import gradient

    if grad_absmax is None:
        return values
    return torch.where(grad_absmax == 0, 0, values * (gradient.HEADROOM.value / grad_absmax))


def row_scales(grad: Tensor, lse: Tensor, shift: float | None) -> Tensor:
    """Return (2, M) float32: what exponentials 2^(exponent - m_i) are multiplied by to be weights of pairs, and m_i.

    m_i is the ``shift`` where there is one, else lse_i in base 2, rounded: what it was rounded by is in the factor.
    """
    exact = lse.double() * LOG2_E
    shifts = exact.float() if shift is None else torch.full_like(exact, shift, dtype=torch.float32)
    factors = grad * (shifts - exact).exp2()
    nothing = (grad == 0) | (exact == -torch.inf)
    return torch.stack([factors.masked_fill(nothing, 0).float(), shifts.masked_fill(nothing, torch.inf)])


class KeyPairs:
    """The passes of packed rows over the keys of their groups (triton_kernels/rectangular.py)."""

    def __init__(self, rows: Tensor, keys: Keys, groups: Groups, scale: float) -> None:
        self.rows, self.values, self.keys, self.groups = split(rows), split(keys.values), keys, groups
        self.planes, self.count, self.channels = self.rows.shape
        self.scale_log2, self.padded = scale * LOG2_E, padded(self.channels)
        self.chip = chip(rows.device)
        weights = keys.weights
        self.weights = (None, None) if weights is None else (weights.float(), weights.double().log2().float())

    def tiles(self, tile: Tile) -> int:
        """Return how many tiles of anchors there are at most, whatever the sizes of the groups."""
        return self.count // tile.block_m + len(self.groups.anchors)

    def parts(self, tile: Tile, tiles: int, columns: int) -> int:
        """Return how many parts the columns of each tile are cut into."""
        programs = tile_configs.workers(tile, self.chip.programs)
        return max(1, min(programs // max(1, tiles), -(-columns // tile.block_n)))

    def arguments(self) -> tuple[Any, ...]:
        """Return what both passes take first."""
        tensors = (*self.groups.tensors, self.keys.begin, self.keys.end)
        return self.rows, self.count, self.values, self.values.shape[1], *tensors

    def tile_ends(self, tile: Tile) -> Tensor:
        tiles = (self.groups.anchors + tile.block_m - 1).div(tile.block_m, rounding_mode="floor")
        return tiles.cumsum(0, dtype=torch.int32)

    def sizes(self, tile: Tile) -> dict[str, Any]:
        return {
            "C": self.channels,
            "CP": self.padded,
            "WIDTH": tile.width or self.padded,
            "BLOCK_M": tile.block_m,
            "BLOCK_N": tile.block_n,
            "PLANES": self.planes,
            "STAGES": tile.stages,
            "num_warps": tile.warps,
            # Fused, product and difference would make of the maximum's own exponent its rounding error, not 0.
            "enable_fp_fusion": False,
        }

    def logsumexp(self) -> Tensor:
        """Return (M,) float64: the log-sum-exp of the anchors, 0 for other rows."""
        from ..triton_kernels import rectangular

        tile = tile_configs.tile(self.chip.architecture, "sums", self.planes, self.padded)
        tiles = self.tiles(tile)
        parts = self.parts(tile, tiles, self.values.shape[1])
        maxima, totals = empty((2, parts, self.count), torch.float32, self.rows.device)
        launch(
            rectangular.sum_keys,
            (tiles, parts),
            *self.arguments(),
            self.weights[1],
            self.tile_ends(tile),
            maxima,
            totals,
            len(self.groups.anchors),
            self.scale_log2,
            **self.sizes(tile),
        )
        largest = maxima.amax(0)
        total = (totals * (maxima - tiled.finite(largest)).exp2()).sum(0)
        lse = (largest + total.double().log2()) / LOG2_E
        return torch.where(group_of_rows(self.groups, self.count).is_anchor, lse, 0)

    def gradient(self, row_scales: Tensor, positives: base.Positives | None, by_keys: bool) -> Tensor:
        """Return the sums of W_ij y_j by the rows, or those of W_ij x_i by the keys; float32."""
        from ..triton_kernels import rectangular

        tile = tile_configs.key_tile(self.chip.architecture, self.planes, self.padded)
        out_channels = tile.out or self.padded
        channel_parts = self.padded // out_channels
        count, columns, tiles = self.count, self.values.shape[1], self.tiles(tile)
        if by_keys:
            count, columns, tiles = columns, count, -(-columns // tile.block_m)
        parts = self.parts(tile, tiles * channel_parts, columns)
        out = zeros((parts, count, self.channels), torch.float32, self.rows.device)
        launch(
            rectangular.key_gradient,
            (tiles, parts, channel_parts),
            *self.arguments(),
            *row_scales,
            *((None,) * 3 if positives is None else positives[:3]),
            self.keys.itself,
            *self.weights,
            self.tile_ends(tile),
            out,
            len(self.groups.anchors),
            self.scale_log2,
            OUT=out_channels,
            BY_KEYS=by_keys,
            **self.sizes(tile),
        )
        return out.sum(0)


def forward(rows: Tensor, keys: Keys | None, groups: Groups, scale: float, bound: float | None) -> Tensor:
    if rows.numel() == 0 or len(groups.anchors) == 0:
        return torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    with on(rows.device):
        if keys is not None:
            return KeyPairs(rows, keys, groups, scale).logsumexp()
        pairs = Pairs(split(rows), groups, scale, bound)
        pairs.count_work()
        return pairs.logsumexp()


def backward(
    grad: Tensor,
    rows: Tensor,
    keys: Keys | None,
    lse: Tensor,
    groups: Groups,
    positives: base.Positives | None,
    scale: float,
    bound: float | None,
    unit_rows: bool,
    with_rows: bool,
    with_keys: bool,
) -> tuple[Tensor, Tensor]:
    if keys is not None:
        with on(rows.device):
            return key_backward(grad, rows, keys, lse, groups, positives, scale, with_rows, with_keys)
    out = torch.zeros(rows.shape, dtype=torch.float32, device=rows.device)
    if rows.numel() == 0 or len(groups.anchors) == 0:
        return out, out[:0]
    with on(rows.device):
        pairs = Pairs(split(rows), groups, scale, bound)
        pairs.count_work()
        contrast, above = None, grad
        if positives is not None:
            above = torch.maximum(grad.abs(), positives.pulls.abs())
        # In units that leave room for all that a pair weighs.
        above, unit = level(above, groups)
        grad_absmax = grad_absmax_of(above, rows.dtype)
        grad = (grad / unit).masked_fill(above == 0, 0)
        if positives is not None:
            pulls = in_units(positives.pulls / unit, grad_absmax).float()
            contrast = Contrast(positives.class_begin, positives.class_end, pulls, by_class=False)
        pairs.gradient(pairs.row_scales(grad, lse, grad_absmax), grad_absmax, out, contrast)
    return out.mul_(unit[:, None]), out[:0]


def key_backward(
    grad: Tensor,
    rows: Tensor,
    keys: Keys,
    lse: Tensor,
    groups: Groups,
    positives: base.Positives | None,
    scale: float,
    with_rows: bool,
    with_keys: bool,
) -> tuple[Tensor, Tensor]:
    """Backward of rows against keys. A key has pairs of several groups: the largest weight of all is their unit."""
    from ..triton_kernels import gradient

    by_rows = rows.new_zeros((len(rows) if with_rows else 0, rows.shape[1]), dtype=torch.float32)
    by_keys = rows.new_zeros((len(keys.values) if with_keys else 0, rows.shape[1]), dtype=torch.float32)
    if rows.numel() == 0 or keys.values.numel() == 0 or len(groups.anchors) == 0:
        return by_rows, by_keys
    grad = grad.double().masked_fill(~group_of_rows(groups, len(rows)).is_anchor, 0)
    largest = torch.linalg.vector_norm(grad, torch.inf)
    if positives is not None:
        pulls = pulls_of_classes(positives, keys)
        largest = torch.maximum(largest, torch.linalg.vector_norm(pulls, torch.inf))
    largest = torch.where(largest.isfinite(), largest, 1)
    if positives is not None:
        positives = positives._replace(pulls=in_units(positives.pulls, largest).float())
    pairs, scales = KeyPairs(rows, keys, groups, scale), row_scales(in_units(grad, largest), lse, None)
    factor = scale * largest / gradient.HEADROOM.value
    if with_rows:
        by_rows = pairs.gradient(scales, positives, by_keys=False).mul_(factor)
    if with_keys:
        by_keys = pairs.gradient(scales, positives, by_keys=True).mul_(factor)
    return by_rows, by_keys


def row_channels(channels: int) -> int:
    return channels


FUSED = GpuFused(Pairs, planes_of, row_channels)
BACKEND = Backend(
    "triton", state, refuses, forward, pairwise_apart(backward), positive_sums, softplus, FUSED, lambda: True
)
