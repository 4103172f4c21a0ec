"""Builds the compiled CPU backend, `semicl_kernels._C`; everything else about the package is in pyproject.toml.

The extension is optional: where it cannot be compiled, the package installs without it and runs on its pure-PyTorch
backends. SEMICL_REQUIRE_CPU=1 turns that into an error, for those who build wheels or test the compiled code.

One source of SIMD tiles is compiled once per instruction set (csrc/cpu/tiles_*.cpp), each with its own flags, and the
dispatcher picks one at run time. It learns by a macro (SEMICL_HAVE_...) which of them the compiler could target.
Nothing here needs torch: the code takes raw pointers.
"""

from __future__ import annotations

import os
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


class BuildOptionalExtension(build_ext):
    """Compiles each source with its own flags, in parallel, and carries on without the extension when that fails."""

    def build_extension(self, ext: Extension) -> None:
        try:
            # distutils has one set of flags per extension: hand it finished objects and leave it the linking.
            ext.extra_objects = self._compile(ext)
            ext.sources = []
            self.force = True  # without sources to compare with it would keep an older link
            super().build_extension(ext)
        except (CCompilerError, BaseError) as error:
            if not ext.optional:
                raise
            self._remove_stale(ext)
            sys.stderr.write(NOT_BUILT.format(reason=error))

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


setup(ext_modules=[cpu_extension()], cmdclass={"build_ext": BuildOptionalExtension})
