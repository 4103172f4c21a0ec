"""The partition on a GPU, by counting: a few launches, where the sort of ``partition`` takes a hundred and forty.

Its results are those of :func:`semicl_kernels.partition.partition`, row for row, but for the order of the points left
out. The kernels and their algorithm are in ``triton_kernels/partition_kernels.py``. The launches are repeated for
labels of the same shape (``backends/launch_cache.py``).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .backends import AVAILABLE, BACKENDS
from .backends.device import GROUPS_AT_ONCE, OPTIONS, runs_on, state
from .backends.launch_cache import empty, launch, repeat
from .partition import SORTED_INTEGERS, Partition, block_edges, group_count, largest_group

# Points of a group that one program counts or places. Groups of no more are counted by pairs: their tables would take
# more memory than their rows.
CHUNK = 256
BINS = 64  # of triton_kernels.partition_kernels
MAX_COUNTED = 1 << 16  # points of a group: with labels past the window it is counted by pairs
CHUNK_WARPS = 8  # of a program with a chunk
STEP = 16  # points that a chunk is compared with at once
CHUNKS_AT_ONCE = 64


def can_count(device: torch.device, backend: str) -> bool:
    """Whether to count for labels on the device: for the backends that launch Triton's kernels anyway."""
    return state() == AVAILABLE and runs_on(device) and BACKENDS[backend].launches_triton()


def is_worth_it(shape: torch.Size, block_size: tuple[int, ...] | None, per_image: bool, self_supervised: bool) -> bool:
    """Whether the groups of labels of this shape are small enough to be counted.

    Labels past the window would be counted by pairs, in a time that grows as the square of a group; what the launches
    of a sort take is nothing beside the loss of so large a group.
    """
    return self_supervised or largest_group(shape, block_size, per_image) <= MAX_COUNTED


