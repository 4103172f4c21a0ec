#include "positives.h"

#include <algorithm>
#include <vector>

#include "features.h"
#include "numbers.h"
#include "team.h"

namespace semicl {
namespace {

constexpr int64_t kRowsAtOnce = 256;

struct Run {
    int64_t begin, end;
};

// The class runs of the anchors.
std::vector<Run> class_runs(const Groups& groups, const int32_t* run_high) {
    std::vector<Run> runs;
    for (int64_t g = 0; g < groups.count; ++g)
        for (int64_t i = groups.offsets[g], end = i + groups.anchors[g]; i < end;) {
            const int64_t next = std::clamp<int64_t>(run_high[i], i + 1, end);
            runs.push_back({i, next});
            i = next;
        }
    return runs;
}

// The rows of the groups that have anchors, a few at a time.
std::vector<Run> live_rows(const Groups& groups) {
    std::vector<Run> parts;
    for (int64_t g = 0; g < groups.count; ++g)
        if (groups.anchors[g] > 0)
            for (int64_t i = groups.offsets[g]; i < groups.offsets[g + 1]; i += kRowsAtOnce)
                parts.push_back({i, std::min<int64_t>(i + kRowsAtOnce, groups.offsets[g + 1])});
    return parts;
}

// Calls visit(run, sum, scratch) for every class run of two rows or more, shared out over the threads: `sum` holds the
// sum of the run's rows (channels), `scratch` is room for two rows more.
template <class Value, class Visit>
void for_each_sum(int threads, const Rows& rows, const Groups& groups, const int32_t* run_high, Visit visit) {
    const Value* values = static_cast<const Value*>(rows.values);
    const int64_t channels = rows.channels;
    const std::vector<Run> runs = class_runs(groups, run_high);
    const int size = team_size(threads, rows.count * rows.channels);
    std::vector<double> scratch(static_cast<size_t>(size * 3 * channels));
    Team::run(size, [&](Team& team, int member) {
        double* sum = scratch.data() + member * 3 * channels;
        team.for_each(static_cast<int64_t>(runs.size()), [&](int64_t k) {
            const Run run = runs[k];
            if (run.end - run.begin < 2) return;
            std::fill_n(sum, channels, 0.0);
            for (int64_t i = run.begin; i < run.end; ++i)
                for (int64_t c = 0; c < channels; ++c) sum[c] += to_float(values[i * channels + c]);
            visit(run, sum, sum + channels);
        });
    });
}

// Stores the sum of the run without `row` in `others` and returns row . others.
template <class Value>
double dot_others(const Value* row, const double* sum, double* others, int64_t channels) {
    double lanes[16] = {};
    for (int64_t c = 0; c < channels; c += 16)
        for (int lane = 0; lane < 16; ++lane) {
            const double v = to_float(row[c + lane]);
            others[c + lane] = sum[c + lane] - v;
            lanes[lane] += v * others[c + lane];
        }
    double product = 0.0;
    for (double lane : lanes) product += lane;
    return product;
}

template <class Value>
void means_alone(int threads, const Rows& rows, const Groups& groups, const int32_t* run_high, float scale,
                 float* means) {
    const Value* values = static_cast<const Value*>(rows.values);
    const int64_t channels = rows.channels;
    for_each_sum<Value>(threads, rows, groups, run_high, [=](Run run, const double* sum, double* others) {
        const double each = scale / static_cast<double>(run.end - run.begin - 1);
        for (int64_t i = run.begin; i < run.end; ++i)
            means[i] = static_cast<float>(each * dot_others(values + i * channels, sum, others, channels));
    });
}

template <class Value>
void means_and_gradient(int threads, const Rows& rows, const Groups& groups, const int32_t* run_high, float scale,
                        const float* weights, float* means, float* gradient) {
    const Value* values = static_cast<const Value*>(rows.values);
    const int64_t channels = rows.channels;
    for_each_sum<Value>(threads, rows, groups, run_high, [=](Run run, const double* sum, double* scratch) {
        const double each = scale / static_cast<double>(run.end - run.begin - 1);
        double *others = scratch, *weighted = scratch + channels;
        std::fill_n(weighted, channels, 0.0);
        for (int64_t i = run.begin; i < run.end; ++i)
            for (int64_t c = 0; c < channels; ++c) weighted[c] += each * weights[i] * to_float(values[i * channels + c]);
        for (int64_t i = run.begin; i < run.end; ++i) {
            const Value* row = values + i * channels;
            means[i] = static_cast<float>(each * dot_others(row, sum, others, channels));
            const double own = each * weights[i];
            for (int64_t c = 0; c < channels; ++c)
                gradient[i * channels + c] -= static_cast<float>(own * others[c] + weighted[c] - own * to_float(row[c]));
        }
    });
}

template <class Value>
void across(int threads, const Rows& rows, const Groups& groups, const float* inverse_lengths, float* gradient) {
    const Value* values = static_cast<const Value*>(rows.values);
    const int64_t channels = rows.channels;
    const std::vector<Run> parts = live_rows(groups);
    Team::run(team_size(threads, rows.count * rows.channels), [&](Team& team, int) {
        team.for_each(static_cast<int64_t>(parts.size()), [&](int64_t k) {
            for (int64_t i = parts[k].begin; i < parts[k].end; ++i) {
                const Value* row = values + i * channels;
                float* grad = gradient + i * channels;
                if (inverse_lengths[i] >= 1.0f / kSmallestLength) {
                    std::fill_n(grad, channels, 0.0f);
                    continue;
                }
                float lanes[16] = {};
                for (int64_t c = 0; c < channels; c += 16)
                    for (int lane = 0; lane < 16; ++lane) lanes[lane] += to_float(row[c + lane]) * grad[c + lane];
                float along = 0.0f;
                for (float lane : lanes) along += lane;
                for (int64_t c = 0; c < channels; ++c)
                    grad[c] = (grad[c] - along * to_float(row[c])) * inverse_lengths[i];
            }
        });
    });
}

}  // namespace

void positive_means(bool narrow, int threads, const Rows& rows, const Groups& groups, const int32_t* run_high,
                    float scale, float* means) {
    (narrow ? means_alone<BFloat16> : means_alone<float>)(threads, rows, groups, run_high, scale, means);
}

void subtract_positives(bool narrow, int threads, const Rows& rows, const Groups& groups, const int32_t* run_high,
                        float scale, const float* weights, float* means, float* gradient) {
    (narrow ? means_and_gradient<BFloat16> : means_and_gradient<float>)(threads, rows, groups, run_high, scale, weights,
                                                                        means, gradient);
}

void undo_normalization(bool narrow, int threads, const Rows& rows, const Groups& groups, const float* inverse_lengths,
                        float* gradient) {
    (narrow ? across<BFloat16> : across<float>)(threads, rows, groups, inverse_lengths, gradient);
}

}  // namespace semicl
