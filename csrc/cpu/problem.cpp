#include "problem.h"

#include <algorithm>
#include <cstring>

#include "team.h"

namespace semicl {
namespace {

constexpr int kSquareRows = 512;  // rows whose lengths one iteration measures

int worthwhile_threads(int threads, const Problem& problem) {
    int64_t pairs = 0;
    for (int32_t g : problem.live) pairs += int64_t{problem.anchors(g)} * problem.points(g);
    // A thread costs about 20 us to start.
    return pairs * problem.channels < (int64_t{1} << 21) ? 1 : std::max(threads, 1);
}

std::vector<int32_t> groups_with_anchors(const Groups& groups) {
    std::vector<int32_t> live;
    for (int64_t g = 0; g < groups.count; ++g)
        if (groups.anchors[g] > 0) live.push_back(static_cast<int32_t>(g));
    return live;
}

// The larger one, or NaN if either is.
float larger(float a, float b) { return a > b || a != a ? a : b; }

}  // namespace

Problem::Problem(const Arithmetic& arithmetic, int threads, const Rows& rows, const Keys& keys, const Groups& groups,
                 float scale)
    : arithmetic(arithmetic),
      rows(rows),
      keys(keys),
      groups(groups),
      scale(scale),
      channels(rows.channels),
      units(arithmetic.paired ? rows.channels / 2 : rows.channels),
      live(groups_with_anchors(groups)),
      threads(worthwhile_threads(threads, *this)),
      shifts_(static_cast<size_t>(groups.count)) {
    square() ? measure_shifts() : measure_key_shifts();
}

float Problem::largest_square(const void* rows, int64_t count) const {
    float largest = 0.0f;
    for (int64_t i = 0; i < count; ++i) {
        float parts[16] = {};
        if (arithmetic.paired) {
            const uint32_t* pairs = static_cast<const uint32_t*>(rows) + i * units;
            for (int64_t u = 0; u < units; ++u) {
                const uint32_t bits[2] = {pairs[u] << 16, pairs[u] & 0xffff0000u};
                float v[2];
                std::memcpy(v, bits, sizeof v);
                parts[u % 8] += v[0] * v[0] + v[1] * v[1];
            }
        } else {
            const float* v = static_cast<const float*>(rows) + i * units;
            for (int64_t c = 0; c < channels; c += 16)
                for (int lane = 0; lane < 16; ++lane) parts[lane] += v[c + lane] * v[c + lane];
        }
        float square = 0.0f;
        for (float part : parts) square += part;
        largest = larger(square, largest);
    }
    return largest;
}

void Problem::measure_shifts() {
    struct Block {
        int32_t group;
        int64_t begin, end;
    };
    std::vector<Block> blocks;
    for (int32_t g : live)
        for (int64_t begin = offset(g), end = begin + points(g); begin < end; begin += kSquareRows)
            blocks.push_back({g, begin, std::min(begin + kSquareRows, end)});
    std::vector<float> squares(blocks.size());
    Team::run(threads, [&](Team& team, int) {
        team.for_each(static_cast<int64_t>(blocks.size()), [&](int64_t b) {
            squares[b] = largest_square(row(blocks[b].begin), blocks[b].end - blocks[b].begin);
        });
    });
    for (size_t b = 0; b < blocks.size(); ++b) {
        float& shift = shifts_[blocks[b].group];
        shift = larger(std::fabs(scale) * squares[b], shift);
    }
}

// One shift for all groups: many may share their keys.
void Problem::measure_key_shifts() {
    const auto largest_of = [&](const void* values, int64_t count) {
        const int64_t blocks = (count + kSquareRows - 1) / kSquareRows;
        std::vector<float> squares(static_cast<size_t>(blocks));
        Team::run(threads, [&](Team& team, int) {
            team.for_each(blocks, [&](int64_t b) {
                const int64_t first = b * kSquareRows;
                squares[b] = largest_square(static_cast<const float*>(values) + first * units,
                                            std::min<int64_t>(kSquareRows, count - first));
            });
        });
        float largest = 0.0f;
        for (float square : squares) largest = larger(square, largest);
        return std::sqrt(largest);
    };
    const float largest = std::fabs(scale) * largest_of(rows.values, rows.count) * largest_of(keys.values, keys.count);
    float shift = largest;
    if (keys.weights && keys.count > 0) {
        float most = keys.weights[0], least = most;
        for (int64_t j = 1; j < keys.count; ++j)
            most = std::max(keys.weights[j], most), least = std::min(keys.weights[j], least);
        shift += std::log(most);
        // Exponents are up to so much apart.
        const float spread = 2 * largest + std::log(most / least);
        if (!(spread <= 2 * kLargestShift && shift >= -kLargestShift)) shift = INFINITY;
    }
    std::fill(shifts_.begin(), shifts_.end(), shift);
}

}  // namespace semicl
