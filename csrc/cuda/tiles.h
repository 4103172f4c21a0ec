// The tiles of each pass, with the reason beside each entry, and how shared memory is laid out.
//
// One block of three warp groups fills a multiprocessor: 227 KiB, 168 registers a thread on average. Never timed.
#pragma once
#include "arch.h"
#include "smem_layout.h"
#include "tile_scheduler.h"

namespace semicl::cuda {

constexpr int kWarp = 32, kWarpGroup = 128;
constexpr int kWarpRows = 16;   // of a warp's part of one wgmma
constexpr int kGroupRows = 64;  // of one wgmma

// The lane, of which the compiler computes anew what it needs: addresses held through the loop over tiles cost
// registers.
SEMICL_DEVICE int fresh_lane() { return static_cast<int>(arch::opaque(static_cast<uint32_t>(arch::lane()))); }
SEMICL_DEVICE int fresh_thread() { return static_cast<int>(arch::opaque(static_cast<uint32_t>(arch::thread()))); }

// Three warp groups: one loads, two multiply 64 rows each. 128 x 128 keeps 32 sums of exponentials and two accumulators
// of 64 a thread, and asks 96 of the 128 bytes that shared memory gives in a clock. Where memory allows, two M
// tiles, so that the next is there when one is done.
constexpr int kProducts = 2, kKernelThreads = (1 + kProducts) * kWarpGroup;
constexpr int kLoaderRegisters = 40, kMultiplierRegisters = 232;  // 40 + 2 x 232 = 3 x 168

template <int CHANNELS>
struct ForwardTile {
    using TileM = TileLayout<kProducts * kGroupRows, CHANNELS>;
    using TileN = TileLayout<kProducts * kGroupRows, CHANNELS>;
    static constexpr int kMStages = CHANNELS > 128 ? 1 : 2;
    static constexpr int kStages = CHANNELS > 128 ? 2 : 4;
    static constexpr int kStagesAt = kMStages * TileM::kBytes;
    static constexpr int kSumsAt = kStagesAt + kStages * TileN::kBytes;
    static constexpr int kBarriersAt = kSumsAt + kProducts * 4 * TileM::kRows * 4;
    static constexpr int kSharedBytes = kBarriersAt + 2 * 8 * (kMStages + kStages);
};

// A thread holds C / 2 sums of the gradient and, for each row of the N tile, half a product and a quarter of a word of
// weights: 128 + 32 + 16 registers with 64 rows of the N tile at C = 256, 64 + 64 + 32 with 128 below.
template <int CHANNELS>
struct BackwardTile {
    using TileM = TileLayout<kProducts * kGroupRows, CHANNELS>;
    using TileN = TileLayout<(CHANNELS > 128 ? 1 : 2) * kGroupRows, CHANNELS>;
    static constexpr int kMStages = 1;
    static constexpr int kStages = 4;
    static constexpr int kRowScaleBytes = 4 * TileN::kRows;
    static constexpr int kStagesAt = kMStages * TileM::kBytes;
    static constexpr int kRowScalesAt = kStagesAt + kStages * TileN::kBytes;
    static constexpr int kBarriersAt = kRowScalesAt + kStages * kRowScaleBytes;
    static constexpr int kSharedBytes = kBarriersAt + 2 * 8 * (kMStages + kStages);
};

// Calls `visit(part)` for the partial tiles of this block, in order. The block's number is one that the compiler does
// not know to be the same each time: what follows from it would be held in registers that the loops over steps need.
template <class TILE, class Visit>
SEMICL_DEVICE void for_each_partial_tile(Pass pass, const Groups& groups, const Columns& columns,
                                         const int64_t* step_ends, const Visit& visit) {
    const auto worker = [] { return static_cast<int>(arch::opaque(static_cast<uint32_t>(arch::block()))); };
    int64_t done = 0;
    for (PartialTile part; next_partial_tile(part, done, groups, step_ends, {TILE::TileM::kRows, TILE::TileN::kRows},
                                             pass, columns, worker(), arch::blocks());)
        visit(part);
}

}  // namespace semicl::cuda
