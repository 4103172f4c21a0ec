// SIMD code for one tile, compiled once per instruction set by the tiles_*.cpp files, which define SEMICL_SET.
//
// Written with the vector extensions of GCC and Clang, so the same lines become AVX-512, AVX2, SSE2 or NEON. Everything
// is in an unnamed namespace and nothing from the standard library is instantiated here: a template shared with other
// files could be linked from this one and then run on a processor without its instructions.
//
// All three products run on one micro-kernel, kRows x 2 vectors of accumulators, which broadcasts the left operand with
// any strides and reads the right one along its rows:
//
//   similarity             left x_i (row stride C)      right columns packed in panels   (packed once per tile column)
//   into columns (W^T x)   left W, column by column     right x_i as they lie
//   into rows    (W x)     left W, row by row           right x_j as they lie
#include "tiles.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace semicl {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRows = 12;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kRows = 6;
#else
constexpr int kVectorBytes = 16;
constexpr int kRows = 6;
#endif
constexpr int kLanes = kVectorBytes / 4;
constexpr int kPanel = 2 * kLanes;    // columns of a packed panel
constexpr int64_t kDepth = 128;       // summed at a time: a panel so deep and its left operand fit the first cache
constexpr int64_t kWeightDepth = 64;  // likewise of weights: the rounding of a sum grows with its length
static_assert(kTileColumns % kPanel == 0 && kTileColumns % kRows == 0, "tiles hold whole panels");

typedef float Float __attribute__((vector_size(kVectorBytes)));
typedef int32_t Int __attribute__((vector_size(kVectorBytes)));
typedef uint32_t UnsignedInt __attribute__((vector_size(kVectorBytes)));
// may_alias: the same memory holds floats, pairs of bfloat16 and bit patterns in turn.
typedef float FloatMemory __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
typedef int32_t IntMemory __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
typedef uint32_t Unit __attribute__((may_alias));
typedef uint16_t Half __attribute__((may_alias));

inline Float load(const float* p) { return *reinterpret_cast<const FloatMemory*>(p); }
inline void store(float* p, Float v) { *reinterpret_cast<FloatMemory*>(p) = v; }
inline Int load_int(const int32_t* p) { return *reinterpret_cast<const IntMemory*>(p); }
inline Float splat(float s) { return Float{} + s; }
inline Int splat_int(int32_t s) { return Int{} + s; }
inline Float select(Int mask, Float v) { return reinterpret_cast<Float>(reinterpret_cast<Int>(v) & mask); }
inline int smaller(int a, int b) { return a < b ? a : b; }

// How much of `depth` to sum at a time: equal parts, none over `most`.
inline int64_t slice_of(int64_t depth, int64_t most) {
    const int64_t slices = depth > most ? (depth + most - 1) / most : 1;
    return (depth + slices - 1) / slices;
}

inline Int lane_numbers() {
    Int numbers;
    for (int lane = 0; lane < kLanes; ++lane) numbers[lane] = lane;
    return numbers;
}

inline float sum_lanes(Float v) {
    float lanes[kLanes];
    store(lanes, v);
    for (int width = kLanes / 2; width > 0; width /= 2)
        for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
    return lanes[0];
}

constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, left in the low bits

// 2^t = 2^f times 2 to the integer in the low bits of `rounded`.
inline Float power(Float t, Float f, Float rounded) {
    Float p = splat(0x1.41d334p-13f);
    p = p * f + 0x1.5f456ap-10f;
    p = p * f + 0x1.3b2dbcp-7f;
    p = p * f + 0x1.c6aed4p-5f;
    p = p * f + 0x1.ebfbdap-3f;
    p = p * f + 0x1.62e43p-1f;
    p = p * f + 1.0f;
    // Unsigned: the shift and the sum wrap around.
    const UnsignedInt bits = reinterpret_cast<UnsignedInt>(p) + (reinterpret_cast<UnsignedInt>(rounded) << 23);
    const Int underflow = t < splat(-126.0f);
    return select(~underflow, reinterpret_cast<Float>(bits));
}

// 2^t to 2e-9 before rounding; 0 below the normal numbers; NaN stays NaN and +inf becomes it.
inline Float exp2(Float t) {
    const Float rounded = t + kMagic;
    return power(t, t - (rounded - kMagic), rounded);
}

constexpr float kLn2 = 0x1.62e43p-1f, kLog2E = 0x1.715476p+0f;

// e^d, whose exponent in base 2 is never rounded as a whole: all exponentials of one row would err by it.
inline Float exp(Float d) {
    const Float t = d * kLog2E, rounded = t + kMagic, whole = rounded - kMagic;
    return power(t, ((d - whole * 0x1.63p-1f) + whole * 0x1.bd0106p-13f) * kLog2E, rounded);
}

