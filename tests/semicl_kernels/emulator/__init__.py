"""The CUDA kernels on an emulated GPU: builds them for the host and offers them as the compiled extension would.

``csrc/cuda`` touches the hardware through the functions of its ``arch.h`` alone. Here the same kernels are compiled
by the C++ compiler against ``emulated_arch.h``, which does what the PTX manual says of each instruction, one fiber a
thread. So every index, mask, barrier and fragment is tested with values, on a machine without a GPU or nvcc.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SOURCES = ROOT / "csrc/cuda"
BUILDS = ROOT / "build/emulator"
ELEMENTS = ("BFloat16", "Float16")
FLAGS = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-fPIC")
MACROS = ("-DSEMICL_EMULATED",)
# Each source with its flags: the kernels over pairs once for each element. They call proxies.cpp wherever they load or
# store.
UNITS = (
    *(("kernels.cpp", "-O1", "-fsanitize=thread", f"-DSEMICL_ELEMENT={name}") for name in ELEMENTS),
    ("library.cpp", "-O1"),
    ("proxies.cpp", "-O2"),
    ("tensor_cores.cpp", "-O3"),
)
ORDERS = ("late", "early", "random")
FENCES = ("", "fence_async", "publish_barriers")

PASSES = ("sum_pairs", "row_gradient")
MISSING = "no C++ compiler: install g++ (`apt-get install g++`), or set CXX"


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++"))


def build() -> Path:
    """Return the library, built from the sources as they are."""
    files = sorted([*SOURCES.iterdir(), *HERE.glob("*.h"), *HERE.glob("*.cpp")])
    digest = hashlib.sha256(
        b"".join(file.read_bytes() for file in files) + repr((FLAGS, MACROS, UNITS)).encode()
    ).hexdigest()[:16]
    library = BUILDS / digest / "emulator.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    # One process builds, and those that test beside it wait.
    with open(library.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            build_library(library)
    return library


def build_library(library: Path) -> None:
    with TemporaryDirectory(dir=library.parent) as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda number: compile_unit(number, Path(folder)), range(len(UNITS))))
        made = Path(folder, library.name)
        run("-shared", "-Wl,--no-undefined", *objects, "-o", str(made))
        made.rename(library)


def compile_unit(number: int, folder: Path) -> str:
    source, *flags = UNITS[number]
    out = str(folder / f"{number}.o")
    run(*FLAGS, *MACROS, *flags, f"-I{SOURCES}", f"-I{HERE}", "-c", str(HERE / source), "-o", out)
    return out


def run(*arguments: str) -> None:
    done = subprocess.run([str(compiler()), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the emulator did not compile:\n{done.stderr}")


class Problem(ctypes.Structure):
    """EmulatedProblem of library.cpp."""

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("groups", ctypes.c_void_p * 4),
        *((name, ctypes.c_int) for name in ("row_format", "count", "channels", "group_count")),
        ("scale_log2", ctypes.c_float),
        ("shift", ctypes.c_float),
    )


def address(value: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(value)


class Emulator:
    """What ``semicl_kernels._cuda`` offers, by the emulated GPU; addresses are the host's."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(str(build()))
        for name in (*(f"{name}_of" for name in PASSES), "visit_pairs"):
            getattr(self.library, name).restype = ctypes.c_char_p

    @contextmanager
    def in_order(self, order: str | int) -> Iterator[None]:
        """Run kernels in this order of threads and of asynchronous work, "late" (as they always do), "early" or the
        seed of a random one: see Order in fibers.h."""
        name, seed = ("random", order) if isinstance(order, int) else (order, 0)
        self.library.set_order(ORDERS.index(name), seed)
        try:
            yield
        finally:
            self.library.set_order(ORDERS.index("late"), 0)

    @contextmanager
    def without(self, fence: str) -> Iterator[None]:
        """Run kernels on a machine whose ``fence``, one of FENCES, does nothing."""
        self.library.set_missing(FENCES.index(fence))
        try:
            yield
        finally:
            self.library.set_missing(0)

    def have_multiprocessors(self, count: int) -> None:
        self.library.set_multiprocessors(count)

    def tile_sizes(self, channels: int) -> list[int]:
        return self.integers("sizes", channels, count=6)

    def workers(self, device: int) -> int:
        return int(self.library.workers_of())

    def problem(
        self,
        device: int,
        stream: int,
        row_format: int,
        rows: int,
        count: int,
        channels: int,
        groups: list[int],
        group_count: int,
        scale_log2: float,
        shift: float,
    ) -> Problem:
        addresses = (ctypes.c_void_p * 4)(*groups)
        return Problem(rows, addresses, row_format, count, channels, group_count, scale_log2, shift)

    def sum_pairs(self, *arguments: Any) -> None:
        *problem, step_ends, column_blocks, columns, own, given = arguments
        self.run_pass("sum_pairs", problem, address(step_ends), column_blocks, columns, address(own), address(given))

    def row_gradient(self, *arguments: Any) -> None:
        *problem, step_ends, scale, row_scale, grad_absmax, class_begin, class_end, pulls, tiles, gradient = arguments
        addresses = (row_scale, grad_absmax, class_begin, class_end, pulls, tiles, gradient)
        self.run_pass("row_gradient", problem, address(step_ends), ctypes.c_float(scale), *map(address, addresses))

    def run_pass(self, name: str, problem: Iterable[Any], *arguments: object) -> None:
        """Call a pass of backend.h."""
        call = getattr(self.library, f"{name}_of")
        self.check(call(ctypes.byref(self.problem(*problem)), *arguments))

    def visit_pairs(
        self, problem: Problem, of_gradient: bool, shape: tuple[int, int], columns: int, workers: int, counts: int
    ) -> tuple[int, int]:
        """Write how often the loops of a pass come by each pair to the address ``counts``, where it is one. Return the
        steps and the partial tiles of the worker with the most to do. The sums come in blocks of ``columns``."""
        most = (ctypes.c_int * 2)()
        blocks = 1 if of_gradient else max(1, -(-problem.count // columns))
        arguments = (ctypes.byref(problem), int(of_gradient), *shape, blocks, columns, workers)
        self.check(self.library.visit_pairs(*arguments, address(counts), most))
        return most[0], most[1]

    def integers(self, function: str, *arguments: int, count: int) -> list[int]:
        """Return the ``count`` integers that a function of library.cpp writes."""
        out = (ctypes.c_int * count)()
        getattr(self.library, function)(*arguments, out)
        return list(out)

    def check(self, message: bytes | None) -> None:
        if message is not None:
            raise RuntimeError(message.decode())
