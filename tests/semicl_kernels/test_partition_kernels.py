"""The partition by counting against the one by sorting: the same rows, but for the order of the points left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from semicl_kernels import available_backends, partition, partition_kernels
from semicl_kernels.backends import launch_cache

from .cases import IGNORE
from .on_device import device_of

STATE = available_backends()["triton"]
pytestmark = [
    pytest.mark.skipif(STATE != "available", reason=f"backend triton: {STATE}"),
    *([pytest.mark.gpu] if device_of("triton").type == "cuda" else []),
]

DEFAULTS: dict[str, Any] = {
    "block_size": None,
    "per_image": False,
    "other_classes_only": False,
    "background": 0,
    "ignore_index": None,
    "reduction": "block",
}


def check(labels: Tensor, self_supervised: bool = False, **changed: Any) -> None:
    options = DEFAULTS | changed
    labels = labels.to(device_of("triton"))
    expected = partition.partition(labels, **options)
    found = partition_kernels.partition(labels, **options, self_supervised=self_supervised)
    rows = int(expected.offsets[-1])
    for name, one, other in zip(expected._fields, expected, found, strict=True):
        assert other.dtype == one.dtype, name
        assert other.shape == one.shape, name
        whole = name in ("offsets", "anchors", "row_of_point")
        assert torch.equal(one if whole else one[:rows], other if whole else other[:rows]), name
    # Rows past the last group hold the points left out, in any order, and count for nothing.
    assert torch.equal(expected.point_of_row[rows:].sort().values, found.point_of_row[rows:].sort().values)
    assert not found.weights[rows:].any()


def drawn(*shape: int, values: tuple[int, ...] = (0, 1, 2), seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(values)[torch.randint(0, len(values), shape, generator=generator)]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables for groups of more than 32 points, in chunks of so many."""
    monkeypatch.setattr(partition_kernels, "CHUNK", 32)
    monkeypatch.setattr(partition_kernels, "CHUNKS_AT_ONCE", 2)
    monkeypatch.setattr(partition_kernels, "STEP", 32)


OPTIONS = [
    {},
    {"block_size": (5, 7)},
    {"block_size": (4, 100), "per_image": True},
    {"other_classes_only": True, "background": None},
    {"ignore_index": 2, "reduction": "anchor"},
    {"ignore_index": IGNORE, "background": None, "reduction": "sum", "block_size": (6, 6)},
    {"ignore_index": 0, "other_classes_only": True, "per_image": True, "reduction": "none"},
    {"background": 1, "block_size": (9, 3)},
]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("options", OPTIONS)
# All of the window; some groups with labels past it, some without; most labels past it.
@pytest.mark.parametrize("values", [(0, 1, 2, 61), (0, 0, 0, 0, 0, 1, 2, 62), (0, 2, IGNORE, 2**40, -(2**62))])
def test_by_tables_and_by_pairs(options: dict[str, Any], values: tuple[int, ...]) -> None:
    check(drawn(2, 1, 7, 11, values=values), **options)


@pytest.mark.usefixtures("small_chunks")
def test_labels_past_the_window_need_no_launch_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def launch(kernel: Any, *arguments: Any, **options: Any) -> None:
        names.append(kernel.fn.__name__)
        launch_cache.launch(kernel, *arguments, **options)

    monkeypatch.setattr(partition_kernels, "launch", launch)
    tables = ["count_classes", "sum_chunks", "sum_groups", "place_points"]
    for width, values, expected in ((19, (0, 1), tables), (20, (0, 70), tables), (3, (0, 1), tables[:1] + tables[2:])):
        names.clear()
        check(drawn(1, 1, 3, width, values=values))
        assert names == expected


@pytest.mark.parametrize("options", OPTIONS)
def test_groups_of_few_points(options: dict[str, Any]) -> None:
    """Blocks with more labels than some have points: classes without a positive too."""
    check(drawn(1, 2, 6, 7, values=(0, 1, 2, 3, IGNORE, 70)), **{"block_size": (3, 4)} | options)


@pytest.mark.parametrize("reduction", ["block", "none"])
def test_one_group_of_several_chunks(reduction: str) -> None:
    check(drawn(1, 1, 40, 41), reduction=reduction, ignore_index=2)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16])
def test_every_dtype(dtype: torch.dtype) -> None:
    check(drawn(1, 1, 6, 8, values=(0, 1)).to(dtype))


@pytest.mark.usefixtures("small_chunks")
def test_three_axes_and_any_strides() -> None:
    uses_pairwise = drawn(2, 3, 5, 4, 6)
    check(uses_pairwise, block_size=(2, 3, 4))
    check(uses_pairwise.transpose(0, 1).transpose(2, 4)[:, :, ::2], block_size=(2, 2, 2), per_image=True)
    check(uses_pairwise[:, :1].expand(-1, 3, -1, -1, -1), background=None)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"block_size": (3, 3), "reduction": "anchor"},
        {"block_size": (2, 4), "other_classes_only": True},
        {"block_size": (1, 1), "other_classes_only": True, "per_image": True},
        {"block_size": (2, 1), "other_classes_only": True, "per_image": True, "reduction": "sum"},
    ],
)
def test_self_supervised_a_class(options: dict[str, Any], batch: int, views: int) -> None:
    places = torch.arange(batch * 20).reshape(batch, 1, 4, 5).expand(-1, views, -1, -1)
    check(places, self_supervised=True, background=None, **options)


def test_labels_at_the_ends_of_their_dtype() -> None:
    check(torch.tensor([-(2**63), 2**63 - 1, 0, 2**63 - 1, -(2**63), -(2**63)]).reshape(1, 1, 2, 3), background=None)


def test_who_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backends that launch Triton's kernels; others stay what they are, plain PyTorch."""
    device = device_of("triton")
    assert partition_kernels.can_count(device, "triton")
    assert partition_kernels.can_count(device, "cuda") == (device.type == "cuda")
    assert not partition_kernels.can_count(device, "tiled")
    assert not partition_kernels.can_count(torch.device("meta"), "triton")
    monkeypatch.setattr(partition_kernels, "state", lambda: "not there")
    assert not partition_kernels.can_count(device, "triton")


def test_large_groups_are_sorted_but_for_those_that_need_no_counting() -> None:
    shape = torch.Size((1, 2, 512, 512))
    assert not partition_kernels.is_worth_it(shape, None, False, False)
    assert partition_kernels.is_worth_it(shape, (128, 128), False, False)
    assert partition_kernels.is_worth_it(shape, None, False, True)
