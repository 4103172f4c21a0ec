"""The losses as modules: options are attributes that are checked and read back."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from semicl_kernels import LocalContrastiveLoss, NTXentLoss, SupervisedContrastiveLoss, local_contrastive_loss

FEATURES = torch.randn(2, 2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 3, (2, 2, 6, 6), generator=torch.Generator().manual_seed(1))
OTHERS = {
    "temperature": 5.0,
    "stride": 2,
    "block_size": (3, 2),
    "scope": "image",
    "denominator": "negatives",
    "background": 1,
    "ignore_index": 2,
    "normalize": False,
    "reduction": "sum",
    "backend": "tiled",
}
MODULES = [LocalContrastiveLoss, NTXentLoss, SupervisedContrastiveLoss]


@pytest.mark.parametrize(("name", "value"), OTHERS.items())
def test_option_is_set_and_read_back(name: str, value: Any) -> None:
    criterion = LocalContrastiveLoss()
    setattr(criterion, name, value)
    assert getattr(criterion, name) == value
    assert criterion.options[name] == value
    assert f"{name}={value!r}" in repr(criterion)
    assert name in dir(criterion)
    assert torch.equal(criterion(FEATURES, LABELS), local_contrastive_loss(FEATURES, LABELS, **{name: value}))


@pytest.mark.parametrize("module", MODULES)
def test_options_of_every_module(module: Any) -> None:
    criterion = module(temperature=0.3)
    before = criterion.options
    criterion.temperature = 5.0
    assert (criterion.temperature, criterion.backend, before["temperature"]) == (5.0, "auto", 0.3)
    with pytest.raises(ValueError, match="temperature must be positive"):
        criterion.temperature = -1
    with pytest.raises(TypeError, match="temperature must be a number; got str"):
        criterion.temperature = "warm"
    with pytest.raises(ValueError, match="backend must be"):
        criterion.backend = "cudnn"
    assert criterion.temperature == 5.0
    assert criterion.backend == "auto"


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [("stride", 0, ValueError), ("block_size", "all", TypeError), ("scope", "volume", ValueError),
     ("denominator", 1, TypeError), ("background", 0.5, TypeError), ("ignore_index", "255", TypeError),
     ("normalize", 1, TypeError), ("reduction", "mean", ValueError)],
)  # fmt: skip
def test_bad_value_is_refused_when_it_is_set(name: str, value: Any, error: type[Exception]) -> None:
    criterion = LocalContrastiveLoss()
    before = dict(criterion.options)
    with pytest.raises(error, match=name):
        setattr(criterion, name, value)
    assert criterion.options == before


@pytest.mark.parametrize("module", MODULES)
def test_unknown_name_is_refused_with_the_nearest_one(module: Any) -> None:
    criterion = module()
    for name in ("temprature", "tau_temperature", "Temperature"):
        with pytest.raises(AttributeError, match=rf"{module.__name__}.*'{name}'.*'temperature'"):
            setattr(criterion, name, 5.0)
        with pytest.raises(AttributeError, match=name):
            getattr(criterion, name)
    with pytest.raises(TypeError):
        criterion.options["temperature"] = 5.0
    with pytest.raises(AttributeError):
        criterion.options = {}
    with pytest.raises(AttributeError, match="temperature"):
        del criterion.temperature
    with pytest.raises(TypeError, match="temprature"):
        module(temprature=5.0)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_have_options_of_their_own(copied: Any) -> None:
    criterion = LocalContrastiveLoss(block_size=[3, 2])
    criterion.temperature = 0.7
    other = copied(criterion)
    assert other.options == criterion.options
    other.temperature = 0.2
    assert (criterion.temperature, other.temperature) == (0.7, 0.2)


def test_module_stays_a_module() -> None:
    """Without state, in training or not, with hooks, inside another; and a class made from it has what it wants."""
    criterion = LocalContrastiveLoss()
    assert criterion.state_dict() == {}
    assert criterion.load_state_dict({}).missing_keys == []
    assert not criterion.eval().training
    seen: list[float] = []
    criterion.register_forward_hook(lambda module, inputs, output: seen.append(float(output)))
    assert float(torch.nn.ModuleDict({"loss": criterion}).half()["loss"](FEATURES, LABELS)) == seen[0]

    class Weighted(LocalContrastiveLoss):
        def __init__(self) -> None:
            super().__init__(temperature=0.5)
            self.factor = 2.0

        def forward(self, features: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
            return self.factor * super().forward(features, labels)

    weighted = Weighted()
    weighted.temperature = 0.25
    assert torch.equal(weighted(FEATURES, LABELS), 2 * local_contrastive_loss(FEATURES, LABELS, temperature=0.25))
