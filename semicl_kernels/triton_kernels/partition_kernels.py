"""From labels to rows on a GPU, by counting: what ``semicl_kernels/partition.py`` sorts for, in four launches.

The points of a group are numbered in the order of the map. A row's place needs no sort of the map, only numbers: where
its group begins, how many rows of its group lie before those of its class, how many of its class before itself. There
are two ways to count those, and each group takes one of them, on the device:

*By tables*, for labels from 0 to WINDOW - 1, the rule. :func:`count_classes` counts the labels of each chunk of a
group; :func:`sum_chunks` turns the counts into how many of the class lie in the chunks before, and says which classes
are anchors and where their runs begin. A place is that plus the place among its like in the chunk.

*By pairs*, for any labels. :func:`count_classes` compares the points of a chunk with all of the group to count their
like; :func:`place_points`, which then knows the anchors, counts in the same way what comes before. It is quadratic in
the group. Groups of a single chunk, which would have larger tables than rows, all take it and need no
:func:`sum_chunks`.

:func:`sum_groups` adds up where the groups begin, and :func:`place_points` writes every row. The form without labels,
where each place is a class of its own, needs no counting: :func:`place_views` writes its rows straight away. Integers
are added in any order to the same sum, so every run gives the same rows.
"""

from __future__ import annotations

import triton
import triton.language as tl

BINS = tl.constexpr(64)  # of a table: the labels of the window, points that are left out, and all others
WINDOW = tl.constexpr(62)
LEFT_OUT = tl.constexpr(62)
OTHER = tl.constexpr(63)


@triton.jit
def group_box(g, sizes, edges, blocks):
    """Return the image of a group (0 where groups cross images), its block's first place and its extent."""
    along2 = g % blocks[2]
    rest = g // blocks[2]
    along1 = rest % blocks[1]
    rest = rest // blocks[1]
    first0, first1, first2 = rest % blocks[0] * edges[0], along1 * edges[1], along2 * edges[2]
    extent0 = tl.minimum(edges[0], sizes[0] - first0)
    extent1 = tl.minimum(edges[1], sizes[1] - first1)
    extent2 = tl.minimum(edges[2], sizes[2] - first2)
    return rest // blocks[0], first0, first1, first2, extent0, extent1, extent2


@triton.jit
def points_before(box, sizes, maps):
    """Return the number of points of the groups before this one; ``maps`` label maps share a group."""
    image, first0, first1, first2 = box[0], box[1], box[2], box[3]
    rows = first0 * sizes[1] + box[4] * first1
    return maps * (image * sizes[0] * sizes[1] * sizes[2] + rows * sizes[2] + box[4] * box[5] * first2)


@triton.jit
def group_points(box, maps):
    """Return the number of points of a group."""
    return maps * box[4] * box[5] * box[6]


@triton.jit
def locate(q, box, sizes, views, maps):
    """Return the number in the map of the q-th points of a group, and their image, view and place."""
    image, first0, first1, first2, extent0, extent1, extent2 = box
    place2 = first2 + q % extent2
    rest = q // extent2
    place1 = first1 + rest % extent1
    rest = rest // extent1
    place0 = first0 + rest % extent0
    number = image * maps + rest // extent0
    point = ((number * sizes[0] + place0) * sizes[1] + place1) * sizes[2] + place2
    return point, number // views, number % views, place0, place1, place2


@triton.jit
def load_labels(labels, strides, q, inside, box, sizes, views, maps):
    """Return the labels of the q-th points of a group as int64."""
    _, image, view, place0, place1, place2 = locate(q, box, sizes, views, maps)
    at = image.to(tl.int64) * strides[0] + view.to(tl.int64) * strides[1] + place0.to(tl.int64) * strides[2]
    at += place1.to(tl.int64) * strides[3] + place2.to(tl.int64) * strides[4]
    return tl.load(labels + at, mask=inside, other=0).to(tl.int64)


@triton.jit
def bin_of(label, inside, ignored, IGNORES: tl.constexpr):
    """Return the column of a table that a label is counted in."""
    column = tl.where(inside & (label >= 0) & (label < WINDOW), label, OTHER).to(tl.int32)
    if IGNORES:
        column = tl.where(inside & (label == ignored), LEFT_OUT, column)
    return column


