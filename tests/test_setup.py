"""What setup.py builds, when it builds anew and what it makes of the environment, on small sources in place of csrc."""

from __future__ import annotations

import json
import os
import platform
import runpy
import shutil
import stat
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
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
    headers = tmp_path / "pybind11.py"
    headers.write_text("def get_include(): return 'include'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pybind11", raising=False)
    monkeypatch.chdir(tmp_path)
    for name in (*VARIABLES, "CUDA_HOME", "CUDA_PATH"):
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


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def compiler(folder: Path, condition: str) -> str:
    """A compiler that adds -ffast-math after all other flags where ``condition`` holds."""
    return str(script(folder / "compiler", f'if {condition}; then set -- "$@" -ffast-math; fi\nexec g++ "$@"'))


def objects_made_anew(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> set[str]:
    def times() -> set[tuple[str, int]]:
        return {(path.name, path.stat().st_mtime_ns) for path in Path("build/ninja").rglob("*.o")}

    before = times()
    run_setup(monkeypatch, "build_ext", "--inplace", *arguments)
    return {name for name, _ in times() - before}


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
    if "-shared" in condition and int(subprocess.check_output(["g++", "-dumpversion"], text=True).split(".")[0]) >= 13:
        pytest.skip("from GCC 13 on -ffast-math changes nothing when a shared library is linked")
    path = compiler(folder, condition)
    monkeypatch.setenv("SEMICL_REQUIRE_CPU", "0")
    with pytest.raises(SystemExit, match=r"changes floating-point arithmetic.*\n.*remove -ffast-math.* from CC, CXX"):
        built_arithmetic(monkeypatch, CC=path, CXX=path)
    assert list(folder.glob("semicl_kernels/_C*")) == []


@needs_nvcc
def test_flags_of_nvcc_are_undone_or_stop_the_build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = run_setup(monkeypatch, "--version")

    def steps() -> str:
        return setup["output"](*setup["nvcc_command"](), "--dryrun", "-c", "x.cu")

    exact = "-ftz=0 -prec_div=1 -prec_sqrt=1 -fmad=1"
    assert exact in steps()
    for name in VARIABLES[-2:]:
        with monkeypatch.context() as patch:
            patch.setenv(name, "-ftz=true -prec-div=false -prec-sqrt=false -fmad=false -DOTHER")
            assert exact in steps()
            assert "OTHER" in steps(), "other flags are heeded"
            patch.setenv(name, "--use_fast_math")
            patch.setenv("SEMICL_CUDA", "1")
            with pytest.raises(SystemExit, match=r"--use_fast_math changes floating-point arithmetic.*\n.*NVCC_APPEND"):
                run_setup(patch, "build_ext")


def fake_nvcc(home: Path, release: str = "13.0") -> Path:
    """What looks like nvcc and compiles as g++ does."""
    (home / "lib").mkdir(parents=True, exist_ok=True)
    (home / "lib/libcudart_static.a").write_text("!<arch>\n")
    own = "-X*|-diag*|-gencode*|-ftz*|-prec*|-fmad*"
    text = f"""\
case "$*" in *--version*) echo release {release}; exit;; *--dryrun*) echo '#$ TOP={home}' >&2; exit;; esac
for word do shift; case $word in {own}) ;; *) set -- "$@" "$word";; esac; done
exec g++ -fPIC -x c++ "$@\""""
    return script(home / "bin/nvcc", text)


@pytest.fixture
def cuda(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    """The units of the CUDA backend, each an empty file, to be compiled without nvcc."""
    units = run_setup(monkeypatch, "--version")["CUDA_UNITS"]
    for source in ("bindings.cpp", *units):
        (folder / "csrc/cuda" / source).parent.mkdir(exist_ok=True)
        (folder / "csrc/cuda" / source).touch()
    fake_nvcc(folder / "toolkit")
    monkeypatch.setenv("CUDA_HOME", str(folder / "toolkit"))
    monkeypatch.setenv("SEMICL_CUDA", "1")
    return units


def test_nvcc_is_found_where_torch_looks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = run_setup(monkeypatch, "--version")["find_nvcc"]
    on_path, in_path, in_home = (fake_nvcc(folder / name) for name in ("on_path", "path", "home"))
    monkeypatch.setenv("PATH", f"{on_path.parent}{os.pathsep}{os.environ['PATH']}")
    assert find() == str(on_path)
    monkeypatch.setenv("CUDA_PATH", str(in_path.parents[1]))
    assert find() == str(in_path)
    monkeypatch.setenv("CUDA_HOME", str(in_home.parents[1]))
    assert find() == str(in_home)
    fake_nvcc(folder / "home", release="12.3")
    assert find() is None, "it is too old"
    monkeypatch.setenv("CUDA_HOME", str(folder / "nowhere"))
    assert find() is None, "another is not taken in its place"


@needs_compiler
def test_only_what_is_out_of_date_is_compiled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        (folder / "csrc/cpu").mkdir(exist_ok=True)
        (folder / f"csrc/cpu/{name}.cpp").write_text(f'#include "{name}.h"\n')
        (folder / f"csrc/cpu/{name}.h").touch()
    everything = {"bindings.o", "one.o", "other.o"}
    assert objects_made_anew(monkeypatch) == everything
    assert objects_made_anew(monkeypatch) == set()
    (folder / "csrc/cpu/one.h").write_text("// edited\n")
    assert objects_made_anew(monkeypatch) == {"bindings.o", "one.o"}, "the bindings carry the digest of all sources"
    monkeypatch.setenv("CXXFLAGS", "-DOTHER='two words'")
    monkeypatch.setenv("LDFLAGS", "-Wl,-rpath,'$ORIGIN/there'")
    assert objects_made_anew(monkeypatch) == everything
    (library,) = Path("semicl_kernels").glob("_C*.so")
    assert b"$ORIGIN/there" in library.read_bytes()
    monkeypatch.setenv("CPATH", str(folder))
    assert objects_made_anew(monkeypatch) == everything
    assert objects_made_anew(monkeypatch, "--force") == everything


@needs_compiler
def test_only_what_is_out_of_date_is_compiled_for_cuda(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cuda: dict[str, tuple[str, ...]]
) -> None:
    objects = {f"{Path(source).stem}{element}.o": source for source in cuda for element in cuda[source]}
    edited = next(iter(cuda))
    (folder / "csrc/cuda" / edited).write_text('#include "one.h"\n')
    (folder / "csrc/cuda/one.h").touch()
    assert objects_made_anew(monkeypatch) == {"bindings.o", *objects}
    (folder / "csrc/cuda/one.h").write_text("// edited\n")
    includes = {name for name, source in objects.items() if source == edited}
    assert objects_made_anew(monkeypatch) == {"bindings.o", *includes}
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-DOTHER")
    assert objects_made_anew(monkeypatch) == set(objects)
    fake_nvcc(folder / "toolkit", release="13.1")
    assert objects_made_anew(monkeypatch) == {"bindings.o", *objects}


@needs_compiler
def test_of_two_builds_at_once_the_second_finds_what_the_first_made(folder: Path) -> None:
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    builds = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [build.communicate()[0] for build in builds]
    assert [build.returncode for build in builds] == [0, 0]
    assert sum("no work to do" in text for text in said) == 1


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction sets are those of x86-64")
def test_an_instruction_set_that_the_compiler_cannot_target_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "csrc/cpu").mkdir()
    for name, macro in (("avx2", "__AVX2__"), ("avx512bf16", "__AVX512BF16__")):
        (folder / f"csrc/cpu/tiles_{name}.cpp").write_text(f"#ifndef {macro}\n#error\n#endif\n")
    told = "#if !SEMICL_HAVE_AVX2 || defined(SEMICL_HAVE_AVX512BF16) || defined(__AVX2__)\n#error\n#endif\n"
    (folder / "csrc/cpu/dispatch.cpp").write_text(told)
    older = script(folder / "compiler", 'case "$*" in *avx512bf16*) exit 1;; esac\nexec g++ "$@"')
    monkeypatch.setenv("CXX", str(older))
    assert objects_made_anew(monkeypatch) == {"bindings.o", "dispatch.o", "tiles_avx2.o"}


def test_without_a_compiler_the_way_out_is_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(SystemExit, match="/nowhere/g\\+\\+"):
        run_setup(monkeypatch, "build_ext", "--inplace")
    monkeypatch.setenv("SEMICL_REQUIRE_CPU", "0")
    run_setup(monkeypatch, "build_ext", "--inplace")
    said = capsys.readouterr().err
    assert "the compiled CPU backend was NOT built" in said
    assert "/nowhere/g++" in said
    assert "apt-get install g++" in said


def test_without_a_host_compiler_of_nvcc_the_way_out_is_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cuda: dict[str, tuple[str, ...]]
) -> None:
    why = "nvcc fatal: Failed to preprocess host compiler properties."
    text = f'case "$*" in *--version*) echo release 13.0;; *) echo "{why}"; exit 1;; esac'
    script(folder / "toolkit/bin/nvcc", text)
    monkeypatch.setenv("SEMICL_CUDA", "auto")
    monkeypatch.setenv("SEMICL_REQUIRE_CPU", "0")
    run_setup(monkeypatch, "build_ext", "--inplace")
    said = capsys.readouterr().err
    assert "the compiled CUDA backend was NOT built" in said
    assert f"nvcc does not work: {why}" in said


