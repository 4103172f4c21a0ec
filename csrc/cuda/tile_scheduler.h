// The work of ragged groups, found on the device: row block pairs (forward) and Stream-K ranges (backward). docs/gpu.md
// tells and draws the schedule; semicl_kernels/triton_kernels/tile_scheduler.py has the same.
//
// Forward: row block p of anchors meets the row blocks q >= p of its group's points. Block b of the grid takes the
// items b, b + grid, ..., whose group it finds by bisection in running totals over the groups (count_work there).
//
// Backward: the steps of all M tiles, with a prologue cost before those of each, form one line cut into equal Stream-K
// ranges, one a worker. A whole M tile is written to the gradient. A partial tile goes to place 2 w + 1 where worker w
// begins the M tile, else to place 2 w; join_partials of triton_kernels/gradient.py adds them in the order of the workers.
//
// Row numbers fit an int: the caller takes no more than kMaxRows rows, so a tile past the last row does not overflow.
#pragma once
#include <cstdint>

#include "host_device.h"

namespace semicl::cuda {

constexpr int kMaxRows = 0x7fffffff - 4096;

SEMICL_HOST_DEVICE int smaller(int a, int b) { return a < b ? a : b; }
SEMICL_HOST_DEVICE int larger(int a, int b) { return a > b ? a : b; }
SEMICL_HOST_DEVICE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
SEMICL_HOST_DEVICE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
SEMICL_HOST_DEVICE int ceil_div(int a, int b) { return a / b + (a % b != 0); }

// The shape of a pass's tiles: rows that stay, and rows that stream past them in one step.
struct TileShape {
    int m, n;
};

// Packed rows cut into groups [offsets[g], offsets[g + 1]), as semicl_kernels/backends/base.py says; skips are mutual.
struct Groups {
    const int *offsets, *anchors, *skip_begin, *skip_end;
    int count;
};

// What the positives take from the weights of pairs (backward_epilogue.h): of rows i and j != i of one class run
// [class_begin, class_end), twice the pull that all of the run have, 0 where they are no anchors. Null where there are
// none.
struct Positives {
    const int *class_begin, *class_end;
    const float* pulls;
};

struct Group {
    int begin, end, anchor_end;
    SEMICL_HOST_DEVICE int points() const { return end - begin; }
    SEMICL_HOST_DEVICE int anchors() const { return anchor_end - begin; }
};

SEMICL_HOST_DEVICE Group find_group(const Groups& groups, int g) {
    const int begin = groups.offsets[g];
    return {begin, groups.offsets[g + 1], begin + groups.anchors[g]};
}

SEMICL_HOST_DEVICE int m_tile_count(const Group& group, int rows) {
    return group.anchors() > 0 ? ceil_div(group.points(), rows) : 0;
}

// An item, or a step where items are of many steps.
template <class Number>
struct Place {
    int group;
    Number number;  // within the group
};
using Item = Place<int>;

// `ends` are the running totals of the groups' items; there are more than `item` of them.
template <class Number>
SEMICL_HOST_DEVICE Place<Number> find_item(Number item, const Number* ends, int groups) {
    int low = 0, high = groups - 1;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (ends[middle] <= item)
            low = middle + 1;
        else
            high = middle;
    }
    return {low, low > 0 ? item - ends[low - 1] : item};
}

// Row block p of anchors [m_begin, m_end) against row block q of points [n_begin, n_end).
struct RowBlockPair {
    int p, q;
    int m_begin, m_end, n_begin, n_end;
    int given_end;  // anchors of the N tile before it are given their sums by this pair

    // The first row that streams past the M tile from row `tile` on.
    SEMICL_HOST_DEVICE int first_n(int m) const { return p == q ? m : n_begin; }
};

