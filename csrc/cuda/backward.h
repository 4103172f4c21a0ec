// The backward pass: TMA, wgmma and mbarriers, for 16-bit rows with a fixed maximum on sm_90a.
// dX_i = scale sum_j W_ij x_j (backward_epilogue.h), owned by rows.
//
// A tile of 128 rows of one group, anchors or not, stays in shared memory, 64 a multiplying group, with the sums of its
// gradient in registers, while the group's points (only its anchors, where the tile has none) stream past, 128 rows (64
// at 256 channels) a step. Blocks share the steps of all tiles out equally (tile_scheduler.h); the partial tiles of a
// tile that several of them had are summed afterwards, in their order. 4 n n C operations for a dense group. One warp
// loads (pipeline.h): the M tile, then the N tiles with their row scales. A group multiplies S = X_m X_n^T, both in
// shared memory; makes weights of it in registers; and multiplies those, as the left operand, by the same N tile, now
// with its channels along N: dX += W X_n. Nothing goes back to shared memory.
//
// Overlap: the products S of step k + 1 and dX of step k are issued one after the other; when S is there its
// exponentials are taken while dX runs. The two groups run apart, so that one's exponentials fall into the other's
// products as well.
//
// Invariants: a buffer is let go when the second product from it is done. The loader brings whatever rows follow the
// group's last: their weights are 0, and their values are cleared before the second product, as 0 times infinity would
// not be 0.
//
// Versions, none timed. 1: by warps, with mma.sync and cp.async. 2: by warp groups, two accumulators of S, the product
// of the next step ahead of the second product; ptxas serialised it, since a product stood under a condition. 3: the
// order above, one accumulator, and for what that saves twice the rows of the N tile. Prediction for an H100: 128 x 128
// similarities at C = 128 take 2048 clocks of tensor cores and 1024 of exponentials, overlapped: 75 to 80 % of the
// peak; at C = 64 the two are equal and 60 % are likely.
//
// 4 (this): blocks share the steps out equally, whatever the groups (tile_scheduler.h); before, a block had whole
// tiles. Counted, with 2.5 steps for a partial tile: of 132 blocks the one with the most work has 12 steps instead
// of 34.5 for a dense group of 4096 rows, 35.5 instead of 66.5 for 8192, 26 instead of 74 for four groups of 8192 with
// 500 anchors each; at 16384 the same 130.
//
// Considered and not built: a small group's log-sum-exps and gradient in one residency. The rows of up to 800 points
// fit at C = 128, but beside them neither their similarities nor the group's gradient in float32 (as many bytes again,
// and more), so no product is saved, only a launch and rows read from the cache; and a group would be one block's,
// where now all blocks share it.
#pragma once
#include "backward_epilogue.h"
#include "pipeline.h"

