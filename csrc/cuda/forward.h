// The forward pass: TMA, wgmma and mbarriers, for 16-bit rows with a known maximum and mutual skips on sm_90a.
//
// One item is a panel pair (tile_scheduler.h). A tile of P, the owned one, stays in shared memory; the tiles of Q stream past it,
// S = X_streamed X_owned^T, one exponential a similarity; see forward_epilogue.h for where the sums go. Tiles are 128 x 128. One
// block of three warp groups fills a multiprocessor. One warp of the first goes through the items ahead of the others
// and loads: an owned tile, then the streamed tiles, into rings of buffers (pipeline.h). The other two groups go through the
// same items and steps: each multiplies its 64 rows of the streamed tile by the whole owned tile.
//
// Overlap: a group issues the product of the next tile before it takes the exponentials of this one (two accumulators),
// and the two groups run apart from each other but where an owned tile ends, so that one's exponentials fall into the
// other's products as well.
//
// Invariants: a streamed buffer is let go by each warp when its product from it is done (accumulators are in
// registers); an owned buffer when the last product of the owned tile is. All three groups derive items, steps and the
// steps that are skipped from the same arrays, so loads and waits correspond one to one.
//
// Versions, none timed. 1: by warps, with mma.sync and cp.async. 2 (this): by warp groups. Prediction for an H100 (4096
// FLOP and 16 exponentials a clock and multiprocessor): a 128 x 128 tile at C = 128 takes 1024 clocks of either; with nine tenths of both
// overlapped and 5 % for the reductions at the end of owned tiles, 75 to 80 % of the tensor peak executed, which is 1.5
// times that counted dense with the triangle; at C = 64 exponentials bind, half of the peak. Next, if a GPU confirms
// that they do: a third of the exponentials by polynomial on the FMA units.
#pragma once
#include "pipeline.h"
#include "forward_epilogue.h"

namespace semicl::cuda {

struct ForwardKernelArgument {
    TensorMap map;  // of the rows
    ForwardArgument pairs;
};

// Calls `visit(pair, owned, owned_end, steps)` for the owned tiles of this block's items, in order.
template <class TILE, class Visit>
SEMICL_DEVICE void for_each_owned_tile(const ForwardArgument& a, const Visit& visit) {
    const int items = a.pair_ends[a.groups.count - 1];
    for (int number = arch::block(); number < items; number += arch::blocks()) {
        const Item item = find_item(number, a.pair_ends, a.groups.count);
        const PanelPair pair = find_panel_pair(find_group(a.groups, item.group), item.number, a.span);
        for (int owned = pair.owned; owned < pair.owned_end; owned += TILE::Owned::kRows) {
            const int owned_end = smaller(owned + TILE::Owned::kRows, pair.owned_end);
            visit(pair, owned, owned_end,
                  Steps(pair.first_streamed(owned), pair.streamed_end, TILE::Streamed::kRows,
                        find_skips(a.groups, owned, owned_end)));
        }
    }
}

// The loading warp.
template <class TILE>
SEMICL_DEVICE void load_forward_tiles(const ForwardKernelArgument& a, uint32_t shared, Ring<TILE::kOwnedTiles> owned_ring,
                                   Ring<TILE::kStages> ring) {
    for_each_owned_tile<TILE>(a.pairs, [&](const PanelPair&, int owned, int, const Steps& steps) {
        if (arch::lane() != 0) return;
        const uint32_t filled = owned_ring.begin_load(TILE::Owned::kBytes);
        load_tile<typename TILE::Owned>(shared + owned_ring.buffer() * TILE::Owned::kBytes, a.map, owned, filled);
        owned_ring.advance();
        for (int tile = steps.begin(); tile < steps.end(); tile = steps.after(tile), ring.advance()) {
            const uint32_t barrier = ring.begin_load(TILE::Streamed::kBytes);
            load_tile<typename TILE::Streamed>(shared + TILE::kStagesAt + ring.buffer() * TILE::Streamed::kBytes, a.map,
                                               tile, barrier);
        }
    });
}

// A multiplying warp group, number `group`.
template <class ELEMENT, class TILE>
SEMICL_DEVICE void sum_tiles(const ForwardArgument& a, unsigned char* shared, int group,
                             Ring<TILE::kOwnedTiles> owned_ring, Ring<TILE::kStages> ring) {
    using Owned = typename TILE::Owned;
    using Streamed = typename TILE::Streamed;
    constexpr int kColumns = Owned::kRows;
    const uint32_t base = arch::address(shared);
    const int warp = group * 4 + arch::warp() % 4, member = arch::thread() - kWarpGroup;
    float* const shared_sums = reinterpret_cast<float*>(shared + TILE::kSumsAt);

    for_each_owned_tile<TILE>(a, [&](const PanelPair& pair, int owned, int owned_end, const Steps& steps) {
        owned_ring.wait_full();
        const uint32_t owned_tile = base + owned_ring.buffer() * Owned::kBytes;
        float sums[kColumns / 4] = {};
        float even[kColumns / 2], odd[kColumns / 2];
        const auto issue = [&](float (&products)[kColumns / 2]) {
            ring.wait_full();
            issue_products<ELEMENT, Streamed, Owned>(
                products, base + TILE::kStagesAt + ring.buffer() * Streamed::kBytes, group * kGroupRows, owned_tile);
            arch::commit_products();
        };
        const auto take = [&](const float (&products)[kColumns / 2], int tile, int buffer) {
            ring.let_go(buffer);
            const Step step{tile + warp * kWarpRows, pair.streamed_end, owned, owned_end};
            take_products<kColumns>(sums, products, a, pair, step, tile, steps.masked(tile));
        };
        int tile = steps.begin();
        // With the products of `tile` on their way into `products`: sets those of the next tile on theirs and takes
        // these. Returns whether there was a next. The last step is written apart: wgmma must not be issued under a
        // condition.
        const auto advance = [&](float (&products)[kColumns / 2], float (&next)[kColumns / 2]) {
            const int following = steps.after(tile), buffer = ring.buffer();
            ring.advance();
            if (following >= steps.end()) {
                arch::wait_products<0>();
                take(products, tile, buffer);
                return false;
            }
            issue(next);
            arch::wait_products<1>();
            take(products, tile, buffer);
            tile = following;
            return true;
        };
        if (tile < steps.end()) {
            issue(even);
            while (advance(even, odd) && advance(odd, even)) continue;
        }
        owned_ring.let_go(owned_ring.buffer());
        owned_ring.advance();
        store_sums<kColumns>(sums, shared_sums + warp * kColumns);
        // Sums of all warps are there, and what was given to this tile.
        arch::sync_threads(1, kProducts * kWarpGroup);
        if (owned + member < owned_end)
            write_slot<kColumns, kReaders>(shared_sums, a, pair, owned + member, member);
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
        [&](auto owned_ring, auto ring) { load_forward_tiles<Tile>(a, arch::address(shared), owned_ring, ring); },
        [&](int group, auto owned_ring, auto ring) {
            sum_tiles<ELEMENT, Tile>(a.pairs, shared, group, owned_ring, ring);
        });
}

}  // namespace semicl::cuda
