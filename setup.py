"""Builds the compiled backends, `semicl_kernels._C` for the CPU and `semicl_kernels._cuda` for NVIDIA GPUs; everything
else about the package is in pyproject.toml.

Both are optional: where one cannot be compiled, the package installs without it and runs on its other backends.
SEMICL_REQUIRE_CPU=1 turns that into an error, for those who build wheels or test the compiled code. The CUDA one is
built where nvcc is found: SEMICL_CUDA=0 leaves it out, SEMICL_CUDA=1 makes its absence an error, and
SEMICL_CUDA_ARCHS="80;90a" chooses the GPUs that it is built for.

One source of SIMD tiles is compiled once per instruction set (csrc/cpu/tiles_*.cpp), each with its own flags, and the
dispatcher picks one at run time. It learns by a macro (SEMICL_HAVE_...) which of them the compiler could target.
CUDA sources are compiled once per format of rows, each object for all architectures; objects are kept in build/cuda by
what they were made from. Nothing here needs torch, a GPU or a CUDA driver: the code takes raw pointers, and the CUDA
runtime is linked in statically.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, CompileError, PlatformError

CSRC = Path("csrc")
CUDA = CSRC / "cuda"

# Contraction into fused multiply-adds is allowed; -ffast-math is not: it would break infinities and repeatability.
COMMON_FLAGS = [
    "-std=c++17", "-O3", "-g0", "-pthread", "-fvisibility=hidden", "-ffp-contract=fast", "-Wall", "-Wextra",
]  # fmt: skip

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

OLDEST_NVCC = (12, 4)
# Ampere and, by compatibility within a family, Ada; Hopper with its own tensor-core instructions; Blackwell.
CUDA_ARCHITECTURES = ("80", "90a", "100")
CUDA_FLAGS = ("-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall", "-diag-suppress=20012")
# The formats of rows (csrc/cuda/formats.h) that each source is compiled for, one by one; the longest to compile first.
CUDA_FORMATS = ("Float32Rows", "BFloat16Rows", "Float16Rows")
CUDA_UNITS = {
    "warp_gradient.cu": CUDA_FORMATS,
    "warp_sums.cu": CUDA_FORMATS,
    "backend.cu": CUDA_FORMATS[:1],  # any: it launches those of all
}
# For Hopper alone, whose instructions they use.
HOPPER = "90a"
HOPPER_UNITS = {"group_gradient.cu": CUDA_FORMATS[1:], "group_sums.cu": CUDA_FORMATS[1:]}


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
        """The first nvcc of CUDA_HOME, CUDA_PATH, the PATH and the usual place."""
        homes = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
        on_path = shutil.which("nvcc")
        places = [
            *(home / "bin/nvcc" for home in homes),
            *([Path(on_path)] if on_path else []),
            Path("/usr/local/cuda/bin/nvcc"),
        ]
        for path in places:
            if path.exists():
                said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
                found = re.search(r"release (\d+)\.(\d+)", said)
                return Nvcc(path, (int(found[1]), int(found[2]))) if found else None
        return None

    def libraries(self) -> Path:
        """The folder of the static CUDA runtime. nvcc may be a link or a script: it is asked where it lives."""
        said = subprocess.run(
            [self.path, "--dryrun", "-shared", "x.o"], capture_output=True, text=True, check=True
        ).stderr
        home = Path(re.search(r"TOP=(\S+)", said)[1])
        folders = [home / "lib64", home / "lib", *sorted(home.glob("targets/*/lib"))]
        return next((folder for folder in folders if (folder / "libcudart_static.a").exists()), home)

    def architectures(self) -> list[str]:
        """Those asked for; by default those of ours that this nvcc knows."""
        asked = re.split(r"[;, ]+", os.environ.get("SEMICL_CUDA_ARCHS", "").strip())
        if asked != [""]:
            return asked
        said = subprocess.run([self.path, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
        return [name for name in CUDA_ARCHITECTURES if f"compute_{name.rstrip('a')}" in said.split()]


class CudaExtension(Extension):
    """The CUDA backend, and the compiler that it is built with."""

    def __init__(self, nvcc: Nvcc) -> None:
        self.nvcc, self.architectures = nvcc, nvcc.architectures()
        super().__init__(
            "semicl_kernels._cuda",
            sources=[str(CUDA / "bindings.cpp")],
            include_dirs=[str(CUDA), pybind11.get_include()],
            define_macros=[("SEMICL_CUDA_ARCHS", f'"{",".join(self.architectures)}"')],
            library_dirs=[str(nvcc.libraries())],
            libraries=["cudart_static", "rt", "dl"],
            extra_compile_args=COMMON_FLAGS,
            extra_link_args=["-pthread", "-Wl,--exclude-libs,ALL"],
            language="c++",
            optional=os.environ.get("SEMICL_CUDA") != "1",
        )

    def compile_units(self, pool: ThreadPoolExecutor) -> list[str]:
        """Return the objects of all units, those made before from the same sources as they are."""
        general = [name for name in self.architectures if not name.endswith("a")]
        # Machine code for each architecture, and PTX of the newest for GPUs to come.
        code = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in self.architectures]
        code += [f"-gencode=arch=compute_{name},code=compute_{name}" for name in general[-1:]]
        units, hopper = [(source, code) for source in CUDA_UNITS], HOPPER in self.architectures
        if hopper:
            units += [(source, [f"-gencode=arch=compute_{HOPPER},code=sm_{HOPPER}"]) for source in HOPPER_UNITS]
        jobs = [
            (source, row_format, [*flags, f"-DSEMICL_HAS_GROUPS={int(hopper)}", f"-DSEMICL_FORMAT={row_format}"])
            for source, flags in units
            for row_format in {**CUDA_UNITS, **HOPPER_UNITS}[source]
        ]
        return list(pool.map(lambda job: self._compile_unit(*job), jobs))

    def _compile_unit(self, source: str, row_format: str, flags: list[str]) -> str:
        command = [str(self.nvcc.path), *CUDA_FLAGS, *flags, "-c", str(CUDA / source)]
        made_of = b"".join(path.read_bytes() for path in [CUDA / source, *sorted(CUDA.glob("*.h"))])
        digest = hashlib.sha256(made_of + repr((command, self.nvcc.version)).encode()).hexdigest()[:16]
        out = Path("build/cuda", f"{Path(source).stem}-{row_format}-{digest}.o")
        if not out.exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            unfinished = out.with_suffix(f".{os.getpid()}.o")
            done = subprocess.run([*command, "-o", unfinished], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise CompileError(f"nvcc could not compile {CUDA / source} for {row_format}:\n{done.stderr}")
            unfinished.rename(out)
        return str(out)


class BuildOptionalExtension(build_ext):
    """Compiles each source with its own flags, in parallel, and carries on without the extension when that fails."""

    def build_extension(self, ext: Extension) -> None:
        try:
            # distutils has one set of flags per extension: hand it finished objects and leave it the linking.
            if isinstance(ext, CudaExtension):
                with ThreadPoolExecutor(self.parallel or os.cpu_count()) as pool:
                    ext.extra_objects = ext.compile_units(pool)
                return super().build_extension(ext)
            ext.extra_objects = self._compile(ext)
            ext.sources = []
            self.force = True  # without sources to compare with it would keep an older link
            super().build_extension(ext)
        except (CCompilerError, BaseError) as error:
            if not ext.optional:
                raise
            self._remove_stale(ext)
            message = CUDA_NOT_BUILT if isinstance(ext, CudaExtension) else NOT_BUILT
            sys.stderr.write(message.format(reason=error))

    def _compile(self, ext: Extension) -> list[str]:
        if self.compiler.compiler_type == "msvc":
            raise PlatformError("the sources need GCC or Clang, not MSVC")
        targets = [isa for isa in INSTRUCTION_SETS if isa.source.exists() and self._can_target(isa)]
        flags = {isa.source: list(isa.flags) for isa in targets}
        macros = [(isa.macro, "1") for isa in targets]
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
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.cpp")
            probe.write_text(f"#if !defined(__x86_64__) || !defined({isa.predefined})\n#error\n#endif\n")
            try:
                self.compiler.compile([str(probe)], output_dir=folder, extra_postargs=list(isa.flags))
            except CompileError:
                return False
            return True

    def _remove_stale(self, ext: Extension) -> None:
        """Removes what an earlier build left, in the build folder and, by an editable install, in the source tree."""
        *package, name = ext.name.split(".")
        for folder in (Path(self.build_lib), Path()):
            folder.joinpath(*package, self.get_ext_filename(name)).unlink(missing_ok=True)


def cpu_extension() -> Extension:
    sources = [CSRC / "bindings.cpp", *sorted(CSRC.glob("cpu/*.cpp"))]
    return Extension(
        "semicl_kernels._C",
        sources=[str(source) for source in sources],
        include_dirs=[str(CSRC), pybind11.get_include()],
        extra_compile_args=COMMON_FLAGS,
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
        found = "none was found" if nvcc is None else f"{nvcc.path} is {nvcc.version[0]}.{nvcc.version[1]}"
        raise SystemExit(CUDA_NOT_BUILT.format(reason=f"SEMICL_CUDA=1 needs nvcc 12.4 or later; {found}"))
    return []


setup(ext_modules=[cpu_extension(), *cuda_extensions()], cmdclass={"build_ext": BuildOptionalExtension})