SEMICL_HOST_DEVICE RowBlockPair find_row_block_pair(const Group& group, int number, int row_block_size) {
    const int row_blocks = ceil_div(group.points(), row_block_size);
    int p = 0;
    for (; number >= row_blocks - p; ++p) number -= row_blocks - p;
    const int q = p + number;
    const int m_begin = group.begin + p * row_block_size, n_begin = group.begin + q * row_block_size;
    const int n_end = group.end - n_begin > row_block_size ? n_begin + row_block_size : group.end;
    return {p,
            q,
            m_begin,
            group.anchor_end - m_begin > row_block_size ? m_begin + row_block_size : group.anchor_end,
            n_begin,
            n_end,
            smaller(group.anchor_end, n_end)};
}

// Rows [first, end) of a group, at most `rows` of them, against the columns [column, column_end).
struct MTile {
    int first, end, column, column_end, anchor_end;
};

SEMICL_HOST_DEVICE MTile find_m_tile(const Group& group, int number, int rows) {
    const int first = group.begin + number * rows;
    const int end = group.end - first > rows ? first + rows : group.end;
    // Points that are no anchors have pairs with anchors alone.
    return {first, end, group.begin, first < group.anchor_end ? group.end : group.anchor_end, group.anchor_end};
}

// ---- backward: Stream-K ranges of steps ----------------------------------------------------------------------------

// Estimates, until a GPU has measured them: what a tile costs beside its steps, in steps, and the least that is worth a
// worker.
constexpr int kPrologueCost = 4, kMinStreamKRange = 4;

// The steps of a group's M tiles, prologue costs included: tiles that have an anchor come first.
struct GroupSteps {
    int64_t with_anchor, without;  // of one tile
    int tiles_with_anchor, tiles;

    SEMICL_HOST_DEVICE int64_t before(int tile) const {
        return tile <= tiles_with_anchor ? tile * with_anchor
                                         : tiles_with_anchor * with_anchor + (tile - tiles_with_anchor) * without;
    }
    SEMICL_HOST_DEVICE int tile_of(int64_t step) const {
        const int64_t past = step - before(tiles_with_anchor);
        return past < 0 ? static_cast<int>(step / with_anchor) : tiles_with_anchor + static_cast<int>(past / without);
    }
};

SEMICL_HOST_DEVICE GroupSteps group_steps(const Group& group, const TileShape& shape) {
    return {ceil_div(group.points(), shape.n) + int64_t{kPrologueCost},
            ceil_div(group.anchors(), shape.n) + int64_t{kPrologueCost}, ceil_div(group.anchors(), shape.m),
            m_tile_count(group, shape.m)};
}

// The steps [at, stop) of a worker, of `total` of all; none for a worker too many.
struct StreamKRange {
    int64_t at, stop;
};

SEMICL_HOST_DEVICE StreamKRange find_stream_k_range(int worker, int workers, int64_t total) {
    const int64_t busy = smaller(int64_t{workers}, (total + kMinStreamKRange - 1) / kMinStreamKRange);
    if (worker >= busy) return {total, total};
    return {total * worker / busy, total * (worker + 1) / busy};
}

// A M tile and where its steps lie among those of all, after its prologue cost.
struct TileSteps {
    MTile tile;
    int64_t first, end;
};

SEMICL_HOST_DEVICE TileSteps find_tile_steps(int64_t step, const Groups& groups, const int64_t* step_ends,
                                             const TileShape& shape) {
    const Place<int64_t> place = find_item(step, step_ends, groups.count);
    const Group group = find_group(groups, place.group);
    const GroupSteps steps = group_steps(group, shape);
    const int number = steps.tile_of(place.number);
    const int64_t group_begin = step - place.number;
    return {find_m_tile(group, number, shape.m), group_begin + steps.before(number) + kPrologueCost,
            group_begin + steps.before(number + 1)};
}

constexpr int kWhole = -1;

struct PartialTile {
    MTile tile;   // its columns are the partial tile's
    int partial;  // kWhole, or where it goes among the partial tiles
};

