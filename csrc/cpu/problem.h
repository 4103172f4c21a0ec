// One call: its rows, groups and scale, and what all of its passes ask of them.
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include "contrast.h"
#include "team.h"

namespace semicl {

constexpr float kLargestShift = 40.0f;  // exp(-80) is a normal float32 and so is its inverse,
constexpr float kLargestScale = 1e3f;   // even when such a scale multiplies it
constexpr double kLog2OfE = 1.4426950408889634;

class Problem {
public:
    Problem(const Arithmetic& arithmetic, int threads, const Rows& rows, const Keys& keys, const Groups& groups,
            float scale);

    const Arithmetic& arithmetic;
    const Rows rows;
    const Keys keys;
    const Groups groups;
    const float scale;
    const int64_t channels, units;    // units: 32 bits each, see tiles.h
    const std::vector<int32_t> live;  // the groups that have an anchor
    const int threads;

    int64_t offset(int32_t g) const { return groups.offsets[g]; }
    int32_t anchors(int32_t g) const { return groups.anchors[g]; }
    const void* row(int64_t i) const { return static_cast<const float*>(rows.values) + i * units; }

    // Whether the keys are the rows.
    bool square() const { return !keys.begin; }
    // The columns of a group: its keys.
    int64_t column_offset(int32_t g) const { return square() ? groups.offsets[g] : keys.begin[g]; }
    int32_t points(int32_t g) const {
        return square() ? groups.offsets[g + 1] - groups.offsets[g] : keys.end[g] - keys.begin[g];
    }
    const void* column(int64_t j) const {
        return square() ? row(j) : static_cast<const float*>(keys.values) + j * units;
    }

    // Whether a group needs the online softmax: its fixed maximum is too large, or no number.
    bool online(int32_t g) const { return !(shifts_[g] <= kLargestShift && std::fabs(scale) <= kLargestScale); }

    // Of a group with a fixed maximum.
    Exponent exponent(int32_t g) const {
        const double scale_log2 = scale * kLog2OfE;
        const float near = static_cast<float>(scale_log2);
        return {near, static_cast<float>(scale_log2 - near), static_cast<float>(shifts_[g] * kLog2OfE)};
    }
    // What the logarithm of its sums of exponentials is relative to.
    double shift(int32_t g) const { return exponent(g).shift / kLog2OfE; }

private:
    float largest_square(const void* rows, int64_t count) const;
    void measure_shifts();
    void measure_key_shifts();

    // Of each group: |scale| max |x|^2, or |scale| max |x| max |y| + log max weight, which no exponent exceeds but by
    // rounding.
    std::vector<float> shifts_;
};

// Calls visit(group) for each of the groups, shared out among the threads of the problem.
template <class Visit>
void for_each_group(const Problem& problem, const std::vector<int32_t>& groups, Visit visit) {
    Team::run(problem.threads, [&](Team& team, int) {
        team.for_each(static_cast<int64_t>(groups.size()), [&](int64_t k) { visit(groups[k]); });
    });
}

}  // namespace semicl
