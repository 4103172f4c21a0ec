"""What setup.py makes of the flags of the environment: it runs on one small source in place of csrc."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("setuptools")

ROOT = Path(__file__).parents[1]
VARIABLES = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")
NO_COMPILER = "no g++: `apt-get install g++`"
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason=NO_COMPILER)
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the PATH")

# What flags may change: comparison with NaN, the order of sums, division, the sign of zero, constants.
SOURCE = """\
#pragma GCC visibility push(default)
extern "C" int differs_from_itself(float x) { return x != x; }
extern "C" float add_and_subtract(float a, float b) { return (a + b) - a; }
extern "C" float divide_by_three(float x) { return x / 3.0f; }
extern "C" float add_zero(float x) { return x + 0.0f; }
extern "C" double a_tenth() { return 0.1; }
"""
LOAD = """\
import ctypes, glob, json, math, sys
from ctypes import c_double, c_float
(path,) = glob.glob("semicl_kernels/_C*.so")
library = ctypes.CDLL(path)
for name in ("add_and_subtract", "divide_by_three", "add_zero"):
    getattr(library, name).restype = c_float
library.a_tenth.restype = c_double
print(json.dumps({
    "nan": library.differs_from_itself(c_float(math.nan)),
    "sum": library.add_and_subtract(c_float(1e8), c_float(1.0)),
    "quotient": library.divide_by_three(c_float(5.0)),
    "zero": math.copysign(1.0, library.add_zero(c_float(-0.0))),
    "tenth": library.a_tenth(),
    "denormal": sys.float_info.min / 2,
}))
"""
EXACT = {
    "nan": 1,
    "sum": 0.0,
    "quotient": 1.6666666269302368,
    "zero": 1.0,
    "tenth": 0.1,
    "denormal": sys.float_info.min / 2,
}
FAST = (
    "-Ofast -ffast-math -ffinite-math-only -funsafe-math-optimizations -fassociative-math -freciprocal-math "
    "-fno-signed-zeros -fno-trapping-math"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source folder with the true setup.py and one small source; the working directory."""
    for name in ("setup.py", "csrc/exact_math.h", "semicl_kernels/backends/extensions.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "csrc/bindings.cpp").write_text(SOURCE)
    headers = ModuleType("pybind11")
    headers.get_include = lambda: str(tmp_path)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pybind11", headers)
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEMICL_CUDA", "0")
    monkeypatch.setenv("SEMICL_REQUIRE_CPU", "1")
    return tmp_path


def run_setup(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["setup.py", "--quiet", *arguments])
    return runpy.run_path("setup.py")


def built_arithmetic(monkeypatch: pytest.MonkeyPatch, **environment: str) -> dict[str, float]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run_setup(monkeypatch, "build_ext", "--inplace")
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def compiler(folder: Path, condition: str) -> str:
    """A compiler that adds -ffast-math after all other flags where ``condition`` holds."""
    script = folder / "compiler"
    script.write_text(f'#!/bin/sh\nif {condition}; then set -- "$@" -ffast-math; fi\nexec g++ "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    return str(script)


@needs_compiler
@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"CXXFLAGS": f"{FAST} -fsingle-precision-constant"}, id="CXXFLAGS"),
        pytest.param({"CFLAGS": FAST, "CPPFLAGS": FAST}, id="CFLAGS"),
        pytest.param({"CC": f"gcc {FAST}", "CXX": f"g++ {FAST}", "LDFLAGS": FAST}, id="CXX, LDFLAGS"),
    ],
)
def test_flags_that_change_arithmetic_are_undone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    assert built_arithmetic(monkeypatch, **environment) == EXACT


@needs_compiler
@pytest.mark.parametrize("condition", ['[ "$1" != "" ]', 'case "$*" in *-shared*) true;; *) false;; esac'])
def test_flags_that_cannot_be_undone_stop_the_build(
    folder: Path, monkeypatch: pytest.MonkeyPatch, condition: str
) -> None:
    """Of the compiler, and of the linker alone."""
    path = compiler(folder, condition)
    monkeypatch.setenv("SEMICL_REQUIRE_CPU", "0")
    with pytest.raises(SystemExit, match=r"changes floating-point arithmetic.*\n.*remove -ffast-math.* from CC, CXX"):
        built_arithmetic(monkeypatch, CC=path, CXX=path)
    assert list(folder.glob("semicl_kernels/_C*")) == []


