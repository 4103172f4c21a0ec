#include "positives.h"

#include <algorithm>
#include <vector>

#include "features.h"
#include "numbers.h"
#include "team.h"

namespace semicl {
namespace {

struct Run {
    int64_t begin, end;
};

// The class runs of the anchors.
std::vector<Run> class_runs(const Groups& groups, const int32_t* class_end) {
    std::vector<Run> runs;
    for (int64_t g = 0; g < groups.count; ++g)
        for (int64_t i = groups.offsets[g], end = i + groups.anchors[g]; i < end;) {
            const int64_t next = std::clamp<int64_t>(class_end[i], i + 1, end);
            runs.push_back({i, next});
            i = next;
        }
    return runs;
}

// Returns row . sum, then adds the row to the sum, the row times its scale.
template <class Value>
double product_then_add(const Value* row, double scale, double* sum, int64_t channels) {
    double lanes[16] = {};
    for (int64_t c = 0; c < channels; c += 16)
        for (int lane = 0; lane < 16; ++lane) {
            const double v = scale * to_float(row[c + lane]);
            lanes[lane] += v * sum[c + lane];
            sum[c + lane] += v;
        }
    double product = 0.0;
    for (double lane : lanes) product += lane;
    return product;
}

template <class Value>
void means_of_runs(int threads, const Rows& rows, const Groups& groups, const int32_t* class_end, float scale,
                   float* means) {
    const Value* values = static_cast<const Value*>(rows.values);
    const int64_t channels = rows.channels;
    const std::vector<Run> runs = class_runs(groups, class_end);
    const int size = team_size(threads, rows.count * rows.channels);
    std::vector<double> sums(static_cast<size_t>(size * channels)), before(static_cast<size_t>(rows.count));
    Team::run(size, [&](Team& team, int member) {
        double* sum = sums.data() + member * channels;
        team.for_each(static_cast<int64_t>(runs.size()), [&](int64_t k) {
            const Run run = runs[k];
            if (run.end - run.begin < 2) return;
            const double each = scale / static_cast<double>(run.end - run.begin - 1);
            const auto visit = [&](int64_t i) {
                return product_then_add(values + i * channels, rows.inverse_norms ? rows.inverse_norms[i] : 1.0, sum, channels);
            };
            std::fill_n(sum, channels, 0.0);
            for (int64_t i = run.begin; i < run.end; ++i) before[i] = visit(i);
            std::fill_n(sum, channels, 0.0);
            for (int64_t i = run.end - 1; i >= run.begin; --i)
                means[i] = static_cast<float>(each * (before[i] + visit(i)));
        });
    });
}

}  // namespace

void positive_means(bool narrow, int threads, const Rows& rows, const Groups& groups, const int32_t* class_end,
                    float scale, float* means) {
    (narrow ? means_of_runs<BFloat16> : means_of_runs<float>)(threads, rows, groups, class_end, scale, means);
}

}  // namespace semicl
