// The weights of one tile of pairs, in registers.
//
// W_ij = g_i e^(s_ij - lse_i) [j in D(i)] + g_j e^(s_ij - lse_j) [i in D(j)] (docs/loss.md). The accumulator's rows are
// rows i of the M tile, its columns rows j of the N tile.
//
// Fixed maximum B and mutual skips: with u_i = g_i 2^(B - lse_i), lse in base 2, both terms share an exponential and a
// mask, W = 2^(s - B) (u_i + u_j). The row scales u come from Triton's kernels, 0 for rows without a term.
// For float16 rows all are multiplied by one factor that keeps W in the range of float16.
//
// Positives: [i and j of one class range, i != j] 2 v_i is taken from W_ij before the product, with the *pulls* v_i =
// g_i / |P_i| = v_j. Where features of a class are nearly equal, so are the two: multiplied apart and then subtracted
// they would leave rounding errors. Steps all of whose pairs are of one class take off one number, others use a mask.
#pragma once
#include "forward_epilogue.h"
#include "smem_layout.h"
#include "tile_scheduler.h"
#include "tiles.h"

namespace semicl::cuda {

struct BackwardArgument {
    const uint16_t* rows;  // (M, CHANNELS)
    int count;             // M
    Groups groups;
    const int64_t* step_ends;
    Exponent exponent;
    const float* row_scale;     // (M,)
    const double* grad_absmax;  // the largest |g|, which the row scales were divided by, or null
    float scale;
    float* partial_tiles;  // (2 blocks, rows of a tile, CHANNELS)
    float* gradient;       // (M, CHANNELS)
    Positives positives;
};

// Floats that are loaded and stored at once.
template <int COUNT>
struct alignas(4 * COUNT) Floats {
    float values[COUNT];
};

// What the largest weight of a pair becomes before it is rounded to float16, whose own largest is 65504: HEADROOM of
// triton_kernels/gradient.py, which makes the row scales.
constexpr float kHeadroom = 8192;

SEMICL_DEVICE float weights_divisor(const double* grad_absmax) {
    return grad_absmax ? static_cast<float>(*grad_absmax) / kHeadroom : 1.0f;
}

// The steps of a partial tile: where positives are taken off none is passed over, and those in the class of all rows
// that stay are shared. Every lane of the warp gets them.
SEMICL_DEVICE Steps find_steps(const BackwardArgument& a, const MTile& tile, int step) {
    const bool of_classes = a.positives.pulls != nullptr;
    Skips skips;
    for (int row = tile.first + arch::lane(); row < tile.end; row += kWarp) {
        const bool none = of_classes && row >= tile.anchor_end;
        const int* const low = of_classes ? a.positives.class_begin : a.groups.skip_begin;
        const int* const high = of_classes ? a.positives.class_end : a.groups.skip_end;
        skips.include(none ? Range{0, 0} : Range{low[row], high[row]});
    }
    skips = over_warp(skips);
    // Pairs that are in no denominator have a mask.
    if (of_classes && a.groups.skip_end[tile.first] - a.groups.skip_begin[tile.first] > 1)
        skips.all_masked_end = skips.all_masked;
    return Steps(tile.column, tile.column_end, step, skips, of_classes ? AllMasked::shared : AllMasked::passed_over);
}

// A thread's two rows, of the sixteen of its warp from `first` on; rows end at `end`.
struct OwnRows {
    int first, end;
    float factor[2];
    float shared_pull;  // from a weight of a shared step

