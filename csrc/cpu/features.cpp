// Points are visited in the order of the map, kBlock of a line at a time, so that every cache line of every channel is
// read or written once; rows are whole in memory and may be visited in any order. Where the channels of a point lie
// together (vectors, or a map with its channels innermost) the points are visited one by one.
#include "features.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "memory.h"
#include "numbers.h"
#include "team.h"

namespace semicl {
namespace {

constexpr int kBlock = 64;         // points of a line taken together
constexpr int kChannelsAhead = 8;  // every channel is on another page: nothing but us foresees the next one
constexpr int kLine = 64;          // bytes of a cache line
// Squares summed in float at a time: an error of a length is one of all similarities of its row. Of many equal terms a
// chain of 128 floats would lose three bits.
constexpr int kSquares = 16;

// Points of a line. kStride is how far apart channels are in a thread's scratch.
struct Block {
    static constexpr int64_t kStride = 80;  // floats: not a power of two
    int64_t point;                          // of its first point, in the order of the map
    int64_t offset;                         // of its first value in the map
    int held;
};

// A block of one point whose channels lie together.
struct Point {
    static constexpr int64_t kStride = 1;
    static constexpr int held = 1;
    int64_t point, offset;
};

// Calls visit(block, scratch) for every block, or visit(point, scratch) for every point, shared out over the threads.
template <class Visit>
void for_each_block(int threads, const Map& map, Visit visit) {
    const bool one_by_one = map.channel_stride == 1;
    const int64_t stride = one_by_one ? Point::kStride : Block::kStride;
    const int64_t lines = map.images * map.space[0] * map.space[1];
    const int size = team_size(threads, map.points() * map.channels);
    std::vector<float> scratch(static_cast<size_t>(size * map.channels * stride));
    Team::run(size, [&](Team& team, int member) {
        float* own = scratch.data() + member * map.channels * stride;
        team.for_each(lines, [&](int64_t line) {
            const int64_t y = line % map.space[1], z = line / map.space[1] % map.space[0];
            const int64_t image = line / map.space[1] / map.space[0];
            const int64_t start = image * map.image_stride + z * map.space_stride[0] + y * map.space_stride[1];
            for (int64_t x = 0; x < map.space[2]; x += one_by_one ? 1 : kBlock) {
                const int64_t point = line * map.space[2] + x, offset = start + x * map.space_stride[2];
                if (one_by_one)
                    visit(Point{point, offset}, own);
                else
                    visit(Block{point, offset, static_cast<int>(std::min<int64_t>(kBlock, map.space[2] - x))}, own);
            }
        });
    });
}

template <class Value>
void load_channel(const Map& map, const Point& point, int64_t c, float* to) {
    *to = to_float(static_cast<const Value*>(map.values)[point.offset + c]);
}

// Loads channel `c` of a block as floats, and asks for one that is soon to come.
template <class Value>
void load_channel(const Map& map, const Block& block, int64_t c, float* to) {
    const Value* from = static_cast<const Value*>(map.values) + block.offset + c * map.channel_stride;
    if (c + kChannelsAhead < map.channels)
        for (int p = 0; p < block.held; p += kLine / static_cast<int>(sizeof(Value)))
            __builtin_prefetch(from + kChannelsAhead * map.channel_stride + p * map.space_stride[2]);
    if (map.space_stride[2] == 1)
        for (int p = 0; p < block.held; ++p) to[p] = to_float(from[p]);
    else
        for (int p = 0; p < block.held; ++p) to[p] = to_float(from[p * map.space_stride[2]]);
}

template <class Value>
void store_channel(const Map& map, const Point& point, int64_t c, const float* from) {
    from_float(*from, static_cast<Value*>(map.values)[point.offset + c]);
}

template <class Value>
void store_channel(const Map& map, const Block& block, int64_t c, const float* from) {
    Value* to = static_cast<Value*>(map.values) + block.offset + c * map.channel_stride;
    if (map.space_stride[2] == 1)
        for (int p = 0; p < block.held; ++p) from_float(from[p], to[p]);
    else
        for (int p = 0; p < block.held; ++p) from_float(from[p], to[p * map.space_stride[2]]);
}

bool has_rows(const int32_t* row_of, int held) {
    return std::any_of(row_of, row_of + held, [](int32_t row) { return row >= 0; });
}

template <class Value>
void gather(int threads, const Map& map, const int32_t* row_of_point, bool normalize, bool narrow, int64_t row_channels,
            void* rows, float* inverse_lengths, float* inverse_norms) {
    const size_t value_bytes = narrow ? sizeof(BFloat16) : sizeof(float);
    prefer_huge_pages(rows, map.points() * row_channels * static_cast<int64_t>(value_bytes));
    for_each_block(threads, map, [&](const auto& block, float* channels) {
        constexpr int64_t stride = std::decay_t<decltype(block)>::kStride;
        const int32_t* row_of = row_of_point + block.point;
        if (!has_rows(row_of, block.held)) return;
        float few[kBlock];
        double squares[kBlock];
        std::fill_n(few, block.held, 0.0f), std::fill_n(squares, block.held, 0.0);
        for (int64_t c = 0; c < map.channels; ++c) {
            float* to = channels + c * stride;
            load_channel<Value>(map, block, c, to);
            for (int p = 0; p < block.held; ++p) few[p] += to[p] * to[p];
            if ((c + 1) % kSquares == 0 || c + 1 == map.channels)
                for (int p = 0; p < block.held; ++p) squares[p] += few[p], few[p] = 0.0f;
        }
        for (int p = 0; p < block.held; ++p) {
            if (row_of[p] < 0) continue;
            const double length = std::max<double>(std::sqrt(squares[p]), kSmallestLength);
            const float inverse = normalize ? static_cast<float>(1.0 / length) : 1.0f;
            inverse_lengths[row_of[p]] = inverse;
            const auto fill = [&](auto* row) {
                for (int64_t c = 0; c < map.channels; ++c) from_float(channels[c * stride + p] * inverse, row[c]);
                for (int64_t c = map.channels; c < row_channels; ++c) from_float(0.0f, row[c]);
                if (!inverse_norms) return;
                double square = 0.0;
                for (int64_t c = 0; c < map.channels; ++c) square += to_float(row[c]) * to_float(row[c]);
                // A shorter vector is divided by kSmallestLength, and its row is no unit row.
                const bool is_unit = squares[p] > kSmallestLength * kSmallestLength;
                inverse_norms[row_of[p]] = is_unit ? static_cast<float>(1.0 / std::sqrt(square)) : 1.0f;
            };
            if (narrow)
                fill(static_cast<BFloat16*>(rows) + row_of[p] * row_channels);
            else
                fill(static_cast<float*>(rows) + row_of[p] * row_channels);
        }
    });
}

// Takes from each row of the gradient its part along the point's vector, as the map holds it.
template <class Value>
void project(int threads, const Map& map, const int32_t* row_of_point, int64_t row_channels,
             const float* inverse_lengths, float* gradient) {
    for_each_block(threads, map, [&](const auto& block, float* channels) {
        constexpr int64_t stride = std::decay_t<decltype(block)>::kStride;
        const int32_t* row_of = row_of_point + block.point;
        if (!has_rows(row_of, block.held)) return;
        for (int64_t c = 0; c < map.channels; ++c) load_channel<Value>(map, block, c, channels + c * stride);
        for (int p = 0; p < block.held; ++p) {
            if (row_of[p] < 0) continue;
            float* row = gradient + row_of[p] * row_channels;
            const float inverse = inverse_lengths[row_of[p]];
            if (inverse >= 1.0f / kSmallestLength) {
                std::fill_n(row, map.channels, 0.0f);
                continue;
            }
            double along = 0.0;
            for (int64_t c = 0; c < map.channels; ++c) along += channels[c * stride + p] * row[c];
            const float share = static_cast<float>(along * inverse * inverse);
            for (int64_t c = 0; c < map.channels; ++c) row[c] = (row[c] - share * channels[c * stride + p]) * inverse;
        }
    });
}

template <class Value>
void scatter(int threads, const float* rows, int64_t row_channels, const int32_t* row_of_point, const float* factors,
             int64_t factor_step, const Map& map) {
    prefer_huge_pages(map.values, map.points() * map.channels * int64_t{sizeof(Value)});
    for_each_block(threads, map, [&](const auto& block, float* channels) {
        constexpr int64_t stride = std::decay_t<decltype(block)>::kStride;
        const int32_t* row_of = row_of_point + block.point;
        for (int p = 0; p < block.held; ++p) {
            if (row_of[p] < 0) {
                for (int64_t c = 0; c < map.channels; ++c) channels[c * stride + p] = 0.0f;
            } else {
                const float* row = rows + row_of[p] * row_channels;
                const float factor = factors[row_of[p] * factor_step];
                for (int64_t c = 0; c < map.channels; ++c) channels[c * stride + p] = factor * row[c];
            }
        }
        for (int64_t c = 0; c < map.channels; ++c) store_channel<Value>(map, block, c, channels + c * stride);
    });
}

}  // namespace

void gather_rows(int threads, const Map& map, const int32_t* row_of_point, bool normalize, bool narrow,
                 int64_t row_channels, void* rows, float* inverse_lengths, float* inverse_norms) {
    const auto gather_as = map.dtype == Dtype::float32    ? gather<float>
                           : map.dtype == Dtype::bfloat16 ? gather<BFloat16>
                                                          : gather<Float16>;
    gather_as(threads, map, row_of_point, normalize, narrow, row_channels, rows, inverse_lengths, inverse_norms);
}

void undo_normalization(int threads, const Map& map, const int32_t* row_of_point, int64_t row_channels,
                        const float* inverse_lengths, float* gradient) {
    const auto project_as = map.dtype == Dtype::float32    ? project<float>
                            : map.dtype == Dtype::bfloat16 ? project<BFloat16>
                                                           : project<Float16>;
    project_as(threads, map, row_of_point, row_channels, inverse_lengths, gradient);
}

void scatter_rows(int threads, const float* rows, int64_t row_channels, const int32_t* row_of_point,
                  const float* factors, int64_t factor_step, const Map& map) {
    const auto scatter_as = map.dtype == Dtype::float32    ? scatter<float>
                            : map.dtype == Dtype::bfloat16 ? scatter<BFloat16>
                                                           : scatter<Float16>;
    scatter_as(threads, rows, row_channels, row_of_point, factors, factor_step, map);
}

}  // namespace semicl
