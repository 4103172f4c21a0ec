"""The CUDA backend, for Hopper (sm_90a): checks and allocates, then hands raw addresses and a stream to ``csrc/cuda``
(see backend.h there), which has the two passes over pairs.

It takes bfloat16 and float16 rows with a fixed maximum (docs/gpu.md): exponents that no pair exceeds, of SAFE_BOUND at
most, and mutual skips. Everything else is backend "triton"'s. Triton's kernels also do all that is done by rows alone,
and all of the map of losses. How much work there is is found on the device; nothing waits for it, and a
call can be captured in a CUDA graph. The compiled code is checked statically and by an emulated GPU; no GPU has run
it yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..triton_kernels.tile_configs import Tile
from . import base, extensions, triton
from .base import AVAILABLE, MAX_ROWS, MAX_SQUARED_NORM, Backend, Groups, Keys, Problem
from .device import ALIGNMENT, interpreted, on
from .fused import SAFE_BOUND, Contrast, GpuFused, PartialSums, exponents, grad_absmax_of
from .grad_scaling import level
from .launch_cache import CurrentStream, call
from .positives import pairwise_apart, positive_sums, softplus

FORMATS = {torch.bfloat16: 0, torch.float16: 1}  # csrc/cuda/backend.h, RowFormat
PADDED_CHANNELS = (32, 64, 128, 256)
WARPS = 12  # of a block
HOPPER = (9, 0)
FIXED_MAXIMUM = (
    f"it takes a fixed maximum, exponents of {SAFE_BOUND:g} at most: features of unit length (normalize=True) at a "
    f"temperature of {MAX_SQUARED_NORM / SAFE_BOUND:.4f} or more, or in grouped_logsumexp a bound, mutual skips and a "
    "positive scale"
)

TOOLKIT, SETTING = "the CUDA toolkit (nvcc 12.4 or later)", "SEMICL_CUDA=1 "
compiled, missing = extensions.find("_cuda", TOOLKIT, SETTING)


@torch.compiler.assume_constant_result
def state() -> str:
    return find_state()


@cache
def find_state() -> str:
    if compiled is None:
        return missing
    if not torch.cuda.is_available() or torch.version.hip is not None:
        return "torch sees no NVIDIA GPU; if there is one, install a torch for it (https://pytorch.org/get-started)"
    if find_spec("triton") is None:
        return "triton, which does all around the pairs, is not installed: it comes with torch for GPUs"
    major, minor = torch.cuda.get_device_capability()
    if (major, minor) != HOPPER:
        return f"its kernels are for Hopper (sm_90a), and the GPU is sm_{major}{minor}: use backend='triton'"
    return AVAILABLE


def refuses(device: torch.device, dtype: torch.dtype, channels: int, bound: float | None) -> str | None:
    if device.type != "cuda":
        return f"tensors on {device}; it takes tensors on a Hopper GPU (sm_90a)"
    if not is_hopper(device):
        return f"tensors on {device}, which is no Hopper GPU (sm_90a): use backend='triton'"
    if dtype not in FORMATS:
        return f"{dtype}; it takes bfloat16 and float16: use backend='triton' (backend='tiled' for float64)"
    if channels > PADDED_CHANNELS[-1]:
        return f"{channels} channels; it takes {PADDED_CHANNELS[-1]} at most: use backend='triton', which takes 512"
    if bound is None or abs(bound) > SAFE_BOUND:
        found = "no bound of the exponents" if bound is None else f"exponents of up to {bound:.4g}"
        return f"{found}; {FIXED_MAXIMUM}: use backend='triton'"
    return None


@torch.compiler.assume_constant_result
def is_hopper(device: torch.device) -> bool:
    return torch.version.hip is None and capability(device) == HOPPER


@cache
def capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


class TileSizes(NamedTuple):
    """Rows of an M tile and of an N tile in the pass that sums and the one that makes gradients; shared memory of
    each."""

    sums: tuple[int, int]
    gradient: tuple[int, int]
    shared_bytes: tuple[int, int]


@cache
def tile_sizes(channels: int) -> TileSizes:
    sizes = compiled.tile_sizes(channels)
    return TileSizes(*(tuple(sizes[first : first + 2]) for first in (0, 2, 4)))


@cache
def workers(device: torch.device) -> int:
    """The blocks of a pass over pairs."""
    return int(compiled.workers(launch_site(device)[0]))


def launch_site(device: torch.device) -> tuple[int, CurrentStream]:
    """The device's number and its current stream."""
    return torch.cuda.current_device() if device.index is None else device.index, CurrentStream(device)


def padded(channels: int) -> int:
    return next(count for count in PADDED_CHANNELS if count >= channels)


