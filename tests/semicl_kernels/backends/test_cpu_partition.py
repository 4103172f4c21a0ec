"""The compiled partition against the one by sorting: the same tensors, row for row."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from torch import Tensor

from semicl_kernels.backends import AVAILABLE, cpu
from semicl_kernels.partition import Partition, block_edges, group_count, partition

from ..cases import Case, cases

pytestmark = pytest.mark.skipif(cpu.state() != AVAILABLE, reason=f"backend cpu: {cpu.state()}")


def check(
    labels: Tensor,
    blocks: tuple[int, ...] | None = None,
    per_image: bool = False,
    negatives: bool = False,
    background: int | None = 0,
    ignore_index: int | None = None,
    reduction: str = "block",
    self_supervised: bool = False,
) -> None:
    options = (per_image, negatives, background, ignore_index, reduction)
    expected = partition(labels, blocks, *options)
    edges, groups = block_edges(labels.shape, blocks), group_count(labels.shape, blocks, per_image)
    found = Partition(*cpu.partition(labels, edges, groups, *options, self_supervised))
    for name, one, other in zip(expected._fields, expected, found, strict=True):
        assert other.dtype == one.dtype, name
        assert torch.equal(one, other), name


def places(batch: int, views: int, *space: int) -> Tensor:
    count = torch.Size((batch, *space)).numel()
    return torch.arange(count).reshape(batch, 1, *space).expand(batch, views, *space)


@given(case=cases(largest_side=7, most_channels=1))
def test_any_map(case: Case) -> None:
    options, labels = case.options, case.labels()
    axes = len(case.shape) - 3
    size = options["block_size"]
    blocks = None if size is None else (size,) * axes if isinstance(size, int) else size
    shared = (blocks, options["scope"] == "image", options["denominator"] == "negatives")
    if labels is None:
        batch, views, _, *space = case.shape
        check(places(batch, views, *space), *shared, None, None, options["reduction"], self_supervised=True)
    else:
        check(labels, *shared, options["background"], options["ignore_index"], options["reduction"])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_every_integer_and_any_strides(dtype: torch.dtype) -> None:
    labels = (torch.arange(2 * 3 * 10 * 14) % 5 - 1).reshape(3, 2, 14, 10).to(dtype).transpose(0, 1).transpose(2, 3)
    for ignore_index, blocks in itertools.product((None, 1), (None, (4, 5))):
        check(labels, blocks, ignore_index=ignore_index)
        check(labels[:1, :, ::2].expand(2, -1, -1, -1), blocks, ignore_index=ignore_index)


def test_labels_too_far_apart_to_count() -> None:
    ends = torch.tensor([-(2**63), 2**63 - 1, 0, 5])
    check(ends[torch.arange(96) % 4].reshape(2, 1, 6, 8), (3, 4), ignore_index=5)


@pytest.mark.usefixtures("threads")
def test_any_number_of_threads() -> None:
    labels = torch.arange(2**18).remainder(7).reshape(4, 1, 256, 256)
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        check(labels, (32, 32), per_image=True, ignore_index=3)


@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (2, 1, 0, 3), (1, 1, 1, 1)])
def test_no_point_or_one(shape: tuple[int, ...]) -> None:
    check(torch.ones(shape, dtype=torch.int64))
