// The backend as the host calls it: raw device pointers, sizes and a stream in; nothing is allocated, nothing waits.
// semicl_kernels/backends/cuda.py checks every tensor, allocates every output and the workspace, and is the only
// caller.
#pragma once
#include <cstdint>

#include "tile_scheduler.h"

namespace semicl::cuda {

// As semicl_kernels/backends/cuda.py numbers them.
enum class RowFormat { bfloat16, float16 };

struct Device {
    int number;
    void* stream;  // a cudaStream_t
};

// The tiles for a number of channels.
struct TileSizes {
    TileShape sums, gradient;
    int sums_bytes, gradient_bytes;  // of shared memory
};
TileSizes tile_sizes(int channels);

// The blocks of a pass over pairs.
int workers(int device);

struct Problem {
    RowFormat format;
    const void* rows;  // (M, channels), channels being 32, 64, 128 or 256
    int count, channels;
    Groups groups;
    int row_block_size;  // rows, a multiple of sums.m
    float scale;
    float scale_log2, shift;  // exponents are scale_log2 x_i . x_j in base 2, and shift is their bound
    int* items;               // (2, G), of count_items
    int64_t* steps;           // (G,), likewise
};

// The passes, a launch each but for the last. Those of one problem share its work, which is counted first.

// items <- how many row block pairs there are, up to and with each group, and how many tiles of the passes over rows;
// steps <- likewise how many steps of the gradient's tiles.
void count_items(const Device& device, const Problem& problem);

// partials (row blocks of the largest group, M) <- each anchor's sums over the row blocks of its group; zeros before.
void sum_pairs(const Device& device, const Problem& problem, float* partials);

// lse[i] <- log sum over D(i) of exp(scale x_i . x_j) for the anchors, from their partials.
void join_sums(const Device& device, const Problem& problem, const float* partials, float* lse);

// row_scale (M,) <- what row_gradient takes for d(sum_i grad[i] lse[i]), for the rows of groups with an anchor.
// `grad_absmax` is the largest |grad|, or null where the range of the format needs no care.
void pair_scales(const Device& device, const Problem& problem, const float* lse, const float* grad,
                 const float* grad_absmax, float* row_scale);

// gradient (M, channels) <- the gradient by the rows of groups with an anchor, from their row scales and the pulls of
// the positives. `partial_tiles` is (2 workers, gradient.m, channels), of whatever values. Two launches.
void row_gradient(const Device& device, const Problem& problem, const float* row_scale, const float* grad_absmax,
                  const Positives& positives, float* partial_tiles, float* gradient);

}  // namespace semicl::cuda
