"""Builds the compiled backends, `semicl_kernels._C` for the CPU and `semicl_kernels._cuda` for NVIDIA GPUs; everything
else about the package is in pyproject.toml.

Both are optional: where one cannot be compiled, the package installs without it and runs on its other backends.
SEMICL_REQUIRE_CPU=1 turns that into an error, for those who build wheels or test the compiled code. The CUDA one is
built where nvcc is found: SEMICL_CUDA=0 leaves it out, SEMICL_CUDA=1 makes its absence an error.

CC, CXX, CFLAGS, CXXFLAGS, CPPFLAGS, LDFLAGS and nvcc's NVCC_PREPEND_FLAGS and NVCC_APPEND_FLAGS are heeded, but flags
that change floating-point arithmetic are undone; where that is not possible, the build stops.

One source of SIMD tiles is compiled once per instruction set (csrc/cpu/tiles_*.cpp), each with its own flags, and the
dispatcher picks one at run time. It learns by a macro (SEMICL_HAVE_...) which of them the compiler could target.
CUDA sources are compiled for Hopper (sm_90a), those with kernels over pairs once for each type of 16-bit rows; objects
are kept in build/cuda by what they were made from. Nothing here needs torch, a GPU or a CUDA driver: the code takes raw
pointers, and the CUDA runtime is linked in statically.
"""

from __future__ import annotations

import hashlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import BaseError, CCompilerError, CompileError, PlatformError

CSRC = Path("csrc")
CUDA = CSRC / "cuda"
EXACT_MATH = CSRC / "exact_math.h"

# An extension carries the digest of its sources, which Python compares: see there.
EXTENSIONS = runpy.run_path("semicl_kernels/backends/extensions.py")
sources_digest = EXTENSIONS["sources_digest"]

COMMON_FLAGS = [
    "-std=c++17", "-O3", "-g0", "-pthread", "-fvisibility=hidden", "-Wall", "-Wextra",
]  # fmt: skip
# These come after the flags of the environment. Contraction into fused multiply-adds is allowed; what else changes
# arithmetic is undone, as far as the compiler knows the flag: it would break infinities and repeatability.
EXACT_FLAGS = [
    "-fno-fast-math", "-fno-unsafe-math-optimizations", "-fno-finite-math-only", "-fno-associative-math",
    "-fno-reciprocal-math", "-fsigned-zeros", "-fno-single-precision-constant", "-ffp-contract=fast",
]  # fmt: skip
# Linking with -ffast-math or -Ofast adds code that makes the processor flush denormal numbers to zero.
EXACT_LINK_FLAGS = ["-O3", "-fno-fast-math", "-fno-unsafe-math-optimizations", "-mno-daz-ftz"]
FLUSHES = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print(sys.float_info.min / 2 == 0)"

AVX2_FLAGS = ("-mavx2", "-mfma", "-mf16c")
AVX512_FLAGS = (
    "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mavx2", "-mf16c", "-mprefer-vector-width=512",
)  # fmt: skip

NOT_BUILT = """\
----------------------------------------------------------------------------------------------------
semicl: the compiled CPU backend was NOT built. The package installs without it and runs on its
        pure-PyTorch backends, which are slower on a CPU.
reason: {reason}
to mend it: install a C++17 compiler (GCC 9 or Clang 10, or newer) and the Python headers, for example
        Debian, Ubuntu:  apt-get install g++ python3-dev
        macOS:           xcode-select --install
        any:             conda install -c conda-forge cxx-compiler
        then install semicl again with `pip install -v --force-reinstall --no-deps ...`;
        `python -m semicl_kernels` shows which backends are there.
----------------------------------------------------------------------------------------------------
"""


CUDA_NOT_BUILT = """\
----------------------------------------------------------------------------------------------------
semicl: the CUDA backend was NOT built. The package installs without it.
reason: {reason}
to mend it: install the CUDA toolkit 12.4 or later (nvcc, on the PATH or in CUDA_HOME), then install semicl
        again with `SEMICL_CUDA=1 pip install -v --force-reinstall --no-deps ...`
----------------------------------------------------------------------------------------------------
"""

