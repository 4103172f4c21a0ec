// The boundary between the passes (passes.cpp) and the SIMD code (tiles.inl).
//
// The passes take every group of rows in tiles of at most kTileColumns columns and never touch a vector register; an
// `Arithmetic` holds the functions that work on one tile, compiled once per instruction set and once per operand type.
//
// Operands are rows of C values, C a multiple of 16, seen as C or C/2 32-bit *units*: a unit is one float, or two
// neighboring bfloat16 that one dot-product instruction takes together. With that, float and bfloat16 share every
// loop.
//
// A tile holds, for m rows i and w columns j, first the dot products x_i . x_j, then exp(scale x_i . x_j - shift), then
// the weight W_ij of the gradient (docs/loss.md: "the backward matrix is symmetric"), each in place of the one before.
// The weights of the positives are taken off in W_ij, before the products (docs/loss.md, "Positives in the same
// matrix").
#pragma once
#include <cstdint>

namespace semicl {

constexpr int kTileColumns = 192;  // a multiple of every micro-kernel's rows and columns
constexpr int kTileStride = 208;   // floats from row to row: not a power of two, so rows do not share cache sets

// One tile and where it stands. Rows and columns are absolute; an anchor i leaves out the columns [skip_begin,
// skip_end).
struct Tile {
    float* values;      // row stride kTileStride
    int rows, columns;  // m, w
    int upper_rows;     // rows [0, upper_rows) lie strictly above the diagonal: they also count for the columns
    int64_t first_row, first_column;
    const int32_t* row_skip_begin;      // [m]
    const int32_t* row_skip_end;        // [m]
    const int32_t* column_skip_begin;   // [kTileColumns], padded; for columns that are not anchors, an empty range
    const int32_t* column_skip_end;     // [kTileColumns], padded
    int32_t skip_begin, skip_end;       // the union of the columns' ranges
    const float* row_inverse_norms;     // [m], or null, as the columns': what similarities are multiplied by
    const float* column_inverse_norms;  // [kTileColumns], padded
    const int32_t* row_class_begin;     // [m]: row i's class is the columns [begin, end); null without positives
    const int32_t* row_class_end;       // [m]
    const int32_t* row_self;            // [m]: the column that row i is itself; null where that is column i
    const float* column_weights;        // [kTileColumns], padded: of keys, times their exponentials; or null: 1
    const float* column_log_weights;    // likewise their logarithms
};

// What each row and column of a tile gives to the weights of its pairs.
struct PairScales {
    const float *rows, *columns;              // times the exponentials
    const float *row_pulls, *column_pulls;    // taken off each pair of one class, times the key's weight if any
    const float *row_ratios, *column_ratios;  // e^{shift - lse}; null: pairs of one class take off their pulls whole
};

// exp(scale v - shift) as 2^(scale_log2 v + (rest v - shift)). The scale in base 2 is no float, and what is missing of
// it would be the same error in every similarity. The sums of exponentials are relative to the shift, in base 2 too.
struct Exponent {
    float scale_log2, rest, shift;
};

// Sums over the positives of a tile's rows, and of its columns (kTileColumns entries, overwritten).
struct SoftplusSums {
    float *row_values, *row_slopes, *column_values, *column_slopes;
};

struct Arithmetic {
    bool paired;  // units are pairs of bfloat16; right operands of the products interleave two rows (interleave_rows)

    // panels <- the w rows `rows` (stride `units`) transposed, kTileColumns x units, zero beyond w.
    void (*pack_columns)(const void* rows, int w, int64_t units, void* panels);
    // values[i, j] = rows[i] . column j of the panels, for m rows and w columns.
    void (*similarity)(const void* rows, int m, const void* panels, int w, int64_t units, float* values);
    // values[i, j] *= row_inverse_norms[i] column_inverse_norms[j].
    void (*apply_norms)(const Tile& tile);
    // out <- n rows of bfloat16 as ceil(n/2) rows of C units (rows 2r and 2r+1 side by side). Only where `paired`.
    void (*interleave_rows)(const void* rows, int64_t n, int64_t channels, void* out);
    // Makes the finished weights of a tile ready for the two products. Rows are padded to even with zeros.
    void (*seal_weights)(float* values, int m, int w);
    // out[j] += sum_i W_ij x_i, for w columns j. `operand` holds the x_i.
    void (*multiply_into_columns)(const float* values, int m, int w, const void* operand, int64_t channels, float* out);
    // out[i] += sum_j W_ij x_j, for the rows [first, first + m). `operand` holds the x_j.
    void (*multiply_into_rows)(const float* values, int first, int m, int w, const void* operand, int64_t channels,
                               float* out);

    // values <- 2^exponent; row_sums[i] = sum over the columns in D(i), column_sums[j] = sum over the upper rows i with
    // i in D(j) (kTileColumns entries, overwritten).
    void (*exponentials)(const Tile& tile, const Exponent& exponent, float* row_sums, float* column_sums);
    // row_maxima[i] = max of scale v over D(i), row_sums[i] = sum of exp(scale v - row_maxima[i]); for any range of v.
    void (*online_row_sums)(const Tile& tile, float scale, float* row_maxima, float* row_sums);
    // values[i] = sum over row i's positives j of w_j log(1 + e^{d_ij}), slopes[i] = sum of w_j / (1 + e^{-d_ij}), with
    // d_ij = row_lses[i] - scale v_ij, v the dot products; for any range of v.
    void (*online_softplus)(const Tile& tile, float scale, const double* row_lses, float* values, float* slopes);
    // Those sums by rows, and over the upper rows by columns, with e^{-d_ij} = v_ij ratio_i, v the exponentials, of
    // keys without weights. A ratio is e^{shift - lse}.
    void (*softplus)(const Tile& tile, const float* row_ratios, const float* column_ratios, const SoftplusSums& sums);
    // values <- v (row_i [j in D(i)] + column_j [i in D(j)]) - (row_pull_i + column_pull_j) [i, j of one class],
    // v the exponentials. A point and itself are no pair. With ratios a pull counts 1 / (1 + v ratio) times.
    void (*weigh)(const Tile& tile, const PairScales& scales);
    // values <- row_i e^{scale v - row_lse_i} [j in D(i)] + column_j e^{scale v - column_lse_j} [i in D(j)] - the same,
    // v the dot products; for any range of v. With ratios, whatever they are, a pull counts 1 / (1 + e^{scale v - lse})
    // times.
    void (*online_weigh)(const Tile& tile, float scale, const PairScales& scales, const float* row_lses,
                         const float* column_lses);
    // Runs `iterations` rounds of independent multiply-adds on full vectors; returns how many scalar ones that was.
    int64_t (*spin)(int64_t iterations);
};

// One instruction set: its name and its arithmetic for float and, where the processor has it, for bfloat16.
struct InstructionSet {
    const char* name;
    const Arithmetic* float32;
    const Arithmetic* bfloat16;  // null where there are no bfloat16 dot products
};

extern const InstructionSet baseline;
extern const InstructionSet avx2;
extern const InstructionSet avx512;
extern const InstructionSet avx512bf16;

}  // namespace semicl
