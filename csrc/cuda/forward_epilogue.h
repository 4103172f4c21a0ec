// The sums of exponentials of one tile of pairs, in registers.
//
// Fixed maximum: exponents are in base 2 and relative to a bound that none exceeds, 2^(-2 bound) being a normal
// float32. Sums are plain sums, and the exponential of a pair serves both of its rows.
//
// The accumulator's rows are rows of the N tile, its columns are rows of the M tile.
// Sums over a column add up in registers and are reduced over the warp and the warps when the M tile is done. Sums over
// a row lie within four lanes: two shuffles a step. They belong to an anchor of the N tile and are added to what the
// block has given to it, zeros at its first M tile of the block of columns. N tiles lie on one grid from the group's
// first row on, so a row meets the same thread in every M tile, and no other thread adds to that number.
#pragma once
#include "smem_layout.h"
#include "tile_scheduler.h"
#include "tiles.h"

namespace semicl::cuda {

struct Exponent {
    float scale_log2, shift;  // 2^(scale_log2 x_i . x_j - shift)
    SEMICL_DEVICE float of(float product) const { return product * scale_log2 - shift; }
};

struct ForwardArgument {
    const uint16_t* rows;  // (M, CHANNELS)
    int count;             // M
    Groups groups;
    const int64_t* step_ends;
    Columns columns;
    Exponent exponent;
    float* own;    // (columns.blocks M + 2 workers kRows,): sums of whole M tiles by row, of partial tiles by place
    float* given;  // (M + workers columns.size,): at row + columns.size w, what worker w gives to an anchor

    SEMICL_DEVICE float* given_to(int row) const {
        return given + static_cast<int64_t>(arch::block()) * columns.size + row;
    }
};

// Of the rows of all lanes, what each lane has of its own.
SEMICL_DEVICE Skips over_warp(const Skips& own) {
    return {arch::warp_min(own.any_masked), arch::warp_max(own.any_masked_end), arch::warp_max(own.all_masked),
            arch::warp_min(own.all_masked_end)};
}

// What the rows of a tile skip; every lane of the warp gets it. There is a row.
SEMICL_DEVICE Skips find_skips(const Groups& groups, int first, int end) {
    Skips own;
    for (int row = first + arch::lane(); row < end; row += kWarp)
        own.include({groups.skip_begin[row], groups.skip_end[row]});
    return over_warp(own);
}

// One step of a partial tile: the warp's rows of the N tile and the M tile that they pass.
struct Step {
    int row, row_end;  // the first of the warp's sixteen rows, and where rows end
    int m, m_end;      // likewise of the columns
};

// Adds one tile of products to the sums of the M tile; returns a thread's sums over its two rows. Where it is masked,
// pairs outside of the columns, or in the range of the row, are left out: skips are mutual, and a thread has two rows
// where it has many columns.
template <bool MASKED, int COLUMNS>
SEMICL_DEVICE void add_exponentials(float (&sums)[COLUMNS / 4], const float (&products)[COLUMNS / 2],
                                    const ForwardArgument& a, const Step& step, float (&row_sums)[2]) {
    const int lane = arch::lane();
    int row[2];
    Range row_skip[2] = {};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        row[r] = step.row + fragment_row(lane, 2 * r);
        row_sums[r] = 0;
        if (MASKED && row[r] < step.row_end) row_skip[r] = {a.groups.skip_begin[row[r]], a.groups.skip_end[row[r]]};
    }
#pragma unroll
    for (int j = 0; j < COLUMNS / 4; ++j) {
        const int column = step.m + fragment_column(lane, j / 2, j % 2);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const bool kept = !MASKED || (row[r] < step.row_end && !row_skip[r].holds(column));
            const float e = kept ? arch::exp2(a.exponent.of(products[j / 2 * 4 + r * 2 + j % 2])) : 0;
            sums[j] += e;
            row_sums[r] += e;
        }
    }
}

// Adds a thread's row sums, with those of the other lanes of the row, to what is given to each row before `end`.
SEMICL_DEVICE void give(const float (&row_sums)[2], float* given, const Step& step, int end) {
    const int lane = arch::lane();
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        float sum = row_sums[r];
        sum += arch::shuffle_xor(sum, 1);
        sum += arch::shuffle_xor(sum, 2);
        const int offset = fragment_row(lane, 2 * r);
        if (lane % 4 == 0 && step.row + offset < end) given[offset] += sum;
    }
}

// Takes one tile of products: adds to the sums of the M tile and gives the anchors of the N tile theirs.
template <int COLUMNS>
SEMICL_DEVICE void take_products(float (&sums)[COLUMNS / 4], const float (&products)[COLUMNS / 2],
                                 const ForwardArgument& a, const Step& step, int n, int anchor_end, bool masked) {
    float row_sums[2];
    if (masked)
        add_exponentials<true, COLUMNS>(sums, products, a, step, row_sums);
    else
        add_exponentials<false, COLUMNS>(sums, products, a, step, row_sums);
    // The first tile of the triangle holds both sides of its pairs. A ragged M tile has no anchors after it.
    if (n >= step.m + COLUMNS && n < anchor_end) give(row_sums, a.given_to(step.row), step, anchor_end);
}

// Leaves one half of a thread's sums to the lane that differs by MASK and takes that lane's part of the other.
template <int HALF, int MASK>
SEMICL_DEVICE void halve_sums(float* sums) {
    const bool upper = arch::lane() & MASK;
#pragma unroll
    for (int i = 0; i < HALF; ++i) {
        const float sent = upper ? sums[i] : sums[i + HALF];
        sums[i] = (upper ? sums[i + HALF] : sums[i]) + arch::shuffle_xor(sent, MASK);
    }
}

// Reduces the sums over the eight rows of lanes: afterwards sums[i], i < COUNT / 8, is that of reduced_index(i).
template <int COUNT>
SEMICL_DEVICE void reduce_rows(float (&sums)[COUNT]) {
    halve_sums<COUNT / 2, 16>(sums);
    halve_sums<COUNT / 4, 8>(sums);
    halve_sums<COUNT / 8, 4>(sums);
}

template <int COUNT>
SEMICL_HOST_DEVICE constexpr int reduced_index(int lane, int i) {
    return (lane & 16 ? COUNT / 2 : 0) + (lane & 8 ? COUNT / 4 : 0) + (lane & 4 ? COUNT / 8 : 0) + i;
}

// Puts the warp's sums for the rows of the M tile into shared memory, one for each of COLUMNS rows.
template <int COLUMNS>
SEMICL_DEVICE void store_sums(float (&sums)[COLUMNS / 4], float* shared) {
    reduce_rows(sums);
    const int lane = arch::lane();
#pragma unroll
    for (int i = 0; i < COLUMNS / 32; ++i) {
        const int j = reduced_index<COLUMNS / 4>(lane, i);
        shared[fragment_column(lane, j / 2, j % 2)] = sums[i];
    }
}

// Writes the sum of row `number` of a partial tile, from all warps' sums.
template <int COLUMNS, int WARPS>
SEMICL_DEVICE void write_sum(const float* shared, const ForwardArgument& a, const PartialTile& part, int number) {
    float total = shared[number];
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) total += shared[warp * COLUMNS + number];
    const int64_t first = part.partial == kWhole
                              ? int64_t{a.count} * part.column_block + part.tile.first
                              : int64_t{a.count} * a.columns.blocks + int64_t{part.partial} * COLUMNS;
    a.own[first + number] = total;
}

}  // namespace semicl::cuda