def pack(rows: Tensor) -> Tensor:
    """Return the rows as the kernels take them, (1, M, channels): padded with zeros to 32, 64, 128 or 256 channels; the
    same memory where they already are so."""
    missing = padded(rows.shape[1]) - rows.shape[1]
    packed = torch.nn.functional.pad(rows, (0, missing)) if missing else rows.contiguous()
    return (packed if packed.data_ptr() % ALIGNMENT == 0 else packed.clone())[None]


class Pairs(triton.Pairs):
    """The passes over the pairs of packed rows, (1, M, channels) of :func:`pack`; all else is as backend "triton"'s,
    whose kernels count the work and add up what these leave in partials."""

    def __init__(self, packed: Tensor, groups: Groups, scale: float, bound: float | None) -> None:
        if not exponents(scale, bound).bounded or not groups.mutual:
            raise ValueError(f"backend 'cuda' got no fixed maximum; {FIXED_MAXIMUM}: use backend='triton'")
        if packed.shape[1] > MAX_ROWS:
            raise ValueError(
                f"backend 'cuda' takes {MAX_ROWS} rows at most; got {packed.shape[1]}: use backend='tiled'"
            )
        super().__init__(packed, groups, scale, bound)

    def plan(self) -> tuple[triton.Pass, triton.Pass]:
        sizes, count = tile_sizes(self.channels), workers(self.rows.device)
        sums, gradient = (triton.Pass(Tile(m, n, WARPS, 1), count) for m, n in (sizes.sums, sizes.gradient))
        return sums, gradient

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a pass with what both take and its own arguments."""
        call(
            function,
            *launch_site(self.rows.device),
            FORMATS[self.rows.dtype],
            self.rows,
            self.count,
            self.channels,
            list(self.groups.tensors),
            self.group_total,
            self.scale_log2,
            self.shift,
            *arguments,
        )

    def partial_sums(self) -> PartialSums:
        sums = self.empty_sums()
        self.call(compiled.sum_pairs, self.sums_ends, self.blocks, self.columns, sums.own, sums.given)
        return sums

    def gradient(
        self, row_scales: Tensor, grad_absmax: Tensor | None, out: Tensor, contrast: Contrast | None = None
    ) -> None:
        """Write the gradient by the rows of groups with an anchor to ``out`` (M, channels as packed), float32."""
        assert contrast is None or contrast.by_class, "the map of losses is Triton's"
        partials = self.partial_tiles()
        positives = (None, None, None) if contrast is None else contrast.positives
        self.call(
            compiled.row_gradient, self.gradient_ends, self.scale, row_scales, grad_absmax, *positives, partials, out
        )
        self.finish(partials, out, contrast)


def forward(rows: Tensor, keys: Keys | None, groups: Groups, scale: float, bound: float | None) -> Tensor:
    if keys is not None or bound is None:
        return triton.forward(rows, keys, groups, scale, bound)
    if rows.numel() == 0 or len(groups.anchors) == 0:
        return torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    with on(rows.device):
        pairs = Pairs(pack(rows), groups, scale, bound)
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
    if keys is not None or positives is not None or bound is None:
        return triton.backward(grad, rows, keys, lse, groups, positives, scale, bound, unit_rows, with_rows, with_keys)
    if rows.numel() == 0 or len(groups.anchors) == 0:
        return torch.zeros_like(rows, memory_format=torch.contiguous_format), rows[:0]
    packed = pack(rows)
    out = torch.zeros(packed.shape[1:], dtype=torch.float32, device=rows.device)
    with on(rows.device):
        pairs = Pairs(packed, groups, scale, bound)
        pairs.count_work()
        grad, unit = level(grad.float(), groups)
        grad_absmax = grad_absmax_of(grad, rows.dtype)
        pairs.gradient(pairs.row_scales(grad, lse, grad_absmax), grad_absmax, out)
    return torch.mul(out[:, : rows.shape[1]], unit[:, None]), out[:0]


def planes_of(problem: Problem) -> int:
    return 1


@dataclass(frozen=True)
class CudaFused(GpuFused):
    """The reduced loss. The map of losses, in which each row of a class has a weight of its own, is Triton's."""

    def anchor_losses(self, problem: Problem) -> Tensor:
        return triton.FUSED.anchor_losses(problem)

    def map_gradient(self, problem: Problem, weights: Tensor, out: Tensor) -> None:
        triton.FUSED.map_gradient(problem, weights, out)


FUSED = CudaFused(Pairs, planes_of, padded)
BACKEND = Backend(
    "cuda", state, refuses, forward, pairwise_apart(backward), positive_sums, softplus, FUSED, lambda: not interpreted()
)
