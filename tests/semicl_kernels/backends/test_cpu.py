"""The compiled backend's own concerns: every instruction set of this machine and build, every width of channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from semicl_kernels.backends import AVAILABLE, cpu

from .. import short_vectors
from ..cases import DENOMINATORS, IGNORE, Case
from ..fuzz import failure
from .test_agreement import assert_agrees


def instruction_sets() -> list[Any]:
    if cpu.state() != AVAILABLE:
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"backend cpu: {cpu.state()}"))]
    return [pytest.param(one, id=one[0]) for one in cpu.extension().instruction_sets()]


@pytest.fixture(params=instruction_sets())
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "instruction_set", lambda: request.param)


DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["block", "none"])
@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("space", [(1, 1), (1, 2), (9, 14), (1, 127), (16, 16), (4, 5, 6)])
def test_instruction_sets(space: tuple[int, ...], denominator: str, reduction: str, dtype: torch.dtype) -> None:
    options = {"denominator": denominator, "reduction": reduction, "ignore_index": IGNORE}
    assert_agrees("cpu", Case((2, 2, 37, *space), "ignored", options=options), dtype)
    assert_agrees("cpu", Case((1, 1, 64, *space), "one class", options={**options, "block_size": 7}), dtype)


@pytest.mark.usefixtures("instruction_set")
def test_random_configurations_of_every_instruction_set() -> None:
    """By the rule of accuracy.py, nearly equal features and bfloat16 among them."""
    assert not [wrong for number in range(1000, 1040) if (wrong := failure("cpu", number)) is not None]


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("temperature", [0.03, 0.1])
def test_vectors_too_short_for_a_direction_are_not_made_unit_vectors(temperature: float) -> None:
    short_vectors.assert_loss_is_exact("cpu", temperature)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("channels", [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 128, 200, 256, 300])
def test_channels(channels: int) -> None:
    for dtype in DTYPES:
        assert_agrees("cpu", Case((1, 1, channels, 5, 27)), dtype)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("count", [*range(1, 70), 95, 96, 97, 128, 255, 257, 511, 513])
def test_row_counts(count: int) -> None:
    """All remainders of the tiles, dense and with background columns."""
    assert_agrees("cpu", Case((1, 1, 16, 1, count), "one class"), torch.float32)
    assert_agrees("cpu", Case((1, 1, 16, 1, count)), torch.float32)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("dtype", DTYPES)
def test_small_temperatures(dtype: torch.dtype) -> None:
    temperature = 0.005 if dtype == torch.float32 else 0.01
    for channels in (2, 48):
        case = Case((1, 2, channels, 8, 9), options={"temperature": temperature})
        assert_agrees("cpu", case, dtype)


def test_wanted_instruction_set_that_is_not_there_is_refused(
    compiled_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compiled_backend == "cpu"
    monkeypatch.setenv("SEMICL_CPU", "sse9")
    with pytest.raises(ValueError, match=r"SEMICL_CPU.*sse9.*baseline"):
        cpu.instruction_set.__wrapped__()


@pytest.mark.parametrize("empty", ["", " "])
def test_wanted_instruction_set_that_is_empty_is_as_unset(
    compiled_backend: str, monkeypatch: pytest.MonkeyPatch, empty: str
) -> None:
    assert compiled_backend == "cpu"
    monkeypatch.setenv("SEMICL_CPU", empty)
    assert cpu.instruction_set.__wrapped__() == cpu.extension().instruction_sets()[0]
