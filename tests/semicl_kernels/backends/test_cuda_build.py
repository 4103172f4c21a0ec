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
from tempfile import NamedTemporaryFile, TemporaryDirectory

import pytest
import torch

from semicl_kernels import available_backends
from semicl_kernels.backends import cuda

from .products_in_flight import Code

LARGEST_SHARED = 227 << 10  # bytes that a block may have
# Of each of 384 threads, one block a multiprocessor: 40 of the loading warps and 232 of the multiplying ones, which
# would wait for ever for what the block had not got.
GROUP_REGISTERS = 168


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
        """Its name without parameters: "forward" and the like."""
        return next(name for name in NAMES if f"{len(name)}{name}" in self.symbol)


NAMES = ("forward", "backward")


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
def cubins() -> dict[Path, bytes]:
    """The files of machine code in the extension, each of one source and one architecture."""
    with TemporaryDirectory() as folder:
        command = [str(tool()), "-xelf", "all", str(extension())]
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
        return {file: file.read_bytes() for file in Path(folder).glob("*.cubin")}


@cache
def listings(cubin: Path) -> dict[str, str]:
    """The code of each kernel of a file, by its symbol."""
    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubins()[cubin])
        file.flush()
        command = [str(Path(str(tool())).with_name("nvdisasm")), "-c", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    _, *parts = re.split(r"^\.text\.(\S+):$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def machine_code(kernel: Kernel) -> str:
    # Older tools name files of sm_90a sm_90.
    named = (f".{kernel.architecture}.", f".{kernel.architecture.removesuffix('a')}.")
    holding = [
        cubin
        for name in named
        for cubin, content in cubins().items()
        if name in cubin.name and kernel.symbol.encode() in content
    ]
    return next(listings(cubin)[kernel.symbol] for cubin in holding if kernel.symbol in listings(cubin))


def count(instruction: str, kernel: Kernel) -> int:
    return len(re.findall(rf"\b{instruction}\b", machine_code(kernel)))


@needs_extension
def test_module_imports_without_a_gpu_or_torch() -> None:
    # By itself: the package would bring torch.
    script = """if True:
        import sys
        from importlib.util import module_from_spec, spec_from_file_location
        spec = spec_from_file_location("semicl_kernels._cuda", sys.argv[1])
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        print(module.sources, "torch" in sys.modules)
    """
    command = [sys.executable, "-c", script, str(extension())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [cuda.compiled.sources, "False"]


def test_state_names_what_is_missing_and_what_mends_it() -> None:
    state = available_backends()["cuda"]
    if cuda.compiled is None:
        assert "nvcc" in state
        assert "SEMICL_CUDA=1 pip install" in state
    elif not torch.cuda.is_available():
        assert "torch sees no NVIDIA GPU" in state
    else:
        assert state == "available" or "Hopper" in state


@needs_extension
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the call would succeed")
def test_status_of_a_cuda_call_becomes_an_exception_with_its_name() -> None:
    with pytest.raises(RuntimeError, match=r"^cudaDeviceGetAttribute: .*cudaError"):
        cuda.compiled.workers(0)


@needs_extension
@needs_tool
def test_every_kernel_is_there_for_hopper_alone() -> None:
    assert {(kernel.architecture, kernel.name) for kernel in kernels()} == {("sm_90a", name) for name in NAMES}


@needs_extension
@needs_tool
def test_no_kernel_has_a_stack_frame_or_spills() -> None:
    assert [kernel for kernel in kernels() if kernel.stack or kernel.local] == []


@needs_extension
@needs_tool
def test_registers_and_shared_memory_fit_the_planned_occupancy() -> None:
    """One block of three warp groups a multiprocessor."""
    for kernel in kernels():
        if kernel.name in NAMES:
            assert kernel.registers == GROUP_REGISTERS, kernel
    for channels in cuda.PADDED_CHANNELS:
        assert max(cuda.tile_sizes(channels).shared_bytes) <= LARGEST_SHARED


def of_hopper(names: tuple[str, ...]) -> list[Kernel]:
    """A kernel of each name for bfloat16 rows, of every number of channels."""
    return [one for one in kernels() if one.name in names and "BFloat16" in one.symbol]


@needs_extension
@needs_tool
def test_hopper_kernels_use_wgmma_and_tma_and_no_local_memory() -> None:
    chosen = of_hopper(NAMES)
    assert len(chosen) == 2 * len(cuda.PADDED_CHANNELS)
    for kernel in chosen:
        assert count("HGMMA", kernel) > 0, kernel
        assert count("UTMALDG", kernel) > 0, kernel
        assert count("LDL", kernel) + count("STL", kernel) == 0, kernel
        # Were products serialized, each would be waited for by itself.
        assert count(r"WARPGROUP\.DEPBAR", kernel) < count("HGMMA", kernel), kernel


@needs_extension
@needs_tool
def test_gradient_is_stored_from_one_address() -> None:
    """A thread has C / 4 pairs of floats, of two rows. Any other address than a constant beyond one register would cost
    four instructions a store."""
    for kernel in of_hopper(("backward",)):
        channels = next(count for count in cuda.PADDED_CHANNELS if f"Li{count}E" in kernel.symbol)
        stores = re.findall(r"\bSTG\.(\S+) desc\[\w+\]\[(R\d+)\.64(?:\+0x([0-9a-f]+))?\]", machine_code(kernel))
        assert len(stores) == count("STG", kernel) == channels // 4, kernel
        assert {(width, register) for width, register, _ in stores} == {("E.64", stores[0][1])}, kernel
        places = {8 * 4 * channels * row + 32 * chunk for row in range(2) for chunk in range(channels // 8)}
        assert {int(offset or "0", 16) for *_, offset in stores} == places, kernel


@needs_extension
@needs_tool
def test_no_instruction_touches_a_product_in_flight() -> None:
    """Nothing in the source ties accumulators to their wait (wgmma.h): what the compiler made of it is looked through,
    every path of every kernel by warp groups."""
    chosen = [kernel for kernel in kernels() if kernel.name in NAMES]
    assert len(chosen) == len(NAMES) * 2 * len(cuda.PADDED_CHANNELS)
    for kernel in chosen:
        assert Code(machine_code(kernel)).violations() == [], kernel


@needs_extension
@needs_tool
@pytest.mark.parametrize("name", NAMES)
def test_a_wait_too_few_and_a_read_too_early_are_found(name: str) -> None:
    for kernel in of_hopper((name,)):
        if "Li128E" not in kernel.symbol:
            continue
        code = Code(machine_code(kernel))
        for position in code.positions("WARPGROUP.DEPBAR"):
            assert code.with_instruction(position, "NOP").violations(), (kernel, position)
        for position in code.positions("HGMMA")[::8]:
            (first, *_) = re.findall(r"R\d+", code.instructions[position].operands)
            planted = code.with_instruction(position + 1, f"FADD R0, R1, {first}").violations()
            assert position + 1 in [one.position for one in planted], (kernel, position)


# A loop with a product ahead: while the later of two is on its way, the sums of the earlier are read.
LOOP = """
        /*0000*/                   BSSY B0, `(.L_x_9) ;
        /*0010*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], RZ, !UPT, gsb0 ;
.L_x_1:
        /*0020*/                   HGMMA.64x64x16.F32.BF16 R56, gdesc[UR8], RZ, !UPT ;
        /*0030*/                   HGMMA.64x64x16.F32.BF16 R56, R92, gdesc[UR8].tnspB, R56, gsb0 ;
        /*0040*/                   WARPGROUP.DEPBAR.LE gsb0, 0x1 ;
        /*0050*/                   FADD R0, R0, R24 ;
        /*0060*/               @P0 BRA `(.L_x_2) ;
        /*0070*/                   LDS.64 R2, [R4+UR4] ;
.L_x_2:
        /*0080*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
        /*0090*/                   FADD R0, R0, R56 ;
        /*00a0*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], RZ, !UPT, gsb0 ;
        /*00b0*/              @!P1 BRA `(.L_x_1) ;
        /*00c0*/                   BSYNC B0 ;
        /*00d0*/                   EXIT ;
.L_x_9:
        /*00e0*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
        /*00f0*/                   FADD R0, R0, R24 ;
        /*0100*/                   EXIT ;
"""


def test_what_touches_a_product_in_flight_is_found() -> None:
    assert Code(LOOP).violations() == []


@pytest.mark.parametrize(
    ("old", "new", "registers"),
    [
        ("FADD R0, R0, R24 ;\n        /*0060*/", "FADD R0, R0, R56 ;\n        /*0060*/", [56]),
        ("gsb0, 0x1", "gsb0, 0x2", [24]),
        ("LDS.64 R2, [R4+UR4]", "LDS.64 R54, [R4+UR4]", None),
        ("LDS.64 R2, [R4+UR4]", "LDS.128 R54, [R4+UR4]", [56, 57]),
        ("LDS.64 R2, [R4+UR4]", "STS [R87], R2", [87]),
        ("LDS.64 R2, [R4+UR4]", "LDG.E R2, desc[UR4][R94.64]", [94, 95]),
        ("LDS.64 R2, [R4+UR4]", "LDG.E R2, desc[UR4][R90.64]", None),
        ("LDS.64 R2, [R4+UR4]", "CS2R R22, SRZ", None),
        ("LDS.64 R2, [R4+UR4]", "CS2R R86, SRZ", [86, 87]),
        ("LDS.64 R2, [R4+UR4]", "IMAD.WIDE R54, R90, 0x4, R90", None),
        ("LDS.64 R2, [R4+UR4]", "IMAD.WIDE R54, R90, 0x4, R55", [56]),
        ("LDS.64 R2, [R4+UR4]", "@P3 F2FP.BF16.F32.PACK_AB R95, R1, R2", [95]),
        ("LDS.64 R2, [R4+UR4]", "HGMMA.64x64x16.F32.BF16 R120, R60, gdesc[UR8].tnspB, RZ, !UPT", [60, 61, 62, 63]),
        ("LDS.64 R2, [R4+UR4]", "CALL.REL.NOINC `(.L_x_9)", []),
        ("BSSY B0, `(.L_x_9)", "BSSY B0, `(.L_x_2)", None),
        ("/*00e0*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0", "/*00e0*/                   NOP", [24]),
        ("/*00b0*/              @!P1 BRA `(.L_x_1)", "/*00b0*/              @!P1 BRA `(.L_x_2)", None),
    ],
)  # fmt: skip
def test_only_what_touches_a_product_in_flight_is_found(old: str, new: str, registers: list[int] | None) -> None:
    assert LOOP.count(old) == 1
    found = Code(LOOP.replace(old, new)).violations()
    assert {one.registers for one in found} == (set() if registers is None else {tuple(registers)})


def test_an_instruction_of_unknown_width_is_no_answer() -> None:
    with pytest.raises(AssertionError, match="how wide are the operands of QADD4 R54"):
        Code(LOOP.replace("LDS.64 R2, [R4+UR4]", "QADD4 R54, R0, R1")).violations()
