// Stream-K ranges of steps over the M tiles of ragged groups, found on the device. docs/gpu.md tells and draws the
// schedule; semicl_kernels/triton_kernels/tile_scheduler.py has the same, and counts the steps.
//
// The steps of all M tiles, with a prologue cost before those of each, form one line cut into equal Stream-K ranges,
// one a worker. What of an M tile lies in one range is a partial tile. A whole one is written where it belongs. Of the
// others, the one by which worker w begins an M tile goes to place 2 w + 1, another to place 2 w.
//
// The triangle of the sums comes in blocks of columns, each with M tiles of its own: what a worker gives to later
// anchors is then no longer than a block.
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

// What the positives take from the weights of pairs (backward_epilogue.h): of rows i and j != i of one class range
// [class_begin, class_end), twice the pull of all its rows, 0 where they are no anchors. Null where there are none.
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

// A step of a block of columns.
struct Place {
    int block;
    int64_t number;  // within the block
};

// `ends` are the running totals of the steps of `count` blocks; there are more than `step` of them.
SEMICL_HOST_DEVICE Place find_place(int64_t step, const int64_t* ends, int count) {
    int low = 0, high = count - 1;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (ends[middle] <= step)
            low = middle + 1;
        else
            high = middle;
    }
    return {low, low > 0 ? step - ends[low - 1] : step};
}

// Rows [first, end) of a group, at most `rows` of them, against the columns [column, column_end).
struct MTile {
    int first, end, column, column_end, anchor_end;
};

// The sums are of anchors alone, which meet the points from their tile's first row on: the exponential of a pair serves
// both of its rows. The gradient is of all points; those of a tile without an anchor meet the anchors alone.
enum class Pass { sums, gradient };

// Blocks of columns of every group, and the columns of each, a multiple of TileShape::m; the gradient has one.
struct Columns {
    int blocks = 1, size = 0;
};

// Estimates, until a GPU has measured them: what a tile costs beside its steps, in steps, and the least that is worth a
// worker.
constexpr int kPrologueCost = 2, kMinStreamKRange = 4;

// The M tiles of a block and their steps, prologue costs included.
struct BlockTiles {
    Group group;
    TileShape shape;
    Pass pass;
    int column, column_end;  // of the block

    SEMICL_HOST_DEVICE BlockTiles(const Groups& groups, int block, const TileShape& of, Pass of_pass,
                                  const Columns& columns)
        : group(find_group(groups, block / columns.blocks)), shape(of), pass(of_pass) {
        column = smaller(block % columns.blocks * columns.size, group.points());
        column_end = pass == Pass::sums ? column + smaller(group.points() - column, columns.size) : group.points();
    }
    SEMICL_HOST_DEVICE int count() const {
        if (group.anchors() == 0 || column == column_end) return 0;
        return ceil_div(pass == Pass::sums ? smaller(group.anchors(), column_end) : group.points(), shape.m);
    }
    // The steps of the tiles before one.
    SEMICL_HOST_DEVICE int64_t before(int tile) const {
        const int64_t length = ceil_div(column_end - column, shape.n) + int64_t{kPrologueCost}, number = tile;
        const int64_t past = larger(tile - ceil_div(pass == Pass::sums ? column : group.anchors(), shape.m), 0);
        if (pass == Pass::sums) return number * length - past * (past - 1) / 2 * (shape.m / shape.n);
        return (number - past) * length + past * (ceil_div(group.anchors(), shape.n) + int64_t{kPrologueCost});
    }
    SEMICL_HOST_DEVICE int tile_of(int64_t step) const {
        int low = 0, high = count() - 1;
        while (low < high) {
            const int middle = high - (high - low) / 2;
            if (before(middle) <= step)
                low = middle;
            else
                high = middle - 1;
        }
        return low;
    }
    SEMICL_HOST_DEVICE MTile tile(int number) const {
        const int first = group.begin + number * shape.m;
        const int last = pass == Pass::sums ? group.anchor_end : group.end;
        const int end = last - first > shape.m ? first + shape.m : last;
        if (pass == Pass::gradient)
            return {first, end, group.begin, first < group.anchor_end ? group.end : group.anchor_end, group.anchor_end};
        const int block_end = group.begin + column_end;
        return {first, end, larger(first, group.begin + column), block_end, smaller(group.anchor_end, block_end)};
    }
};

// The steps [at, stop) of a worker, of `total` of all; none for a worker too many.
struct StreamKRange {
    int64_t at, stop;
};

SEMICL_HOST_DEVICE StreamKRange find_stream_k_range(int worker, int workers, int64_t total) {
    const int64_t busy = smaller(int64_t{workers}, (total + kMinStreamKRange - 1) / kMinStreamKRange);
    if (worker >= busy) return {total, total};
    return {total * worker / busy, total * (worker + 1) / busy};
}

constexpr int kWhole = -1, kNothing = -2;

struct PartialTile {
    MTile tile;         // its columns are the partial tile's
    int partial;        // kWhole, kNothing where there is no step of the tile, or where it goes among the partial tiles
    int column_block;   // of its group
    int column;         // the first one after the tile's rows, in the block
    bool enters_block;  // whether it is the worker's first of the block
};

// Finds the next partial tile of a worker's Stream-K range, of which `done` steps (prologue costs too) are past, and
// counts its own; false where there is none. All else is found anew, so that a kernel holds one number between its
// partial tiles.
SEMICL_HOST_DEVICE bool next_partial_tile(PartialTile& part, int64_t& done, const Groups& groups,
                                          const int64_t* step_ends, const TileShape& shape, Pass pass,
                                          const Columns& columns, int worker, int workers) {
    const int blocks = groups.count * columns.blocks;
    const StreamKRange own = find_stream_k_range(worker, workers, step_ends[blocks - 1]);
    const int64_t at = own.at + done;
    if (at >= own.stop) return false;
    const Place place = find_place(at, step_ends, blocks);
    const BlockTiles tiles(groups, place.block, shape, pass, columns);
    const int number = tiles.tile_of(place.number);
    // Of the tile's first step and its end, from `at` on.
    const int64_t tile_first = tiles.before(number) + kPrologueCost - place.number;
    const int64_t tile_end = tiles.before(number + 1) - place.number;
    const int first = static_cast<int>(larger(-tile_first, int64_t{0}));
    const int end = static_cast<int>(larger(smaller(own.stop - at, tile_end) - tile_first, int64_t{0}));
    const bool opens = first == 0, ends = own.stop - at >= tile_end;
    part.enters_block = done == 0 || number == 0;
    part.column_block = place.block % columns.blocks;
    part.partial = opens && ends ? kWhole : end == 0 ? kNothing : 2 * worker + opens;
    part.tile = tiles.tile(number);
    part.column = larger(part.tile.first + shape.m, part.tile.column);
    const int column = part.tile.column;
    part.tile.column += first * shape.n;
    if (!ends) part.tile.column_end = column + end * shape.n;
    done += tile_end;
    return true;
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