@needs_nvcc
def test_flags_of_nvcc_are_undone_or_stop_the_build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = run_setup(monkeypatch, "--version")
    nvcc = setup["Nvcc"].find()
    exact = nvcc.steps(*setup["CUDA_FLAGS"], "-c", "x.cu")
    assert "-ftz=0 -prec_div=1 -prec_sqrt=1 -fmad=1" in exact
    for name in VARIABLES[-2:]:
        with monkeypatch.context() as patch:
            patch.setenv(name, "-ftz=true -prec-div=false -prec-sqrt=false -fmad=false -DOTHER")
            nvcc.check_arithmetic()
            steps = nvcc.steps(*setup["CUDA_FLAGS"], "-c", "x.cu")
            assert "-ftz=0 -prec_div=1 -prec_sqrt=1 -fmad=1" in steps
            assert "OTHER" in steps, "other flags are heeded"
            patch.setenv(name, "--use_fast_math")
            patch.setenv("SEMICL_CUDA", "1")
            with pytest.raises(SystemExit, match=r"--use_fast_math changes floating-point arithmetic.*\n.*NVCC_APPEND"):
                run_setup(patch, "--version")


def fake_nvcc(home: Path) -> Path:
    path = home / "bin/nvcc"
    path.parent.mkdir(parents=True)
    path.write_text('#!/bin/sh\ncase "$*" in *--version*) echo release 13.0;; *) echo "#$ TOP=/nowhere" >&2;; esac\n')
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def test_nvcc_is_found_where_torch_looks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = run_setup(monkeypatch, "--version")["Nvcc"].find
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    on_path, in_path, in_home = (fake_nvcc(folder / name) for name in ("on_path", "path", "home"))
    monkeypatch.setenv("PATH", f"{on_path.parent}{os.pathsep}{os.environ['PATH']}")
    assert find().path == on_path
    monkeypatch.setenv("CUDA_PATH", str(in_path.parents[1]))
    assert find().path == in_path
    monkeypatch.setenv("CUDA_HOME", str(in_home.parents[1]))
    assert find().path == in_home
    monkeypatch.setenv("CUDA_HOME", str(folder / "nowhere"))
    assert find() is None, "another is not taken in its place"


def test_objects_of_cuda_are_found_again_wherever_nvcc_lies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = run_setup(monkeypatch, "--version")
    (folder / "csrc/cuda").mkdir()
    (folder / "csrc/cuda/unit.cu").write_text("")
    compiled = []

    def compile_unit(home: str) -> str:
        def run(nvcc: object, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
            Path(arguments[-1]).write_text("")
            compiled.append(home)
            return subprocess.CompletedProcess(arguments, 0)

        monkeypatch.setattr(setup["Nvcc"], "run", run)
        extension = setup["CudaExtension"].__new__(setup["CudaExtension"])
        extension.nvcc = setup["Nvcc"](Path(home, "bin/nvcc"), (13, 0))
        return extension._compile_unit("unit.cu", "Float16")

    assert compile_unit("/opt/cuda") == compile_unit("/usr/local/cuda")
    assert compiled == ["/opt/cuda"]
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-lineinfo")
    compile_unit("/opt/cuda")
    assert len(compiled) == 2, "other flags make other objects"


def test_a_package_that_leaves_its_source_folder_carries_the_digests(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "setup.cfg").write_text("[options]\npackages = semicl_kernels\n")
    (folder / "semicl_kernels/__init__.py").touch()
    setup = run_setup(monkeypatch, "build_py", "--build-lib", "built")
    lines = Path("built/semicl_kernels/sources.txt").read_text().splitlines()
    assert lines == [f"{name} {setup['sources_digest'](name)}" for name in ("_C", "_cuda")]
