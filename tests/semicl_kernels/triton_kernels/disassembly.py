"""What the machine code of a kernel says: for NVIDIA by the disassembler that comes in Triton's package."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import triton

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"


def usage(cubin: bytes) -> dict[str, int]:
    """Return the registers of a thread, the bytes of its stack and of its local memory."""
    said = run("cuobjdump", "--dump-resource-usage", cubin=cubin)
    resources = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return {"registers": resources["REG"], "stack": resources["STACK"], "local": resources["LOCAL"]}


def amd_stack(assembly: str) -> int:
    """Return the bytes of a thread's stack, as the assembly for AMD notes them."""
    (found,) = re.findall(r"\.private_segment_fixed_size:\s+(\d+)", assembly)
    return int(found)


def instructions(cubin: bytes) -> list[str]:
    """Return the names of the instructions in their order; slower than the rest of what is asked here."""
    code = run("nvdisasm", "-c", cubin=cubin)
    return re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)", code, re.MULTILINE)


def loads_at_once(cubin: bytes) -> int:
    """Return the most loads that stand between two instructions that may wait for one."""
    stretches = re.split(r"\b(?:FADD|FFMA|FMUL|FMNMX|MUFU|BRA)\b", " ".join(instructions(cubin)))
    return max(stretch.count("LDG") for stretch in stretches)


def opcodes(cubin: bytes) -> dict[str, int]:
    """Return how often the telling instructions stand."""
    found = Counter(instructions(cubin))
    return {name: count for name, count in found.items() if re.match(r"HGMMA|HMMA|LDL|STL|MUFU|UTC", name)}


def run(tool: str, *arguments: str, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [TOOLS / tool, *arguments, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
