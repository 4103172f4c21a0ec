// The passes over rows and groups alone: counting work, joining partials, row scales of the backward pass.
#pragma once
#include "backward_epilogue.h"
#include "forward_epilogue.h"
#include "tile_scheduler.h"

namespace semicl::cuda {

constexpr int kPassThreads = 256;
constexpr int kPassRows = 64;  // of one group, for one block; tile_rows of Pairs in backends/cuda.py is the same number
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// ---- counting -------------------------------------------------------------------------------------------------------

struct CountArgument {
    Groups groups;
    int row_block_size;
    TileShape shape;     // of the gradient's tiles
    int* pair_ends;      // (G,), written: running totals of the groups' row block pairs
    int64_t* step_ends;  // (G,), likewise of the steps of the gradient's tiles
    int* tile_ends;      // (G,), likewise of tiles of kPassRows rows
};

// The running total over the block's threads of their values.
SEMICL_DEVICE int64_t running_total(int64_t value, int64_t* warp_totals) {
    const int lane = arch::lane(), warp = arch::thread() / kWarp;
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) {
        const int64_t before = arch::shuffle_up(value, distance);
        if (lane >= distance) value += before;
    }
    arch::sync_block();  // the totals of an earlier call have been read
    if (lane == kWarp - 1) warp_totals[warp] = value;
    arch::sync_block();
    for (int earlier = 0; earlier < warp; ++earlier) value += warp_totals[earlier];
    return value;
}

// One block counts the work of every group.
constexpr int kCounted = 3, kPassWarps = kPassThreads / kWarp;  // pairs, steps and tiles
constexpr int kCountSharedBytes = 8 * kCounted * (kPassWarps + 1);

SEMICL_KERNEL(kPassThreads, 1)
count_work(SEMICL_CONSTANT CountArgument a) {
    SEMICL_SHARED(shared);
    int64_t* const so_far = reinterpret_cast<int64_t*>(shared);
    int64_t* const warp_totals = so_far + kCounted;
    int64_t before[kCounted] = {};
    for (int first = 0; first < a.groups.count; first += kPassThreads) {
        const int g = first + arch::thread();
        const bool inside = g < a.groups.count;
        const Group group = inside ? find_group(a.groups, g) : Group{0, 0, 0};
        const GroupSteps steps = group_steps(group, a.shape);
        int64_t ends[kCounted] = {row_block_pair_count(group, a.row_block_size), steps.before(steps.tiles),
                                  m_tile_count(group, kPassRows)};
#pragma unroll
        for (int i = 0; i < kCounted; ++i) ends[i] = before[i] + running_total(ends[i], warp_totals + i * kPassWarps);
        if (inside) {
            a.pair_ends[g] = static_cast<int>(ends[0]);
            a.step_ends[g] = ends[1];
            a.tile_ends[g] = static_cast<int>(ends[2]);
        }
        if (arch::thread() == kPassThreads - 1)
            for (int i = 0; i < kCounted; ++i) so_far[i] = ends[i];
        arch::sync_block();
        for (int i = 0; i < kCounted; ++i) before[i] = so_far[i];
    }
}

// ---- log-sum-exps and row scales
// ---------------------------------------------------------------------------------------

struct RowsArgument {
    Groups groups;
    const int* tile_ends;  // of count_work
    int count;             // M
    int row_block_size;
    float shift;
    const float* partials;     // (partials, M), of the forward pass
    float* lse;                // (M,) base e; the forward pass writes those of the anchors
    const float* grad;         // (M,): by the log-sum-exps
    const float* grad_absmax;  // the largest |grad|, or null
    float* row_scale;          // (M,), written for the rows of groups with an anchor
};

// Calls `visit(row, group, tile)` for every row of a group with an anchor.
template <class Visit>
SEMICL_DEVICE void for_each_row(const RowsArgument& a, const Visit& visit) {
    const int items = a.tile_ends[a.groups.count - 1];
    for (int number = arch::block(); number < items; number += arch::blocks()) {
        const Item item = find_item(number, a.tile_ends, a.groups.count);
        const Group group = find_group(a.groups, item.group);
        const MTile tile = find_m_tile(group, item.number, kPassRows);
        for (int row = tile.first + arch::thread(); row < tile.end; row += kPassThreads) visit(row, group);
    }
}

// Adds the partials of every anchor up.
SEMICL_KERNEL(kPassThreads, 4)
join_partials(SEMICL_CONSTANT RowsArgument a) {
    for_each_row(a, [&](int row, const Group& group) {
        if (row >= group.anchor_end) return;
        float total = a.partials[row];
        const int row_blocks = ceil_div(group.points(), a.row_block_size);
        for (int q = 1; q < row_blocks; ++q) total += a.partials[static_cast<int64_t>(q) * a.count + row];
        a.lse[row] = kLn2 * (a.shift + arch::log2(total));
    });
}

// Writes what backward_epilogue.h says of every row.
SEMICL_KERNEL(kPassThreads, 4)
row_scales(SEMICL_CONSTANT RowsArgument a) {
    for_each_row(a, [&](int row, const Group& group) {
        const float log2_sum = row < group.anchor_end ? a.lse[row] * kLog2E : -INFINITY;
        const bool gives = log2_sum != -INFINITY;
        float factor = gives ? a.grad[row] : 0;
        if (a.grad_absmax) factor = *a.grad_absmax == 0 ? 0 : factor / weights_divisor(a.grad_absmax);
        a.row_scale[row] = gives ? factor * arch::exp2(a.shift - log2_sum) : 0;
    });
}

// ---- gradients in partial tiles
// --------------------------------------------------------------------------------------------

struct JoinArgument {
    Groups groups;
    const int64_t* step_ends;
    TileShape shape;
    int workers, channels;
    const float* partial_tiles;  // (2 workers, shape.m, channels), of the gradient's passes
    float* gradient;             // (M, channels), written: rows of tiles that are in partial tiles
};

constexpr int kJoinBlocks = 16;  // for each worker: what one block would take many rounds of waiting for memory

// Sums the partial tiles of the tile that a worker opens and others end.
SEMICL_KERNEL(kPassThreads, 4)
join_partial_tiles(SEMICL_CONSTANT JoinArgument a) {
    const int worker = arch::block() / kJoinBlocks, part = arch::block() % kJoinBlocks;
    const OpenTile open = find_open_tile(a.groups, a.step_ends, a.shape, worker, a.workers);
    if (open.last == worker) return;
    constexpr int kAtOnce = 4;
    const int64_t size = int64_t{a.shape.m} * a.channels;
    const int count = (open.tile.end - open.tile.first) * a.channels;
    float* const gradient = a.gradient + static_cast<int64_t>(open.tile.first) * a.channels;
    for (int i = kAtOnce * (part * kPassThreads + arch::thread()); i < count;
         i += kAtOnce * kJoinBlocks * kPassThreads) {
        const auto part = [&](int partial) {
            return *reinterpret_cast<const Floats<kAtOnce>*>(a.partial_tiles + partial * size + i);
        };
        Floats<kAtOnce> sum = part(2 * worker + 1);
        for (int other = worker + 1; other <= open.last; ++other) {
            const Floats<kAtOnce> more = part(2 * other);
#pragma unroll
            for (int k = 0; k < kAtOnce; ++k) sum.values[k] += more.values[k];
        }
        *reinterpret_cast<Floats<kAtOnce>*>(gradient + i) = sum;
    }
}

}  // namespace semicl::cuda
