// Where a value of a tile lies: in shared memory, and in the registers of the threads that multiply it.
//
// A tile of ROWS rows lies in *slabs* of at most 64 channels, one below the other. A line of a slab is 128 bytes (64
// where there are but 32 channels), and its 16-byte chunks are swizzled by the row as TMA and WGMMA define their
// 128-byte (or 64-byte) swizzle: eight rows of one column of chunks lie in eight different groups of banks, so that
// neither reading them as they are nor transposed meets a conflict. The tile must begin at a multiple of
// kTileAlignment.
#pragma once
#include <cstdint>

#include "host_device.h"

namespace semicl::cuda {

constexpr int kTileAlignment = 1024;

template <int ROWS_, int CHANNELS_>
struct TileLayout {
    static constexpr int kRows = ROWS_, kChannels = CHANNELS_;
    static constexpr int kSlabChannels = CHANNELS_ < 64 ? CHANNELS_ : 64;
    static constexpr int kLineBytes = 2 * kSlabChannels;
    static constexpr int kSlabBytes = kRows * kLineBytes;
    static constexpr int kSlabs = kChannels / kSlabChannels;
    static constexpr int kBytes = kSlabs * kSlabBytes;
    static_assert(kChannels % kSlabChannels == 0 && kSlabBytes % kTileAlignment == 0, "a tile is whole slabs");

    // The byte at which eight channels of a row begin, `channel` being a multiple of eight.
    SEMICL_HOST_DEVICE static constexpr int chunk(int row, int channel) {
        return channel / kSlabChannels * kSlabBytes + row * kLineBytes +
               ((channel % kSlabChannels / 8) ^ swizzle(row)) * 16;
    }

private:
    SEMICL_HOST_DEVICE static constexpr int swizzle(int row) { return kLineBytes == 128 ? row % 8 : row / 2 % 4; }
};

// The descriptor by which wgmma finds an operand in shared memory: addresses and strides in units of 16 bytes. Rows
// along the depth: `stride` is from eight rows to the next eight. Rows along N: `stride` is from eight steps of the
// depth to the next eight, `leading` from one slab to the next.
SEMICL_HOST_DEVICE constexpr uint64_t matrix_descriptor(uint32_t address, int leading, int stride, int line_bytes) {
    const uint64_t swizzle = line_bytes == 128 ? 1 : 2;
    return (address >> 4 & 0x3fff) | static_cast<uint64_t>(leading >> 4 & 0x3fff) << 16 |
           static_cast<uint64_t>(stride >> 4 & 0x3fff) << 32 | swizzle << 62;
}

// Sixteen channels of the rows from `row` (a multiple of eight) on, rows along the depth of the product.
template <class LAYOUT>
SEMICL_HOST_DEVICE constexpr uint64_t rows_descriptor(uint32_t tile, int row, int channel) {
    const int slab = channel / LAYOUT::kSlabChannels * LAYOUT::kSlabBytes;
    const int inside = channel % LAYOUT::kSlabChannels * 2;
    return matrix_descriptor(tile + slab + row * LAYOUT::kLineBytes + inside, 16, 8 * LAYOUT::kLineBytes,
                             LAYOUT::kLineBytes);
}

// Sixteen rows from `row` (a multiple of eight) on, the depth of the product, of the channels from `channel` on, whole
// slabs.
template <class LAYOUT>
SEMICL_HOST_DEVICE constexpr uint64_t channels_descriptor(uint32_t tile, int row, int channel) {
    const int slab = channel / LAYOUT::kSlabChannels * LAYOUT::kSlabBytes;
    return matrix_descriptor(tile + slab + row * LAYOUT::kLineBytes, LAYOUT::kSlabBytes, 8 * LAYOUT::kLineBytes,
                             LAYOUT::kLineBytes);
}

// Element e of the four that a thread holds of each 16 x 8 chunk of one warp's rows of a wgmma accumulator, chunks
// lying side by side.
SEMICL_HOST_DEVICE constexpr int fragment_row(int lane, int e) { return lane / 4 + e / 2 * 8; }
SEMICL_HOST_DEVICE constexpr int fragment_column(int lane, int chunk, int e) {
    return chunk * 8 + lane % 4 * 2 + e % 2;
}

}  // namespace semicl::cuda
