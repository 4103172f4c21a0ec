// The forward kernel: partial sums of exponentials by TMA and wgmma. docs/gpu.md has the schedule and pictures.
//
// One item is a row block pair (P, Q). An M tile of P stays in shared memory; the N tiles of Q stream past it, 128 x
// 128, one exponential a pair (forward_epilogue.h).
//
//     N tile (TMA) --wgmma with the M tile--> S = X_n X_m^T --ex2--> sums   (registers) --> partials
//
// Of three warp groups one warp loads; the other two groups multiply 64 rows of the N tile each (pipeline.h). A group
// issues the product of the next tile before it takes the exponentials of this one, in two accumulators.
//
// Invariants: a warp releases the buffer of an N tile when its product from it is done, and that of an M tile when the
// last product with it is. All groups derive items and steps from the same arrays, so loads and waits correspond one to
// one. No product is issued under a condition: ptxas would serialise it.
#pragma once
#include "forward_epilogue.h"
#include "pipeline.h"

namespace semicl::cuda {

struct ForwardKernelArgument {
    TensorMap map;  // of the rows
    ForwardArgument pairs;
};

// Calls `visit(pair, m, m_end, steps)` for the M tiles of this block's items, in order.
template <class TILE, class Visit>
SEMICL_DEVICE void for_each_m_tile(const ForwardArgument& a, const Visit& visit) {
    const int items = a.pair_ends[a.groups.count - 1];
    for (int number = arch::block(); number < items; number += arch::blocks()) {
        const Item item = find_item(number, a.pair_ends, a.groups.count);
        const RowBlockPair pair = find_row_block_pair(find_group(a.groups, item.group), item.number, a.row_block_size);
        for (int m = pair.m_begin; m < pair.m_end; m += TILE::TileM::kRows) {
            const int m_end = smaller(m + TILE::TileM::kRows, pair.m_end);
            visit(pair, m, m_end,
                  Steps(pair.first_n(m), pair.n_end, TILE::TileN::kRows, find_skips(a.groups, m, m_end)));
        }
    }
}

// The loading warp.
template <class TILE>
SEMICL_DEVICE void load_forward_tiles(const ForwardKernelArgument& a, uint32_t shared,
                                      Pipeline<TILE::kMStages> m_pipeline, Pipeline<TILE::kStages> n_pipeline) {
    for_each_m_tile<TILE>(a.pairs, [&](const RowBlockPair&, int m, int, const Steps& steps) {
        if (arch::lane() != 0) return;
        const uint32_t filled = m_pipeline.begin_load(TILE::TileM::kBytes);
        load_tile<typename TILE::TileM>(shared + m_pipeline.buffer() * TILE::TileM::kBytes, a.map, m, filled);
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

    for_each_m_tile<TILE>(a, [&](const RowBlockPair& pair, int m, int m_end, const Steps& steps) {
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
            const Step step{n + warp * kWarpRows, pair.n_end, m, m_end};
            take_products<kColumns>(sums, products, a, pair, step, n, steps.masked(n));
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
        // Sums of all warps are there, and what was given to this tile.
        arch::sync_threads(1, kProducts * kWarpGroup);
        if (m + member < m_end) write_partial<kColumns, kReaders>(shared_sums, a, pair, m + member, member);
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
