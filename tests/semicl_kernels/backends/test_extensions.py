"""What is said where a compiled extension is missing, and that "auto" does not go without one in silence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from semicl_kernels import backends, local_contrastive_loss
from semicl_kernels.backends import BACKENDS, cuda, extensions


def test_one_that_is_there_has_nothing_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = extensions.find("checks", "nothing")
    assert (found.module.__name__, found.missing) == ("semicl_kernels.checks", "")


def test_an_installed_package_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "SOURCE", tmp_path)
    module, missing = extensions.find("_absent", "a compiler", "SETTING=1 ")
    assert module is None
    assert "_absent" in missing
    assert "install a compiler and run `SETTING=1 pip install -v --force-reinstall" in missing


def test_the_source_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pip install .` builds lies elsewhere: to run it again would change nothing."""
    (tmp_path / "csrc").mkdir()
    monkeypatch.setattr(extensions, "SOURCE", tmp_path)
    missing = extensions.find("_absent", "a compiler").missing
    assert str(tmp_path) in missing
    assert "`pip install -e .`" in missing


def test_another_architecture_is_built_where_the_package_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extension is there: to run elsewhere would change nothing."""
    monkeypatch.setattr(extensions, "SOURCE", tmp_path)
    monkeypatch.setattr(cuda, "compiled", SimpleNamespace(architectures=lambda: ["80"]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.version, "hip", None)
    installed = cuda.find_state.__wrapped__()
    assert "`SEMICL_CUDA=1 SEMICL_CUDA_ARCHS=75 pip install -v --force-reinstall --no-deps .`" in installed
    (tmp_path / "csrc").mkdir()
    taken_from_source = cuda.find_state.__wrapped__()
    assert "from sm_80 on, run `SEMICL_CUDA=1 SEMICL_CUDA_ARCHS=75 pip install -e .`" in taken_from_source


def test_auto_says_what_it_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "cpu", replace(BACKENDS["cpu"], state=lambda: "gone: bring it back"))
    monkeypatch.setitem(BACKENDS, "triton", replace(BACKENDS["triton"], refuses=lambda *_: "no GPU"))
    features = torch.randn(1, 2, 8, 4, 4)
    with pytest.warns(UserWarning, match="does without 'cpu'.*gone: bring it back") as caught:
        local_contrastive_loss(features)
    assert caught[0].filename == __file__
    assert backends.choose_backend("auto", torch.device("cpu"), torch.float64, 8) == "tiled", "which 'cpu' refuses"
