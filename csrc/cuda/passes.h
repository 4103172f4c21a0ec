// The passes over rows and groups alone: packing, counting work, joining slots, factors of the backward pass.
#pragma once
#include "formats.h"
#include "maxima.h"
#include "sums.h"
#include "weights.h"
#include "work.h"

namespace semicl::cuda {

constexpr int kPassThreads = 256;
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// ---- packing --------------------------------------------------------------------------------------------------------

struct PackArgument {
    const void* rows;  // (M, channels) in the format's dtype, as torch holds them
    int64_t count;
    int channels, padded;
    uint16_t* packed;  // (planes, M, padded), written
};

// Splits rows into planes and pads their channels with zeros. Two channels a thread.
template <class FORMAT>
SEMICL_KERNEL(kPassThreads, 4)
pack_rows(SEMICL_CONSTANT PackArgument a) {
    const auto rows = PlainRows<FORMAT>::at(a.rows, a.channels);
    const int64_t pairs = a.count * (a.padded / 2), stride = static_cast<int64_t>(machine::blocks()) * kPassThreads;
    for (int64_t i = static_cast<int64_t>(machine::block()) * kPassThreads + machine::thread(); i < pairs;
         i += stride) {
        const int64_t row = i / (a.padded / 2);
        const int channel = static_cast<int>(i % (a.padded / 2)) * 2;
        uint32_t words[FORMAT::kPlanes];
        FORMAT::split(channel < a.channels ? rows.get(row, channel) : 0,
                      channel + 1 < a.channels ? rows.get(row, channel + 1) : 0, words);
        uint32_t* packed = reinterpret_cast<uint32_t*>(a.packed);
#pragma unroll
        for (int plane = 0; plane < FORMAT::kPlanes; ++plane) packed[plane * pairs + i] = words[plane];
    }
}

// ---- counting -------------------------------------------------------------------------------------------------------

struct CountArgument {
    Groups groups;
    int span;
    bool triangle;
    int tile_rows;
    int *pair_ends, *tile_ends;  // (G,), written: running totals in the order of the groups
};

// The running total over the block's threads of their values.
SEMICL_DEVICE int running_total(int value, int* warp_totals) {
    const int lane = machine::lane(), warp = machine::thread() / kWarp;
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) {
        const int before = machine::shuffle_up(value, distance);
        if (lane >= distance) value += before;
    }
    machine::sync_block();  // the totals of an earlier call have been read
    if (lane == kWarp - 1) warp_totals[warp] = value;
    machine::sync_block();
    for (int earlier = 0; earlier < warp; ++earlier) value += warp_totals[earlier];
    return value;
}

// One block counts the items of every group.
inline constexpr int kCountSharedBytes = 2 * 4 * (kPassThreads / kWarp) + 2 * 4;

SEMICL_KERNEL(kPassThreads, 1)
count_work(SEMICL_CONSTANT CountArgument a) {
    SEMICL_SHARED(shared);
    int* const warp_totals = reinterpret_cast<int*>(shared);
    int* const so_far = warp_totals + 2 * (kPassThreads / kWarp);
    int pairs = 0, tiles = 0;
    for (int first = 0; first < a.groups.count; first += kPassThreads) {
        const int rank = first + machine::thread();
        const bool inside = rank < a.groups.count;
        const Group group = inside ? group_at(a.groups, rank) : Group{0, 0, 0};
        const int pair_end = pairs + running_total(panel_pair_count(group, a.span, a.triangle), warp_totals);
        const int tile_end =
            tiles + running_total(row_tile_count(group, a.tile_rows), warp_totals + kPassThreads / kWarp);
        if (inside) {
            a.pair_ends[rank] = pair_end;
            a.tile_ends[rank] = tile_end;
        }
        if (machine::thread() == kPassThreads - 1) {
            so_far[0] = pair_end;
            so_far[1] = tile_end;
        }
        machine::sync_block();
        pairs = so_far[0];
        tiles = so_far[1];
    }
}

// ---- log-sum-exps and factors ---------------------------------------------------------------------------------------

struct RowsArgument {
    Groups groups;
    const int* tile_ends;
    int tile_rows;
    int count;  // M
    int span;
    float shift;
    const float* slots;       // (slots, M), of the forward pass
    float* lse;               // (M,) base e; the forward pass writes those of the anchors
    const float* grad;        // (M,): by the log-sum-exps
    const float* peak;        // the largest |grad|, or null
    float *factors, *shifts;  // (M,), written for the rows of groups with an anchor
};

// Calls `visit(row, group, tile)` for every row of a group with an anchor.
template <class Visit>
SEMICL_DEVICE void for_each_row(const RowsArgument& a, const Visit& visit) {
    const int items = a.tile_ends[a.groups.count - 1];
    for (int number = machine::block(); number < items; number += machine::blocks()) {
        const Item item = find_item(number, a.tile_ends, a.groups.count);
        const Group group = group_at(a.groups, item.rank);
        const RowTile tile = find_row_tile(group, item.number, a.tile_rows);
        for (int row = tile.first + machine::thread(); row < tile.end; row += kPassThreads) visit(row, group);
    }
}

// Adds the slots of every anchor up.
template <class Maximum>
SEMICL_KERNEL(kPassThreads, 4)
join_slots(SEMICL_CONSTANT RowsArgument a) {
    for_each_row(a, [&](int row, const Group& group) {
        if (row >= group.anchor_end) return;
        using Sum = typename Maximum::Sum;
        Sum total = Sum::of(a.slots[row]);
        const int panels = ceil_div(group.points(), a.span);
        for (int q = 1; q < panels; ++q) total.merge(Sum::of(a.slots[static_cast<int64_t>(q) * a.count + row]));
        a.lse[row] = kLn2 * (a.shift + total.log2());
    });
}

// Writes what weights.h says of every row.
template <class Maximum>
SEMICL_KERNEL(kPassThreads, 4)
row_factors(SEMICL_CONSTANT RowsArgument a) {
    for_each_row(a, [&](int row, const Group& group) {
        const float log2_sum = row < group.anchor_end ? a.lse[row] * kLog2E : -INFINITY;
        const bool gives = log2_sum != -INFINITY;
        float factor = gives ? a.grad[row] : 0;
        if (a.peak) factor = *a.peak == 0 ? 0 : factor / weights_divisor(a.peak);
        if (Maximum::kKnown)
            a.factors[row] = gives ? factor * machine::exp2(a.shift - log2_sum) : 0;
        else {
            a.factors[row] = factor;
            a.shifts[row] = gives ? log2_sum : INFINITY;
        }
    });
}

}  // namespace semicl::cuda
