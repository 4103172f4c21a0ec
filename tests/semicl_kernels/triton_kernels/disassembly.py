"""What the machine code of a kernel for NVIDIA says: by the disassembler that comes in Triton's package."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import triton

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"


def facts(cubin: bytes) -> dict[str, object]:
    """Return the registers of a thread, the bytes of its local memory and how often the telling instructions stand."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = run("cuobjdump", "--dump-resource-usage", file.name)
        code = run("nvdisasm", "-c", file.name)
    resources = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    instructions = re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)", code, re.MULTILINE)
    opcodes = Counter(instructions)
    # Between two instructions that may wait for a load.
    stretches = re.split(r"\b(?:FADD|FFMA|FMUL|FMNMX|MUFU|BRA)\b", " ".join(instructions))
    return {
        "registers": resources["REG"],
        "stack": resources["STACK"],
        "local": resources["LOCAL"],
        "loads_at_once": max(stretch.count("LDG") for stretch in stretches),
        "opcodes": {name: count for name, count in opcodes.items() if re.match(r"HGMMA|HMMA|LDL|STL|MUFU|UTC", name)},
    }


def run(tool: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout
