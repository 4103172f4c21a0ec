"""Modules that are loaded again, as notebooks do it, in a process that has computed before."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import semicl_kernels
from semicl_kernels import local_contrastive_loss

from .cases import Case

CASE = Case((1, 2, 8, 5, 4), "random", seed=4)
FEATURES, LABELS = CASE.features(torch.float32), CASE.labels()
NAMES = [
    found.name
    for found in pkgutil.walk_packages(semicl_kernels.__path__, "semicl_kernels.")
    if not found.name.endswith(("__main__", "._C", "._cuda")) and "triton_kernels" not in found.name
]


@pytest.fixture
def modules_as_before() -> Iterator[None]:
    """Gives every module of the package its names back."""
    before = {
        module: dict(vars(module)) for name, module in sys.modules.items() if name.split(".")[0] == "semicl_kernels"
    }
    yield
    for module, names in before.items():
        vars(module).clear()
        vars(module).update(names)


def reload(module: ModuleType) -> None:
    importlib.reload(module)


def autoreload(module: ModuleType) -> None:
    """As IPython's %autoreload: what the module has made goes first, and stays known elsewhere."""
    kept = dict(vars(module))
    vars(module).clear()
    vars(module).update({name: kept[name] for name in ("__name__", "__loader__")})
    importlib.reload(module)


def gradient(backend: str) -> Tensor:
    features = FEATURES.clone().requires_grad_()
    semicl_kernels.local_contrastive_loss(features, LABELS, backend=backend).backward()
    assert features.grad is not None
    return features.grad


@pytest.mark.usefixtures("modules_as_before")
@pytest.mark.parametrize("load_again", [reload, autoreload])
def test_every_module_can_be_loaded_again(load_again: object) -> None:
    assert "semicl_kernels.ops" in NAMES
    expected = {name: gradient(name) for name in ("cpu", "tiled", "reference")}
    captured = make_fx(lambda features: local_contrastive_loss(features, LABELS, backend="cpu"))(FEATURES)
    value = captured(FEATURES)
    for name in [*NAMES, "semicl_kernels"]:
        load_again(importlib.import_module(name))  # type: ignore[operator]
        for backend, right in expected.items():
            assert torch.equal(gradient(backend), right), name
        assert torch.equal(captured(FEATURES), value), name


@pytest.mark.usefixtures("modules_as_before")
def test_reloaded_code_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from semicl_kernels import ops

    monkeypatch.setitem(ops.IMPLEMENTATIONS, "contrast_loss", (lambda *arguments: torch.tensor(7.0), None))
    assert local_contrastive_loss(FEATURES, LABELS, backend="cpu") == 7
    importlib.reload(ops)
    assert local_contrastive_loss(FEATURES, LABELS, backend="cpu") != 7


@pytest.mark.usefixtures("modules_as_before")
def test_package_imported_anew_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "semicl_kernels" and not name.endswith("._C")]:
        monkeypatch.delitem(sys.modules, name)
    anew = importlib.import_module("semicl_kernels")
    assert anew is not semicl_kernels
    assert torch.equal(anew.local_contrastive_loss(FEATURES, LABELS), local_contrastive_loss(FEATURES, LABELS))
    table = importlib.import_module("semicl_kernels.ops").IMPLEMENTATIONS
    monkeypatch.setitem(table, "contrast_loss", (lambda *arguments: torch.tensor(7.0), None))
    assert anew.local_contrastive_loss(FEATURES, LABELS, backend="cpu") == 7


@pytest.mark.usefixtures("modules_as_before")
def test_operators_of_other_arguments_cannot_be_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from semicl_kernels import ops

    changed = torch.ops.semicl.registration._replace(schemas={**ops.SCHEMAS, "contrast_map": "(Tensor rows) -> Tensor"})
    monkeypatch.setattr(torch.ops.semicl, "registration", changed)
    with pytest.raises(RuntimeError, match="restart Python"):
        importlib.reload(ops)
