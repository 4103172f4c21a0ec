"""Who contrasts with whom: the packed order and its bookkeeping, against the labels they are made from."""

from __future__ import annotations

import gc
import itertools
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

from semicl_kernels.backends import AVAILABLE, cpu
from semicl_kernels.partition import Partition, group_of_point, largest_group, partition

from .cases import IGNORE, Case, cases
from .oracle import per_axis


def place_groups(shape: tuple[int, ...], block_size: Any, per_image: bool) -> list[tuple[int, ...]]:
    """The group of every point in the order of the map: the indices of its block, and of its image if that counts."""
    blocks = per_axis(block_size, len(shape) - 2) if block_size is not None else shape[2:]
    return [
        (*(k // size for k, size in zip(position, blocks, strict=True)), *([image] if per_image else []))
        for image, _, *position in itertools.product(*map(range, shape))
    ]


def blocks_of(labels: Tensor, options: dict[str, Any]) -> tuple[int, ...] | None:
    return None if options["block_size"] is None else per_axis(options["block_size"], labels.dim() - 2)


def make(labels: Tensor, options: dict[str, Any]) -> tuple[Partition, list[tuple[int, ...]]]:
    per_image = options["scope"] == "image"
    blocks = blocks_of(labels, options)
    parts = partition(
        labels,
        blocks,
        per_image,
        options["denominator"] == "negatives",
        options["background"],
        options["ignore_index"],
        options["reduction"],
    )
    return parts, place_groups(tuple(labels.shape), blocks, per_image)


@given(case=cases(largest_side=5, most_channels=1))
def test_rows_follow_from_the_labels(case: Case) -> None:
    labels = case.labels()
    if labels is None:
        labels = torch.arange(case.shape[0] * case.shape[1]).reshape(*case.shape[:2], *[1] * (len(case.shape) - 3))
        labels = labels.expand(*case.shape[:2], *case.shape[3:])
    options = case.options
    parts, group_of_place = make(labels, options)
    flat = labels.flatten().tolist()
    index = parts.point_of_row.tolist()
    offsets, anchors = parts.offsets.tolist(), parts.anchors.tolist()

    assert sorted(index) == list(range(len(flat)))  # every point once
    ignored = [i for i, label in enumerate(flat) if label == options["ignore_index"]]
    assert sorted(index[offsets[-1] :]) == ignored

    members = Counter(group_of_place[i] for i in index[: offsets[-1]])
    largest = largest_group(labels.shape, blocks_of(labels, options), options["scope"] == "image")
    assert max(members.values(), default=0) <= largest
    if not ignored:
        assert largest == max(members.values())
    classes = Counter((group_of_place[i], flat[i]) for i in index[: offsets[-1]])

    def is_anchor(point: int) -> bool:
        group = group_of_place[point]
        alike = classes[group, flat[point]]
        others_count = members[group] - (alike if options["denominator"] == "negatives" else 1)
        return flat[point] != options["background"] and alike > 1 and others_count > 0

    weighted = 0.0
    groups_with_anchors = sum(count > 0 for count in anchors)
    for begin, end, count in zip(offsets, offsets[1:], anchors, strict=False):
        rows = index[begin:end]
        assert len({group_of_place[i] for i in rows}) <= 1
        assert [is_anchor(i) for i in rows] == [True] * count + [False] * (len(rows) - count)
        assert all(parts.row_of_point[i] == (begin + k if count else -1) for k, i in enumerate(rows))
        for row in range(begin, begin + count):
            alike = [r for r in range(begin, end) if flat[index[r]] == flat[index[row]]]
            left_out = alike if options["denominator"] == "negatives" else [row]
            assert list(range(parts.class_begin[row], parts.class_end[row])) == alike
            assert list(range(parts.skip_begin[row], parts.skip_end[row])) == left_out
            expected = {"block": 1 / (count * groups_with_anchors), "anchor": 1 / sum(anchors)}
            assert parts.weights[row].item() == pytest.approx(expected.get(options["reduction"], 1.0), rel=1e-6)
            weighted += 1
    assert weighted == (parts.weights > 0).sum() == sum(anchors)
    assert all(parts.row_of_point[i] == -1 for i in ignored)


def test_group_sizes_of_ragged_blocks() -> None:
    labels = torch.ones(1, 1, 5, 7, dtype=torch.int64)
    options = {
        "scope": "batch",
        "block_size": (2, 3),
        "denominator": "all",
        "background": 0,
        "ignore_index": None,
        "reduction": "block",
    }
    parts, _ = make(labels, options)
    assert parts.offsets.diff().tolist() == [6, 6, 2, 6, 6, 2, 3, 3, 1]
    assert parts.anchors.tolist() == [6, 6, 2, 6, 6, 2, 3, 3, 0]  # the last has one pixel, without a positive


def test_ignored_points_come_last() -> None:
    labels = torch.tensor([1, IGNORE, 2, 1, IGNORE, 2]).reshape(1, 1, 2, 3)
    parts = partition(labels, None, False, False, 0, IGNORE, "anchor")
    assert parts.offsets.tolist() == [0, 4]
    assert sorted(parts.point_of_row[4:].tolist()) == [1, 4]
    assert parts.weights.tolist() == pytest.approx([0.25] * 4 + [0, 0])


def test_a_cuda_graph_takes_nothing_that_a_cache_may_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, device = torch.Size((1, 1, 4, 4)), torch.device("cpu")
    remembered = group_of_point(shape, (2, 2), False, device)
    assert group_of_point(shape, (2, 2), False, device) is remembered
    monkeypatch.setattr("semicl_kernels.partition.captured", lambda device: True)
    own = group_of_point(shape, (2, 2), False, device)
    assert own is not remembered
    assert torch.equal(own, remembered)


def bytes_of_tensors() -> int:
    gc.collect()
    plain = [one for one in gc.get_objects() if type(one) is Tensor and one.layout == torch.strided]
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in plain}.values())


