"""Builds the compiled backends, `semicl_kernels._C` for the CPU and `semicl_kernels._cuda` for NVIDIA GPUs; everything
else about the package is in pyproject.toml.

Both are optional: where one cannot be compiled, the package installs without it and runs on its other backends.
SEMICL_REQUIRE_CPU=1 turns that into an error, for those who build wheels or test the compiled code. The CUDA one is
built where nvcc is found: SEMICL_CUDA=0 leaves it out, SEMICL_CUDA=1 makes its absence an error.

CC, CXX, CFLAGS, CXXFLAGS, CPPFLAGS, LDFLAGS and nvcc's NVCC_PREPEND_FLAGS and NVCC_APPEND_FLAGS are heeded, but flags
that change floating-point arithmetic are undone; where that is not possible, the build stops.

ninja compiles what is out of date, in build/ninja. Nothing here needs torch, a GPU or a CUDA driver: the code takes raw
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
import sysconfig
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import BaseError, PlatformError

CSRC = Path("csrc")
# An extension carries the digest of its sources, which Python compares: see there.
EXTENSIONS = runpy.run_path("semicl_kernels/backends/extensions.py")
sources_digest = EXTENSIONS["sources_digest"]

CXX_FLAGS = ("-std=c++17", "-O3", "-g0", "-pthread", "-fvisibility=hidden", "-Wall", "-Wextra")
# These come after the flags of the environment. Contraction into fused multiply-adds is allowed; what else changes
# arithmetic is undone, as far as the compiler knows the flag: it would break infinities and repeatability.
EXACT_FLAGS = (
    "-fno-fast-math", "-fno-unsafe-math-optimizations", "-fno-finite-math-only", "-fno-associative-math",
    "-fno-reciprocal-math", "-fsigned-zeros", "-fno-single-precision-constant", "-ffp-contract=fast",
)  # fmt: skip
EXACT_HEADER = ("-include", "csrc/exact_math.h")
# Linking with -ffast-math or -Ofast adds code that makes the processor flush denormal numbers to zero.
EXACT_LINK_FLAGS = ("-O3", "-fno-fast-math", "-fno-unsafe-math-optimizations", "-mno-daz-ftz")
FLUSHES = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print(sys.float_info.min / 2 == 0)"

# csrc/cpu/tiles_*.cpp: the flags of each, and a macro that the compiler predefines where they took effect; elsewhere
# the source is left out. The dispatcher picks one at run time; SEMICL_HAVE_... tells it which are there.
AVX2 = ("-mavx2", "-mfma", "-mf16c")
AVX512 = (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512")
X86_64 = "__x86_64__"
INSTRUCTION_SETS = {
    "avx2": (AVX2, "__AVX2__"),
    "avx512": (AVX512, "__AVX512DQ__"),
    "avx512bf16": ((*AVX512, "-mavx512bf16"), "__AVX512BF16__"),
}

CUDA_FLAGS = (
    "-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-fno-fast-math", "-diag-suppress=20012",
    "-gencode=arch=compute_90a,code=sm_90a", "-ftz=false", "-prec-div=true", "-prec-sqrt=true", "-fmad=true",
)  # fmt: skip
# The sources in csrc/cuda, each with the elements (csrc/cuda/ptx.h) that it is compiled for; the longest first.
CUDA_UNITS = {
    "backward.cu": ("BFloat16", "Float16"),
    "forward.cu": ("BFloat16", "Float16"),
    "backend.cu": ("",),
}
NVCC_VARIABLES = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")
# What else of the environment compilers read.
VARIABLES = ("CPATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "NVCC_CCBIN", "SDKROOT", "MACOSX_DEPLOYMENT_TARGET")

NOT_BUILT = """\
----------------------------------------------------------------------------------------------------
semicl: the compiled {} backend was NOT built. The package installs without it.
reason: {}
to mend it: install {},
        then install semicl again with `pip install -v --force-reinstall --no-deps ...`;
        `python -m semicl_kernels` shows which backends are there.