@needs_compiler
def test_a_wheel_holds_the_packages_and_what_was_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cuda: dict[str, tuple[str, ...]]
) -> None:
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, name)
    for name in ("semicl_kernels", "semicl", "tests/semicl_kernels"):
        shutil.copytree(ROOT / name, name, ignore=shutil.ignore_patterns("*.so", "__pycache__"), dirs_exist_ok=True)
    packages = {path.as_posix() for name in ("semicl_kernels", "semicl") for path in Path(name).rglob("*.*")}
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    for extensions in ({"_C", "_cuda"}, {"_C"}):
        monkeypatch.setenv("SEMICL_CUDA", str(int("_cuda" in extensions)))
        subprocess.run([sys.executable, "-c", build], check=True, capture_output=True)
        (path,) = Path("dist").glob("*.whl")
        with zipfile.ZipFile(path) as wheel:
            names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        built = {f"semicl_kernels/{name}{sysconfig.get_config_var('EXT_SUFFIX')}" for name in extensions}
        assert names == {*packages, *built, "semicl_kernels/sources.txt"}


def test_a_package_that_leaves_its_source_folder_carries_the_digests(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "setup.cfg").write_text("[options]\npackages = semicl_kernels\n")
    (folder / "semicl_kernels/__init__.py").touch()
    setup = run_setup(monkeypatch, "build_py", "--build-lib", "built")
    lines = Path("built/semicl_kernels/sources.txt").read_text().splitlines()
    assert lines == [f"{name} {setup['sources_digest'](name)}" for name in ("_C", "_cuda")]