// Finds the next partial tile of a worker's Stream-K range, of which `done` steps (prologue costs too) are past, and
// counts its own; false where there is none. All else is found anew, so that a kernel holds one number between its
// partial tiles.
SEMICL_HOST_DEVICE bool next_partial_tile(PartialTile& part, int64_t& done, const Groups& groups,
                                          const int64_t* step_ends, const TileShape& shape, int worker, int workers) {
    const StreamKRange own = find_stream_k_range(worker, workers, step_ends[groups.count - 1]);
    while (own.at + done < own.stop) {
        const int64_t at = own.at + done;
        const TileSteps steps = find_tile_steps(at, groups, step_ends, shape);
        const int first = static_cast<int>(larger(at - steps.first, int64_t{0}));
        const int end = static_cast<int>(larger(smaller(own.stop, steps.end) - steps.first, int64_t{0}));
        done = steps.end - own.at;
        if (end == 0) continue;  // no more than its prologue cost
        part.tile = steps.tile;
        part.tile.column += first * shape.n;
        if (own.stop < steps.end) part.tile.column_end = steps.tile.column + end * shape.n;
        const bool opens = first == 0, ends = own.stop >= steps.end;
        part.partial = opens && ends ? kWhole : 2 * worker + opens;
        return true;
    }
    return false;
}

// ---- skipped columns -----------------------------------------------------------------------------------------------

struct Range {
    int low, high;
    SEMICL_HOST_DEVICE bool holds(int column) const { return column >= low && column < high; }
};

// Columns that the rows of a tile skip: all that any row skips lie in [any_masked, any_masked_end), every row
// skips all of [all_masked, all_masked_end).
struct Skips {
    int any_masked = 0x7fffffff, any_masked_end = -0x7fffffff;  // of no rows: nothing
    int all_masked = -0x7fffffff, all_masked_end = 0x7fffffff;  // and everything

    SEMICL_HOST_DEVICE void include(const Range& range) {
        if (range.low < range.high) {
            any_masked = smaller(any_masked, range.low);
            any_masked_end = larger(any_masked_end, range.high);
        }
        all_masked = larger(all_masked, range.low);
        all_masked_end = smaller(all_masked_end, range.high);
    }
};

// What becomes of steps that every row skips whole: nobody takes them, or all who stay take them without a mask, as
// steps that no row skips, but those that meet themselves there.
enum class AllMasked { passed_over, shared };

// The steps of `step` columns from `first` to `end`.
class Steps {
public:
    SEMICL_HOST_DEVICE Steps(int first, int end, int step, const Skips& skips,
                             AllMasked all_masked = AllMasked::passed_over)
        : first_(first), end_(end), step_(step), skips_(skips), all_masked_(all_masked) {}

    SEMICL_HOST_DEVICE int begin() const { return past_all_masked(first_); }
    SEMICL_HOST_DEVICE int after(int column) const {
        return end_ - column > step_ ? past_all_masked(column + step_) : end_;
    }
    SEMICL_HOST_DEVICE int end() const { return end_; }

    // Whether some pair of the step from `column` on is skipped or outside.
    SEMICL_HOST_DEVICE bool masked(int column) const {
        return end_ - column < step_ || (skips_.any_masked < column + step_ && skips_.any_masked_end > column);
    }
    // Whether the step is all in the shared range that every row skips, and outside of `own`.
    SEMICL_HOST_DEVICE bool shared(int column, const Range& own) const {
        return all_masked_ == AllMasked::shared && column >= skips_.all_masked &&
               column + step_ <= skips_.all_masked_end && (column >= own.high || column + step_ <= own.low);
    }

private:
    SEMICL_HOST_DEVICE int past_all_masked(int column) const {
        if (column >= end_) return end_;
        if (all_masked_ == AllMasked::shared) return column;
        if (skips_.all_masked > column || smaller(column + step_, end_) > skips_.all_masked_end) return column;
        return skips_.all_masked_end >= end_ ? end_ : first_ + (skips_.all_masked_end - first_) / step_ * step_;
    }

    int first_, end_, step_;
    Skips skips_;
    AllMasked all_masked_;
};

}  // namespace semicl::cuda