INEXACT = """\
semicl: {what} changes floating-point arithmetic, by which the loss would be wrong without a word, and cannot be undone.
to mend it: remove -ffast-math, -Ofast, --use_fast_math and the like from {variables}
"""
COMPILER_VARIABLES = "CC, CXX, CFLAGS, CXXFLAGS, CPPFLAGS and LDFLAGS"

OLDEST_NVCC = (12, 4)
# Of nvcc's environment, before and after its arguments.
NVCC_VARIABLES = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")
CUDA_FLAGS = (
    "-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-fno-fast-math", "-diag-suppress=20012",
    "-gencode=arch=compute_90a,code=sm_90a", "-ftz=false", "-prec-div=true", "-prec-sqrt=true", "-fmad=true",
)  # fmt: skip
# The sources, each with the elements (csrc/cuda/ptx.h) that it is compiled for; the longest to compile first.
CUDA_UNITS = {
    "backward.cu": ("BFloat16", "Float16"),
    "forward.cu": ("BFloat16", "Float16"),
    "backend.cu": ("",),
}


@dataclass(frozen=True)
class InstructionSet:
    """One way of compiling the SIMD tiles for x86-64."""

    source: Path
    flags: tuple[str, ...]
    predefined: str  # a macro of the compiler's own that is there when the flags took effect
    macro: str  # what the dispatcher is told


INSTRUCTION_SETS = (
    InstructionSet(CSRC / "cpu/tiles_avx2.cpp", AVX2_FLAGS, "__AVX2__", "SEMICL_HAVE_AVX2"),
    InstructionSet(CSRC / "cpu/tiles_avx512.cpp", AVX512_FLAGS, "__AVX512DQ__", "SEMICL_HAVE_AVX512"),
    InstructionSet(
        CSRC / "cpu/tiles_avx512bf16.cpp",
        (*AVX512_FLAGS, "-mavx512bf16"),
        "__AVX512BF16__",
        "SEMICL_HAVE_AVX512BF16",
    ),
)


