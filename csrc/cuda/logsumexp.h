// The forward pass by warps: mma.sync, and cp.async two steps deep. For every chip, format and kind of groups.
//
// One item is a panel pair (work.h). A tile of P, the owned one, stays in shared memory; the tiles of Q stream past it,
// S = X_streamed X_owned^T, one exponential a similarity (one and a half with a running maximum); see sums.h for where
// the sums go. Each warp multiplies sixteen streamed rows by the whole owned tile.
//
// Data flow of one step: global --cp.async--> stage --ldmatrix--> fragments --mma.sync--> S (registers) --ex2--> sums
// (registers); the copy of the next step runs meanwhile. One barrier a step: it tells that the stage is filled (each
// thread has waited for its own copies) and that all warps are done with the stage that is filled next.
//
// Version 1, the simplest that is right, never timed. Prediction for an A100 (2048 FLOP and 16 exponentials a clock and
// multiprocessor), bfloat16, C = 128, dense: a 64 x 64 tile takes 512 clocks of tensor cores and 256 of exponentials;
// two blocks share a multiprocessor and overlap them in part, so half of the peak executed.
#pragma once
#include "multiply.h"
#include "sums.h"

namespace semicl::cuda {

template <class FORMAT, int CHANNELS, class Maximum>
SEMICL_KERNEL((WarpSumsTile<FORMAT, CHANNELS>::kThreads), kBlocksPerMultiprocessor)
warp_sums(SEMICL_CONSTANT SumsArgument a) {
    using Tile = WarpSumsTile<FORMAT, CHANNELS>;
    using Owned = typename Tile::Owned;
    using Streamed = typename Tile::Streamed;
    using Sum = typename Maximum::Sum;
    SEMICL_SHARED(shared);
    const uint32_t owned_tile = machine::address(shared), stages = owned_tile + Tile::kStagesAt;
    Sum* const shared_sums = reinterpret_cast<Sum*>(shared + Tile::kSumsAt);
    const int warp = machine::warp();

    const int items = a.pair_ends[a.groups.count - 1];
    for (int number = machine::block(); number < items; number += machine::blocks()) {
        const Item item = find_item(number, a.pair_ends, a.groups.count);
        const PanelPair pair = find_panel_pair(find_group(a.groups, item.group), item.number, a.span, a.triangle);
        for (int owned = pair.owned; owned < pair.owned_end; owned += Owned::kRows) {
            const int owned_end = smaller(owned + Owned::kRows, pair.owned_end);
            const Steps steps(pair.first_streamed(owned, a.triangle), pair.streamed_end, Streamed::kRows,
                              find_skips(a.groups, owned, owned_end));
            const auto copy_streamed = [&](int tile, int stage) {
                if (tile < steps.end())
                    copy_rows<FORMAT, Streamed, Tile::kThreads>(stages + stage * Tile::kStageBytes, a.rows, a.count,
                                                                tile, steps.end());
                machine::commit_copies();
            };
            // The sums of the tile before have been read, even where nothing passes this one.
            machine::sync_block();
            copy_rows<FORMAT, Owned, Tile::kThreads>(owned_tile, a.rows, a.count, owned, owned_end);
            Sum sums[Owned::kRows / 4];
            copy_streamed(steps.begin(), 0);
            int stage = 0;
            for (int tile = steps.begin(); tile < steps.end(); tile = steps.after(tile), stage ^= 1) {
                machine::wait_copies<0>();
                machine::sync_block();
                copy_streamed(steps.after(tile), stage ^ 1);
                float products[Owned::kRows / 2];
                multiply_rows<FORMAT, Streamed, Owned>(products, stages + stage * Tile::kStageBytes, warp * kWarpRows,
                                                       owned_tile);
                const Step step{tile + warp * kWarpRows, pair.streamed_end, owned, owned_end};
                take_products<Maximum, Mask::columns, Owned::kRows>(sums, products, a, pair, step, tile,
                                                                    steps.masked(tile));
            }
            machine::wait_copies<0>();  // of an owned tile that nothing passed, too
            store_sums<Sum, Owned::kRows>(sums, shared_sums + warp * Owned::kRows);
            machine::sync_block();
            for (int i = machine::thread(); owned + i < owned_end; i += Tile::kThreads)
                write_slot<Sum, Owned::kRows, Tile::kWarps>(shared_sums, a, pair, owned + i, i);
        }
    }
}

}  // namespace semicl::cuda
