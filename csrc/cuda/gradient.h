// The backward pass by warps: dX_i = scale sum_j W_ij x_j, owned by rows. For every chip, format and kind of groups.
//
// A tile of rows of one group, anchors or not, stays in shared memory, with the sums of its gradient in registers,
// while the group's points (only its anchors, where the tile has none) stream past. Each streamed tile serves two
// products: S = X_owned X_streamed^T, then W X_streamed, W staying in registers (multiply.h). Blocks share the steps of
// all tiles out equally (work.h); the pieces of a tile that several of them had are summed afterwards, in their order.
// 4 n n C operations for a dense group.
//
// Copies are two steps deep as in logsumexp.h; the factors of the streamed rows come with them.
//
// Version 1 had whole tiles for each block; 2 (this) pieces of equal length (work.h). Never timed. Prediction for an
// A100 (2048 FLOP and 16 exponentials a clock and multiprocessor), bfloat16, C = 128, dense: a 64 x 64 tile takes 1024
// clocks of tensor cores and 256 of exponentials; two blocks overlapping, 55 to 65 % of the peak, as flash-attention's
// backward has there.
#pragma once
#include "multiply.h"
#include "weights.h"

namespace semicl::cuda {

// Copies the factors (and shifts) of rows [first, end) to shared memory, zeros below.
template <class Maximum, int ROWS, int THREADS>
SEMICL_DEVICE void copy_factors(uint32_t to, const GradientArgument& a, int first, int end) {
    for (int i = machine::thread(); i < ROWS; i += THREADS) {
        const bool inside = first + i < end;
        const int row = inside ? first + i : first;
        machine::copy4(to + 4 * i, a.factors + row, inside);
        if (!Maximum::kKnown) machine::copy4(to + 4 * (ROWS + i), a.shifts + row, inside);
    }
}

template <class FORMAT, int CHANNELS, class Maximum>
SEMICL_KERNEL((WarpGradientTile<FORMAT, CHANNELS>::kThreads), kBlocksPerMultiprocessor)
warp_gradient(SEMICL_CONSTANT GradientArgument a) {
    using Tile = WarpGradientTile<FORMAT, CHANNELS>;
    using Owned = typename Tile::Owned;
    using Streamed = typename Tile::Streamed;
    SEMICL_SHARED(shared);
    const uint32_t owned_tile = machine::address(shared), stages = owned_tile + Tile::kStagesAt;
    const int own_row = machine::warp() * kWarpRows;

    int64_t done = 0;
    for (Piece piece; find_next(piece, done, a, {Owned::kRows, Streamed::kRows});) {
        const RowTile& tile = piece.tile;
        const Steps steps = find_steps(a, tile, Streamed::kRows);
        const auto copy_streamed = [&](int column, int stage) {
            if (column < steps.end()) {
                copy_rows<FORMAT, Streamed, Tile::kThreads>(stages + stage * Tile::kStageBytes, a.rows, a.count, column,
                                                            steps.end());
                copy_factors<Maximum, Streamed::kRows, Tile::kThreads>(
                    machine::address(shared + Tile::kFactorsAt + stage * Tile::kFactorBytes), a, column, steps.end());
            }
            machine::commit_copies();
        };
        machine::sync_block();  // all warps are done with the tile before
        copy_rows<FORMAT, Owned, Tile::kThreads>(owned_tile, a.rows, a.count, tile.first, tile.end);
        copy_streamed(steps.begin(), 0);
        const OwnRows own = own_rows(a, tile.first + own_row, tile.end, Maximum::kKnown);
        float sums[CHANNELS / 2] = {};
        int stage = 0;
        for (int column = steps.begin(); column < steps.end(); column = steps.after(column), stage ^= 1) {
            machine::wait_copies<0>();
            machine::sync_block();
            copy_streamed(steps.after(column), stage ^ 1);
            const uint32_t streamed = stages + stage * Tile::kStageBytes;
            const float* factors =
                reinterpret_cast<const float*>(shared + Tile::kFactorsAt + stage * Tile::kFactorBytes);
            const float* shifts = factors + Streamed::kRows;
            float values[Streamed::kRows / 2];
            multiply_rows<FORMAT, Owned, Streamed>(values, owned_tile, own_row, streamed);
            weigh_step<Maximum::kKnown, false, Streamed::kRows>(values, a, own, column, steps, factors, shifts);
            multiply_weights<FORMAT, Streamed>(sums, values, streamed);
        }
        machine::wait_copies<0>();  // of an owned tile that nothing passed, too
        write_gradient<Owned::kRows, CHANNELS>(sums, a, piece.slot, own_row, own);
    }
}

}  // namespace semicl::cuda