@dataclass(frozen=True)
class Nvcc:
    """A CUDA compiler."""

    path: Path
    version: tuple[int, int]

    @staticmethod
    def find() -> Nvcc | None:
        """nvcc where torch looks for it: in CUDA_HOME or CUDA_PATH if set, else on the PATH or in its usual place."""
        home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
        on_path = None if home else shutil.which("nvcc")
        path = Path(on_path or Path(home or "/usr/local/cuda", "bin/nvcc"))
        if not path.exists():
            return None
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"release (\d+)\.(\d+)", said)
        return Nvcc(path, (int(found[1]), int(found[2]))) if found else None

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it with the flags of its environment before the arguments, which then decide."""
        own = [flag for name in NVCC_VARIABLES for flag in shlex.split(os.environ.get(name, ""))]
        environment = {name: value for name, value in os.environ.items() if name not in NVCC_VARIABLES}
        command = [self.path, *own, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    def steps(self, *arguments: str) -> str:
        """The commands that it would run."""
        return self.run("--dryrun", *arguments).stderr

    def check_arithmetic(self) -> None:
        """Stop where fast mathematics is asked for: what replaces functions by approximations has no flag against."""
        if "-fast-math" in self.steps(*CUDA_FLAGS, "-c", "x.cu").replace('"', " ").split():
            variables = " and ".join(NVCC_VARIABLES)
            raise SystemExit(INEXACT.format(what="--use_fast_math", variables=variables))

    def libraries(self) -> Path:
        """The folder of the static CUDA runtime. nvcc may be a link or a script: it is asked where it lives."""
        home = Path(re.search(r"TOP=(\S+)", self.steps("-shared", "x.o"))[1])
        folders = [home / "lib64", home / "lib", *sorted(home.glob("targets/*/lib"))]
        return next((folder for folder in folders if (folder / "libcudart_static.a").exists()), home)


class CudaExtension(Extension):
    """The CUDA backend, and the compiler that it is built with."""

    def __init__(self, nvcc: Nvcc) -> None:
        nvcc.check_arithmetic()
        self.nvcc = nvcc
        super().__init__(
            "semicl_kernels._cuda",
            sources=[str(CUDA / "bindings.cpp")],
            include_dirs=[str(CUDA), pybind11.get_include()],
            define_macros=[("SEMICL_SOURCES", f'"{sources_digest("_cuda")}"')],
            library_dirs=[str(nvcc.libraries())],
            libraries=["cudart_static", "rt", "dl"],
            extra_link_args=["-pthread", "-Wl,--exclude-libs,ALL"],
            language="c++",
            optional=os.environ.get("SEMICL_CUDA") != "1",
        )

    def compile_units(self, pool: ThreadPoolExecutor) -> list[str]:
        """Return the objects of all units, those made before from the same sources as they are."""
        jobs = [(source, element) for source, elements in CUDA_UNITS.items() for element in elements]
        return list(pool.map(lambda job: self._compile_unit(*job), jobs))

    def _compile_unit(self, source: str, element: str) -> str:
        command = [*CUDA_FLAGS, f"-DSEMICL_ELEMENT={element}", "-c", str(CUDA / source)]
        made_of = b"".join(path.read_bytes() for path in [CUDA / source, *sorted(CUDA.glob("*.h"))])
        own = [os.environ.get(name) for name in NVCC_VARIABLES]
        digest = hashlib.sha256(made_of + repr((command, own, self.nvcc.version)).encode()).hexdigest()[:16]
        out = Path("build/cuda", f"{Path(source).stem}{element}-{digest}.o")
        if not out.exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            unfinished = out.with_suffix(f".{os.getpid()}.o")
            done = self.nvcc.run(*command, "-o", unfinished)
            if done.returncode != 0:
                raise CompileError(f"nvcc could not compile {CUDA / source}:\n{done.stderr}")
            unfinished.rename(out)
        return str(out)


class BuildOptionalExtension(build_ext):
    """Compiles each source with its own flags, in parallel, and carries on without the extension when that fails."""

    def build_extension(self, ext: Extension) -> None:
        try:
            if self.compiler.compiler_type == "msvc":
                raise PlatformError("the sources need GCC or Clang, not MSVC")
            flags, check = [*COMMON_FLAGS, *self._known(EXACT_FLAGS)], ["-include", str(EXACT_MATH)]
            if self._compiles("", flags) and not self._compiles("", [*flags, *check]):
                raise SystemExit(INEXACT.format(what="a flag of the compiler", variables=COMPILER_VARIABLES))
            ext.extra_compile_args = [*flags, *check]
            ext.extra_link_args += self._known(EXACT_LINK_FLAGS)
            # distutils has one set of flags per extension: hand it finished objects and leave it the linking.
            if isinstance(ext, CudaExtension):
                with ThreadPoolExecutor(self.parallel or os.cpu_count()) as pool:
                    ext.extra_objects = ext.compile_units(pool)
            else:
                ext.extra_objects = self._compile(ext)
                ext.sources = []
            self.force = True  # it compares an older link with the sources left to it alone, and would keep it
            super().build_extension(ext)
        except (CCompilerError, BaseError) as error:
            if not ext.optional:
                raise
            self._remove_stale(ext)
            message = CUDA_NOT_BUILT if isinstance(ext, CudaExtension) else NOT_BUILT
            sys.stderr.write(message.format(reason=error))
            return
        load = [sys.executable, "-c", FLUSHES, os.path.abspath(self.get_ext_fullpath(ext.name))]
        if subprocess.run(load, capture_output=True, text=True, check=False).stdout.strip() == "True":
            self._remove_stale(ext)
            raise SystemExit(INEXACT.format(what="the linked code", variables=COMPILER_VARIABLES))

    def _compile(self, ext: Extension) -> list[str]:
        targets = [isa for isa in INSTRUCTION_SETS if isa.source.exists() and self._can_target(isa)]
        flags = {isa.source: list(isa.flags) for isa in targets}
        macros = [("SEMICL_SOURCES", f'"{sources_digest("_C")}"'), *((isa.macro, "1") for isa in targets)]
        left_out = {isa.source for isa in INSTRUCTION_SETS} - set(flags)

        def compile_one(source: Path) -> str:
            (compiled,) = self.compiler.compile(
                [str(source)],
                output_dir=self.build_temp,
                macros=macros,
                include_dirs=ext.include_dirs,
                debug=self.debug,
                extra_postargs=ext.extra_compile_args + flags.get(source, []),
            )
            return compiled

        sources = [source for source in map(Path, ext.sources) if source not in left_out]
        with ThreadPoolExecutor(self.parallel or os.cpu_count()) as pool:
            return list(pool.map(compile_one, sources))

    def _can_target(self, isa: InstructionSet) -> bool:
        """Whether the compiler knows the flags and compiles for x86-64: it tells, whatever machine it runs on."""
        return self._compiles(f"#if !defined(__x86_64__) || !defined({isa.predefined})\n#error\n#endif\n", isa.flags)

    def _known(self, flags: list[str]) -> list[str]:
        """The flags that the compiler knows."""
        return [flag for flag in flags if self._compiles("", [flag])]

    def _compiles(self, text: str, flags: Sequence[str]) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.cpp")
            probe.write_text(text)
            try:
                self.compiler.compile([str(probe)], output_dir=folder, extra_postargs=list(flags))
            except CompileError:
                return False
            return True

    def _remove_stale(self, ext: Extension) -> None:
        """Removes what an earlier build left, in the build folder and, by an editable install, in the source tree."""
        *package, name = ext.name.split(".")
        for folder in (Path(self.build_lib), Path()):
            folder.joinpath(*package, self.get_ext_filename(name)).unlink(missing_ok=True)


class BuildPackage(build_py):
    """Notes the digests of the sources in a package that leaves its source folder."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            note = "".join(f"{name} {sources_digest(name)}\n" for name in EXTENSIONS["SOURCES"])
            Path(self.build_lib, "semicl_kernels", EXTENSIONS["NOTE"]).write_text(note)


