// The weights of one tile of pairs, in registers: what both backward kernels do with a tile of products.
//
// W_ij = g_i e^(s_ij - lse_i) [j in D(i)] + g_j e^(s_ij - lse_j) [i in D(j)] (docs/loss.md), the rows of the
// accumulator being the rows i that stay and its columns the rows j that stream past.
//
// *Known maximum.* With u_i = g_i 2^(B - lse_i), lse in base 2, both terms share an exponential: W = 2^(s - B) (u_i +
// u_j). *Unknown maximum.* Each term has an exponential of its own, relative to its anchor's log-sum-exp, at most 1.
//
// Row factors come from row_factors (passes.h): u, or g, 0 for rows that give nothing; and the log-sum-exp in base 2,
// +inf for those. For float16 rows all are multiplied by a power that keeps W in the range of float16.
#pragma once
#include "layout.h"
#include "sums.h"
#include "tiles.h"
#include "work.h"

namespace semicl::cuda {

struct GradientArgument {
    const uint16_t* rows;  // (planes, M, CHANNELS)
    int count;             // M
    Groups groups;
    const int64_t* step_ends;
    Exponent exponent;
    const float *factors, *shifts;  // (M,), of row_factors
    const float* peak;              // the largest |g|, which the factors were divided by, or null
    float scale;
    float* pieces;    // (2 blocks, rows of a tile, CHANNELS)
    float* gradient;  // (M, gradient_channels)
    int gradient_channels;
};

// What the largest weight of a pair becomes before it is rounded to float16, whose own largest is 65504. The factors of
// the whole contrast come from Triton's kernels: HEADROOM of triton_kernels/gradient.py is the same number.
constexpr float kHeadroom = 8192;

SEMICL_DEVICE float weights_divisor(const float* peak) { return peak ? *peak / kHeadroom : 1.0f; }

// A thread's two rows, of the sixteen of its warp from `first` on; rows end at `end`.
struct OwnRows {
    int first, end;
    float factor[2], shift[2];

    SEMICL_DEVICE int row(int r) const { return first + fragment_row(machine::lane(), 2 * r); }
    SEMICL_DEVICE bool inside(int r) const { return row(r) < end; }
    // Read where a tile has a mask, not held for those that have none.
    SEMICL_DEVICE Range skip(const Groups& groups, int r) const {
        return inside(r) ? Range{groups.skip_low[row(r)], groups.skip_high[row(r)]} : Range{0, 0};
    }
};

SEMICL_DEVICE OwnRows own_rows(const GradientArgument& a, int first, int end, bool known) {
    OwnRows own{first, end, {}, {}};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        own.factor[r] = own.inside(r) ? a.factors[own.row(r)] : 0;
        own.shift[r] = known ? 0 : own.inside(r) ? a.shifts[own.row(r)] : INFINITY;
    }
    return own;
}

template <bool KNOWN>
SEMICL_DEVICE float pair_weight(float exponent, float own, float own_shift, float other, float other_shift) {
    if (KNOWN) return machine::exp2(exponent) * (own + other);
    // A term that is left out may overflow: its exponential is no softmax.
    const float mine = own == 0 ? 0 : own * machine::exp2(exponent - own_shift);
    return other == 0 ? mine : mine + other * machine::exp2(exponent - other_shift);
}

// Turns a tile of products, in place, into weights. `factors` and `shifts` are those of the columns [column, ...), in
// shared memory; columns end at `end`.
template <bool MASKED, bool KNOWN, int COLUMNS>
SEMICL_DEVICE void weigh(float (&values)[COLUMNS / 2], const GradientArgument& a, const OwnRows& own, int column,
                         int end, const float* factors, const float* shifts) {
    const int lane = machine::lane();
    Range own_skip[2] = {};
#pragma unroll
    for (int r = 0; MASKED && r < 2; ++r) own_skip[r] = own.skip(a.groups, r);
#pragma unroll
    for (int j = 0; j < COLUMNS / 4; ++j) {
        const int number = fragment_column(lane, j / 2, j % 2), id = column + number;
        const bool inside = !MASKED || id < end;
        const float other = inside ? factors[number] : 0;
        const float other_shift = KNOWN ? 0 : inside ? shifts[number] : INFINITY;
        Range skip{0, 0};
        if (MASKED && !a.groups.mutual && inside) skip = {a.groups.skip_low[id], a.groups.skip_high[id]};
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float& value = values[j / 2 * 4 + r * 2 + j % 2];
            const bool mine = !MASKED || (inside && !own_skip[r].holds(id));
            const bool theirs = MASKED && !a.groups.mutual ? inside && !skip.holds(own.row(r)) : mine;
            const float weight = pair_weight<KNOWN>(a.exponent.of(value), mine ? own.factor[r] : 0, own.shift[r],
                                                    theirs ? other : 0, other_shift);
            value = mine || theirs ? weight : 0;
        }
    }
}

// Finds this block's next piece: see next_piece. The block's number is one that the compiler does not know to be the
// same each time: what follows from it would be held in registers that the loops over steps need.
SEMICL_DEVICE bool find_next(Piece& piece, int64_t& done, const GradientArgument& a, const Sides& sides) {
    const int worker = static_cast<int>(machine::opaque(static_cast<uint32_t>(machine::block())));
    return next_piece(piece, done, a.groups, a.step_ends, sides, worker, machine::blocks());
}

// Writes the channels `channel` (even) and the next of a row, those of them that there are.
SEMICL_DEVICE void write_pair(float* row, int channels, int channel, float low, float high) {
    if (channel < channels) row[channel] = low;
    if (channel + 1 < channels) row[channel + 1] = high;
}

// Writes a thread's part of the sums of weights times rows, as the gradient of its two rows where the piece is a whole
// tile, else to the piece's slot. Its warp's rows begin at row `own_row` of the tile.
template <int ROWS, int CHANNELS>
SEMICL_DEVICE void write_gradient(const float (&sums)[CHANNELS / 2], const GradientArgument& a, int slot, int own_row,
                                  const OwnRows& own) {
    const float scale = a.scale * weights_divisor(a.peak);
    const int lane = fresh_lane(), channels = slot == kWhole ? a.gradient_channels : CHANNELS;
    float* const rows = slot == kWhole ? a.gradient + static_cast<int64_t>(own.first) * channels
                                       : a.pieces + (static_cast<int64_t>(slot) * ROWS + own_row) * channels;
#pragma unroll
    for (int i = 0; i < CHANNELS / 8; ++i) {
        const int channel = fragment_column(lane, i, 0);
#pragma unroll
        for (int r = 0; r < 2; ++r)
            if (own.inside(r))
                write_pair(rows + fragment_row(lane, 2 * r) * channels, channels, channel, scale * sums[i * 4 + r * 2],
                           scale * sums[i * 4 + r * 2 + 1]);
    }
}

}  // namespace semicl::cuda