// ---- operands: how one unit is multiplied and added ------------------------------------------------------------------

struct Single {
    static constexpr bool paired = false;
    typedef float Scalar __attribute__((may_alias));
    static Float multiply_add(Scalar a, Float b, Float sum) { return sum + a * b; }
};

#if defined(__AVX512BF16__)
struct Pair {
    static constexpr bool paired = true;
    typedef int32_t Scalar __attribute__((may_alias));
    static Float multiply_add(Scalar a, Float b, Float sum) {
        return (Float)_mm512_dpbf16_ps((__m512)sum, (__m512bh)(Int)splat_int(a), (__m512bh)b);
    }
};
#endif

// ---- the micro-kernel ------------------------------------------------------------------------------------------------

// out[i, :] (+)= sum_p left[i * row_stride + p * unit_stride] right[p * right_stride, :], for kM rows and kN vectors.
template <class Operand, int kM, int kN, bool kAccumulate>
void kernel(const typename Operand::Scalar* left, int64_t row_stride, int64_t unit_stride, const float* right,
            int64_t right_stride, int64_t depth, float* out, int64_t out_stride) {
    Float sums[kM][kN];
#pragma GCC unroll 16
    for (int i = 0; i < kM; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < kN; ++v) sums[i][v] = Float{};
    // Tiles come from the third cache or beyond, in strides that hardware does not foresee.
    for (int i = 0; i < kM; ++i)
        for (int v = 0; v < kN; ++v) __builtin_prefetch(out + i * out_stride + v * kLanes, 1);
    for (int64_t p = 0; p < depth; ++p) {
        if constexpr (kAccumulate) __builtin_prefetch(left + kM * row_stride + p * unit_stride);  // the next kM rows
        Float columns[kN];
#pragma GCC unroll 2
        for (int v = 0; v < kN; ++v) columns[v] = load(right + p * right_stride + v * kLanes);
#pragma GCC unroll 16
        for (int i = 0; i < kM; ++i) {
            const typename Operand::Scalar value = left[i * row_stride + p * unit_stride];
#pragma GCC unroll 2
            for (int v = 0; v < kN; ++v) sums[i][v] = Operand::multiply_add(value, columns[v], sums[i][v]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < kM; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < kN; ++v) {
            float* target = out + i * out_stride + v * kLanes;
            store(target, kAccumulate ? load(target) + sums[i][v] : sums[i][v]);
        }
}

template <class Operand>
using Kernel = void (*)(const typename Operand::Scalar*, int64_t, int64_t, const float*, int64_t, int64_t, float*,
                        int64_t);

// The kernels of 1 .. kRows rows, so that a ragged edge costs what it holds.
template <class Operand, int kN, bool kAccumulate>
struct Kernels {
    Kernel<Operand> of_rows[kRows + 1];
    constexpr Kernels() : of_rows{} { fill<kRows>(); }
    template <int kM>
    constexpr void fill() {
        of_rows[kM] = kernel<Operand, kM, kN, kAccumulate>;
        if constexpr (kM > 1) fill<kM - 1>();
    }
};
template <class Operand, int kN, bool kAccumulate>
constexpr Kernels<Operand, kN, kAccumulate> kernels{};

// out[m, columns] += left (m x depth) right (depth x columns); columns is a multiple of one vector.
template <class Operand>
void multiply(const typename Operand::Scalar* left, int64_t row_stride, int64_t unit_stride, const float* right,
              int64_t columns, int64_t depth, int m, float* out) {
    const int64_t slice = slice_of(depth, kWeightDepth);
    for (int64_t p = 0; p < depth; p += slice) {
        const auto* l = left + p * unit_stride;
        const float* r = right + p * columns;
        const int64_t d = depth - p < slice ? depth - p : slice;
        int64_t c = 0;
        for (; c + kPanel <= columns; c += kPanel)
            for (int i = 0; i < m; i += kRows)
                kernels<Operand, 2, true>.of_rows[smaller(kRows, m - i)](
                    l + i * row_stride, row_stride, unit_stride, r + c, columns, d, out + i * columns + c, columns);
        for (; c < columns; c += kLanes)
            for (int i = 0; i < m; i += kRows)
                kernels<Operand, 1, true>.of_rows[smaller(kRows, m - i)](
                    l + i * row_stride, row_stride, unit_stride, r + c, columns, d, out + i * columns + c, columns);
    }
}

// ---- packing and the three products ----------------------------------------------------------------------------------

// Lanes of a and b by turns: of their lower halves, and of their upper halves.
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SEMICL_SHUFFLE __builtin_shufflevector
#endif
#endif
#if !defined(SEMICL_SHUFFLE)  // GCC before 12
inline Int by_turns(Int a, Int b, int first) {
    Int turns;
    for (int lane = 0; lane < kLanes; ++lane) turns[lane] = lane % 2 ? b[first + lane / 2] : a[first + lane / 2];
    return turns;
}
inline Int lower_turns(Int a, Int b) { return by_turns(a, b, 0); }
inline Int upper_turns(Int a, Int b) { return by_turns(a, b, kLanes / 2); }
#elif defined(__AVX512F__)
inline Int lower_turns(Int a, Int b) {
    return SEMICL_SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline Int upper_turns(Int a, Int b) {
    return SEMICL_SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#elif defined(__AVX__)
inline Int lower_turns(Int a, Int b) { return SEMICL_SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
inline Int upper_turns(Int a, Int b) { return SEMICL_SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#else
inline Int lower_turns(Int a, Int b) { return SEMICL_SHUFFLE(a, b, 0, 4, 1, 5); }
inline Int upper_turns(Int a, Int b) { return SEMICL_SHUFFLE(a, b, 2, 6, 3, 7); }
#endif

// Transposes kLanes vectors: dealing the two halves of a pack into each other, log2(kLanes) times, does it.
inline void transpose(Int (&lines)[kLanes]) {
#pragma GCC unroll 4
    for (int step = 1; step < kLanes; step *= 2) {
        Int dealt[kLanes];
#pragma GCC unroll 8
        for (int k = 0; k < kLanes / 2; ++k) {
            dealt[2 * k] = lower_turns(lines[k], lines[k + kLanes / 2]);
            dealt[2 * k + 1] = upper_turns(lines[k], lines[k + kLanes / 2]);
        }
#pragma GCC unroll 16
        for (int k = 0; k < kLanes; ++k) lines[k] = dealt[k];
    }
}

// The first `held` of kLanes units, zeros behind them.
inline Int load_units(const Unit* from, int64_t held) {
    if (held >= kLanes) return *reinterpret_cast<const IntMemory*>(from);
    Int units = {};
    for (int lane = 0; lane < held; ++lane) units[lane] = static_cast<int32_t>(from[lane]);
    return units;
}

// A panel is `units` lines of kPanel columns; it is filled by squares of kLanes columns and units.
void pack_columns(const void* rows, int w, int64_t units, void* panels) {
    const Unit* from = static_cast<const Unit*>(rows);
    for (int first = 0; first < (w + kPanel - 1) / kPanel * kPanel; first += kLanes) {
        Unit* panel = static_cast<Unit*>(panels) + first / kPanel * kPanel * units + first % kPanel;
        for (int64_t u = 0; u < units; u += kLanes) {
            Int square[kLanes];
            for (int k = 0; k < kLanes; ++k) {
                const Unit* row = from + (first + k) * units + u;
                square[k] = first + k < w ? load_units(row, units - u) : Int{};
                __builtin_prefetch(row + kLanes);
            }
            transpose(square);
            for (int k = 0; k < smaller(kLanes, static_cast<int>(units - u)); ++k)
                *reinterpret_cast<IntMemory*>(panel + (u + k) * kPanel) = square[k];
        }
    }
}

template <class Operand>
void similarity(const void* rows, int m, const void* panels, int w, int64_t units, float* values) {
    const auto* left = static_cast<const typename Operand::Scalar*>(rows);
    const float* right = static_cast<const float*>(panels);
    const int64_t slice = slice_of(units, kDepth);
    for (int64_t u = 0; u < units; u += slice) {
        const Kernel<Operand>* of_rows =
            u == 0 ? kernels<Operand, 2, false>.of_rows : kernels<Operand, 2, true>.of_rows;
        const int64_t depth = units - u < slice ? units - u : slice;
        for (int j = 0; j < w; j += kPanel)
            for (int i = 0; i < m; i += kRows)
                of_rows[smaller(kRows, m - i)](left + i * units + u, units, 1, right + j * units + u * kPanel, kPanel,
                                               depth, values + i * kTileStride + j, kTileStride);
    }
}

void apply_norms(const Tile& tile) {
    for (int i = 0; i < tile.rows; ++i) {
        const Float scale = splat(tile.row_inverse_norms[i]);
        float* row = tile.values + i * kTileStride;
        for (int j = 0; j < tile.columns; j += kLanes)
            store(row + j, load(row + j) * (scale * load(tile.column_inverse_norms + j)));
    }
}

void seal_single(float*, int, int) {}

void multiply_into_columns_single(const float* values, int m, int w, const void* operand, int64_t channels,
                                  float* out) {
    multiply<Single>(values, 1, kTileStride, static_cast<const float*>(operand), channels, m, w, out);
}

void multiply_into_rows_single(const float* values, int first, int m, int w, const void* operand, int64_t channels,
                               float* out) {
    multiply<Single>(values + first * kTileStride, kTileStride, 1, static_cast<const float*>(operand), channels, w, m,
                     out);
}

#if defined(__AVX512BF16__)
void interleave_rows(const void* rows, int64_t n, int64_t channels, void* out) {
    const Half* from = static_cast<const Half*>(rows);
    Half* to = static_cast<Half*>(out);
    for (int64_t r = 0; r < n; r += 2)
        for (int64_t c = 0; c < channels; ++c) {
            to[r * channels + 2 * c] = from[r * channels + c];
            to[r * channels + 2 * c + 1] = r + 1 < n ? from[(r + 1) * channels + c] : Half{0};
        }
}

// Sealed weights, in place of two rows of floats (2 x 208): row r holds its own kTileColumns bfloat16 as 96 units,
// pairs along the columns, for the product into rows; behind them 96 units, pairs along the two rows, for the product
// into columns: columns [0, 96) behind the even row, [96, 192) behind the odd one.
constexpr int kHalfTile = kTileColumns / 2;

void seal_pair(float* values, int m, int w) {
    const __m512i even = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                                          37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i odd = _mm512_add_epi16(even, _mm512_set1_epi16(16));
    for (int i = 0; i < m; i += 2) {
        float* upper = values + i * kTileStride;
        float* lower = upper + kTileStride;
        alignas(64) uint16_t narrow[2][kTileColumns];
        for (int j = 0; j < kTileColumns; j += 32) {
            const __m512 none = _mm512_setzero_ps();
            const bool low = j < w, high = j + 16 < w, second = i + 1 < m;
            const __m512bh a = _mm512_cvtne2ps_pbh(high ? _mm512_loadu_ps(upper + j + 16) : none,
                                                   low ? _mm512_loadu_ps(upper + j) : none);
            const __m512bh b = _mm512_cvtne2ps_pbh(high && second ? _mm512_loadu_ps(lower + j + 16) : none,
                                                   low && second ? _mm512_loadu_ps(lower + j) : none);
            _mm512_store_si512(narrow[0] + j, (__m512i)a);
            _mm512_store_si512(narrow[1] + j, (__m512i)b);
        }
        for (int j = 0; j < kTileColumns; j += 32) {
            const __m512i a = _mm512_load_si512(narrow[0] + j), b = _mm512_load_si512(narrow[1] + j);
            float* side = (j < kHalfTile ? upper + j : lower + j - kHalfTile) + kHalfTile;
            _mm512_storeu_si512(upper + j / 2, a);
            _mm512_storeu_si512(lower + j / 2, b);
            _mm512_storeu_si512(side, _mm512_permutex2var_epi16(a, even, b));
            _mm512_storeu_si512(side + 16, _mm512_permutex2var_epi16(a, odd, b));
        }
    }
}

void multiply_into_columns_pair(const float* values, int m, int w, const void* operand, int64_t channels, float* out) {
    for (int half = 0; half < 2; ++half) {
        const float* left = values + half * kTileStride + kHalfTile;
        const int held = smaller(kHalfTile, w - half * kHalfTile);
        if (held > 0)
            multiply<Pair>(reinterpret_cast<const Pair::Scalar*>(left), 1, 2 * kTileStride,
                           static_cast<const float*>(operand), channels, (m + 1) / 2, held,
                           out + half * kHalfTile * channels);
    }
}

void multiply_into_rows_pair(const float* values, int first, int m, int w, const void* operand, int64_t channels,
                             float* out) {
    multiply<Pair>(reinterpret_cast<const Pair::Scalar*>(values + first * kTileStride), kTileStride, 1,
                   static_cast<const float*>(operand), channels, (w + 1) / 2, m, out);
}
#endif

// ---- sweeps: what happens to the elements of a tile ------------------------------------------------------------------
//
// A sweep is a class with begin(i), element(v, counts_for_row, counts_for_column, j) -> v' and end(i). `run` calls it
// with whole masks where no skipped range and no ragged edge is met, and with real ones elsewhere.

struct Always {
    Float operator()(Float v) const { return v; }
    Float otherwise(Float v, float) const { return v; }
};

struct Where {
    Int mask;
    Float operator()(Float v) const { return select(mask, v); }
    Float otherwise(Float v, float fallback) const { return mask ? v : splat(fallback); }
};

inline bool touched(const Tile& tile, int i) {
    const int64_t row = tile.first_row + i;
    const bool by_row = tile.row_skip_begin[i] < tile.first_column + tile.columns &&
                        tile.row_skip_end[i] > tile.first_column && tile.row_skip_begin[i] < tile.row_skip_end[i];
    return by_row || (row >= tile.skip_begin && row < tile.skip_end);
}

struct Masks {
    Int in_row, in_column;  // whether the column is in D(row), and the row in D(column)
};

inline Masks masks_of(const Tile& tile, int i, int j) {
    const Int lanes = lane_numbers() + j;
    const Int held = lanes < splat_int(tile.columns);
    const Int column = lanes + static_cast<int32_t>(tile.first_column);
    const Int row = splat_int(static_cast<int32_t>(tile.first_row + i));
    const Int in_row = (column < splat_int(tile.row_skip_begin[i])) | (column >= splat_int(tile.row_skip_end[i]));
    const Int in_column = (row < load_int(tile.column_skip_begin + j)) | (row >= load_int(tile.column_skip_end + j));
    return {in_row & held, in_column & held};
}

template <class Sweep>
inline void masked_element(const Tile& tile, Sweep& sweep, int i, int j) {
    const Masks masks = masks_of(tile, i, j);
    float* p = tile.values + i * kTileStride + j;
    store(p, sweep.element(load(p), Where{masks.in_row}, Where{masks.in_column}, j));
}

template <class Sweep>
void run(const Tile& tile, Sweep sweep) {
    for (int i = 0; i < tile.rows; ++i) {
        sweep.begin(i);
        float* row = tile.values + i * kTileStride;
        int j = 0;
        if (!touched(tile, i))
            for (; j + kLanes <= tile.columns; j += kLanes)
                store(row + j, sweep.element(load(row + j), Always{}, Always{}, j));
        for (; j < tile.columns; j += kLanes) masked_element(tile, sweep, i, j);
        sweep.end(i);
    }
}

// What the weights of keys do: nothing where there are none.
struct Unweighted {
    Float exponent(Float s, int) const { return s; }
    Float exponent2(Float t, int) const { return t; }
    Float pull(Float own, Float of_column, int) const { return own + of_column; }
    Float weight(int) const { return splat(1.0f); }
};

struct Weighted {
    const float *weights, *logs;
    Float exponent(Float s, int j) const { return s + load(logs + j); }
    Float exponent2(Float t, int j) const { return t + load(logs + j) * kLog2E; }
    Float pull(Float own, Float, int j) const { return own * load(weights + j); }
    Float weight(int j) const { return load(weights + j); }
};

// Calls sweep(Unweighted or Weighted).
template <class Sweep>
void with_weights(const Tile& tile, Sweep sweep) {
    if (tile.column_weights)
        sweep(Weighted{tile.column_weights, tile.column_log_weights});
    else
        sweep(Unweighted{});
}

template <class Keys>
struct Exponentials {
    const Tile& tile;
    Keys keys;
    Float scale_log2, rest, shift;
    float *row_sums, *column_sums;
    Float sum = Float{};
    bool upper = false;
    void begin(int i) { sum = Float{}, upper = i < tile.upper_rows; }
    template <class Row, class Column>
    Float element(Float v, Row in_row, Column in_column, int j) {
        const Float e = exp2(keys.exponent2(v * scale_log2 + (v * rest - shift), j));
        sum += in_row(e);
        if (upper) store(column_sums + j, load(column_sums + j) + in_column(e));
        return e;
    }
    void end(int i) { row_sums[i] = sum_lanes(sum); }
};

void exponentials(const Tile& tile, const Exponent& exponent, float* row_sums, float* column_sums) {
    for (int j = 0; j < kTileColumns; ++j) column_sums[j] = 0.0f;
    with_weights(tile, [&](auto keys) {
        run(tile, Exponentials<decltype(keys)>{tile, keys, splat(exponent.scale_log2), splat(exponent.rest),
                                               splat(exponent.shift), row_sums, column_sums});
    });
}

constexpr float kNothing = -__builtin_inff();

// Hides a value from the optimizer, in its register.
inline void hide(Float& v) {
#if defined(__AVX512F__)
    asm volatile("" : "+v"(v));
#elif defined(__x86_64__)
    asm volatile("" : "+x"(v));
#elif defined(__aarch64__)
    asm volatile("" : "+w"(v));
#else
    asm volatile("" : "+m"(v));
#endif
}

// a b rounded, never fused with what is added to it: a maximum taken of such products is then no smaller than any of
// them, and their exponentials relative to it are at most 1.
inline Float product(Float a, Float b) {
    Float rounded = a * b;
    hide(rounded);
    return rounded;
}

template <class Keys>
struct Maxima {
    Keys keys;
    Float scale;
    float* row_maxima;
    Float largest = Float{};
    void begin(int) { largest = splat(kNothing); }
    template <class Row, class Column>
    Float element(Float v, Row in_row, Column, int j) {
        const Float s = in_row.otherwise(keys.exponent(product(v, scale), j), kNothing);
        largest = ((s > largest) | (s != s)) ? s : largest;  // a NaN, once met, stays: nothing is larger
        return v;
    }
    void end(int i) {
        float lanes[kLanes], best = kNothing;
        store(lanes, largest);
        for (float lane : lanes) best = lane > best || lane != lane ? lane : best;
        row_maxima[i] = best;
    }
};

template <class Keys>
struct OnlineSums {
    Keys keys;
    Float scale;
    const float* row_maxima;
    float* row_sums;
    Float sum = Float{}, shift = Float{};
    void begin(int i) { sum = Float{}, shift = splat(row_maxima[i] == kNothing ? 0.0f : row_maxima[i]); }
    template <class Row, class Column>
    Float element(Float v, Row in_row, Column, int j) {
        sum += in_row(exp(keys.exponent(product(v, scale), j) - shift));
        return v;
    }
    void end(int i) { row_sums[i] = sum_lanes(sum); }
};

void online_row_sums(const Tile& tile, float scale, float* row_maxima, float* row_sums) {
    with_weights(tile, [&](auto keys) {
        run(tile, Maxima<decltype(keys)>{keys, splat(scale), row_maxima});
        run(tile, OnlineSums<decltype(keys)>{keys, splat(scale), row_maxima, row_sums});
    });
}

// ---- weights: exponentials times scales, less the pulls of the positives ----------------------------------------------
//
// The columns of a row's class are one range [begin, end). Vectors of columns outside it, inside it and across its ends
// are three loops, so that most need no mask.

struct Never {
    Float operator()(Float) const { return Float{}; }
};

// 1 / (1 + odds), the odds being exponentials, in which the weight of a key is a factor.
template <class Keys>
inline Float share(const Keys& keys, Float odds, int j) {
    const Float w = keys.weight(j);
    return odds > 0.0f ? w / (w + odds) : splat(1.0f);
}

template <class Keys, bool kShares>
struct Weigh {
    Keys keys;
    const PairScales& scales;
    Float own = Float{}, pull = Float{}, ratio = Float{};
    void begin(int i) {
        own = splat(scales.rows[i]);
        pull = splat(scales.row_pulls[i]);
        if constexpr (kShares) ratio = splat(scales.row_ratios[i]);
    }
    template <class Row, class Column, class Same>
    Float element(Float v, Row in_row, Column in_column, Same same, int j) {
        Float of_row = pull, of_column = load(scales.column_pulls + j);
        if constexpr (kShares) {
            of_row *= share(keys, v * ratio, j);
            of_column *= share(keys, v * load(scales.column_ratios + j), j);
        }
        return v * (in_row(own) + in_column(load(scales.columns + j))) - same(keys.pull(of_row, of_column, j));
    }
};

template <class Keys, bool kShares>
struct OnlineWeigh {
    Keys keys;
    Float scale;
    const PairScales& scales;
    const float *row_lses, *column_lses;
    Float own = Float{}, pull = Float{}, lse = Float{};
    void begin(int i) {
        own = splat(scales.rows[i]), lse = splat(row_lses[i]);
        pull = splat(scales.row_pulls[i]);
    }
    // e^{s - lse}, whatever the size of it: of a positive it may be no weight.
    static Float odds(Float s, Float lse) {
        const Float d = s - lse;
        return exp(d > 87.0f ? splat(87.0f) : d);
    }
    template <class Row, class Column, class Same>
    Float element(Float v, Row in_row, Column in_column, Same same, int j) {
        const Float s = keys.exponent(product(v, scale), j), column_lse = load(column_lses + j);
        Float of_row = pull, of_column = load(scales.column_pulls + j);
        if constexpr (kShares) {
            of_row *= share(keys, odds(s, lse), j);
            of_column *= share(keys, odds(s, column_lse), j);
        }
        return in_row(own * exp(s - lse)) + in_column(load(scales.columns + j) * exp(s - column_lse)) -
               same(keys.pull(of_row, of_column, j));
    }
};

// Which columns of a tile row i has its positives among: [begin, end) but itself.
struct Positives {
    int begin, end, itself;
    Where among(int j) const {
        const Int lanes = lane_numbers() + j;
        return {(lanes >= splat_int(begin)) & (lanes < splat_int(end)) & (lanes != splat_int(itself))};
    }
};

inline int within(int64_t column, int columns) {
    return column < 0 ? 0 : column > columns ? columns : static_cast<int>(column);
}

inline Positives positives_of(const Tile& tile, int i) {
    const int64_t self = tile.row_self ? tile.row_self[i] : tile.first_row + i;
    Positives positives{tile.columns, tile.columns, static_cast<int>(self - tile.first_column)};
    if (!tile.row_class_begin) return positives;
    const int begin = within(tile.row_class_begin[i] - tile.first_column, tile.columns);
    const int end = within(tile.row_class_end[i] - tile.first_column, tile.columns);
    if (begin < end) positives.begin = begin, positives.end = end;
    return positives;
}

template <class Weights>
inline void masked_weight(const Tile& tile, Weights& weights, int i, int j, const Positives& positives) {
    const Masks masks = masks_of(tile, i, j);
    float* p = tile.values + i * kTileStride + j;
    store(p, weights.element(load(p), Where{masks.in_row}, Where{masks.in_column}, positives.among(j), j));
}

template <class Weights>
void run_weights(const Tile& tile, Weights weights) {
    for (int i = 0; i < tile.rows; ++i) {
        weights.begin(i);
        const Positives positives = positives_of(tile, i);
        const int begin = positives.begin, end = positives.end;
        float* row = tile.values + i * kTileStride;
        int j = 0;
        if (!touched(tile, i)) {
            for (; j + kLanes <= begin; j += kLanes)
                store(row + j, weights.element(load(row + j), Always{}, Always{}, Never{}, j));
            if (j < begin && j + kLanes <= tile.columns) masked_weight(tile, weights, i, j, positives), j += kLanes;
            for (; j + kLanes <= end; j += kLanes)
                store(row + j, weights.element(load(row + j), Always{}, Always{}, Always{}, j));
            if (j < end && j + kLanes <= tile.columns) masked_weight(tile, weights, i, j, positives), j += kLanes;
            for (; j + kLanes <= tile.columns; j += kLanes)
                store(row + j, weights.element(load(row + j), Always{}, Always{}, Never{}, j));
        }
        for (; j < tile.columns; j += kLanes) masked_weight(tile, weights, i, j, positives);
    }
}

void weigh(const Tile& tile, const PairScales& scales) {
    with_weights(tile, [&](auto keys) {
        if (scales.row_ratios)
            run_weights(tile, Weigh<decltype(keys), true>{keys, scales});
        else
            run_weights(tile, Weigh<decltype(keys), false>{keys, scales});
    });
}

void online_weigh(const Tile& tile, float scale, const PairScales& scales, const float* row_lses,
                  const float* column_lses) {
    with_weights(tile, [&](auto keys) {
        if (scales.row_ratios)
            run_weights(tile, OnlineWeigh<decltype(keys), true>{keys, splat(scale), scales, row_lses, column_lses});
        else
            run_weights(tile, OnlineWeigh<decltype(keys), false>{keys, splat(scale), scales, row_lses, column_lses});
    });
}

// ---- positives against a log-sum-exp ---------------------------------------------------------------------------------

// log(1 + u) for u in [0, 1], to one unit in the last place: 2 atanh(z) of z = u / (2 + u) <= 1/3.
inline Float log1p(Float u) {
    const Float z = u / (u + 2.0f), q = z * z;
    Float p = splat(1.0f / 15);
    p = p * q + 1.0f / 13;
    p = p * q + 1.0f / 11;
    p = p * q + 1.0f / 9;
    p = p * q + 1.0f / 7;
    p = p * q + 1.0f / 5;
    p = p * q + 1.0f / 3;
    return (z + z) * (1.0f + q * p);
}

// Of dot products, against log-sum-exps: in one term that is at most 1, and so for any range of them.
template <class Keys>
void online_softplus_rows(const Tile& tile, const Keys& keys, float scale, const double* row_lses, float* values,
                          float* slopes) {
    for (int i = 0; i < tile.rows; ++i) {
        const Positives positives = positives_of(tile, i);
        const float rounded = static_cast<float>(row_lses[i]);
        const float missing = static_cast<float>(row_lses[i] - rounded);
        const Float lse = splat(rounded), rest = splat(missing == missing ? missing : 0.0f);  // -inf less -inf
        const float* row = tile.values + i * kTileStride;
        Float value = Float{}, slope = Float{};
        for (int j = positives.begin / kLanes * kLanes; j < positives.end; j += kLanes) {
            const Float d = (lse - load(row + j) * scale) + rest;
            const Float size = d < 0.0f ? -d : d;
            const Float u = exp(-size), up = d < 0.0f ? Float{} : d, top = d < 0.0f ? u : splat(1.0f);
            const Where among = positives.among(j);
            value += among(keys.weight(j) * (up + log1p(u)));
            slope += among(keys.weight(j) * top / (1.0f + u));
        }
        values[i] = sum_lanes(value), slopes[i] = sum_lanes(slope);
    }
}

void online_softplus(const Tile& tile, float scale, const double* row_lses, float* values, float* slopes) {
    with_weights(tile, [&](auto keys) { online_softplus_rows(tile, keys, scale, row_lses, values, slopes); });
}

struct Softplus {
    Float value, slope;
};

// Of 1 / e^{lse - s}. 1 + e^{lse - s} is 2^power (1 + u).
inline Softplus softplus_of(Float odds) {
    const Float y = 1.0f / odds, whole = 1.0f + y;
    const Int power = ((Int)whole >> 23) - 127;
    const Float u = power == 0 ? y : (Float)((Int)whole - (power << 23)) - 1.0f;
    return {__builtin_convertvector(power, Float) * kLn2 + log1p(u), y / whole};
}

void softplus(const Tile& tile, const float* row_ratios, const float* column_ratios, const SoftplusSums& sums) {
    for (int j = 0; j < kTileColumns; ++j) sums.column_values[j] = sums.column_slopes[j] = 0.0f;
    for (int i = 0; i < tile.rows; ++i) {
        const Positives positives = positives_of(tile, i);
        const Float ratio = splat(row_ratios[i]);
        const float* row = tile.values + i * kTileStride;
        Float value = Float{}, slope = Float{};
        for (int j = positives.begin / kLanes * kLanes; j < positives.end; j += kLanes) {
            const Where among = positives.among(j);
            const Float v = load(row + j);
            const Softplus of_row = softplus_of(v * ratio);
            value += among(of_row.value), slope += among(of_row.slope);
            if (i >= tile.upper_rows) continue;
            const Softplus of_column = softplus_of(v * load(column_ratios + j));
            store(sums.column_values + j, load(sums.column_values + j) + among(of_column.value));
            store(sums.column_slopes + j, load(sums.column_slopes + j) + among(of_column.slope));
        }
        sums.row_values[i] = sum_lanes(value), sums.row_slopes[i] = sum_lanes(slope);
    }
}

// ---- the peak --------------------------------------------------------------------------------------------------------

// One step of a chain that cannot be shortened.
inline Float chain(Single, Float sum, Float factor) { return sum * factor + factor; }
#if defined(__AVX512BF16__)
inline Float chain(Pair, Float sum, Float factor) {
    return (Float)_mm512_dpbf16_ps((__m512)sum, (__m512bh)factor, (__m512bh)factor);
}
#endif

template <class Operand>
int64_t spin(int64_t iterations) {
    constexpr int kChains = 12;  // more than latency times throughput anywhere
    Float sums[kChains];
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) sums[i] = splat(static_cast<float>(i));
    Float factor = splat(0.5f);
    for (int64_t p = 0; p < iterations; ++p) {
        hide(factor);
#pragma GCC unroll 16
        for (int i = 0; i < kChains; ++i) sums[i] = chain(Operand{}, sums[i], factor);
    }
    Float total = Float{};
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) total += sums[i];
    hide(total);
    return iterations * kChains * kLanes * (Operand::paired ? 2 : 1);
}

const Arithmetic single{false,
                        pack_columns,
                        similarity<Single>,
                        apply_norms,
                        nullptr,
                        seal_single,
                        multiply_into_columns_single,
                        multiply_into_rows_single,
                        exponentials,
                        online_row_sums,
                        online_softplus,
                        softplus,
                        weigh,
                        online_weigh,
                        spin<Single>};

#if defined(__AVX512BF16__)
const Arithmetic pair{true,
                      pack_columns,
                      similarity<Pair>,
                      apply_norms,
                      interleave_rows,
                      seal_pair,
                      multiply_into_columns_pair,
                      multiply_into_rows_pair,
                      exponentials,
                      online_row_sums,
                      online_softplus,
                      softplus,
                      weigh,
                      online_weigh,
                      spin<Pair>};
constexpr const Arithmetic* paired_or_none = &pair;
#else
constexpr const Arithmetic* paired_or_none = nullptr;
#endif

}  // namespace

extern const InstructionSet SEMICL_SET{SEMICL_SET_NAME, &single, paired_or_none};

}  // namespace semicl
