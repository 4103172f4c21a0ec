#include "positives.h"

#include <algorithm>
#include <vector>

#include "features.h"
#include "numbers.h"
#include "team.h"

namespace semicl {
namespace {

// Rows of one group, [begin, end), that have one class range.
struct Run {
    int64_t begin, end;
};

std::vector<Run> class_runs(const Groups& groups, const Classes& classes) {
    const auto same_class = [&](int64_t i, int64_t j) {
        return classes.class_begin[i] == classes.class_begin[j] && classes.class_end[i] == classes.class_end[j];
    };
    std::vector<Run> runs;
    for (int64_t g = 0; g < groups.count; ++g)
        for (int64_t i = groups.offsets[g], end = i + groups.anchors[g]; i < end;) {
            int64_t next = i + 1;
            while (next < end && same_class(next, i)) ++next;
            runs.push_back({i, next});
            i = next;
        }
    return runs;
}

// Returns row . sum.
template <class Value>
double product(const Value* row, const double* sum, int64_t channels) {
    double lanes[16] = {};
    for (int64_t c = 0; c < channels; c += 16)
        for (int lane = 0; lane < 16; ++lane) lanes[lane] += to_float(row[c + lane]) * sum[c + lane];
    double product = 0.0;
    for (double lane : lanes) product += lane;
    return product;
}

// Returns row . sum, then adds the key, which is that row, to the sum, times its scale.
template <class Value>
double product_then_add(const Value* row, const Value* key, double scale, double* sum, int64_t channels) {
    double lanes[16] = {};
    for (int64_t c = 0; c < channels; c += 16)
        for (int lane = 0; lane < 16; ++lane) {
            lanes[lane] += to_float(row[c + lane]) * sum[c + lane];
            sum[c + lane] += scale * to_float(key[c + lane]);
        }
    double product = 0.0;
    for (double lane : lanes) product += lane;
    return product;
}

template <class Value>
void add(const Value* row, double scale, double* sum, int64_t channels) {
    for (int64_t c = 0; c < channels; ++c) sum[c] += scale * to_float(row[c]);
}

// Calls found(i, sum) with the sum over each anchor's positives.
template <class Value, class Found>
void sums_of_runs(int threads, const Rows& rows, const Keys& keys, const Groups& groups, const Classes& classes,
                  const Found& found) {
    const bool square = !keys.begin;
    const int64_t channels = rows.channels;
    const Value* const values = static_cast<const Value*>(rows.values);
    const Value* const columns = square ? values : static_cast<const Value*>(keys.values);
    const auto row_scale = [&](int64_t i) { return rows.inverse_norms ? rows.inverse_norms[i] : 1.0f; };
    const auto key_scale = [&](int64_t k) { return keys.weights ? keys.weights[k] : square ? row_scale(k) : 1.0f; };
    const auto key_of = [&](int64_t i) { return square ? i : int64_t{keys.self[i]}; };
    const std::vector<Run> runs = class_runs(groups, classes);
    const int size = team_size(threads, (rows.count + keys.count) * channels);
    std::vector<double> sums(static_cast<size_t>(size * channels)), partial(static_cast<size_t>(rows.count));
    Team::run(size, [&](Team& team, int member) {
        double* const sum = sums.data() + member * channels;
        team.for_each(static_cast<int64_t>(runs.size()), [&](int64_t r) {
            const Run run = runs[r];
            const int64_t begin = classes.class_begin[run.begin], end = classes.class_end[run.begin];
            const auto is_key = [&](int64_t i) { return key_of(i) >= begin && key_of(i) < end; };
            // Row i is key k; before the first key the sum is 0.
            const auto visit = [&](int64_t i, int64_t k, int64_t first) {
                const Value *const row = values + i * channels, *const key = columns + k * channels;
                if (k == first)
                    add(key, key_scale(k), sum, channels);
                else
                    partial[i] += row_scale(i) * product_then_add(row, key, key_scale(k), sum, channels);
            };
            bool any = false;
            for (int64_t i = run.begin; i < run.end; ++i) partial[i] = 0.0, any |= is_key(i);
            // The rows that are keys are in the order of these.
            std::fill_n(sum, channels, 0.0);
            for (int64_t k = begin, i = run.begin; k < end; ++k) {
                while (any && i < run.end && key_of(i) < k) ++i;
                if (any && i < run.end && key_of(i) == k)
                    visit(i, k, begin);
                else
                    add(columns + k * channels, key_scale(k), sum, channels);
            }
            for (int64_t i = run.begin; i < run.end; ++i)
                if (!is_key(i)) partial[i] = row_scale(i) * product(values + i * channels, sum, channels);
            if (any) {
                std::fill_n(sum, channels, 0.0);
                for (int64_t k = end - 1, i = run.end - 1; k >= begin; --k) {
                    while (i >= run.begin && (key_of(i) > k || key_of(i) < 0)) --i;
                    if (i >= run.begin && key_of(i) == k)
                        visit(i, k, end - 1);
                    else
                        add(columns + k * channels, key_scale(k), sum, channels);
                }
            }
            for (int64_t i = run.begin; i < run.end; ++i) found(i, partial[i]);
        });
    });
}

}  // namespace

void positive_means(bool narrow, int threads, const Rows& rows, const Groups& groups, const Classes& classes,
                    float scale, float* means) {
    const auto found = [&](int64_t i, double sum) {
        const int32_t count = classes.class_end[i] - classes.class_begin[i] - 1;
        means[i] = count > 0 ? static_cast<float>(scale / static_cast<double>(count) * sum) : 0.0f;
    };
    (narrow ? sums_of_runs<BFloat16, decltype(found)> : sums_of_runs<float, decltype(found)>)(threads, rows, {}, groups,
                                                                                              classes, found);
}

void positive_sums(bool narrow, int threads, const Rows& rows, const Keys& keys, const Groups& groups,
                   const Classes& classes, double* sums) {
    const auto found = [&](int64_t i, double sum) { sums[i] = sum; };
    (narrow ? sums_of_runs<BFloat16, decltype(found)> : sums_of_runs<float, decltype(found)>)(threads, rows, keys,
                                                                                              groups, classes, found);
}

}  // namespace semicl
