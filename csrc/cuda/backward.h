// The backward kernel: dX_i = scale sum_j W_ij x_j by TMA and wgmma. docs/gpu.md has the schedule and pictures.
//
// An M tile of 128 rows of one group, anchors or not, stays in shared memory, 64 rows a multiplying group, with its
// sums in registers; N tiles of 128 rows (64 at 256 channels) stream past, of all points of the group or, where the M
// tile has no anchor, of its anchors. Blocks share the steps equally (tile_scheduler.h). 4 n n C operations for a dense
// group.
//
//     N tile (TMA) --wgmma with the M tile--> S = X_m X_n^T --backward_epilogue.h--> W       (registers)
//        |                                                                           |
//        +-------- wgmma: W the left operand, channels of the N tile along N --------+--> dX += W X_n
//
// The products S of step k + 1 and W X_n of step k are issued one after the other; when S is there, its exponentials
// are taken while W X_n runs.
//
// Invariants: the buffer of an N tile is released when the second product from it is done. The loader brings whatever
// rows follow the group's last: their weights are 0, and their values are cleared before the second product, as 0 times
// infinity would not be 0. Of all steps the last alone may be ragged. No product is issued under a condition.
#pragma once
#include "backward_epilogue.h"
#include "pipeline.h"

namespace semicl::cuda {

struct BackwardKernelArgument {
    TensorMap map, row_scale_map;  // of the rows, and of their scales
    BackwardArgument pairs;
};

// Calls `visit(part, steps)` for the partial tiles of this block that have a step, in order.
template <class TILE, class Visit>
SEMICL_DEVICE void for_each_gradient_tile(const BackwardArgument& a, const Visit& visit) {
    for_each_partial_tile<TILE>(Pass::gradient, a.groups, {}, a.step_ends, [&](const PartialTile& part) {
        if (part.partial != kNothing) visit(part, find_steps(a, part.tile, TILE::TileN::kRows));
    });
}

// The loading warp.
template <class TILE>
SEMICL_DEVICE void load_backward_tiles(const BackwardKernelArgument& a, uint32_t shared,
                                       Pipeline<TILE::kMStages> m_pipeline, Pipeline<TILE::kStages> n_pipeline) {
    for_each_gradient_tile<TILE>(a.pairs, [&](const PartialTile& part, const Steps& steps) {
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

    for_each_gradient_tile<TILE>(a, [&](const PartialTile& part, const Steps& steps) {
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
