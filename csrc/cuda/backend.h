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
    float scale_log2, shift;  // exponents are scale_log2 x_i . x_j in base 2, and shift is their bound
};

// The passes, a launch each. What there is to do in each group, up to and with it, is counted before
// (triton_kernels/tile_scheduler.py).

// own (columns.blocks M + 2 workers sums.m,) and given (M + workers columns.size,) <- partials of each anchor's sum
// over its denominator: forward_epilogue.h. `step_ends` (G columns.blocks,): steps of the sums' tiles.
void sum_pairs(const Device& device, const Problem& problem, const int64_t* step_ends, const Columns& columns,
               float* own, float* given);

// gradient (M, channels) <- scale times the sums of weights times rows, where an M tile is one worker's as a whole, and
// partial_tiles (2 workers, gradient.m, channels) where it is not: from row scales (M,) and the pulls of the positives.
// `step_ends` (G,): steps of the gradient's tiles; `grad_absmax`: the largest gradient from above, or null where the
// range of the format needs no care.
void row_gradient(const Device& device, const Problem& problem, const int64_t* step_ends, float scale,
                  const float* row_scale, const double* grad_absmax, const Positives& positives, float* partial_tiles,
                  float* gradient);

}  // namespace semicl::cuda