def test_no_map_however_large_is_kept_for_good() -> None:
    """What is remembered of five large maps and ten small ones is 32 MiB at most; of the large ones it would be 80."""
    before = bytes_of_tensors()
    for extra in range(5):
        group_of_point(torch.Size((1, 1, 1024, 2048 + extra)), (16, 16), False, torch.device("cpu"))
    assert bytes_of_tensors() - before <= 0
    for extra in range(10):
        group_of_point(torch.Size((1, 1, 1024, 1000 + extra)), (16, 16), False, torch.device("cpu"))
    assert bytes_of_tensors() - before <= 32 * 2**20


def test_a_reduction_without_weights_is_an_error() -> None:
    """One that was added to the options alone must not be taken for "sum"."""
    with pytest.raises(AssertionError, match="'image'"):
        partition(torch.ones(1, 1, 2, 2, dtype=torch.int64), None, False, False, 0, None, "image")


def test_a_reduction_without_weights_is_an_error_of_the_reference() -> None:
    features, labels = torch.ones(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.int64)
    scale = torch.ones((), dtype=torch.float64)
    with pytest.raises(AssertionError, match="'image'"):
        torch.ops.semicl.reference_loss(features, labels, None, False, False, 0, None, scale, True, "image")


def test_a_reduction_without_weights_is_an_error_of_the_compiled_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a name that has no code, and by a code that has no weights."""
    if cpu.state() != AVAILABLE:
        pytest.skip(f"backend cpu: {cpu.state()}")
    arguments = (torch.ones(1, 1, 2, 2, dtype=torch.int64), [2, 2], 1, False, False, 0, None, "image", False)
    with pytest.raises(KeyError, match="image"):
        cpu.partition(*arguments)
    monkeypatch.setitem(cpu.REDUCTION_CODES, "image", 3)
    with pytest.raises(ValueError, match="no weights for this reduction"):
        cpu.partition(*arguments)
