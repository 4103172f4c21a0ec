// Who does what: the work of ragged groups laid out as one row of items, without a look from the host.
//
// A *panel* is a run of `span` rows of one group, a *panel pair* one panel of anchors against one panel of the group's
// points: the item of the forward pass. A *row tile* is a few rows of one group: the item of the backward pass. Each
// group has as many as its offsets and anchors say, none where it has no anchor. Groups are taken in a given order
// (most work first); the running totals of their items are found once on the device, and block b of a persistent grid
// takes the items b, b + grid, ..., finding the group of each by bisection.
//
// Where the skipped ranges are mutual, the pairs of panels of anchors form a triangle: panel P of anchors meets the
// panels P, P + 1, ... and gives both sides their sums. Elsewhere it meets all panels of its group.
//
// Row numbers fit an int: the caller takes no more than kMostRows rows, so a tile past the last row does not overflow.
#pragma once
#include "host_device.h"

namespace semicl::cuda {

constexpr int kMostRows = 0x7fffffff - 4096;

SEMICL_HOST_DEVICE int smaller(int a, int b) { return a < b ? a : b; }
SEMICL_HOST_DEVICE int larger(int a, int b) { return a > b ? a : b; }
SEMICL_HOST_DEVICE int ceil_div(int a, int b) { return a / b + (a % b != 0); }

// Packed rows cut into groups [offsets[g], offsets[g + 1]), as semicl_kernels/backends/base.py says.
struct Groups {
    const int *offsets, *anchors, *skip_low, *skip_high;
    const int* order;  // of the groups' work
    int count;
    bool mutual;
};

struct Group {
    int begin, end, anchor_end;
    SEMICL_HOST_DEVICE int points() const { return end - begin; }
    SEMICL_HOST_DEVICE int anchors() const { return anchor_end - begin; }
};

// The group that is taken as number `rank`.
SEMICL_HOST_DEVICE Group group_at(const Groups& groups, int rank) {
    const int g = groups.order[rank];
    const int begin = groups.offsets[g];
    return {begin, groups.offsets[g + 1], begin + groups.anchors[g]};
}

SEMICL_HOST_DEVICE int panel_pair_count(const Group& group, int span, bool triangle) {
    const int owned = ceil_div(group.anchors(), span), all = ceil_div(group.points(), span);
    return owned * all - (triangle ? owned * (owned - 1) / 2 : 0);
}

SEMICL_HOST_DEVICE int row_tile_count(const Group& group, int rows) {
    return group.anchors() > 0 ? ceil_div(group.points(), rows) : 0;
}

struct Item {
    int rank, number;  // the group's place in the order, and the item's number within the group
};

// `ends` are the running totals of the groups' items; there are more than `item` of them.
SEMICL_HOST_DEVICE Item find_item(int item, const int* ends, int groups) {
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

// Panel p of anchors [owned, owned_end) against panel q of points [streamed, streamed_end).
struct PanelPair {
    int p, q;
    int owned, owned_end, streamed, streamed_end;
    int given_end;  // streamed anchors before it are given their sums by this pair, where pairs form a triangle

    // The first row that streams past the owned tile from row `tile` on.
    SEMICL_HOST_DEVICE int first_streamed(int tile, bool triangle) const {
        return triangle && p == q ? tile : streamed;
    }
};

SEMICL_HOST_DEVICE PanelPair find_panel_pair(const Group& group, int number, int span, bool triangle) {
    const int panels = ceil_div(group.points(), span);
    int p = 0, q = 0;
    if (triangle) {
        for (; number >= panels - p; ++p) number -= panels - p;
        q = p + number;
    } else {
        p = number / panels;
        q = number % panels;
    }
    const int owned = group.begin + p * span, streamed = group.begin + q * span;
    const int streamed_end = group.end - streamed > span ? streamed + span : group.end;
    return {p,
            q,
            owned,
            group.anchor_end - owned > span ? owned + span : group.anchor_end,
            streamed,
            streamed_end,
            smaller(group.anchor_end, streamed_end)};
}

// Rows [first, end) of a group, at most `rows` of them, against the columns [column, column_end).
struct RowTile {
    int first, end, column, column_end, anchor_end;
};

SEMICL_HOST_DEVICE RowTile find_row_tile(const Group& group, int number, int rows) {
    const int first = group.begin + number * rows;
    const int end = group.end - first > rows ? first + rows : group.end;
    // Points that are no anchors have pairs with anchors alone.
    return {first, end, group.begin, first < group.anchor_end ? group.end : group.anchor_end, group.anchor_end};
}

struct Range {
    int low, high;
    SEMICL_HOST_DEVICE bool holds(int column) const { return column >= low && column < high; }
};

// Columns that the rows of a tile skip: all that any row skips lie in the hull, every row skips all of the core.
struct Skips {
    int hull = 0x7fffffff, hull_end = -0x7fffffff;  // of no rows: nothing
    int core = -0x7fffffff, core_end = 0x7fffffff;  // and everything

    SEMICL_HOST_DEVICE void include(const Range& range) {
        if (range.low < range.high) {
            hull = smaller(hull, range.low);
            hull_end = larger(hull_end, range.high);
        }
        core = larger(core, range.low);
        core_end = smaller(core_end, range.high);
    }
};

// Of a tile any of whose rows may be skipped by any column.
SEMICL_HOST_DEVICE Skips unknown_skips() { return {-0x7fffffff, 0x7fffffff, 0x7fffffff, -0x7fffffff}; }

// The steps of `step` columns from `first` to `end`, less those that lie in the core.
class Steps {
public:
    SEMICL_HOST_DEVICE Steps(int first, int end, int step, const Skips& skips)
        : first_(first), end_(end), step_(step), skips_(skips) {}

    SEMICL_HOST_DEVICE int begin() const { return past_core(first_); }
    SEMICL_HOST_DEVICE int after(int column) const { return end_ - column > step_ ? past_core(column + step_) : end_; }
    SEMICL_HOST_DEVICE int end() const { return end_; }

    // Whether some pair of the step from `column` on is skipped or outside.
    SEMICL_HOST_DEVICE bool masked(int column) const {
        return end_ - column < step_ || (skips_.hull < column + step_ && skips_.hull_end > column);
    }

private:
    SEMICL_HOST_DEVICE int past_core(int column) const {
        if (column >= end_) return end_;
        if (skips_.core > column || smaller(column + step_, end_) > skips_.core_end) return column;
        return skips_.core_end >= end_ ? end_ : first_ + (skips_.core_end - first_) / step_ * step_;
    }

    int first_, end_, step_;
    Skips skips_;
};

}  // namespace semicl::cuda
