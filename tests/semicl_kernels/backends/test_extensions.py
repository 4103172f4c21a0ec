"""What is said where a compiled extension is missing or of other sources; "auto" does not go without one in silence."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from semicl_kernels import backends, local_contrastive_loss
from semicl_kernels.backends import AVAILABLE, BACKENDS, cpu, cuda, extensions


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An extension as if it were compiled from the sources at hand."""
    module = ModuleType("semicl_kernels._C")
    module.__file__ = "_C.so"
    module.sources = extensions.expected_sources("_C")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "semicl_kernels._C", module)
    return module


def test_one_that_is_there_has_nothing_missing(built: ModuleType) -> None:
    assert extensions.find("_C", "nothing") == (built, "")


@pytest.mark.parametrize("sources", ["those of another version", None])
def test_one_of_other_sources_is_not_taken(
    built: ModuleType, monkeypatch: pytest.MonkeyPatch, sources: str | None
) -> None:
    """It would be given raw addresses in an order that it does not know. None: it is older than the digest."""
    if sources is None:
        del built.sources
    else:
        built.sources = sources  # type: ignore[attr-defined]
    module, missing = extensions.find("_C", "a compiler", "SETTING=1 ")
    assert module is None
    assert "_C.so was built from other sources" in missing
    assert "run `SETTING=1 pip install " in missing
    monkeypatch.setattr(cpu, "compiled", module)
    monkeypatch.setattr(cpu, "missing", missing)
    assert backends.available_backends()["cpu"] == missing
    with pytest.raises(ValueError, match=r"backend 'cpu' is not available: .* was built from other sources"):
        local_contrastive_loss(torch.randn(1, 2, 8, 4, 4), backend="cpu")


@pytest.mark.parametrize("name", ["_C", "_cuda"])
def test_extensions_of_this_installation_carry_the_digest_of_their_sources(name: str) -> None:
    try:
        module = import_module(f"semicl_kernels.{name}")
    except ImportError:
        pytest.skip(f"semicl_kernels.{name} is not built")
    assert module.sources == extensions.expected_sources(name)


def test_any_change_of_the_sources_changes_the_digest(tmp_path: Path) -> None:
    shutil.copytree(extensions.SOURCE / "csrc", tmp_path / "csrc")
    files = [path for path in sorted(tmp_path.rglob("*.*")) if path.is_file()]
    seen = {extensions.sources_digest(name, tmp_path) for name in ("_C", "_cuda")}
    for number, path in enumerate(files):
        path.write_text(path.read_text() + "\n")
        seen |= {extensions.sources_digest(name, tmp_path) for name in ("_C", "_cuda")}
        assert len(seen) == number + 3, path
    files[0].rename(files[0].with_stem("other"))
    assert not seen.issuperset({extensions.sources_digest(name, tmp_path) for name in ("_C", "_cuda")})


def test_an_installed_package_expects_what_was_noted_as_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extensions, "SOURCE", tmp_path)
    assert extensions.expected_sources("_C") == "", "no digest is right"
    (tmp_path / "semicl_kernels").mkdir()
    (tmp_path / "semicl_kernels" / extensions.NOTE).write_text("_C abc\n_cuda def\n")
    assert [extensions.expected_sources(name) for name in ("_C", "_cuda")] == ["abc", "def"]


def source_folder(path: Path) -> None:
    """Make a folder that looks like the source folder of the package."""
    (path / "csrc").mkdir()
    for name in ("setup.py", "csrc/bindings.cpp"):
        (path / name).touch()


def test_a_folder_of_that_name_beside_an_installed_package_is_none_of_its(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "csrc").mkdir()
    monkeypatch.setattr(extensions, "SOURCE", tmp_path)
    (tmp_path / "semicl_kernels").mkdir()
    (tmp_path / "semicl_kernels" / extensions.NOTE).write_text("_C abc\n_cuda def\n")
    assert extensions.expected_sources("_C") == "abc"


def test_an_installed_package_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "SOURCE", tmp_path)
    module, missing = extensions.find("_absent", "a compiler", "SETTING=1 ")
    assert module is None
    assert "_absent" in missing
    assert "install a compiler and run `SETTING=1 pip install -v --force-reinstall" in missing


def test_the_source_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pip install .` builds lies elsewhere: to run it again would change nothing."""
    source_folder(tmp_path)
    monkeypatch.setattr(extensions, "SOURCE", tmp_path)
    missing = extensions.find("_absent", "a compiler").missing
    assert str(tmp_path) in missing
    assert "`pip install -e .`" in missing


def test_a_gpu_that_is_not_hopper_is_told_and_is_triton_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "compiled", SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert cuda.find_state.__wrapped__() == (
        "its kernels are for Hopper (sm_90a), and the GPU is sm_80: use backend='triton'"
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert cuda.find_state.__wrapped__() == AVAILABLE


def test_auto_says_what_it_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "cpu", replace(BACKENDS["cpu"], state=lambda: "gone: bring it back"))
    monkeypatch.setitem(BACKENDS, "triton", replace(BACKENDS["triton"], refuses=lambda *_: "no GPU"))
    features = torch.randn(1, 2, 8, 4, 4)
    with pytest.warns(UserWarning, match="does without 'cpu'.*gone: bring it back") as caught:
        local_contrastive_loss(features)
    assert caught[0].filename == __file__
    assert backends.choose_backend("auto", torch.device("cpu"), torch.float64, 8, None) == "tiled", (
        "which 'cpu' refuses"
    )
