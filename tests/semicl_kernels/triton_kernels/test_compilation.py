"""Every kernel and every entry of the tile table compiles for its chip, fits it, and is what it was meant to be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from semicl_kernels.backends import device

triton = pytest.importorskip("triton", reason="triton is not installed: pip install triton")

# Of a block; sm_86, sm_89 and sm_120 take the tiles of sm_80 and have less than it.
SHARED_BYTES = {"sm_80": 99 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}
# Of a thread, where it is not 0: in a few kernels of rows in several planes two to four registers lie there.
STACK_BYTES = {("sm_80", "float32"): 16, ("sm_100", "float32"): 8}
if triton.__version__.startswith("3.5."):  # its assembler is older
    STACK_BYTES["sm_90", "bfloat16"] = 8
PASSES_OVER_PAIRS = ("sum_pairs", "log_sum_pairs", "row_gradient", "sum_keys", "key_gradient")
WARP_GROUP = 128  # threads
PARTIALS_AT_ONCE = 8  # semicl_kernels/triton_kernels/logsumexp.py
PARTITION = ("count_classes", "sum_chunks", "sum_groups", "place_points", "place_views")
CASES = [
    pytest.param("sm_90", "bfloat16", "some"),
    *(
        pytest.param(architecture, dtype, "every", marks=pytest.mark.slow)
        for architecture in SHARED_BYTES
        for dtype in ("bfloat16", "float16", "float32")
    ),
]


# Triton knows by the source what it has compiled before.
CACHE = Path(__file__).parents[3] / "build/triton"


def printed_by(program: str, *arguments: str, **variables: str) -> list[dict[str, Any]]:
    """The lines of JSON that a program of this folder prints. It must not run in Triton's interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", f"tests.semicl_kernels.triton_kernels.{program}", *arguments],
        capture_output=True,
        text=True,
        env={**environment, "TRITON_CACHE_DIR": str(CACHE), "OMP_NUM_THREADS": "1", **variables},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("architecture", "dtype", "how_many"), CASES)
def test_kernels_compile_and_fit(architecture: str, dtype: str, how_many: str) -> None:
    kernels = printed_by("compile_all", architecture, dtype, how_many)
    names = {kernel["kernel"] for kernel in kernels}
    assert names >= {*PASSES_OVER_PAIRS, *PARTITION, "gather_rows", "scatter_rows", "finish_rows"}
    for name in ("sum_pairs", "finish_rows", "anchor_losses"):
        groups = {kernel["groups"] for kernel in kernels if kernel["kernel"] == name}
        assert groups == {1, 2}, name
    # Of row_gradient one compilation serves any number of groups: none is compiled for both.
    compiled_for: dict[str, set[int]] = {}
    for kernel in kernels:
        if kernel["kernel"] == "row_gradient":
            compiled_for.setdefault(json.dumps([kernel["constants"], kernel["warps"]]), set()).add(kernel["groups"])
    assert compiled_for
    assert all(len(groups) == 1 for groups in compiled_for.values()), compiled_for
    for kernel in kernels:
        assert kernel["shared"] <= SHARED_BYTES[architecture], kernel
        assert kernel.get("local", 0) == 0, kernel
        assert kernel["stack"] <= STACK_BYTES.get((architecture, dtype), 0), kernel
    if architecture == "sm_90":
        for kernel in kernels:
            assert_machine_code(kernel)


def assert_machine_code(kernel: dict[str, Any]) -> None:
    """On Hopper: nothing spilt, products on tensor cores, one exponential a similarity where the maximum is known."""
    assert kernel["local"] == 0, kernel
    if kernel["kernel"] == "store_logsumexp":
        # One after another, each partial would wait for memory.
        assert kernel["loads_at_once"] >= PARTIALS_AT_ONCE, kernel
    if kernel["kernel"] in PASSES_OVER_PAIRS:
        assert kernel["wgmma"] > 0, kernel
    constants = kernel["constants"]
    if kernel["kernel"] == "row_gradient" and constants["BOUNDED"]:
        opcodes = kernel["opcodes"]
        assert any(name.startswith("HGMMA") for name in opcodes), kernel
        assert not [name for name in opcodes if name.startswith(("LDL", "STL"))], kernel
        # Each of the two loops, without and with masks, holds one exponential for every similarity of a thread. Where
        # rows stay, a warp group has the similarities of all, also beside one with the other half of the gradient's
        # channels; where they do not, two groups share them out.
        groups = kernel["warps"] // 4 if constants["WIDTH"] < constants["CP"] else 1
        similarities = constants["BLOCK_M"] * constants["BLOCK_N"] // (groups * WARP_GROUP)
        assert opcodes["MUFU.EX2"] == 2 * similarities, kernel


@pytest.mark.parametrize(
    ("major", "architecture"), [(8, "sm_80"), (9, "sm_90"), (10, "sm_100"), (11, "sm_100"), (12, "sm_80")]
)
def test_a_gpu_takes_tiles_that_fit_it(major: int, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """sm_120 has less shared memory than sm_100 and other instructions, for all its higher number."""
    found = SimpleNamespace(major=major, multi_processor_count=4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(torch.version, "hip", None)
    assert device.chip.__wrapped__(torch.device("cuda", 0)) == device.Chip(architecture, 8)


# Launches of a call with its gradient: seven, beside those of the partition.
EXPECTED = {"bfloat16, blocks": 3 + 7, "float32, places": 1 + 7, "float16, one group": 3 + 7}
C_COMPILER = shutil.which(os.environ.get("CC", "gcc"))


@pytest.mark.skipif(C_COMPILER is None, reason="no C compiler, which Triton's launcher is built with: install gcc")
@pytest.mark.skipif(torch.version.hip is not None, reason="on AMD no call is repeated")
def test_a_repeated_call_launches_what_the_first_launched(tmp_path: Path) -> None:
    """By Triton's own launcher, over a driver that stands in for CUDA's: see launch_all.py."""
    library = tmp_path / "libcuda.so.1"
    source = Path(__file__).with_name("stand_in_driver.c")
    flags = ("-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{library.name}")
    subprocess.run([str(C_COMPILER), *flags, "-o", library, source], check=True)
    library.with_suffix("").symlink_to(library)  # Triton 3.5 links with it
    folder = str(tmp_path)
    # The name counts: Triton looks for it in the one folder, the loader in the other.
    variables = {"TRITON_LIBCUDA_PATH": folder, "LD_LIBRARY_PATH": folder, "CUDA_VISIBLE_DEVICES": ""}
    *calls, planted = printed_by("launch_all", str(library), **variables)
    assert len(calls) == 3
    for call in calls:
        launches = len(call["kernels"])
        assert launches == EXPECTED[call["call"]], call
        assert call["searched"] == [launches, launches, 0, 0], "the third and fourth call are repeated"
        assert call["differences"] == [[], [], []], call
        assert {"row_gradient", "gather_rows", "scatter_rows"} <= {*call["kernels"]}
    assert min(planted["found"].values()) > 0, planted
