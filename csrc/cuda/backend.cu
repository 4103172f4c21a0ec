// From a call of the host to a launch.
#include "backend.h"
#include "kernels.h"

namespace semicl::cuda {
namespace {

// Calls `use` with the launches of the format.
template <class Use>
auto with_format(RowFormat format, const Use& use) {
    switch (format) {
        case RowFormat::bfloat16: return use(Kernels<arch::BFloat16>{});
        case RowFormat::float16: return use(Kernels<arch::Float16>{});
    }
    throw std::invalid_argument("there is no such format of rows");
}

Exponent exponent_of(const Problem& problem) { return {problem.scale_log2, problem.shift}; }

template <class Sums, class Gradient>
TileSizes sizes_of() {
    return {{Sums::TileM::kRows, Sums::TileN::kRows},
            {Gradient::TileM::kRows, Gradient::TileN::kRows},
            Sums::kSharedBytes,
            Gradient::kSharedBytes};
}

Stream stream_of(const Device& device) { return static_cast<Stream>(device.stream); }

}  // namespace

TileSizes tile_sizes(int channels) {
    return with_channels(channels, [](auto count) {
        return sizes_of<ForwardTile<decltype(count)::value>, BackwardTile<decltype(count)::value>>();
    });
}

int workers(int device) { return multiprocessors(device); }

void sum_pairs(const Device& device, const Problem& problem, const int64_t* step_ends, const Columns& columns,
               float* own, float* given) {
    const DeviceGuard guard(device.number);
    const ForwardArgument sums{static_cast<const uint16_t*>(problem.rows),
                               problem.count,
                               problem.groups,
                               step_ends,
                               columns,
                               exponent_of(problem),
                               own,
                               given};
    with_format(problem.format, [&](auto kernels) {
        kernels.forward(sums, problem.channels, workers(device.number), stream_of(device));
    });
}

void row_gradient(const Device& device, const Problem& problem, const int64_t* step_ends, float scale,
                  const float* row_scale, const double* grad_absmax, const Positives& positives, float* partial_tiles,
                  float* gradient) {
    const DeviceGuard guard(device.number);
    const BackwardArgument weights{static_cast<const uint16_t*>(problem.rows),
                                   problem.count,
                                   problem.groups,
                                   step_ends,
                                   exponent_of(problem),
                                   row_scale,
                                   grad_absmax,
                                   scale,
                                   partial_tiles,
                                   gradient,
                                   positives};
    with_format(problem.format, [&](auto kernels) {
        kernels.backward(weights, problem.channels, workers(device.number), stream_of(device));
    });
}

}  // namespace semicl::cuda
