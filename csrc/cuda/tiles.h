// The sizes of the tiles: by pass and format, with the reason beside each entry, and how shared memory is laid out.
//
// *Warp tiles* are those of mma.sync: one warp multiplies sixteen rows, two blocks share a multiprocessor. Everything
// fits the 99 KiB of shared memory that the smaller chips of sm_86 and sm_89 give to a block, except float32 rows of
// more than 128 channels, which need the 163 KiB of sm_80. *Group tiles* are those of wgmma on sm_90a: one block of
// three warp groups fills a multiprocessor (227 KiB, 168 registers a thread on average). None has been timed yet.
#pragma once
#include "formats.h"
#include "layout.h"
#include "work.h"

namespace semicl::cuda {

constexpr int kWarp = 32, kWarpGroup = 128;
constexpr int kWarpRows = 16;   // of one mma.sync
constexpr int kGroupRows = 64;  // of one wgmma
constexpr int kStages = 2;
constexpr int kBlocksPerMultiprocessor = 2;

// The lane, of which the compiler computes anew what it needs: addresses held through the loop over tiles cost
// registers.
SEMICL_DEVICE int fresh_lane() { return static_cast<int>(machine::opaque(static_cast<uint32_t>(machine::lane()))); }
SEMICL_DEVICE int fresh_thread() { return static_cast<int>(machine::opaque(static_cast<uint32_t>(machine::thread()))); }

// Each of the first pass's warps has 16 streamed rows, each of the second's 16 that stay. 64 x 64 keeps 32 sums of
// exponentials a thread. Three planes of 128 channels leave room for less, of 256 for a
// quarter.
constexpr Sides sums_sides(int planes, int channels) {
    if (planes == 1 || channels <= 64) return {64, 64};
    return channels <= 128 ? Sides{64, 32} : Sides{32, 32};
}

// The gradient of 64 rows of 256 channels takes 128 registers a thread, which leaves none for 64 weights beside it;
// that of 32 rows in three planes likewise none for 32, nor that of 64 rows of 128 channels.
constexpr Sides gradient_sides(int planes, int channels) {
    if (planes == 1 && channels > 128) return {64, 32};
    if (planes > 1 && channels > 64) return {channels > 128 ? 32 : 64, 16};
    return sums_sides(planes, channels);
}

template <class FORMAT, int CHANNELS>
struct WarpSumsTile {
    static constexpr Sides kSides = sums_sides(FORMAT::kPlanes, CHANNELS);
    using Owned = TileLayout<kSides.owned, CHANNELS>;
    using Streamed = TileLayout<kSides.streamed, CHANNELS>;
    static constexpr int kWarps = Streamed::kRows / kWarpRows, kThreads = kWarps * kWarp;
    static constexpr int kStageBytes = FORMAT::kPlanes * Streamed::kBytes;
    static constexpr int kStagesAt = FORMAT::kPlanes * Owned::kBytes;
    static constexpr int kSumsAt = kStagesAt + kStages * kStageBytes;  // a sum of each warp for each owned row
    static constexpr int kSharedBytes = kSumsAt + kWarps * Owned::kRows * 8;
};

template <class FORMAT, int CHANNELS>
struct WarpGradientTile {
    static constexpr Sides kSides = gradient_sides(FORMAT::kPlanes, CHANNELS);
    using Owned = TileLayout<kSides.owned, CHANNELS>;
    using Streamed = TileLayout<kSides.streamed, CHANNELS>;
    static constexpr int kWarps = Owned::kRows / kWarpRows, kThreads = kWarps * kWarp;
    static constexpr int kStageBytes = FORMAT::kPlanes * Streamed::kBytes;
    static constexpr int kStagesAt = FORMAT::kPlanes * Owned::kBytes;
    static constexpr int kFactorsAt = kStagesAt + kStages * kStageBytes;  // of each stage's rows: factor, then shift
    static constexpr int kFactorBytes = 2 * 4 * Streamed::kRows;
    static constexpr int kSharedBytes = kFactorsAt + kStages * kFactorBytes;
};

// Three warp groups: one loads, two multiply 64 rows each. 128 x 128 keeps 32 sums of exponentials and two accumulators
// of 64 a thread, and asks 96 of the 128 bytes that shared memory gives in a clock. Where memory allows, two owned
// tiles, so that the next is there when one is done.
constexpr int kProducts = 2, kGroupThreads = (1 + kProducts) * kWarpGroup;
constexpr int kLoaderRegisters = 40, kMultiplierRegisters = 232;  // 40 + 2 x 232 = 3 x 168

template <int CHANNELS>
struct GroupSumsTile {
    using Owned = TileLayout<kProducts * kGroupRows, CHANNELS>;
    using Streamed = TileLayout<kProducts * kGroupRows, CHANNELS>;
    static constexpr int kOwnedTiles = CHANNELS > 128 ? 1 : 2;
    static constexpr int kStages = CHANNELS > 128 ? 2 : 4;
    static constexpr int kStagesAt = kOwnedTiles * Owned::kBytes;
    static constexpr int kSumsAt = kStagesAt + kStages * Streamed::kBytes;
    static constexpr int kBarriersAt = kSumsAt + kProducts * 4 * Owned::kRows * 4;
    static constexpr int kSharedBytes = kBarriersAt + 2 * 8 * (kOwnedTiles + kStages);
};

// A thread holds C / 2 sums of the gradient and, for each streamed row, half a product and a quarter of a word of
// weights: 128 + 32 + 16 registers with 64 streamed rows at C = 256, 64 + 64 + 32 with 128 below.
template <int CHANNELS>
struct GroupGradientTile {
    using Owned = TileLayout<kProducts * kGroupRows, CHANNELS>;
    using Streamed = TileLayout<(CHANNELS > 128 ? 1 : 2) * kGroupRows, CHANNELS>;
    static constexpr int kOwnedTiles = 1;
    static constexpr int kStages = 4;
    static constexpr int kFactorBytes = 4 * Streamed::kRows;
    static constexpr int kStagesAt = kOwnedTiles * Owned::kBytes;
    static constexpr int kFactorsAt = kStagesAt + kStages * Streamed::kBytes;
    static constexpr int kBarriersAt = kFactorsAt + kStages * kFactorBytes;
    static constexpr int kSharedBytes = kBarriersAt + 2 * 8 * (kOwnedTiles + kStages);
};

}  // namespace semicl::cuda
