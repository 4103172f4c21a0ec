// Products of tiles by mma.sync: 16 rows a warp, both operands in shared memory in the layout of layout.h.
#pragma once
#include "formats.h"
#include "layout.h"
#include "machine.h"
#include "tiles.h"

namespace semicl::cuda {

// Copies rows [first, end) of the packed rows into a tile, zeros below; all THREADS threads of the block take part.
template <class FORMAT, class LAYOUT, int THREADS>
SEMICL_DEVICE void copy_rows(uint32_t tile, const uint16_t* rows, int count, int first, int end) {
    constexpr int kPieces = LAYOUT::kChannels / 8;
    // Not unrolled: its addresses would be held through the loop over tiles.
#pragma unroll 1
    for (int i = machine::thread(); i < LAYOUT::kRows * kPieces; i += THREADS) {
        const int row = i / kPieces, channel = i % kPieces * 8;
        const bool inside = first + row < end;
        const int64_t from = static_cast<int64_t>(inside ? first + row : first) * LAYOUT::kChannels + channel;
#pragma unroll
        for (int plane = 0; plane < FORMAT::kPlanes; ++plane)
            machine::copy16(tile + plane * LAYOUT::kBytes + LAYOUT::piece(row, channel),
                            rows + static_cast<int64_t>(plane) * count * LAYOUT::kChannels + from, inside);
    }
}

// Tensor cores cut their float32 sums toward zero. Where a number has three planes that would show: the small products,
// whose sums lose little, are summed before the large one, and sums over many rows tile by tile, each added here and
// rounded to nearest.
enum class Part { all, small, large };

template <class FORMAT>
constexpr bool kInParts = FORMAT::kPlanes > 1;

template <class FORMAT, Part PART>
SEMICL_HOST_DEVICE constexpr bool counts(int plane, int other) {
    const bool large = plane + other == 0;
    return FORMAT::counts(plane, other) && (PART == Part::all || large == (PART == Part::large));
}

// sums += the products of PART of left and right, 16 x 16 of each, in planes; `load(right, plane)` brings a plane of
// the right one.
template <class FORMAT, Part PART, class Load>
SEMICL_DEVICE void multiply_planes(float (&sums)[8], const uint32_t (&left)[FORMAT::kPlanes][4], const Load& load) {
#pragma unroll
    for (int other = FORMAT::kPlanes - 1; other >= 0; --other) {
        if (PART == Part::large && other > 0) continue;
        uint32_t right[4];
        load(right, other);
#pragma unroll
        for (int plane = FORMAT::kPlanes - 1; plane >= 0; --plane) {
            if (!counts<FORMAT, PART>(plane, other)) continue;
            FORMAT::Element::multiply(reinterpret_cast<float (&)[4]>(sums[0]), left[plane], right[0], right[1]);
            FORMAT::Element::multiply(reinterpret_cast<float (&)[4]>(sums[4]), left[plane], right[2], right[3]);
        }
    }
}

template <class FORMAT, Part PART, class A, class B>
SEMICL_DEVICE void add_row_products(float (&products)[B::kRows / 2], uint32_t a, int row, uint32_t b) {
    const int lane = fresh_lane();
    // Slab by slab, which differ by an offset alone: fewer addresses to hold, and less to compile.
#pragma unroll 1
    for (int slab = 0; slab < A::kSlabs; ++slab, a += A::kSlabBytes, b += B::kSlabBytes) {
#pragma unroll
        for (int channel = 0; channel < A::kSlabChannels; channel += 16) {
            uint32_t left[FORMAT::kPlanes][4];
#pragma unroll
            for (int plane = 0; plane < FORMAT::kPlanes; ++plane)
                if (PART != Part::large || plane == 0)
                    machine::load_matrices(left[plane],
                                           a + plane * A::kBytes + A::piece(row + lane % 16, channel + lane / 16 * 8));
#pragma unroll
            for (int column = 0; column < B::kRows; column += 16)
                multiply_planes<FORMAT, PART>(reinterpret_cast<float (&)[8]>(products[column / 2]), left,
                                              [&](uint32_t (&right)[4], int plane) {
                                                  machine::load_matrices(
                                                      right, b + plane * B::kBytes +
                                                                 B::piece(column + lane / 16 * 8 + lane % 8,
                                                                          channel + lane / 8 % 2 * 8));
                                              });
        }
    }
}

// products = rows [row, row + 16) of tile `a` times all rows of tile `b`, transposed.
template <class FORMAT, class A, class B>
SEMICL_DEVICE void multiply_rows(float (&products)[B::kRows / 2], uint32_t a, int row, uint32_t b) {
#pragma unroll
    for (int i = 0; i < B::kRows / 2; ++i) products[i] = 0;
    if constexpr (kInParts<FORMAT>) {
        add_row_products<FORMAT, Part::small, A, B>(products, a, row, b);
        add_row_products<FORMAT, Part::large, A, B>(products, a, row, b);
    } else {
        add_row_products<FORMAT, Part::all, A, B>(products, a, row, b);
    }
}

// sums += weights (16 x rows of the tile), in words of two by planes, times sixteen channels of the tile.
template <class FORMAT, Part PART, class B>
SEMICL_DEVICE void add_weighted_rows(float (&sums)[8], const uint32_t (&words)[B::kRows / 4][FORMAT::kPlanes],
                                     uint32_t b, int channel) {
    const int lane = fresh_lane();
#pragma unroll
    for (int row = 0; row < B::kRows; row += 16) {
        uint32_t left[FORMAT::kPlanes][4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int plane = 0; plane < FORMAT::kPlanes; ++plane) left[plane][i] = words[row / 4 + i][plane];
        multiply_planes<FORMAT, PART>(sums, left, [&](uint32_t (&right)[4], int plane) {
            machine::load_transposed(right,
                                     b + plane * B::kBytes + B::piece(row + lane % 16, channel + lane / 16 * 8));
        });
    }
}

// sums (16 x channels) += weights (16 x rows of the tile) times the tile. An accumulator of weights has the shape of
// the left operand of the next product: the weights never leave the registers.
template <class FORMAT, class B>
SEMICL_DEVICE void multiply_weights(float (&sums)[B::kChannels / 2], const float (&weights)[B::kRows / 2], uint32_t b) {
    uint32_t words[B::kRows / 4][FORMAT::kPlanes];
#pragma unroll
    for (int i = 0; i < B::kRows / 4; ++i) FORMAT::split(weights[2 * i], weights[2 * i + 1], words[i]);
#pragma unroll
    for (int channel = 0; channel < B::kChannels; channel += 16) {
        float (&own)[8] = reinterpret_cast<float (&)[8]>(sums[channel / 2]);
        if constexpr (kInParts<FORMAT>) {
            float tile[8] = {};
            add_weighted_rows<FORMAT, Part::small, B>(tile, words, b, channel);
            add_weighted_rows<FORMAT, Part::large, B>(tile, words, b, channel);
#pragma unroll
            for (int i = 0; i < 8; ++i) own[i] += tile[i];
        } else {
            add_weighted_rows<FORMAT, Part::all, B>(own, words, b, channel);
        }
    }
}

}  // namespace semicl::cuda