@triton.jit
def are_anchors(
    same_label_count, label, valid_count, background, BACKGROUND: tl.constexpr, OTHER_CLASSES_ONLY: tl.constexpr
):
    """Return whether points are anchors, by how many of their group have their label and how many are not left out."""
    anchor = same_label_count > 1
    if BACKGROUND:
        anchor = anchor & (label != background)
    if OTHER_CLASSES_ONLY:
        anchor = anchor & (same_label_count < valid_count)
    return anchor


@triton.jit
def kind_of(
    same_label_count, label, valid_count, background, ignored,
    BACKGROUND: tl.constexpr, IGNORES: tl.constexpr, OTHER_CLASSES_ONLY: tl.constexpr,
):  # fmt: skip
    """Return 0 for anchors, 1 for other points and 2 for those left out."""
    kind = tl.where(are_anchors(same_label_count, label, valid_count, background, BACKGROUND, OTHER_CLASSES_ONLY), 0, 1)
    if IGNORES:
        kind = tl.where(label == ignored, 2, kind)
    return kind


@triton.jit
def count_like(label, labels, strides, count, box, sizes, views, maps, STEP: tl.constexpr):
    """Return how many points of a group have each of the labels, by pairs."""
    found = tl.zeros(label.shape, dtype=tl.int32)
    for first in range(0, count, STEP):
        p = first + tl.arange(0, STEP)
        other = load_labels(labels, strides, p, p < count, box, sizes, views, maps)
        found += tl.sum(((label[:, None] == other[None, :]) & (p < count)[None, :]).to(tl.int32), 1)
    return found


@triton.jit
def load_same_label_count(same_label_count, totals, column, at, inside, ALL: tl.constexpr):
    """Return how many points have the label of each of these: from its column of a group's totals, or by pairs."""
    if ALL:
        return tl.load(same_label_count + at, mask=inside, other=0)
    else:
        by_pairs = column == OTHER
        found = tl.load(totals + column, mask=~by_pairs, other=0)
        return found + tl.load(same_label_count + at, mask=inside & by_pairs, other=0)


@triton.jit(do_not_specialize=["background", "ignored"])
def count_classes(
    labels,
    strides,  # of the images, the views and the three axes of space
    sizes,
    edges,
    blocks,
    views,
    maps,
    counts,  # (G, chunks, BINS) int32, written for the chunks that there are, but where all groups go by pairs
    same_label_count,  # (M,) int32, by group, written where that goes by pairs: points of the point's label, itself too
    valid_count,  # (G,) int32, written where all groups go by pairs: points that are not left out
    anchors,  # (G,) int32, likewise
    chunks,
    background,
    ignored,
    BACKGROUND: tl.constexpr,
    IGNORES: tl.constexpr,
    OTHER_CLASSES_ONLY: tl.constexpr,
    ALL: tl.constexpr,  # whether all groups, of one chunk each, go by pairs
    CHUNK: tl.constexpr,
    STEP: tl.constexpr,
):
    """Count the labels of one chunk of a group."""
    g, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    box = group_box(g, sizes, edges, blocks)
    count = group_points(box, maps)
    if chunk * CHUNK < count:
        q = chunk * CHUNK + tl.arange(0, CHUNK)
        inside = q < count
        label = load_labels(labels, strides, q, inside, box, sizes, views, maps)
        column = bin_of(label, inside, ignored, IGNORES)
        by_pairs = True
        if not ALL:
            to = counts + tl.program_id(0).to(tl.int64) * BINS + tl.arange(0, BINS)
            tl.store(to, tl.histogram(column, BINS))
            by_pairs = tl.max((inside & (column == OTHER)).to(tl.int32)) > 0
        if by_pairs:
            like = count_like(label, labels, strides, count, box, sizes, views, maps, STEP)
            tl.store(same_label_count + points_before(box, sizes, maps) + q, like, mask=inside)
            if ALL:
                total = tl.sum((inside & (column != LEFT_OUT)).to(tl.int32))
                kind = kind_of(like, label, total, background, ignored, BACKGROUND, IGNORES, OTHER_CLASSES_ONLY)
                tl.store(valid_count + g, total)
                tl.store(anchors + g, tl.sum((inside & (kind == 0)).to(tl.int32)))


