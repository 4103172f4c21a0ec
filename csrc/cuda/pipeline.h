// A pipeline of buffers in shared memory, from the warp that loads (TMA) to the warps that multiply.
//
// Each buffer has two barriers. *Full* ends a phase when the bytes of a load are there, *empty* when every multiplying
// warp has released the buffer. Both sides take the buffers in the same order and count their own rounds: the loader
// waits in `empty` for the end of the round before (in the first round for nothing), the multipliers in `full` for that
// of their own.
#pragma once
#include "arch.h"
#include "tiles.h"

namespace semicl::cuda {

constexpr int kReaders = kProducts * kWarpGroup / kWarp;  // warps that multiply

template <int COUNT>
class Pipeline {
public:
    // `barriers` is the shared address of 2 COUNT barriers.
    SEMICL_DEVICE explicit Pipeline(uint32_t barriers) : barriers_(barriers) {}

    // One thread; publish_barriers and a barrier of the block come after.
    SEMICL_DEVICE void init() const {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            arch::init_barrier(full(i), 1);
            arch::init_barrier(empty(i), kReaders);
        }
    }

    SEMICL_DEVICE int buffer() const { return buffer_; }
    SEMICL_DEVICE void advance() {
        if (++buffer_ == COUNT) {
            buffer_ = 0;
            parity_ ^= 1;
        }
    }

    // The loader's side, one thread: waits for the buffer, announces the bytes and returns the barrier that counts
    // them.
    SEMICL_DEVICE uint32_t begin_load(int bytes) const {
        arch::wait_barrier(empty(buffer_), parity_ ^ 1);
        arch::arrive_expecting(full(buffer_), bytes);
        return full(buffer_);
    }

    // The multipliers' side.
    SEMICL_DEVICE void wait_full() const { arch::wait_barrier(full(buffer_), parity_); }
    // All lanes of the warp are done with `buffer`.
    SEMICL_DEVICE void let_go(int buffer) const {
        arch::sync_warp();
        if (arch::lane() == 0) arch::arrive(empty(buffer));
    }

private:
    SEMICL_DEVICE uint32_t full(int i) const { return barriers_ + 16 * i; }
    SEMICL_DEVICE uint32_t empty(int i) const { return barriers_ + 16 * i + 8; }

    uint32_t barriers_;
    int buffer_ = 0, parity_ = 0;
};

// The frame of a kernel by warp groups: of three, one warp of the first calls `load`, all of the others `multiply` with
// the number of their group, each with the pipelines of M tiles and of N tiles.
template <class TILE, class Load, class Multiply>
SEMICL_DEVICE void run_groups(unsigned char* shared, const Load& load, const Multiply& multiply) {
    const uint32_t barriers = arch::address(shared + TILE::kBarriersAt);
    const Pipeline<TILE::kMStages> m_pipeline(barriers);
    const Pipeline<TILE::kStages> n_pipeline(barriers + 16 * TILE::kMStages);
    if (arch::thread() == 0) {
        m_pipeline.init();
        n_pipeline.init();
        arch::publish_barriers();
    }
    arch::sync_block();
    const int group = arch::warp() / 4;
    if (group == 0) {
        arch::give_registers<kLoaderRegisters>();
        if (arch::warp() == 0) load(m_pipeline, n_pipeline);
    } else {
        arch::take_registers<kMultiplierRegisters>();
        multiply(group - 1, m_pipeline, n_pipeline);
    }
}

// Copies rows from `first` on into a tile, box by box of 64 rows and one slab. Rows past the last of all are zeros;
// rows past the group's last are whatever follows it.
template <class LAYOUT>
SEMICL_DEVICE void load_tile(uint32_t tile, const TensorMap& map, int first, uint32_t barrier) {
#pragma unroll
    for (int slab = 0; slab < LAYOUT::kSlabs; ++slab)
#pragma unroll
        for (int row = 0; row < LAYOUT::kRows; row += kGroupRows)
            arch::copy_box(tile + slab * LAYOUT::kSlabBytes + row * LAYOUT::kLineBytes, map,
                           slab * LAYOUT::kSlabChannels, first + row, barrier);
}

// Issues products = rows [row, row + 64) of tile `a` times all rows of tile `b`, transposed.
template <class ELEMENT, class A, class B>
SEMICL_DEVICE void issue_products(float (&products)[B::kRows / 2], uint32_t a, int row, uint32_t b) {
    a = arch::opaque(a);
    b = arch::opaque(b);
    arch::fence_products();
#pragma unroll
    for (int channel = 0; channel < A::kChannels; channel += 16)
        arch::multiply_tiles<ELEMENT, B::kRows>(products, rows_descriptor<A>(a, row, channel),
                                                rows_descriptor<B>(b, 0, channel), channel > 0);
}

}  // namespace semicl::cuda
