// From a call of the host to a launch.
#include "backend.h"
#include "kernels.h"
#include "row_kernels.h"

namespace semicl::cuda {
namespace {

constexpr int kRowBlocks = 4;  // of the passes over rows, for each multiprocessor

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

TileShape backward_shape(const Problem& problem) { return tile_sizes(problem.channels).gradient; }

RowsArgument rows_argument(const Problem& problem) {
    RowsArgument argument{};
    argument.groups = problem.groups;
    argument.tile_ends = problem.items + problem.groups.count;
    argument.count = problem.count;
    argument.row_block_size = problem.row_block_size;
    argument.shift = exponent_of(problem).shift;
    return argument;
}

template <class Sums, class Gradient>
TileSizes sizes_of() {
    return {{Sums::TileM::kRows, Sums::TileN::kRows},
            {Gradient::TileM::kRows, Gradient::TileN::kRows},
            Sums::kSharedBytes,
            Gradient::kSharedBytes};
}

Stream stream_of(const Device& device) { return static_cast<Stream>(device.stream); }

// The number of blocks of a pass over rows.
int row_blocks(const Device& device) { return kRowBlocks * multiprocessors(device.number); }

}  // namespace

TileSizes tile_sizes(int channels) {
    return with_channels(channels, [](auto count) {
        return sizes_of<ForwardTile<decltype(count)::value>, BackwardTile<decltype(count)::value>>();
    });
}

int workers(int device) { return multiprocessors(device); }

void count_items(const Device& device, const Problem& problem) {
    const DeviceGuard guard(device.number);
    const CountArgument argument{problem.groups, problem.row_block_size, backward_shape(problem),
                                 problem.items,  problem.steps,          problem.items + problem.groups.count};
    launch<CountArgument>(count_work, 1, kPassThreads, kCountSharedBytes, stream_of(device), argument);
}

void sum_pairs(const Device& device, const Problem& problem, float* partials) {
    const DeviceGuard guard(device.number);
    const ForwardArgument sums{static_cast<const uint16_t*>(problem.rows),
                               problem.count,
                               problem.groups,
                               problem.items,
                               problem.row_block_size,
                               exponent_of(problem),
                               partials};
    with_format(problem.format, [&](auto kernels) {
        kernels.forward(sums, problem.channels, workers(device.number), stream_of(device));
    });
}

void join_sums(const Device& device, const Problem& problem, const float* partials, float* lse) {
    const DeviceGuard guard(device.number);
    RowsArgument rows = rows_argument(problem);
    rows.partials = partials;
    rows.lse = lse;
    launch<RowsArgument>(join_partials, row_blocks(device), kPassThreads, 0, stream_of(device), rows);
}

void pair_scales(const Device& device, const Problem& problem, const float* lse, const float* grad,
                 const float* grad_absmax, float* row_scale) {
    const DeviceGuard guard(device.number);
    RowsArgument rows = rows_argument(problem);
    rows.lse = const_cast<float*>(lse);
    rows.grad = grad;
    rows.grad_absmax = grad_absmax;
    rows.row_scale = row_scale;
    launch<RowsArgument>(row_scales, row_blocks(device), kPassThreads, 0, stream_of(device), rows);
}

void row_gradient(const Device& device, const Problem& problem, const float* row_scale, const float* grad_absmax,
                  const Positives& positives, float* partial_tiles, float* gradient) {
    const DeviceGuard guard(device.number);
    const BackwardArgument weights{static_cast<const uint16_t*>(problem.rows),
                                   problem.count,
                                   problem.groups,
                                   problem.steps,
                                   exponent_of(problem),
                                   row_scale,
                                   grad_absmax,
                                   problem.scale,
                                   partial_tiles,
                                   gradient,
                                   positives};
    const int blocks = workers(device.number);
    with_format(problem.format,
                [&](auto kernels) { kernels.backward(weights, problem.channels, blocks, stream_of(device)); });
    const JoinArgument join{problem.groups, problem.steps, backward_shape(problem), blocks, problem.channels,
                            partial_tiles,  gradient};
    launch<JoinArgument>(join_partial_tiles, kJoinBlocks * blocks, kPassThreads, 0, stream_of(device), join);
}

}  // namespace semicl::cuda
