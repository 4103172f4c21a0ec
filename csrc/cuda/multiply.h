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

// products = rows [row, row + 16) of tile `a` times all rows of tile `b`, transposed.
template <class FORMAT, class A, class B>
SEMICL_DEVICE void multiply_rows(float (&products)[B::kRows / 2], uint32_t a, int row, uint32_t b) {
    const int lane = fresh_lane();
#pragma unroll
    for (int i = 0; i < B::kRows / 2; ++i) products[i] = 0;
    // Slab by slab, which differ by an offset alone: fewer addresses to hold, and less to compile.
#pragma unroll 1
    for (int slab = 0; slab < A::kSlabs; ++slab, a += A::kSlabBytes, b += B::kSlabBytes) {
#pragma unroll
        for (int channel = 0; channel < A::kSlabChannels; channel += 16) {
            uint32_t left[FORMAT::kPlanes][4];
#pragma unroll
            for (int plane = 0; plane < FORMAT::kPlanes; ++plane)
                machine::load_matrices(left[plane],
                                       a + plane * A::kBytes + A::piece(row + lane % 16, channel + lane / 16 * 8));
#pragma unroll
            for (int column = 0; column < B::kRows; column += 16) {
                float (&low)[4] = reinterpret_cast<float (&)[4]>(products[column / 2]);
                float (&high)[4] = reinterpret_cast<float (&)[4]>(products[column / 2 + 4]);
#pragma unroll
                for (int other = FORMAT::kPlanes - 1; other >= 0; --other) {
                    uint32_t right[4];
                    machine::load_matrices(right,
                                           b + other * B::kBytes +
                                               B::piece(column + lane / 16 * 8 + lane % 8, channel + lane / 8 % 2 * 8));
#pragma unroll
                    for (int plane = FORMAT::kPlanes - 1; plane >= 0; --plane) {
                        if (!FORMAT::counts(plane, other)) continue;
                        FORMAT::Element::multiply(low, left[plane], right[0], right[1]);
                        FORMAT::Element::multiply(high, left[plane], right[2], right[3]);
                    }
                }
            }
        }
    }
}

// sums (16 x channels) += weights (16 x rows of the tile) times the tile. An accumulator of weights has the shape of
// the left operand of the next product: the weights never leave the registers.
template <class FORMAT, class B>
SEMICL_DEVICE void multiply_weights(float (&sums)[B::kChannels / 2], const float (&weights)[B::kRows / 2], uint32_t b) {
    const int lane = fresh_lane();
#pragma unroll
    for (int row = 0; row < B::kRows; row += 16) {
        uint32_t left[4][FORMAT::kPlanes];
#pragma unroll
        for (int i = 0; i < 4; ++i) FORMAT::split(weights[row / 2 + 2 * i], weights[row / 2 + 2 * i + 1], left[i]);
#pragma unroll
        for (int channel = 0; channel < B::kChannels; channel += 16) {
            float (&low)[4] = reinterpret_cast<float (&)[4]>(sums[channel / 2]);
            float (&high)[4] = reinterpret_cast<float (&)[4]>(sums[channel / 2 + 4]);
#pragma unroll
            for (int other = FORMAT::kPlanes - 1; other >= 0; --other) {
                uint32_t right[4];
                machine::load_transposed(right,
                                         b + other * B::kBytes + B::piece(row + lane % 16, channel + lane / 16 * 8));
#pragma unroll
                for (int plane = FORMAT::kPlanes - 1; plane >= 0; --plane) {
                    if (!FORMAT::counts(plane, other)) continue;
                    const uint32_t words[4] = {left[0][plane], left[1][plane], left[2][plane], left[3][plane]};
                    FORMAT::Element::multiply(low, words, right[0], right[1]);
                    FORMAT::Element::multiply(high, words, right[2], right[3]);
                }
            }
        }
    }
}

}  // namespace semicl::cuda