@triton.jit(do_not_specialize=["background", "ignored"])
def sum_chunks(
    labels,
    strides,
    sizes,
    edges,
    blocks,
    views,
    maps,
    same_label_count,  # (M,) int32, of count_classes
    counts,  # (G, chunks, BINS) int32, of count_classes; changed to the sums over the chunks before
    totals,  # (G, BINS) int32, written: the sums over all chunks
    lows,  # (G, BINS) int32, written: the rows of the group before the class's
    valid_count,  # (G,) int32, written: points that are not left out
    anchors,  # (G,) int32, written
    uses_pairwise,  # (G,) int32, written: whether there are labels past the window
    chunks,
    background,
    ignored,
    BACKGROUND: tl.constexpr,
    IGNORES: tl.constexpr,
    OTHER_CLASSES_ONLY: tl.constexpr,
    CHUNK: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """Sum the counts of a group's chunks; one program a group."""
    g = tl.program_id(0)
    box = group_box(g, sizes, edges, blocks)
    count = group_points(box, maps)
    filled = tl.cdiv(count, CHUNK)
    column = tl.arange(0, BINS)
    total = tl.zeros((BINS,), dtype=tl.int32)
    for first in range(0, filled, AT_ONCE):
        chunk = first + tl.arange(0, AT_ONCE)
        at = counts + (tl.cast(g, tl.int64) * chunks + chunk)[:, None] * BINS + column[None, :]
        mask = (chunk < filled)[:, None] & (column >= 0)[None, :]
        here = tl.load(at, mask=mask, other=0)
        tl.store(at, total[None, :] + tl.cumsum(here, 0) - here, mask=mask)
        total += tl.sum(here, 0)
    left_out = tl.sum(tl.where(column == LEFT_OUT, total, 0))
    others = tl.sum(tl.where(column == OTHER, total, 0))
    of_class = tl.where(column < WINDOW, total, 0)
    anchor = are_anchors(of_class, column.to(tl.int64), count - left_out, background, BACKGROUND, OTHER_CLASSES_ONLY)
    of_anchors = tl.where(anchor, of_class, 0)
    of_rest = of_class - of_anchors
    anchor_total = tl.sum(of_anchors)
    low = tl.where(anchor, tl.cumsum(of_anchors, 0) - of_anchors, anchor_total + tl.cumsum(of_rest, 0) - of_rest)
    tl.store(totals + tl.cast(g, tl.int64) * BINS + column, total)
    tl.store(lows + tl.cast(g, tl.int64) * BINS + column, low)
    # The last chunk counts what it lacks to be full among the others.
    is_pairwise = others > filled * CHUNK - count
    for first in range(0, tl.where(is_pairwise, count, 0), CHUNK):
        q = first + tl.arange(0, CHUNK)
        label = load_labels(labels, strides, q, q < count, box, sizes, views, maps)
        by_pairs = (q < count) & (bin_of(label, q < count, ignored, IGNORES) == OTHER)
        like = tl.load(same_label_count + points_before(box, sizes, maps) + q, mask=by_pairs, other=0)
        more = are_anchors(like, label, count - left_out, background, BACKGROUND, OTHER_CLASSES_ONLY)
        anchor_total += tl.sum(more.to(tl.int32))
    tl.store(valid_count + g, count - left_out)
    tl.store(anchors + g, anchor_total)
    tl.store(uses_pairwise + g, is_pairwise.to(tl.int32))


@triton.jit
def sum_groups(
    valid_count,  # (G,) int32
    anchors,  # (G,) int32
    offsets,  # (G + 1,) int32, written
    sums,  # (2,) int32, written: groups with an anchor, and all anchors
    G,
    AT_ONCE: tl.constexpr,
):
    """Find where the groups begin; one program."""
    total, filled, anchor_total = 0, 0, 0
    for first in range(0, G, AT_ONCE):
        g = first + tl.arange(0, AT_ONCE)
        own = tl.load(valid_count + g, mask=g < G, other=0)
        its_anchors = tl.load(anchors + g, mask=g < G, other=0)
        tl.store(offsets + g, total + tl.cumsum(own, 0) - own, mask=g < G)
        total += tl.sum(own)
        filled += tl.sum((its_anchors > 0).to(tl.int32))
        anchor_total += tl.sum(its_anchors)
    tl.store(offsets + G, total)
    tl.store(sums, filled)
    tl.store(sums + 1, anchor_total)


@triton.jit
def place_among_like(column):
    """Return how many elements before each have its value; a turn for every value that there is."""
    place = column * 0
    pending = column < BINS
    value = tl.min(column)
    while value < BINS:
        like = column == value
        place = tl.where(like, tl.cumsum(like.to(tl.int32), 0) - 1, place)
        pending = pending & (column != value)
        value = tl.min(tl.where(pending, column, BINS))
    return place


@triton.jit
def weight_of(anchors, filled, anchor_total, REDUCTION: tl.constexpr):
    """Return what an anchor's loss counts: of a block of ``anchors``, among ``filled`` blocks and all anchors."""
    if REDUCTION == "block":
        return 1.0 / tl.cast(tl.maximum(anchors, 1).to(tl.int64) * tl.maximum(filled, 1), tl.float64)
    elif REDUCTION == "anchor":
        return 1.0 / tl.cast(tl.maximum(anchor_total, 1), tl.float64)
    else:
        tl.static_assert(REDUCTION == "sum" or REDUCTION == "none", "no weights for this reduction")
        return tl.cast(anchors * 0 + 1, tl.float64)


@triton.jit
def write_rows(
    rows, points, low, high, anchor, weight, inside,
    point_of_row, skip_begin, skip_end, class_begin, class_end, weights,
    OTHER_CLASSES_ONLY: tl.constexpr,
):  # fmt: skip
    """Write what there is to know of the rows."""
    tl.store(point_of_row + rows, points.to(tl.int64), mask=inside)
    tl.store(class_begin + rows, low, mask=inside)
    tl.store(class_end + rows, high, mask=inside)
    tl.store(skip_begin + rows, low if OTHER_CLASSES_ONLY else rows, mask=inside)
    tl.store(skip_end + rows, high if OTHER_CLASSES_ONLY else rows + 1, mask=inside)
    tl.store(weights + rows, tl.where(anchor, weight, 0.0), mask=inside)


@triton.jit(do_not_specialize=["background", "ignored"])
def place_points(
    labels,
    strides,
    sizes,
    edges,
    blocks,
    views,
    maps,
    counts,  # (G, chunks, BINS) int32, of sum_chunks
    totals,  # (G, BINS) int32
    lows,  # (G, BINS) int32
    same_label_count,  # (M,) int32, by group
    valid_count,  # (G,) int32
    uses_pairwise,  # (G,) int32: whether a group is ranked by pairs; not read where all are
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    sums,  # (2,) int32, of sum_groups
    point_of_row,  # (M,) int64, written, as what follows
    row_of_point,  # (M,) int32
    skip_begin,  # (M,) int32
    skip_end,  # (M,) int32
    class_begin,  # (M,) int32
    class_end,  # (M,) int32
    weights,  # (M,) float64
    G,
    chunks,
    background,
    ignored,
    BACKGROUND: tl.constexpr,
    IGNORES: tl.constexpr,
    OTHER_CLASSES_ONLY: tl.constexpr,
    REDUCTION: tl.constexpr,
    ALL: tl.constexpr,
    CHUNK: tl.constexpr,
    STEP: tl.constexpr,
):
    """Write the rows of the points of one chunk of a group."""
    g, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    box = group_box(g, sizes, edges, blocks)
    count = group_points(box, maps)
    if chunk * CHUNK < count:
        q = chunk * CHUNK + tl.arange(0, CHUNK)
        inside = q < count
        points = locate(q, box, sizes, views, maps)[0]
        label = load_labels(labels, strides, q, inside, box, sizes, views, maps)
        before = points_before(box, sizes, maps)
        group_anchors, begin = tl.load(anchors + g), tl.load(offsets + g)
        alive, its_totals = tl.load(valid_count + g), totals + tl.cast(g, tl.int64) * BINS
        column = bin_of(label, inside, ignored, IGNORES)
        like = load_same_label_count(same_label_count, its_totals, column, before + q, inside, ALL)
        kind = kind_of(like, label, alive, background, ignored, BACKGROUND, IGNORES, OTHER_CLASSES_ONLY)
        by_pairs = True
        if not ALL:
            by_pairs = tl.load(uses_pairwise + g) != 0
        if by_pairs:
            low, place = tl.where(kind == 0, 0, group_anchors), tl.zeros((CHUNK,), dtype=tl.int32)
            for first in range(0, count, STEP):
                p = first + tl.arange(0, STEP)
                other = load_labels(labels, strides, p, p < count, box, sizes, views, maps)
                its_column = bin_of(other, p < count, ignored, IGNORES)
                its_like = load_same_label_count(same_label_count, its_totals, its_column, before + p, p < count, ALL)
                its = kind_of(its_like, other, alive, background, ignored, BACKGROUND, IGNORES, OTHER_CLASSES_ONLY)
                same = (kind[:, None] == its[None, :]) & (p < count)[None, :]
                less = same & (other[None, :] < label[:, None])
                earlier = same & (other[None, :] == label[:, None]) & (p[None, :] < q[:, None])
                low += tl.sum(less.to(tl.int32), 1)
                place += tl.sum(earlier.to(tl.int32), 1)
        else:
            low = tl.load(lows + tl.cast(g, tl.int64) * BINS + column)
            place = tl.load(counts + tl.program_id(0).to(tl.int64) * BINS + column) + place_among_like(column)
        left_out = inside & (kind == 2)
        # Those left out follow the last group, in the order of the groups.
        row = begin + low + place
        row = tl.where(left_out, tl.load(offsets + G) + before - begin + place, row)
        low = tl.where(left_out, row, begin + low)
        high = tl.where(left_out, row + 1, low + like)
        weight = weight_of(group_anchors, tl.load(sums), tl.load(sums + 1), REDUCTION)
        has_row = inside & (kind != 2) & (group_anchors > 0)
        tl.store(row_of_point + points, tl.where(has_row, row, -1), mask=inside)
        write_rows(
            row, points, low, high, kind == 0, weight, inside,
            point_of_row, skip_begin, skip_end, class_begin, class_end, weights, OTHER_CLASSES_ONLY,
        )  # fmt: skip


@triton.jit
def place_views(
    sizes,
    edges,
    blocks,
    views,
    maps,
    point_of_row,  # (M,) int64, written, as what follows
    row_of_point,  # (M,) int32
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    skip_begin,  # (M,) int32
    skip_end,  # (M,) int32
    class_begin,  # (M,) int32
    class_end,  # (M,) int32
    weights,  # (M,) float64
    G,
    chunks,
    filled,  # groups with an anchor
    anchor_total,
    OTHER_CLASSES_ONLY: tl.constexpr,
    REDUCTION: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Write the rows of one chunk of a group where every place of every image is a class: its views, one by one."""
    g, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    box = group_box(g, sizes, edges, blocks)
    count = group_points(box, maps)
    begin = points_before(box, sizes, maps)
    anchor = views > 1
    if OTHER_CLASSES_ONLY:
        anchor = anchor & (count > views)
    if chunk * CHUNK < count:
        q = chunk * CHUNK + tl.arange(0, CHUNK)
        inside = q < count
        points, _, view, _, _, _ = locate(q, box, sizes, views, maps)
        places = count // maps
        class_number = q // (places * views) * places + q % places
        low = begin + class_number * views
        row = low + view
        group_anchors = tl.where(anchor, count, 0)
        weight = weight_of(group_anchors, filled, anchor_total, REDUCTION)
        tl.store(row_of_point + points, tl.where(anchor, row, -1), mask=inside)
        write_rows(
            row, points, low, low + views, anchor & inside, weight, inside,
            point_of_row, skip_begin, skip_end, class_begin, class_end, weights, OTHER_CLASSES_ONLY,
        )  # fmt: skip
        tl.store(offsets + g, begin, mask=chunk == 0)
        tl.store(anchors + g, group_anchors, mask=chunk == 0)
        tl.store(offsets + G, begin + count, mask=(chunk == 0) & (g == G - 1))
