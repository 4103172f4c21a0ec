#include "operands.h"

#include <algorithm>
#include <utility>

#include "team.h"

namespace semicl {
namespace {

constexpr int kMeanRows = 64;  // rows of a part that its mean is taken of
constexpr int kSumLanes = 16;  // sums that a total of weights is put together of

// Returns the mean of some of the rows, or nothing where it is short: then they are not around one direction.
std::vector<float> mean_direction(const float* rows, int64_t count, int64_t channels) {
    const int64_t taken = std::min<int64_t>(count, kMeanRows);
    std::vector<float> mean(static_cast<size_t>(channels));
    for (int64_t t = 0; t < taken; ++t) {
        const float* x = rows + t * count / taken * channels;
        for (int64_t c = 0; c < channels; ++c) mean[c] += x[c];
    }
    double square = 0.0;
    for (float& m : mean) m /= static_cast<float>(taken), square += double{m} * m;
    if (!(square > 0.5)) mean.clear();
    return mean;
}

std::unique_ptr<Buffer<double>> zeros(int64_t count) {
    auto buffer = std::make_unique<Buffer<double>>(count);
    std::fill_n(buffer->get(), count, 0.0);
    return buffer;
}

}  // namespace

Operands::Operands(const Problem& problem, bool unit_rows) : problem_(problem) {
    if (problem.arithmetic.paired) interleave();
    if (problem.arithmetic.paired || !unit_rows) return;
    if (problem.square()) {
        rows_.parts.resize(static_cast<size_t>(problem.groups.count));
        for (int32_t g : problem.live)
            rows_.parts[g].begin = problem.offset(g), rows_.parts[g].end = problem.offset(g) + problem.points(g);
        rows_.center(problem, problem.rows.values, problem.rows.count);
    } else {
        rows_.parts.push_back({0, problem.rows.count, {}});
        keys_.parts.push_back({0, problem.keys.count, {}});
        rows_.center(problem, problem.rows.values, problem.rows.count);
        keys_.center(problem, problem.keys.values, problem.keys.count);
    }
    // What is centered is multiplied into the other side, whose totals are then needed.
    if (columns().rows) row_totals_ = zeros(problem.rows.count);
    if (rows_.rows && !problem.square()) key_totals_ = zeros(problem.keys.count);
    if (!row_totals_ && !key_totals_) return;
    lanes_.resize(kMaxProductRows * kSumLanes);
    for (int j = 0; j < kMaxProductRows; ++j) lanes_[j * kSumLanes + j % kSumLanes] = 1.0f;
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

void Operands::Centered::center(const Problem& problem, const void* values, int64_t count) {
    const float* from = static_cast<const float*>(values);
    const int64_t channels = problem.channels;
    bool any = false;
    for (Part& part : parts)
        if (part.end > part.begin) {
            part.mean = mean_direction(from + part.begin * channels, part.end - part.begin, channels);
            any |= !part.mean.empty();
        }
    if (!any) return;
    rows = std::make_unique<Buffer<float>>(count * channels);
    constexpr int64_t kRowsAtOnce = 512;
    Team::run(problem.threads, [&](Team& team, int) {
        for (const Part& part : parts) {
            if (part.mean.empty()) continue;
            team.for_each((part.end - part.begin + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t k) {
                const int64_t first = part.begin + k * kRowsAtOnce, end = std::min(first + kRowsAtOnce, part.end);
                for (int64_t i = first; i < end; ++i)
                    for (int64_t c = 0; c < channels; ++c)
                        (*rows)[i * channels + c] = from[i * channels + c] - part.mean[c];
            });
        }
    });
}

const void* Operands::row(int32_t g, int32_t local) const {
    const Problem& p = problem_;
    if (rows_.holds(part(g))) return rows_.rows->get() + (p.offset(g) + local) * p.channels;
    if (!pairs_) return p.row(p.offset(g) + local);
    const int32_t anchors = p.anchors(g);
    const int64_t pair = local < anchors ? local / 2 : (anchors + 1) / 2 + (local - anchors) / 2;
    return pairs_->get() + (first_pairs_[g] + pair) * p.channels;
}

const void* Operands::column(int32_t g, int32_t local) const {
    if (problem_.square()) return row(g, local);
    const int64_t key = problem_.column_offset(g) + local;
    return keys_.rows ? keys_.rows->get() + key * problem_.channels : problem_.column(key);
}

void Operands::into_columns(const float* weights, int32_t g, int32_t row, int rows, int32_t column, int width,
                            float* gradient) {
    const Arithmetic& arithmetic = problem_.arithmetic;
    const int64_t out = problem_.column_offset(g) + column;
    arithmetic.multiply_into_columns(weights, rows, width, this->row(g, row), problem_.channels,
                                     gradient + out * problem_.channels);
    if (!rows_.holds(part(g))) return;
    float sums[kMaxProductRows * kSumLanes] = {};
    arithmetic.multiply_into_columns(weights, rows, width, lanes_.data(), kSumLanes, sums);
    add_totals(sums, problem_.square() ? *row_totals_ : *key_totals_, out, width);
}

void Operands::into_rows(const float* weights, int32_t g, int32_t row, int skipped, int rows, int32_t column, int width,
                         float* gradient) {
    const Arithmetic& arithmetic = problem_.arithmetic;
    const int64_t out = problem_.offset(g) + row + skipped;
    arithmetic.multiply_into_rows(weights, skipped, rows, width, this->column(g, column), problem_.channels,
                                  gradient + out * problem_.channels);
    if (!columns().holds(part(g))) return;
    float sums[kMaxProductRows * kSumLanes] = {};
    arithmetic.multiply_into_rows(weights, skipped, rows, width, lanes_.data(), kSumLanes, sums);
    add_totals(sums, *row_totals_, out, rows);
}

void Operands::add_totals(const float* sums, const Buffer<double>& totals, int64_t first, int count) {
    for (int i = 0; i < count; ++i)
        for (int lane = 0; lane < kSumLanes; ++lane) totals[first + i] += sums[i * kSumLanes + lane];
}

void Operands::add_means(float* gradient, float* key_gradient) const {
    const auto add = [&](const std::vector<float>& mean, const Buffer<double>& totals, int64_t begin, int64_t end,
                         float* out) {
        for (int64_t i = begin; i < end; ++i)
            for (int64_t c = 0; c < problem_.channels; ++c)
                out[i * problem_.channels + c] += static_cast<float>(totals[i] * mean[c]);
    };
    if (columns().rows && gradient)
        for_each_group(problem_, problem_.live, [&](int32_t g) {
            if (!columns().holds(part(g))) return;
            const int64_t count = problem_.square() ? problem_.points(g) : problem_.anchors(g);
            add(columns().parts[part(g)].mean, *row_totals_, problem_.offset(g), problem_.offset(g) + count, gradient);
        });
    if (key_totals_ && key_gradient) add(rows_.parts[0].mean, *key_totals_, 0, problem_.keys.count, key_gradient);
}

}  // namespace semicl
