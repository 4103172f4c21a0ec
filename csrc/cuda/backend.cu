// From a call of the host to a launch.
#include "backend.h"

#include <algorithm>

#include "kernels.h"
#include "passes.h"

namespace semicl::cuda {
namespace {

constexpr int kRowBlocks = 4;  // of the passes over rows, for each multiprocessor

template <class Use>
auto with_format(RowFormat format, const Use& use) {
    switch (format) {
        case RowFormat::bfloat16: return use(BFloat16Rows{});
        case RowFormat::float16: return use(Float16Rows{});
        case RowFormat::float32: return use(Float32Rows{});
    }
    throw std::invalid_argument("there is no such format of rows");
}

Exponent exponent_of(const Problem& problem) { return {problem.rate, problem.shift}; }

// Each similarity of two anchors is computed once for both.
bool forms_triangle(const Problem& problem) { return problem.known && problem.groups.mutual; }

Sides gradient_sides_of(const Problem& problem) {
    return tile_sizes(problem.route, problem.format, problem.channels).gradient;
}

RowsArgument rows_argument(const Problem& problem) {
    RowsArgument argument{};
    argument.groups = problem.groups;
    argument.tile_ends = problem.items + problem.groups.count;
    argument.count = problem.count;
    argument.span = problem.span;
    argument.shift = exponent_of(problem).shift;
    return argument;
}

template <class Sums, class Gradient>
TileSizes sizes_of() {
    return {{Sums::Owned::kRows, Sums::Streamed::kRows},
            {Gradient::Owned::kRows, Gradient::Streamed::kRows},
            Sums::kSharedBytes,
            Gradient::kSharedBytes};
}

// Calls `by_warps` or `by_groups` with the launches of the problem's format.
template <class ByWarps, class ByGroups>
void by_route(const Problem& problem, const ByWarps& by_warps, const ByGroups& by_groups) {
    with_format(problem.format, [&](auto format) {
        using Chosen = Kernels<decltype(format)>;
        if (problem.route == Route::warps) return by_warps(Chosen{});
        if constexpr (kByGroups<decltype(format)>)
            if (forms_triangle(problem)) return by_groups(Chosen{});
        throw std::invalid_argument(
            "warp groups multiply 16-bit rows with a known maximum and mutual skips, in a build for sm_90a");
    });
}

Stream stream_of(const Device& device) { return static_cast<Stream>(device.stream); }

// The number of blocks of a pass over rows.
int row_blocks(const Device& device) { return kRowBlocks * multiprocessors(device.number); }

}  // namespace

int shared_bytes(int device) { return most_shared_bytes(device); }

TileSizes tile_sizes(Route route, RowFormat format, int channels) {
    return with_format(format, [&](auto rows) {
        return with_channels(channels, [&](auto count) {
            if (route == Route::groups)
                return sizes_of<GroupSumsTile<decltype(count)::value>, GroupGradientTile<decltype(count)::value>>();
            return sizes_of<WarpSumsTile<decltype(rows), decltype(count)::value>,
                            WarpGradientTile<decltype(rows), decltype(count)::value>>();
        });
    });
}

int workers(int device, Route route) {
    return (route == Route::warps ? kBlocksPerMultiprocessor : 1) * multiprocessors(device);
}

void pack(const Device& device, RowFormat format, const void* rows, int64_t count, int channels, int padded,
          void* packed) {
    const DeviceGuard guard(device.number);
    const int64_t wanted = (count * (padded / 2) + kPassThreads - 1) / kPassThreads;
    const int blocks = static_cast<int>(std::min<int64_t>(wanted, int64_t{16} * multiprocessors(device.number)));
    const PackArgument argument{rows, count, channels, padded, static_cast<uint16_t*>(packed)};
    with_format(format, [&](auto one) {
        launch<PackArgument>(pack_rows<decltype(one)>, blocks, kPassThreads, 0, stream_of(device), argument);
    });
}

void count_items(const Device& device, const Problem& problem) {
    const DeviceGuard guard(device.number);
    const CountArgument argument{problem.groups,
                                 problem.span,
                                 forms_triangle(problem),
                                 gradient_sides_of(problem),
                                 problem.items,
                                 problem.steps,
                                 problem.items + problem.groups.count};
    launch<CountArgument>(count_work, 1, kPassThreads, kCountSharedBytes, stream_of(device), argument);
}

void sum_pairs(const Device& device, const Problem& problem, float* slots) {
    const DeviceGuard guard(device.number);
    const SumsArgument sums{static_cast<const uint16_t*>(problem.rows),
                            problem.count,
                            problem.groups,
                            problem.items,
                            problem.span,
                            forms_triangle(problem),
                            exponent_of(problem),
                            slots};
    const int blocks = workers(device.number, problem.route);
    by_route(
        problem,
        [&](auto kernels) { kernels.warp_sums(sums, problem.channels, problem.known, blocks, stream_of(device)); },
        [&](auto kernels) { kernels.group_sums(sums, problem.channels, blocks, stream_of(device)); });
}

void join_sums(const Device& device, const Problem& problem, const float* slots, float* lse) {
    const DeviceGuard guard(device.number);
    RowsArgument rows = rows_argument(problem);
    rows.slots = slots;
    rows.lse = lse;
    with_maximum(problem.known, [&](auto maximum) {
        launch<RowsArgument>(join_slots<decltype(maximum)>, row_blocks(device), kPassThreads, 0, stream_of(device),
                             rows);
    });
}

void pair_factors(const Device& device, const Problem& problem, const float* lse, const float* grad, const float* peak,
                  float* factors) {
    const DeviceGuard guard(device.number);
    RowsArgument rows = rows_argument(problem);
    rows.lse = const_cast<float*>(lse);
    rows.grad = grad;
    rows.peak = peak;
    rows.factors = factors;
    rows.shifts = factors + problem.count;
    with_maximum(problem.known, [&](auto maximum) {
        launch<RowsArgument>(row_factors<decltype(maximum)>, row_blocks(device), kPassThreads, 0, stream_of(device),
                             rows);
    });
}

void row_gradient(const Device& device, const Problem& problem, const float* factors, const float* peak,
                  const Positives& positives, float* pieces, float* gradient) {
    const DeviceGuard guard(device.number);
    const GradientArgument weights{static_cast<const uint16_t*>(problem.rows),
                                   problem.count,
                                   problem.groups,
                                   problem.steps,
                                   exponent_of(problem),
                                   factors,
                                   factors + problem.count,
                                   peak,
                                   problem.scale,
                                   pieces,
                                   gradient,
                                   positives};
    const int blocks = workers(device.number, problem.route);
    by_route(
        problem,
        [&](auto kernels) {
            kernels.warp_gradient(weights, problem.channels, problem.known, blocks, stream_of(device));
        },
        [&](auto kernels) { kernels.group_gradient(weights, problem.channels, blocks, stream_of(device)); });
    const JoinArgument join{problem.groups,   problem.steps, gradient_sides_of(problem), blocks,
                            problem.channels, pieces,        gradient};
    launch<JoinArgument>(join_pieces, kJoinBlocks * blocks, kPassThreads, 0, stream_of(device), join);
}

}  // namespace semicl::cuda