class Boxes(NamedTuple):
    """How a map is cut into groups, as the kernels are told: three axes of space, and the label maps of a group."""

    sizes: tuple[int, ...]
    edges: tuple[int, ...]
    blocks: tuple[int, ...]
    views: int
    maps: int  # that share a group: views, of one image or of all

    @classmethod
    def of(cls, shape: torch.Size, block_size: tuple[int, ...] | None, per_image: bool) -> Boxes:
        batch, views, *space = shape
        edges = [min(edge, size) for edge, size in zip(block_edges(shape, block_size), space, strict=True)]
        missing = (1,) * (3 - len(space))
        blocks = [-(-size // edge) for size, edge in zip(space, edges, strict=True)]
        maps = views if per_image else batch * views
        return cls((*missing, *space), (*missing, *edges), (*missing, *blocks), views, maps)

    def single_places(self) -> int:
        """The number of blocks, in one image, of a single place."""
        return math.prod(
            blocks if edge == 1 else int(size % edge == 1)
            for size, edge, blocks in zip(self.sizes, self.edges, self.blocks, strict=True)
        )


def partition(
    labels: Tensor,
    block_size: tuple[int, ...] | None,
    per_image: bool,
    other_classes_only: bool,
    background: int | None,
    ignore_index: int | None,
    reduction: str,
    self_supervised: bool,
) -> Partition:
    """Partition the points as :func:`semicl_kernels.partition.partition` does; there is at least one.

    ``self_supervised``: the labels tell every place of every image apart and are the same in all views; they are not
    read.
    """
    if labels.dtype == torch.bool:
        labels = labels.view(torch.uint8)
    elif labels.dtype not in SORTED_INTEGERS:
        labels = labels.long()

    def parts() -> Partition:
        boxes = Boxes.of(labels.shape, block_size, per_image)
        groups = group_count(labels.shape, block_size, per_image)
        largest = largest_group(labels.shape, block_size, per_image)
        made = empty_partition(labels.numel(), groups, labels.device)
        if self_supervised:
            _place_views(made, boxes, groups, largest, other_classes_only, reduction)
        else:
            count = _Count(labels, boxes, groups, largest, other_classes_only, background, ignore_index)
            count.fill(made, reduction)
        return made

    options = (block_size, per_image, other_classes_only, background, ignore_index, reduction, self_supervised)
    return Partition(*repeat("partition", options, (labels,), parts))


def empty_partition(points: int, groups: int, device: torch.device) -> Partition:
    def integers(size: int) -> Tensor:
        return empty((size,), torch.int32, device)

    return Partition(
        point_of_row=empty((points,), torch.int64, device),
        row_of_point=integers(points),
        offsets=integers(groups + 1),
        anchors=integers(groups),
        skip_begin=integers(points),
        skip_end=integers(points),
        class_begin=integers(points),
        class_end=integers(points),
        weights=empty((points,), torch.float64, device),
    )


def _place_views(
    parts: Partition, boxes: Boxes, groups: int, largest: int, other_classes_only: bool, reduction: str
) -> None:
    from .triton_kernels import partition_kernels

    points, images = len(parts.point_of_row), groups // math.prod(boxes.blocks)
    lonely = images * boxes.single_places() if boxes.maps == boxes.views and other_classes_only else 0
    anchored = boxes.views > 1
    chunks = -(-largest // CHUNK)
    launch(
        partition_kernels.place_views,
        (groups * chunks,),
        *boxes,
        *parts,
        groups,
        chunks,
        groups - lonely if anchored else 0,
        points - lonely * boxes.views if anchored else 0,
        OTHER_CLASSES_ONLY=other_classes_only,
        REDUCTION=reduction,
        CHUNK=CHUNK,
        **OPTIONS,
    )


class _Count:
    """The launches for labels, and what they share."""

    def __init__(
        self,
        labels: Tensor,
        boxes: Boxes,
        groups: int,
        largest: int,
        other_classes_only: bool,
        background: int | None,
        ignore_index: int | None,
    ) -> None:
        self.labels = labels
        batch, views, *space = self.labels.stride()
        self.strides = (batch, views, *(0,) * (3 - len(space)), *space)
        self.boxes, self.group_total = boxes, groups
        self.chunks = -(-largest // CHUNK)
        self.options = {
            "background": background or 0,
            "ignored": ignore_index or 0,
            "BACKGROUND": background is not None,
            "IGNORES": ignore_index is not None,
            "OTHER_CLASSES_ONLY": other_classes_only,
            "CHUNK": CHUNK,
            **OPTIONS,
        }
        # The chunks' counts, and the groups' totals and lows.
        tables = 0 if self.chunks == 1 else groups * BINS
        self.counts, self.totals, self.lows = self._integers(tables * self.chunks, tables, tables)
        self.same_label_count, self.valid_count, self.uses_pairwise, self.sums = self._integers(
            labels.numel(), groups, groups, 2
        )

    def _integers(self, *sizes: int) -> tuple[Tensor, ...]:
        return empty((sum(sizes),), torch.int32, self.labels.device).split(sizes)

    def fill(self, parts: Partition, reduction: str) -> None:
        from .triton_kernels import partition_kernels

        where: tuple[Any, ...] = (self.labels, self.strides, *self.boxes)
        each_chunk = (self.group_total * self.chunks,)
        pairs = {"ALL": self.chunks == 1, "STEP": STEP, "num_warps": CHUNK_WARPS}
        launch(
            partition_kernels.count_classes,
            each_chunk,
            *where,
            self.counts,
            self.same_label_count,
            self.valid_count,
            parts.anchors,
            self.chunks,
            **pairs,
            **self.options,
        )
        if self.chunks > 1:
            launch(
                partition_kernels.sum_chunks,
                (self.group_total,),
                *where,
                self.same_label_count,
                self.counts,
                self.totals,
                self.lows,
                self.valid_count,
                parts.anchors,
                self.uses_pairwise,
                self.chunks,
                AT_ONCE=CHUNKS_AT_ONCE,
                **self.options,
            )
        launch(
            partition_kernels.sum_groups,
            (1,),
            self.valid_count,
            parts.anchors,
            parts.offsets,
            self.sums,
            self.group_total,
            AT_ONCE=GROUPS_AT_ONCE,
            **OPTIONS,
        )
        launch(
            partition_kernels.place_points,
            each_chunk,
            *where,
            self.counts,
            self.totals,
            self.lows,
            self.same_label_count,
            self.valid_count,
            self.uses_pairwise,
            parts.offsets,
            parts.anchors,
            self.sums,
            parts.point_of_row,
            parts.row_of_point,
            parts.skip_begin,
            parts.skip_end,
            parts.class_begin,
            parts.class_end,
            parts.weights,
            self.group_total,
            self.chunks,
            REDUCTION=reduction,
            **pairs,
            **self.options,
        )