    SEMICL_DEVICE int row(int r) const { return first + fragment_row(arch::lane(), 2 * r); }
    SEMICL_DEVICE bool inside(int r) const { return row(r) < end; }
    // Read where a step has a mask, not held for those that have none.
    SEMICL_DEVICE Range range(const int* low, const int* high, int r) const {
        return inside(r) ? Range{low[row(r)], high[row(r)]} : Range{0, 0};
    }
};

SEMICL_DEVICE OwnRows own_rows(const BackwardArgument& a, int first, int end) {
    OwnRows own{first, end, {}, first < end && a.positives.pulls ? 2 * a.positives.pulls[first] : 0};
#pragma unroll
    for (int r = 0; r < 2; ++r) own.factor[r] = own.inside(r) ? a.row_scale[own.row(r)] : 0;
    return own;
}

// Of the columns that a lane holds of a row (fragment_column), bit j for number j: those in the range, the step's first
// column being `column`.
template <int COLUMNS>
SEMICL_DEVICE uint32_t held_columns(const Range& range, int column, int lane) {
    const auto bits_below = [&](int end) {
        const int offset = larger(smaller(larger(end, column), column + COLUMNS) - column - lane % 4 * 2, 0);
        return (uint64_t{1} << (offset / 8 * 2 + smaller(offset % 8, 2))) - 1;
    };
    return static_cast<uint32_t>(bits_below(range.high) & ~bits_below(range.low));
}

// Turns a tile of products, in place, into weights. `row_scale` are those of the columns [column, ...), in shared
// memory; columns end at `end`. `pull` is taken from all weights where there is no mask.
template <bool MASKED, int COLUMNS>
SEMICL_DEVICE void weigh(float (&values)[COLUMNS / 2], const BackwardArgument& a, const OwnRows& own, int column,
                         int end, const float* row_scale, float pull) {
    const int lane = arch::lane();
    uint32_t kept[2] = {};
#pragma unroll
    for (int r = 0; MASKED && r < 2; ++r)
        kept[r] = held_columns<COLUMNS>({column, end}, column, lane) &
                  ~held_columns<COLUMNS>(own.range(a.groups.skip_begin, a.groups.skip_end, r), column, lane);
#pragma unroll
    for (int j = 0; j < COLUMNS / 4; ++j) {
        const float other = row_scale[fragment_column(lane, j / 2, j % 2)];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float& value = values[j / 2 * 4 + r * 2 + j % 2];
            const float weight = arch::exp2(a.exponent.of(value)) * (own.factor[r] + other) - pull;
            value = !MASKED || (kept[r] >> j & 1) ? weight : 0;
        }
    }
}

// Takes the positives off the weights of a step that has a mask.
template <int COLUMNS>
SEMICL_DEVICE void take_pulls(float (&weights)[COLUMNS / 2], const BackwardArgument& a, const OwnRows& own,
                              int column) {
    const int lane = arch::lane();
    const Positives& positives = a.positives;
    uint32_t taken[2];
    float pull[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = own.row(r);
        taken[r] = held_columns<COLUMNS>(own.range(positives.class_begin, positives.class_end, r), column, lane) &
                   ~held_columns<COLUMNS>({row, row + 1}, column, lane);
        pull[r] = own.inside(r) ? 2 * positives.pulls[row] : 0;
    }
#pragma unroll
    for (int j = 0; j < COLUMNS / 4; ++j)
#pragma unroll
        for (int r = 0; r < 2; ++r) weights[j / 2 * 4 + r * 2 + j % 2] -= taken[r] >> j & 1 ? pull[r] : 0;
}

// Turns a step's products into weights, with as much of a mask as they need.
template <int COLUMNS>
SEMICL_DEVICE void weigh_step(float (&values)[COLUMNS / 2], const BackwardArgument& a, const OwnRows& own, int column,
                              const Steps& steps, const float* row_scale) {
    const bool shared = steps.shared(column, {own.first, own.first + kWarpRows});
    if (!shared && steps.masked(column)) {
        weigh<true, COLUMNS>(values, a, own, column, steps.end(), row_scale, 0);
        if (a.positives.pulls) take_pulls<COLUMNS>(values, a, own, column);
    } else {
        weigh<false, COLUMNS>(values, a, own, column, steps.end(), row_scale, shared ? own.shared_pull : 0);
    }
}

// Writes a thread's part of the sums of weights times rows, as the gradient of its two rows where it is a whole tile,
// else as a partial tile. Its warp's rows begin at row `own_row` of the tile. Four lanes fill a sector of 32 bytes.
template <int ROWS, int CHANNELS>
SEMICL_DEVICE void write_gradient(const float (&sums)[CHANNELS / 2], const BackwardArgument& a, int partial,
                                  int own_row, const OwnRows& own) {
    const float scale = a.scale * weights_divisor(a.grad_absmax);
    const int lane = fresh_lane();
    float* const rows = partial == kWhole
                            ? a.gradient + static_cast<int64_t>(own.first) * CHANNELS
                            : a.partial_tiles + (static_cast<int64_t>(partial) * ROWS + own_row) * CHANNELS;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        if (!own.inside(r)) continue;
        float* const row = rows + fragment_row(lane, 2 * r) * CHANNELS + fragment_column(lane, 0, 0);
#pragma unroll
        for (int i = 0; i < CHANNELS / 8; ++i)
            *reinterpret_cast<Floats<2>*>(row + 8 * i) = {scale * sums[i * 4 + r * 2], scale * sums[i * 4 + r * 2 + 1]};
    }
}

}  // namespace semicl::cuda
