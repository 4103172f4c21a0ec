"""An accelerator that is not there is named before anything is written."""

import pytest
import torch

from semicl.errors import SemiclError
from semicl.models.accelerators import available_accelerators, require_accelerator
from semicl.options import MachineOptions


def test_what_is_there() -> None:
    found = available_accelerators()
    assert found[:2] == ["auto", "cpu"]
    assert ("gpu" in found) == (torch.cuda.is_available() or torch.backends.mps.is_available())
    for name in found:
        require_accelerator(MachineOptions(accelerator=name))


def test_a_gpu_has_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert {"cuda", "gpu"} <= set(available_accelerators())


def test_what_is_not_there() -> None:
    with pytest.raises(SemiclError, match=r"--machine\.accelerator bogus: not found here; give auto or cpu"):
        require_accelerator(MachineOptions(accelerator="bogus"))
