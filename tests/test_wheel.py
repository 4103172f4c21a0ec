"""What an sdist and the wheel built from it hold, and that the wheel works where there is no compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

for needed in ("setuptools", "pybind11", "ninja"):
    pytest.importorskip(needed)

ROOT = Path(__file__).parents[1]
INPUTS = (
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "csrc",
    "semicl",
    "semicl_kernels",
    "tests",
)
PACKAGES = ("semicl", "semicl_kernels")


def build(kind: str, folder: Path, output: Path) -> Path:
    """Build in ``folder`` as a front end does, by PEP 517, with what is installed here."""
    code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    environment = os.environ | {"SEMICL_REQUIRE_CPU": "1", "SEMICL_CUDA": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, output], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = output.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return path


def files(folder: Path, *names: str) -> set[str]:
    found = {path for name in names for path in (folder / name).rglob("*") if path.is_file()}
    return {path.relative_to(folder).as_posix() for path in found if path.suffix not in (".so", ".pyc")}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: `apt-get install g++`")
def test_the_wheel_of_the_sdist_is_whole_and_works_without_a_compiler(tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "dist"
    source.mkdir()
    for name in INPUTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    for stray in [*source.rglob("*.so"), *source.rglob("__pycache__")]:
        shutil.rmtree(stray) if stray.is_dir() else stray.unlink()
    with tarfile.open(build("sdist", source, output)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    made = {"PKG-INFO", "setup.cfg"} | files(unpacked, "semicl.egg-info")
    assert files(unpacked, ".") - made == files(source, *PACKAGES, "csrc") | {
        name for name in INPUTS if (source / name).is_file()
    }

    wheel = build("wheel", unpacked, output)
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    extension = f"semicl_kernels/_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    assert names == files(source, *PACKAGES) | {extension, "semicl_kernels/sources.txt"}

    clean = tmp_path / "clean"
    venv.create(clean, symlinks=True)
    python = clean / "bin" / "python"
    # Torch and numpy are those here. What is installed there as editable is not found by way of a .pth file.
    site = clean / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {"PATH": str(clean / "bin"), "OMP_NUM_THREADS": "1"}
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--ignore-installed", wheel], cwd=tmp_path, check=True)
    code = "import semicl, semicl_kernels; print(semicl.__file__, semicl_kernels.__file__)"
    found = subprocess.check_output([python, "-c", code], cwd=tmp_path, env=environment, text=True)
    assert found.split() == [str(site / name / "__init__.py") for name in PACKAGES]
    said = subprocess.check_output([python, "-m", "semicl_kernels"], cwd=tmp_path, env=environment, text=True)
    (line,) = [line for line in said.splitlines() if line.split()[:1] == ["cpu"]]
    assert "available" in line
    assert line.endswith("right")