----------------------------------------------------------------------------------------------------
"""
NEEDED = {
    "CPU": """a C++17 compiler (GCC 9 or Clang 10, or newer) and the Python headers, for example
        Debian, Ubuntu:  apt-get install g++ python3-dev
        macOS:           xcode-select --install
        any:             conda install -c conda-forge cxx-compiler""",
    "CUDA": "the CUDA toolkit 12.4 or later (nvcc, on the PATH or in CUDA_HOME)",
}
INEXACT = """\
semicl: {} changes floating-point arithmetic, by which the loss would be wrong without a word, and cannot be undone.
to mend it: remove -ffast-math, -Ofast, --use_fast_math and the like from {}
"""
CXX_VARIABLES = "CC, CXX, CFLAGS, CXXFLAGS, CPPFLAGS and LDFLAGS"


class Unit(NamedTuple):
    """What makes one object: a source, a command and the format of the rows that it is for."""

    source: Path
    command: Sequence[str]
    format: str = ""


def write_ninja(library: Path, units: list[Unit], link: Sequence[str], libraries: Sequence[str], tools: str) -> Path:
    """Write how ninja builds ``library``, beside it. Other commands or ``tools`` build it anew."""

    def quoted(words: Sequence[str]) -> str:
        return shlex.join(words).replace("$", "$$")

    lines = [
        f"builddir = {library.parent}",
        "rule compile",
        f"  command = $words -MF $out.d -c $in -o $out # {tools}",
        "  depfile = $out.d",
        "  deps = gcc",
        "  description = $out",
        "rule link",
        f"  command = {quoted(link)} $in -o $out {quoted(libraries)} # {tools}",
        "  description = $out",
    ]
    objects = [str(library.with_name(f"{unit.source.stem}{unit.format}.o")) for unit in units]
    for name, unit in zip(objects, units, strict=True):
        lines += [f"build {name}: compile {unit.source}", f"  words = {quoted(unit.command)}"]
    path = library.with_name("build.ninja")
    path.write_text("\n".join([*lines, f"build {library}: link {' '.join(objects)}", ""]))
    return path


def output(*command: str | Path) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout


def find_nvcc() -> str | None:
    """nvcc where torch looks for it, in CUDA_HOME or CUDA_PATH if set, else on the PATH; None if it is too old."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    path = (None if home else shutil.which("nvcc")) or f"{home or '/usr/local/cuda'}/bin/nvcc"
    release = re.search(r"release (\d+)\.(\d+)", output(path, "--version")) if os.path.exists(path) else None
    return path if release and (int(release[1]), int(release[2])) >= (12, 4) else None


def nvcc_command() -> list[str]:
    """How nvcc is called: what its environment adds comes first, so that our flags decide."""
    path = find_nvcc()
    if path is None:
        raise PlatformError("nvcc 12.4 or later was found neither in CUDA_HOME nor on the PATH")
    own = [flag for name in NVCC_VARIABLES for flag in shlex.split(os.environ.get(name, ""))]
    command = ["env", *(f"{name}=" for name in NVCC_VARIABLES), path, *own, *CUDA_FLAGS]
    # It replaces functions by approximations, which no flag takes back.
    if "-fast-math" in output(*command, "--dryrun", "-c", "x.cu").replace('"', " ").split():
        raise SystemExit(INEXACT.format("--use_fast_math", " and ".join(NVCC_VARIABLES)))
    return command


