// The forward kernel: partial sums of exponentials by TMA and wgmma. docs/gpu.md has the schedule and pictures.
//
// An M tile of anchors stays in shared memory; the N tiles of the points from its first row on stream past it, 128 x
// 128, one exponential a pair (forward_epilogue.h). Blocks share the steps equally (tile_scheduler.h).
//
//     N tile (TMA) --wgmma with the M tile--> S = X_n X_m^T --ex2--> sums   (registers)
//
// Of three warp groups one warp loads; the other two groups multiply 64 rows of the N tile each (pipeline.h). A group
// issues the product of the next tile before it takes the exponentials of this one, in two accumulators.
//
// Invariants: a warp releases the buffer of an N tile when its product from it is done, and that of an M tile when the
// last product with it is. All groups derive tiles and steps from the same arrays, so loads and waits correspond one to
// one. No product is issued under a condition: ptxas would serialize it.
#pragma once
#include "forward_epilogue.h"
#include "pipeline.h"

namespace semicl::cuda {

struct ForwardKernelArgument {
    TensorMap map;  // of the rows
    ForwardArgument pairs;
};

// Calls `visit(part, steps)` for the partial tiles of this block, in order.
template <class TILE, class Visit>
SEMICL_DEVICE void for_each_sums_tile(const ForwardArgument& a, const Visit& visit) {
    for_each_partial_tile<TILE>(Pass::sums, a.groups, a.columns, a.step_ends, [&](const PartialTile& part) {
        visit(part, Steps(part.tile.column, part.tile.column_end, TILE::TileN::kRows,
                          find_skips(a.groups, part.tile.first, part.tile.end)));
    });
}

// The loading warp.
template <class TILE>
SEMICL_DEVICE void load_forward_tiles(const ForwardKernelArgument& a, uint32_t shared,
                                      Pipeline<TILE::kMStages> m_pipeline, Pipeline<TILE::kStages> n_pipeline) {
    for_each_sums_tile<TILE>(a.pairs, [&](const PartialTile& part, const Steps& steps) {
        if (arch::lane() != 0) return;
        const uint32_t filled = m_pipeline.begin_load(TILE::TileM::kBytes);
        load_tile<typename TILE::TileM>(shared + m_pipeline.buffer() * TILE::TileM::kBytes, a.map, part.tile.first,
                                        filled);
        m_pipeline.advance();
        for (int n = steps.begin(); n < steps.end(); n = steps.after(n), n_pipeline.advance()) {
            const uint32_t barrier = n_pipeline.begin_load(TILE::TileN::kBytes);
            load_tile<typename TILE::TileN>(shared + TILE::kStagesAt + n_pipeline.buffer() * TILE::TileN::kBytes, a.map,
                                            n, barrier);
        }
    });
}

// A multiplying warp group, number `group`.
template <class ELEMENT, class TILE>
SEMICL_DEVICE void sum_tiles(const ForwardArgument& a, unsigned char* shared, int group,
                             Pipeline<TILE::kMStages> m_pipeline, Pipeline<TILE::kStages> n_pipeline) {
    using TileM = typename TILE::TileM;
    using TileN = typename TILE::TileN;
    constexpr int kColumns = TileM::kRows;
    const uint32_t base = arch::address(shared);
    const int warp = group * 4 + arch::warp() % 4, member = arch::thread() - kWarpGroup;
    float* const shared_sums = reinterpret_cast<float*>(shared + TILE::kSumsAt);

    for_each_sums_tile<TILE>(a, [&](const PartialTile& part, const Steps& steps) {
        const MTile& tile = part.tile;
        if (part.enters_block) {
            for (int row = part.column + member; row < tile.anchor_end; row += kProducts * kWarpGroup)
                *a.given_to(row) = 0;
            arch::sync_threads(1, kProducts * kWarpGroup);
        }
        m_pipeline.wait_full();
        const uint32_t m_tile = base + m_pipeline.buffer() * TileM::kBytes;
        float sums[kColumns / 4] = {};
        float even[kColumns / 2], odd[kColumns / 2];
        const auto issue = [&](float (&products)[kColumns / 2]) {
            n_pipeline.wait_full();
            issue_products<ELEMENT, TileN, TileM>(
                products, base + TILE::kStagesAt + n_pipeline.buffer() * TileN::kBytes, group * kGroupRows, m_tile);
            arch::commit_products();
        };
        const auto take = [&](const float (&products)[kColumns / 2], int n, int buffer) {
            n_pipeline.let_go(buffer);
            const Step step{n + warp * kWarpRows, steps.end(), tile.first, tile.end};
            take_products<kColumns>(sums, products, a, step, n, tile.anchor_end, steps.masked(n));
        };
        int n = steps.begin();
        // With the products of `n` on their way into `products`: issues those of the next tile and takes these. Returns
        // whether there was a next. The last step is written apart: wgmma must not be issued under a condition.
        const auto advance = [&](float (&products)[kColumns / 2], float (&next)[kColumns / 2]) {
            const int next_n = steps.after(n), buffer = n_pipeline.buffer();
            n_pipeline.advance();
            if (next_n >= steps.end()) {
                arch::wait_products<0>();
                take(products, n, buffer);
                return false;
            }
            issue(next);
            arch::wait_products<1>();
            take(products, n, buffer);
            n = next_n;
            return true;
        };
        if (n < steps.end()) {
            issue(even);
            while (advance(even, odd) && advance(odd, even)) continue;
        }
        m_pipeline.let_go(m_pipeline.buffer());
        m_pipeline.advance();
        store_sums<kColumns>(sums, shared_sums + warp * kColumns);
        arch::sync_threads(1, kProducts * kWarpGroup);
        if (part.partial != kNothing && member < tile.end - tile.first)
            write_sum<kColumns, kReaders>(shared_sums, a, part, member);
        arch::sync_threads(1, kProducts * kWarpGroup);
    });
}

template <class ELEMENT, int CHANNELS>
SEMICL_KERNEL(kKernelThreads, 1)
forward(SEMICL_CONSTANT ForwardKernelArgument a) {
    using Tile = ForwardTile<CHANNELS>;
    SEMICL_SHARED(shared);
    run_groups<Tile>(
        shared,
        [&](auto m_pipeline, auto n_pipeline) {
            load_forward_tiles<Tile>(a, arch::address(shared), m_pipeline, n_pipeline);
        },
        [&](int group, auto m_pipeline, auto n_pipeline) {
            sum_tiles<ELEMENT, Tile>(a.pairs, shared, group, m_pipeline, n_pipeline);
        });
}

}  // namespace semicl::cuda
