"""Compiles what the backend would launch on a chip that is not there; a program of its own.

``python -m tests.semicl_kernels.triton_kernels.compile_all sm_90 bfloat16 every`` plays the backend's own calls on the
CPU, under a driver that knows a target and nothing else: a launch compiles and ends there. Each kernel that was
compiled is printed as one line of JSON. It cannot share a process with the interpreter's tests: Triton decides when a
kernel is defined who will run it.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from semicl_kernels import partition_kernels
from semicl_kernels.backends import fused
from semicl_kernels.backends import triton as backend
from semicl_kernels.backends.base import Groups, Keys, Positives, Problem
from semicl_kernels.backends.device import Chip
from semicl_kernels.backends.fused import Contrast, Normalization, grad_absmax_of
from semicl_kernels.triton_kernels import tile_configs

from . import disassembly

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# The dtypes of rows, and float32 in as many planes as each precision asks for.
KINDS = {
    "bfloat16": ((torch.bfloat16, "highest"),),
    "float16": ((torch.float16, "highest"),),
    "float32": ((torch.float32, "highest"), (torch.float32, "high")),
}
ROWS = 64
UNEVEN_CHANNELS = 48  # a tile has more
# Triton compiles for one group what no call with several runs.
GROUP_COUNTS = (1, 2)


class Driver:
    """As much of a driver as compiling takes."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class Compiled:
    """Stands in for JITFunction.run: compiles, remembers, launches nothing."""

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture
        self.seen: set[int] = set()
        self.run = JITFunction.run

    def __call__(self, function: JITFunction[Any], *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        start = time.perf_counter()
        kernel = self.run(function, *args, grid=grid, warmup=True, **kwargs)
        if id(kernel) in self.seen:
            return
        self.seen.add(id(kernel))
        names = (
            "C", "CP", "WIDTH", "OUT", "BLOCK_M", "BLOCK_N", "PLANES", "MUTUAL", "BOUNDED", "TRIANGLE",
            "POSITIVES", "BY_KEYS",
        )  # fmt: skip
        facts = {
            "seconds": round(time.perf_counter() - start, 2),
            "kernel": function.__name__,
            "groups": dict(zip(function.arg_names, args, strict=False)).get("G"),
            "constants": {name: kwargs[name] for name in names if name in kwargs},
            "dtype": str(next((a.dtype for a in args if isinstance(a, torch.Tensor)), None)),
            "shared": kernel.metadata.shared,
            "warps": kernel.metadata.num_warps,
        }
        if self.architecture.startswith("sm_"):
            facts |= disassembly.usage(kernel.asm["cubin"])
            facts["wgmma"] = kernel.asm["ptx"].count("wgmma.mma_async")
            if facts["constants"].get("BOUNDED") and function.__name__ == "row_gradient":
                facts["opcodes"] = disassembly.opcodes(kernel.asm["cubin"])
            if function.__name__ == "store_logsumexp":
                facts["loads_at_once"] = disassembly.loads_at_once(kernel.asm["cubin"])
        else:
            facts["stack"] = disassembly.amd_stack(kernel.asm["amdgcn"])
        print(json.dumps(facts), flush=True)


def groups(count: int, mutual: bool) -> Groups:
    own = torch.arange(ROWS, dtype=torch.int32)
    offsets = torch.arange(count + 1, dtype=torch.int32) * (ROWS // count)
    return Groups(offsets, offsets.diff(), own, own + 1, ROWS, mutual)


def play_loss(channels: int, dtype: torch.dtype, count: int) -> None:
    """The calls of a loss with its gradient, and of the primitive, on ``count`` groups."""
    features = torch.zeros(1, 1, channels, 8, 8, dtype=dtype)
    own = torch.arange(ROWS, dtype=torch.int32)
    weights = torch.ones(ROWS, dtype=torch.float64)
    whole = backend.BACKEND.fused
    assert whole is not None
    problem = Problem(features, own, groups(count, True), own, own + 1, 10.0, True, False)
    _, gradient = whole.contrast(problem, weights)
    whole.scatter(gradient, torch.ones(()), own, features)
    whole.anchor_losses(problem)
    whole.map_gradient(problem, weights.float(), features)
    rows = torch.zeros(ROWS, channels, dtype=dtype)
    lse = backend.forward(rows, None, groups(count, True), 10.0, 10.0)
    backend.backward(lse, rows, None, lse, groups(count, True), None, 10.0, 10.0, True, True, False)
    positives = Positives(own, own + 1, weights)
    backend.backward(lse, rows, None, lse, groups(count, True), positives, 10.0, None, True, True, False)


def play_partition() -> None:
    """The calls of a partition: by pairs, by tables, and of every place; of one group and of several."""
    few, many = torch.zeros(1, 2, 8, 8, dtype=torch.uint8), torch.zeros(1, 2, 20, 20, dtype=torch.int64)
    for labels, block_size in ((few, None), (few, (3, 5)), (many, None), (many, (18, 18))):
        for self_supervised in (False, True):
            partition_kernels.partition(labels, block_size, False, False, 0, None, "block", self_supervised)
            partition_kernels.partition(labels, block_size, True, True, None, 255, "anchor", self_supervised)


def play_pairs(
    channels: int, dtype: torch.dtype, count: int, mutual: bool, bound: float | None, largest: int = ROWS
) -> None:
    """The passes over pairs alone, the kernels whose tiles the table holds; a loss's are mutual."""
    planes = backend.plane_count(dtype)
    rows = torch.zeros(planes, ROWS, channels, dtype=torch.bfloat16 if planes > 1 else dtype)
    pairs = backend.Pairs(rows, groups(count, mutual)._replace(largest=largest), 10.0, bound)
    pairs.partial_sums()
    factors = torch.zeros(2, ROWS)
    own = torch.arange(ROWS, dtype=torch.int32)
    losses = torch.zeros(2, dtype=torch.float64)
    features = torch.zeros(1, 1, channels, 8, 8, dtype=dtype)
    normalization = Normalization(features, features.stride(2), own.long(), torch.zeros(ROWS))
    contrast = Contrast(own, own + 1, torch.zeros(ROWS), True, losses, torch.zeros(()), normalization)
    out, grad_absmax = torch.zeros(ROWS, channels), grad_absmax_of(factors, dtype)
    pairs.gradient(factors, grad_absmax, out, contrast if mutual else None)
    if mutual and bound is None:
        pairs.gradient(factors, grad_absmax, out, Contrast(own, own + 1, torch.zeros(ROWS), by_class=False))


def play_keys(channels: int, dtype: torch.dtype, count: int, all_given: bool) -> None:
    """The passes over keys; without positives and weights where not all is given."""
    rows, own = torch.zeros(ROWS, channels, dtype=dtype), torch.arange(ROWS, dtype=torch.int32)
    of_groups = groups(count, False)
    weights = torch.ones(ROWS) if all_given else None
    keys = Keys(rows.clone(), of_groups.offsets[:-1].clone(), of_groups.offsets[1:].clone(), own, weights)
    positives = Positives(own, own + 1, torch.ones(ROWS)) if all_given else None
    lse = backend.forward(rows, keys, of_groups, 10.0, None)
    backend.backward(lse, rows, keys, lse, of_groups, positives, 10.0, None, True, True, True)


def main(architecture: str, name: str, how_many: str) -> None:
    """Compile for rows of the dtype ``name``; unless ``how_many`` is "every", of one group what the loss of normalized
    features takes."""
    every = how_many == "every"
    triton.runtime.driver.set_active(Driver(TARGETS[architecture]))
    compiled = Compiled(architecture)
    JITFunction.run = lambda *args, **kwargs: compiled(*args, **kwargs)
    backend.chip = fused.chip = lambda device: Chip(architecture, 2)
    play_partition()
    for dtype, precision in KINDS[name]:
        torch.set_float32_matmul_precision(precision)
        for count in GROUP_COUNTS:
            play_loss(UNEVEN_CHANNELS, dtype, count)
        tables = tile_configs.TABLES[architecture]
        planes = backend.plane_count(dtype)
        for channels in sorted({*tables["sums", planes], *tables["gradient", planes]}):
            for count in GROUP_COUNTS:
                # Of several groups a large one, whose triangle comes in blocks.
                play_pairs(channels, dtype, count, True, 10.0, largest=ROWS if count == 1 else 2 * backend.COLUMNS)
                if count > 1 or every:
                    play_pairs(channels, dtype, count, True, None)
                    play_pairs(channels, dtype, count, False, None)
                    play_keys(channels, dtype, count, count > 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