class NinjaBuild(build_ext):
    """Runs ninja for each extension, and carries on without an optional one when that fails."""

    def run(self) -> None:
        """Let one process at a time build in this folder: the next one waits, then finds what is up to date."""
        Path("build").mkdir(exist_ok=True)
        with open("build/lock", "w") as lock:
            if os.name == "posix":  # elsewhere nothing is compiled
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
            for name in {f"semicl_kernels.{name}" for name in EXTENSIONS["SOURCES"]} - self.ext_map.keys():
                Path(self.build_lib, self.get_ext_filename(name)).unlink(missing_ok=True)  # of an earlier build
            super().run()

    def build_extension(self, ext: Extension) -> None:
        built = Path(self.get_ext_fullpath(ext.name))
        try:
            library = self.run_ninja(ext.name.rpartition(".")[2], built.name)
            if output(sys.executable, "-c", FLUSHES, library.absolute()).strip() == "True":
                raise SystemExit(INEXACT.format("the linked code", CXX_VARIABLES))
            built.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(library), str(built))
        except (BaseError, OSError, SystemExit) as error:
            built.unlink(missing_ok=True)  # of an earlier build
            if not ext.optional or isinstance(error, SystemExit):
                raise
            backend = "CUDA" if ext.name.endswith("_cuda") else "CPU"
            sys.stderr.write(NOT_BUILT.format(backend, error, NEEDED[backend]))

    def run_ninja(self, name: str, filename: str) -> Path:
        """Bring the library of an extension up to date."""
        if self.compiler.compiler_type == "msvc":
            raise PlatformError("the sources need GCC or Clang, not MSVC")
        if target := sysconfig.get_config_var("MACOSX_DEPLOYMENT_TARGET"):
            os.environ.setdefault("MACOSX_DEPLOYMENT_TARGET", str(target))
        compiler = self.compiler.compiler_so_cxx
        link = [*compiler, *self.compiler.linker_so_cxx[1:]]
        libraries = ["-pthread", *self.known(EXACT_LINK_FLAGS)]
        flags = [*CXX_FLAGS, *self.known(EXACT_FLAGS)]
        if self.compiles(flags) and not self.compiles([*flags, *EXACT_HEADER]):
            raise SystemExit(INEXACT.format("a flag of the compiler", CXX_VARIABLES))
        folder = CSRC / "cuda" if name == "_cuda" else CSRC
        include = [f"-I{path}" for path in (pybind11.get_include(), *self.include_dirs)]
        cxx = [*compiler, f"-I{folder}", "-MMD", *flags, *EXACT_HEADER]
        # Only the bindings are compiled anew after any edit, which changes the digest, and where pybind11 has moved.
        units = [Unit(folder / "bindings.cpp", [*cxx, *include, f'-DSEMICL_SOURCES="{sources_digest(name)}"'])]
        tools = [shutil.which(compiler[0]), output(*compiler, "--version"), *map(os.environ.get, VARIABLES)]
        if name == "_cuda":
            nvcc = nvcc_command()
            for source, elements in CUDA_UNITS.items():
                for element in elements:
                    units.append(Unit(folder / source, [*nvcc, "-MD", f"-DSEMICL_ELEMENT={element}"], element))
            tools.append(output(*nvcc, "--version"))
            # nvcc may be a link or a script: it is asked where it lives. It does not say where it has no host compiler.
            said = output(*nvcc, "--dryrun", "-shared", "x.o")
            top = re.search(r"TOP=(\S+)", said)
            if top is None:
                raise PlatformError(f"nvcc does not work: {said.strip()}")
            home = Path(top[1])
            libraries += [f"-L{path}" for path in (home / "lib64", home / "lib", *home.glob("targets/*/lib"))]
            libraries += ["-lcudart_static", "-lrt", "-ldl", "-Wl,--exclude-libs,ALL"]
        else:
            known = {isa: own for isa, (own, macro) in INSTRUCTION_SETS.items() if self.compiles(own, X86_64, macro)}
            cxx += [f"-DSEMICL_HAVE_{isa.upper()}=1" for isa in known]
            for path in sorted(CSRC.glob("cpu/*.cpp")):
                isa = path.stem.removeprefix("tiles_")
                if isa in known or isa not in INSTRUCTION_SETS:
                    units.append(Unit(path, [*cxx, *known.get(isa, ())]))
        library = Path("build/ninja", Path(filename).stem, filename)
        if self.force:
            shutil.rmtree(library.parent, ignore_errors=True)
        library.parent.mkdir(parents=True, exist_ok=True)
        build = write_ninja(library, units, link, libraries, hashlib.sha256(repr(tools).encode()).hexdigest())
        ninja = [sys.executable, "-m", "ninja"] if find_spec("ninja") else ["ninja"]
        self.spawn([*ninja, "-f", str(build), *(["-j", str(self.parallel)] if self.parallel else [])])
        return library

    def known(self, flags: Sequence[str]) -> list[str]:
        return [flag for flag in flags if self.compiles([flag])]

    def compiles(self, flags: Sequence[str], *macros: str) -> bool:
        """Whether the compiler knows the flags and predefines the macros with them, whatever machine it runs on."""
        command = [*self.compiler.compiler_so_cxx, *flags, "-fsyntax-only", "-x", "c++", "-"]
        text = "".join(f"#ifndef {macro}\n#error\n#endif\n" for macro in macros)
        return subprocess.run(command, input=text, text=True, capture_output=True, check=False).returncode == 0


class BuildPackage(build_py):
    """Notes the digests of the sources in a package that leaves its source folder."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            note = "".join(f"{name} {sources_digest(name)}\n" for name in EXTENSIONS["SOURCES"])
            Path(self.build_lib, "semicl_kernels", EXTENSIONS["NOTE"]).write_text(note)


extensions = [Extension("semicl_kernels._C", [], optional=os.environ.get("SEMICL_REQUIRE_CPU") != "1")]
cuda = os.environ.get("SEMICL_CUDA") or "auto"  # empty is as unset
if cuda not in ("0", "1", "auto"):
    raise SystemExit(f"SEMICL_CUDA must be 0, 1 or auto; got {cuda!r}")
if cuda == "1" or (cuda == "auto" and find_nvcc()):
    extensions.append(Extension("semicl_kernels._cuda", [], optional=cuda == "auto"))
setup(ext_modules=extensions, cmdclass={"build_ext": NinjaBuild, "build_py": BuildPackage})
