// The backend as the host calls it: raw device pointers, sizes and a stream in; nothing is allocated, nothing waits.
// semicl_kernels/backends/cuda.py checks every tensor, allocates every output and the workspace, and is the only
// caller.
#pragma once
#include <cstdint>

#include "work.h"

namespace semicl::cuda {

// As semicl_kernels/backends/cuda.py numbers them.
enum class RowFormat { bfloat16, float16, float32 };

// How tiles are multiplied: by warps (mma.sync) or by warp groups (wgmma, sm_90a only).
enum class Route { warps, groups };

struct Device {
    int number;
    void* stream;  // a cudaStream_t
};

// The bytes of shared memory that a block may have.
int shared_bytes(int device);

// What of the tiles of a route, format and number of channels the caller must know.
struct TileSizes {
    int sums_rows, gradient_rows;    // that stay
    int sums_bytes, gradient_bytes;  // of shared memory
};
TileSizes tile_sizes(Route route, RowFormat format, int channels);

struct Problem {
    Route route;
    RowFormat format;
    const void* rows;  // packed, (planes, M, channels)
    int count, channels;
    Groups groups;
    int span;    // rows of a panel, a multiple of sums_rows
    bool known;  // whether `bound` is known and small enough (maxima.h)
    float scale, bound;
    int* work;  // (2, G), scratch
};

// packed (planes, M, padded) <- rows (M, channels)
void pack(const Device& device, RowFormat format, const void* rows, int64_t count, int channels, int padded,
          void* packed);

// lse[i] <- log sum over D(i) of exp(scale x_i . x_j) for the anchors. `slots` is (panels of the largest group, M),
// zeros.
void logsumexp(const Device& device, const Problem& problem, float* slots, float* lse);

// gradient (M, channels) <- d(sum_i grad[i] lse[i]) / d rows in the groups that have an anchor. `factors` is (2, M),
// scratch; `peak` is the largest |grad|, or null where the range of the format needs no care.
void logsumexp_gradient(const Device& device, const Problem& problem, const float* lse, const float* grad,
                        const float* peak, float* factors, void* gradient, int gradient_channels);

}  // namespace semicl::cuda