namespace semicl::cuda {

struct BackwardKernelArgument {
    TensorMap map, row_scale_map;  // of the rows, and of their scales
    BackwardArgument pairs;
};

// Calls `visit(part, steps)` for this block's partial tiles, in order.
template <class TILE, class Visit>
SEMICL_DEVICE void for_each_partial_tile(const BackwardArgument& a, const Visit& visit) {
    const TileShape shape{TILE::TileM::kRows, TILE::TileN::kRows};
    int64_t done = 0;
    for (PartialTile part; find_next(part, done, a, shape);) {
        visit(part, find_steps(a, part.tile, TILE::TileN::kRows));
    }
}

// The loading warp.
template <class TILE>
SEMICL_DEVICE void load_backward_tiles(const BackwardKernelArgument& a, uint32_t shared,
                                       Pipeline<TILE::kMStages> m_pipeline, Pipeline<TILE::kStages> n_pipeline) {
    for_each_partial_tile<TILE>(a.pairs, [&](const PartialTile& part, const Steps& steps) {
        if (arch::lane() != 0) return;
        const uint32_t filled = m_pipeline.begin_load(TILE::TileM::kBytes);
        load_tile<typename TILE::TileM>(shared + m_pipeline.buffer() * TILE::TileM::kBytes, a.map, part.tile.first,
                                        filled);
        m_pipeline.advance();
        for (int column = steps.begin(); column < steps.end(); column = steps.after(column), n_pipeline.advance()) {
            const uint32_t barrier = n_pipeline.begin_load(TILE::TileN::kBytes + TILE::kRowScaleBytes);
            load_tile<typename TILE::TileN>(shared + TILE::kStagesAt + n_pipeline.buffer() * TILE::TileN::kBytes, a.map,
                                            column, barrier);
            arch::copy_line(shared + TILE::kRowScalesAt + n_pipeline.buffer() * TILE::kRowScaleBytes, a.row_scale_map,
                            column, barrier);
        }
    });
}

// Clears the rows of a tile from `first` on; one warp group, on behalf of its own products.
template <class LAYOUT>
SEMICL_DEVICE void clear_rows(unsigned char* tile, int first) {
    const int thread = fresh_thread(), member = thread % kWarpGroup;
    constexpr int kChunks = LAYOUT::kChannels / 8;
    for (int i = member; i < (LAYOUT::kRows - first) * kChunks; i += kWarpGroup) {
        uint64_t* chunk = reinterpret_cast<uint64_t*>(tile + LAYOUT::chunk(first + i / kChunks, i % kChunks * 8));
        chunk[0] = chunk[1] = 0;
    }
    arch::fence_async();
    arch::sync_threads(1 + thread / kWarpGroup, kWarpGroup);
}

// Issues sums += weights times a tile: 64 rows of weights, as many channels of sums at a time as one instruction takes.
template <class ELEMENT, class LAYOUT>
SEMICL_DEVICE void issue_weights(float (&sums)[LAYOUT::kChannels / 2], const uint32_t (&weights)[LAYOUT::kRows / 4],
                                 uint32_t tile) {
    constexpr int kChannels = LAYOUT::kChannels, kTaken = kChannels < 128 ? kChannels : 128;
    tile = arch::opaque(tile);
    arch::fence_products();
#pragma unroll
    for (int row = 0; row < LAYOUT::kRows; row += 16)
#pragma unroll
        for (int channel = 0; channel < kChannels; channel += kTaken)
            arch::multiply_fragments<ELEMENT, kTaken>(reinterpret_cast<float (&)[kTaken / 2]>(sums[channel / 2]),
                                                      reinterpret_cast<const uint32_t (&)[4]>(weights[row / 4]),
                                                      channels_descriptor<LAYOUT>(tile, row, channel));
}

// A multiplying warp group, number `group`.
template <class ELEMENT, class TILE>
SEMICL_DEVICE void sum_weights(const BackwardArgument& a, unsigned char* shared, int group,
                               Pipeline<TILE::kMStages> m_pipeline, Pipeline<TILE::kStages> n_pipeline) {
    using TileM = typename TILE::TileM;
    using TileN = typename TILE::TileN;
    constexpr int kChannels = TileM::kChannels, kColumns = TileN::kRows;
    const uint32_t base = arch::address(shared);
    const int own_row = group * kGroupRows + arch::warp() % 4 * kWarpRows;

    for_each_partial_tile<TILE>(a, [&](const PartialTile& part, const Steps& steps) {
        const OwnRows own = own_rows(a, part.tile.first + own_row, part.tile.end);
        m_pipeline.wait_full();
        const uint32_t m_tile = base + m_pipeline.buffer() * TileM::kBytes;
        float sums[kChannels / 2] = {};
        float values[kColumns / 2];
        uint32_t weights[kColumns / 4];
        const auto issue_values = [&] {
            n_pipeline.wait_full();
            issue_products<ELEMENT, TileM, TileN>(values, m_tile, group * kGroupRows,
                                                  base + TILE::kStagesAt + n_pipeline.buffer() * TileN::kBytes);
            arch::commit_products();
        };
        const auto issue_sums = [&](int buffer) {
            issue_weights<ELEMENT, TileN>(sums, weights, base + TILE::kStagesAt + buffer * TileN::kBytes);
            arch::commit_products();
        };
        const auto weigh_values = [&](int column, int buffer) {
            const float* row_scale =
                reinterpret_cast<const float*>(shared + TILE::kRowScalesAt + buffer * TILE::kRowScaleBytes);
            weigh_step<kColumns>(values, a, own, column, steps, row_scale);
        };
        const auto pack_weights = [&] {
#pragma unroll
            for (int i = 0; i < kColumns / 4; ++i) weights[i] = ELEMENT::pack(values[2 * i], values[2 * i + 1]);
        };
        int column = steps.begin();
        if (column < steps.end()) {
            issue_values();
            arch::wait_products<0>();
            weigh_values(column, n_pipeline.buffer());
            pack_weights();
            for (int next = steps.after(column); next < steps.end(); column = next, next = steps.after(next)) {
                const int buffer = n_pipeline.buffer();
                n_pipeline.advance();
                issue_values();
                issue_sums(buffer);
                arch::wait_products<1>();
                weigh_values(next, n_pipeline.buffer());
                arch::wait_products<0>();
                n_pipeline.let_go(buffer);
                pack_weights();
            }
            // Of all steps the last alone may be ragged.
            if (steps.end() - column < kColumns)
                clear_rows<TileN>(shared + TILE::kStagesAt + n_pipeline.buffer() * TileN::kBytes, steps.end() - column);
            issue_sums(n_pipeline.buffer());
            arch::wait_products<0>();
            n_pipeline.let_go(n_pipeline.buffer());
            n_pipeline.advance();
        }
        m_pipeline.let_go(m_pipeline.buffer());
        m_pipeline.advance();
        write_gradient<TileM::kRows, kChannels>(sums, a, part.partial, own_row, own);
    });
}

template <class ELEMENT, int CHANNELS>
SEMICL_KERNEL(kKernelThreads, 1)
backward(SEMICL_CONSTANT BackwardKernelArgument a) {
    using Tile = BackwardTile<CHANNELS>;
    SEMICL_SHARED(shared);
    run_groups<Tile>(
        shared,
        [&](auto m_pipeline, auto n_pipeline) {
            load_backward_tiles<Tile>(a, arch::address(shared), m_pipeline, n_pipeline);
        },
        [&](int group, auto m_pipeline, auto n_pipeline) {
            sum_weights<ELEMENT, Tile>(a.pairs, shared, group, m_pipeline, n_pipeline);
        });
}

}  // namespace semicl::cuda
