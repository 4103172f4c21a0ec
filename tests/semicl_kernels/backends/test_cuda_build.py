"""The compiled CUDA extension as it was built, looked at without a GPU: what ptxas and the disassembler say of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from semicl_kernels import available_backends
from semicl_kernels.backends import cuda

REGISTERS = 65536  # of a multiprocessor
LARGEST_SHARED = {"sm_80": 163 << 10, "sm_90a": 227 << 10, "sm_100": 227 << 10}
SMALLEST_SHARED = 99 << 10  # of sm_86 and sm_89, which run code for sm_80
# Of each of 384 threads, one block a multiprocessor: 40 of the loading warps and 232 of the multiplying ones, which
# would wait for ever for what the block had not got.
GROUP_REGISTERS = 168
MOST_SPILT = 64  # bytes, where there is no room: see below


def extension() -> Path | None:
    found = find_spec("semicl_kernels._cuda")
    return None if found is None or found.origin is None else Path(found.origin)


def tool() -> str | None:
    """cuobjdump, with nvdisasm beside it: of the CUDA toolkit, or of the package triton."""
    triton = find_spec("triton")
    folders = [] if triton is None or triton.origin is None else [Path(triton.origin).parent / "backends/nvidia/bin"]
    for candidate in [shutil.which("cuobjdump"), *(str(folder / "cuobjdump") for folder in folders)]:
        if candidate is not None and Path(candidate).with_name("nvdisasm").exists():
            return candidate
    return None


needs_extension = pytest.mark.skipif(
    extension() is None, reason="semicl_kernels._cuda is not built: no nvcc, or SEMICL_CUDA=0"
)
needs_tool = pytest.mark.skipif(tool() is None, reason="no cuobjdump and nvdisasm: `pip install triton` brings them")


def dump(*options: str) -> str:
    command = [str(tool()), *options, str(extension())]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True)
class Kernel:
    """One kernel of one architecture, and what it takes."""

    architecture: str
    symbol: str
    registers: int
    stack: int
    local: int

    @property
    def name(self) -> str:
        """Its name without parameters: "warp_sums" and the like."""
        return next(name for name in NAMES if f"{len(name)}{name}" in self.symbol)


GROUP_KERNELS = ("group_sums", "group_gradient")
WARP_KERNELS = ("warp_sums", "warp_gradient")
NAMES = (*GROUP_KERNELS, *WARP_KERNELS, "pack_rows", "count_work", "join_slots", "row_factors", "join_pieces")


@cache
def kernels() -> list[Kernel]:
    found, architecture, symbol = [], "", ""
    for line in dump("-res-usage").splitlines():
        if match := re.match(r"arch = (\S+)", line):
            architecture = match[1]
        elif match := re.match(r" Function (\S+):", line):
            symbol = match[1]
        elif match := re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", line):
            found.append(Kernel(architecture, symbol, *map(int, match.groups())))
    return found


@cache
def machine_code(kernel: Kernel) -> str:
    return dump("-sass", "-arch", kernel.architecture, "-fun", kernel.symbol)


def count(instruction: str, kernel: Kernel) -> int:
    return len(re.findall(rf"\b{instruction}\b", machine_code(kernel)))


@needs_extension
def test_module_imports_without_a_gpu_and_names_its_architectures() -> None:
    script = "import semicl_kernels._cuda as module; print(*module.architectures())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == cuda.compiled.architectures()


def test_state_names_what_is_missing_and_what_mends_it() -> None:
    state = available_backends()["cuda"]
    if cuda.compiled is None:
        assert "nvcc" in state
        assert "SEMICL_CUDA=1 pip install" in state
    elif not torch.cuda.is_available():
        assert "torch sees no NVIDIA GPU" in state
    else:
        assert state == "available" or "SEMICL_CUDA_ARCHS" in state


@needs_extension
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the call would succeed")
def test_status_of_a_cuda_call_becomes_an_exception_with_its_name() -> None:
    with pytest.raises(RuntimeError, match=r"^cudaGetDevice: .*cudaError"):
        cuda.compiled.pack(0, 0, 0, 0, 1, 32, 32, 0)


@needs_extension
@needs_tool
def test_every_kernel_is_there_for_every_architecture() -> None:
    for architecture in cuda.compiled.architectures():
        names = {kernel.name for kernel in kernels() if kernel.architecture == f"sm_{architecture}"}
        assert names == set(NAMES if architecture == "90a" else NAMES[len(GROUP_KERNELS) :])


@needs_extension
@needs_tool
def test_no_kernel_has_a_stack_frame_or_spills() -> None:
    """But for the gradient of float32 rows of 256 channels: 128 registers of sums, and products to be added to them."""
    spilling = [kernel for kernel in kernels() if kernel.stack or kernel.local]
    assert [kernel for kernel in spilling if not holds_most_sums(kernel)] == []
    assert all(kernel.local == 0 and kernel.stack <= MOST_SPILT for kernel in spilling), spilling


def holds_most_sums(kernel: Kernel) -> bool:
    return kernel.name == "warp_gradient" and "BFloat16ELi3EEELi256E" in kernel.symbol


@needs_extension
@needs_tool
def test_registers_and_shared_memory_fit_the_planned_occupancy() -> None:
    """Two blocks of at most 128 threads, or one of three warp groups, a multiprocessor."""
    for kernel in kernels():
        if kernel.name in WARP_KERNELS:
            assert kernel.registers * 128 * 2 <= REGISTERS, kernel
        if kernel.name in GROUP_KERNELS:
            assert kernel.registers == GROUP_REGISTERS, kernel
    for row_format in cuda.FORMATS.values():
        for channels in cuda.PADDED_CHANNELS:
            by_warps = max(cuda.tile_sizes(cuda.WARPS, row_format, channels).shared_bytes)
            by_groups = max(cuda.tile_sizes(cuda.WARP_GROUPS, row_format, channels).shared_bytes)
            assert by_groups <= LARGEST_SHARED["sm_90a"]
            large = row_format == cuda.FORMATS[torch.float32] and channels > 128
            assert by_warps <= (LARGEST_SHARED["sm_80"] if large else SMALLEST_SHARED)


def of_hopper(names: tuple[str, ...]) -> list[Kernel]:
    """A kernel of each name for bfloat16 rows, of every number of channels."""
    return [
        one for one in kernels() if one.architecture == "sm_90a" and one.name in names and "BFloat16ELi1" in one.symbol
    ]


@needs_extension
@needs_tool
def test_hopper_kernels_use_wgmma_and_tma_and_no_local_memory() -> None:
    if "90a" not in cuda.compiled.architectures():
        pytest.skip("semicl_kernels._cuda was built without 90a in SEMICL_CUDA_ARCHS")
    chosen = of_hopper(GROUP_KERNELS)
    assert len(chosen) == 2 * len(cuda.PADDED_CHANNELS)
    for kernel in chosen:
        assert count("HGMMA", kernel) > 0, kernel
        assert count("UTMALDG", kernel) > 0, kernel
        assert count("LDL", kernel) + count("STL", kernel) == 0, kernel
        # Were products serialised, each would be waited for by itself.
        assert count(r"WARPGROUP\.DEPBAR", kernel) < count("HGMMA", kernel), kernel


@needs_extension
@needs_tool
@pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
def test_warp_kernels_use_tensor_cores_and_asynchronous_copies(architecture: str) -> None:
    if architecture.removeprefix("sm_") not in cuda.compiled.architectures():
        pytest.skip(f"semicl_kernels._cuda was built without {architecture} in SEMICL_CUDA_ARCHS")
    for name in WARP_KERNELS:
        for kernel in kernels():
            if kernel.architecture == architecture and kernel.name == name and "Li128" in kernel.symbol:
                assert count("HMMA", kernel) > 0, kernel
                assert count("LDGSTS", kernel) > 0, kernel
                assert count("LDL", kernel) + count("STL", kernel) == 0, kernel