def cpu_extension() -> Extension:
    sources = [CSRC / "bindings.cpp", *sorted(CSRC.glob("cpu/*.cpp"))]
    return Extension(
        "semicl_kernels._C",
        sources=[str(source) for source in sources],
        include_dirs=[str(CSRC), pybind11.get_include()],
        extra_link_args=["-pthread"],
        language="c++",
        optional=os.environ.get("SEMICL_REQUIRE_CPU") != "1",
    )


def cuda_extensions() -> list[Extension]:
    """The CUDA backend, where it is wanted and there is a compiler for it."""
    wanted = os.environ.get("SEMICL_CUDA") or "auto"  # empty is as unset
    if wanted not in ("0", "1", "auto"):
        raise SystemExit(f"SEMICL_CUDA must be 0, 1 or auto; got {wanted!r}")
    if wanted == "0":
        return []
    nvcc = Nvcc.find()
    if nvcc is not None and nvcc.version >= OLDEST_NVCC:
        return [CudaExtension(nvcc)]
    if wanted == "1":
        home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
        found = f"none was found in {home or 'the PATH and /usr/local/cuda'}"
        if nvcc is not None:
            found = f"{nvcc.path} is {nvcc.version[0]}.{nvcc.version[1]}"
        raise SystemExit(CUDA_NOT_BUILT.format(reason=f"SEMICL_CUDA=1 needs nvcc 12.4 or later; {found}"))
    return []


setup(
    ext_modules=[cpu_extension(), *cuda_extensions()],
    cmdclass={"build_ext": BuildOptionalExtension, "build_py": BuildPackage},
)
