#include "operands.h"

#include <algorithm>
#include <utility>

#include "team.h"

namespace semicl {
namespace {

constexpr int kMeanRows = 64;  // rows of a group that its mean is taken of
constexpr int kLanes = 16;     // sums that a total of weights is put together of

// Returns the mean of some of a group's rows, or nothing where it is short: then they are not around one direction.
std::vector<float> mean_direction(const Problem& problem, int32_t g) {
    const int64_t taken = std::min<int64_t>(problem.points(g), kMeanRows);
    std::vector<float> mean(static_cast<size_t>(problem.channels));
    for (int64_t t = 0; t < taken; ++t) {
        const float* x = static_cast<const float*>(problem.row(problem.offset(g) + t * problem.points(g) / taken));
        for (int64_t c = 0; c < problem.channels; ++c) mean[c] += x[c];
    }
    double square = 0.0;
    for (float& m : mean) m /= static_cast<float>(taken), square += double{m} * m;
    if (!(square > 0.5)) mean.clear();
    return mean;
}

}  // namespace

Operands::Operands(const Problem& problem, bool unit_rows) : problem_(problem) {
    if (problem.arithmetic.paired)
        interleave();
    else if (unit_rows)
        center();
}

void Operands::interleave() {
    const Problem& p = problem_;
    int64_t pairs = 0;
    first_pairs_.resize(static_cast<size_t>(p.groups.count));
    for (int32_t g : p.live) {
        first_pairs_[g] = pairs;
        pairs += (p.anchors(g) + 1) / 2 + (p.points(g) - p.anchors(g) + 1) / 2;
    }
    pairs_ = std::make_unique<Buffer<float>>(pairs * p.channels);
    // Anchors and others apart: of one large group two threads then have a part.
    Team::run(p.threads, [&](Team& team, int) {
        team.for_each(2 * static_cast<int64_t>(p.live.size()), [&](int64_t k) {
            const int32_t g = p.live[k / 2], anchors = p.anchors(g);
            const int32_t first = k % 2 ? anchors : 0, end = k % 2 ? p.points(g) : anchors;
            const int64_t pair = first_pairs_[g] + (k % 2 ? (anchors + 1) / 2 : 0);
            p.arithmetic.interleave_rows(p.row(p.offset(g) + first), end - first, p.channels,
                                         pairs_->get() + pair * p.channels);
        });
    });
}

void Operands::center() {
    const Problem& p = problem_;
    std::vector<std::vector<float>> means(static_cast<size_t>(p.groups.count));
    bool any = false;
    for (int32_t g : p.live) means[g] = mean_direction(p, g), any |= !means[g].empty();
    if (!any) return;
    means_ = std::move(means);
    centered_ = std::make_unique<Buffer<float>>(p.rows.count * p.channels);
    totals_ = std::make_unique<Buffer<double>>(p.rows.count);
    lanes_.resize(kMaxProductRows * kLanes);
    for (int j = 0; j < kMaxProductRows; ++j) lanes_[j * kLanes + j % kLanes] = 1.0f;
    for_each_group(p, p.live, [&](int32_t g) {
        if (!is_centered(g)) return;
        std::fill_n(totals_->get() + p.offset(g), p.points(g), 0.0);
        for (int64_t i = p.offset(g); i < p.offset(g) + p.points(g); ++i) {
            const float* x = static_cast<const float*>(p.row(i));
            for (int64_t c = 0; c < p.channels; ++c) (*centered_)[i * p.channels + c] = x[c] - means_[g][c];
        }
    });
}

const void* Operands::at(int32_t g, int32_t local) const {
    const Problem& p = problem_;
    if (is_centered(g)) return centered_->get() + (p.offset(g) + local) * p.channels;
    if (!pairs_) return p.row(p.offset(g) + local);
    const int32_t anchors = p.anchors(g);
    const int64_t pair = local < anchors ? local / 2 : (anchors + 1) / 2 + (local - anchors) / 2;
    return pairs_->get() + (first_pairs_[g] + pair) * p.channels;
}

void Operands::add_totals(const float* sums, int64_t first, int count) {
    for (int i = 0; i < count; ++i)
        for (int lane = 0; lane < kLanes; ++lane) (*totals_)[first + i] += sums[i * kLanes + lane];
}

void Operands::into_columns(const float* weights, int32_t g, int32_t row, int rows, int32_t column, int width,
                            float* gradient) {
    const Arithmetic& arithmetic = problem_.arithmetic;
    const int64_t out = problem_.offset(g) + column;
    arithmetic.multiply_into_columns(weights, rows, width, at(g, row), problem_.channels,
                                     gradient + out * problem_.channels);
    if (!is_centered(g)) return;
    float sums[kMaxProductRows * kLanes] = {};
    arithmetic.multiply_into_columns(weights, rows, width, lanes_.data(), kLanes, sums);
    add_totals(sums, out, width);
}

void Operands::into_rows(const float* weights, int32_t g, int32_t row, int skipped, int rows, int32_t column, int width,
                         float* gradient) {
    const Arithmetic& arithmetic = problem_.arithmetic;
    const int64_t out = problem_.offset(g) + row + skipped;
    arithmetic.multiply_into_rows(weights, skipped, rows, width, at(g, column), problem_.channels,
                                  gradient + out * problem_.channels);
    if (!is_centered(g)) return;
    float sums[kMaxProductRows * kLanes] = {};
    arithmetic.multiply_into_rows(weights, skipped, rows, width, lanes_.data(), kLanes, sums);
    add_totals(sums, out, rows);
}

void Operands::add_means(float* gradient) const {
    if (!centered_) return;
    const Problem& p = problem_;
    for_each_group(p, p.live, [&](int32_t g) {
        if (!is_centered(g)) return;
        for (int64_t i = p.offset(g); i < p.offset(g) + p.points(g); ++i)
            for (int64_t c = 0; c < p.channels; ++c)
                gradient[i * p.channels + c] += static_cast<float>((*totals_)[i] * means_[g][c]);
    });
}

}  // namespace semicl
