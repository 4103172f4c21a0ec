// The passes over tiles of pairs. A tile holds similarities, then exponentials, then weights, each in place of the one
// before:
//
//   forward    similarities -> exponentials, row and column sums -> log-sum-exps
//   backward   similarities -> weights, by known log-sum-exps    -> W^T x into the columns, W x into the rows
//   one pass   similarities -> exponentials, row and column sums -> log-sum-exps -> weights -> both products;
//              where pairwise, each positive's exponential meets the log-sum-exp before the weights are taken
//
// *Fixed maximum*: exponentials are of s - shift, shift = scale * max |x|^2 >= s up to rounding; one serves for its row
// and its column. *Online softmax*, where exp(-2 shift) could leave the normal float32 numbers or a row is not finite:
// maxima by rows, no column sums, two exponentials for a weight.
//
// In a batch, every phase shares out iterations that write to disjoint places, each summing in a fixed order. So
// results do not depend on the number of threads. No thread allocates.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <type_traits>
#include <vector>

#include "contrast.h"
#include "memory.h"
#include "operands.h"
#include "plan.h"
#include "positives.h"
#include "problem.h"
#include "team.h"

namespace semicl {
namespace {

constexpr int kDepthRows = 4 * kSweepRows;  // rows multiplied into the columns at a time, in the second cache
static_assert(kDepthRows <= kMaxProductRows && kOutputRows <= kMaxProductRows, "products hold so many rows");
constexpr float kNever = 3e38f;           // exp(s - kNever) is 0
constexpr double kLargestInverse = 87.0;  // exp(-87) is a normal float32, and so is its inverse

std::atomic<int64_t> executed{0};

// What the mean over an anchor's positives is divided by.
double positive_count(const Classes& classes, int64_t i) {
    return std::max(classes.class_end[i] - classes.class_begin[i] - 1, 1);
}

// ---- tiles -----------------------------------------------------------------------------------------------------------

// What one thread works with.
struct Scratch {
    float* packed;  // packed columns of a tile
    float* values;  // a tile's worth of swept rows
    float column_sums[kTileColumns], column_slopes[kTileColumns], maxima[kSweepRows];
    float column_norms[kTileColumns], column_scales[kTileColumns], column_pulls[kTileColumns];
    float column_lses[kTileColumns], column_ratios[kTileColumns];
    float column_weights[kTileColumns], column_log_weights[kTileColumns];
    int32_t skip_begin[kTileColumns], skip_end[kTileColumns];
};

// A pass's tiles: their places, their columns and rows, their similarities.
class Tiles {
public:
    Tiles(const Problem& problem, const Classes& classes)
        : problem_(problem),
          classes_(classes),
          packed_(problem.threads * kTileColumns * problem.units),
          values_(problem.threads * kSweepRows * int64_t{kTileStride}),
          scratch_(static_cast<size_t>(problem.threads)) {
        for (int t = 0; t < problem.threads; ++t) {
            scratch_[t].packed = packed_.get() + t * kTileColumns * problem.units;
            scratch_[t].values = values_.get() + t * kSweepRows * int64_t{kTileStride};
        }
    }

    Scratch& scratch(int member) { return scratch_[member]; }

    // The tile of a whole chunk without its rows: the columns' skips, padded, and their union.
    Tile columns_of(const Plan& plan, const Chunk& chunk, Scratch& scratch) const {
        Tile tile{};
        tile.columns = chunk.width;
        tile.first_column = problem_.column_offset(plan.group_of(chunk)) + chunk.first;
        tile.column_skip_begin = scratch.skip_begin;
        tile.column_skip_end = scratch.skip_end;
        std::fill(scratch.skip_begin, scratch.skip_begin + kTileColumns, 0);
        std::fill(scratch.skip_end, scratch.skip_end + kTileColumns, 0);
        if (problem_.rows.inverse_norms) {
            tile.column_inverse_norms = scratch.column_norms;
            std::copy_n(problem_.rows.inverse_norms + tile.first_column, tile.columns, scratch.column_norms);
            std::fill(scratch.column_norms + tile.columns, scratch.column_norms + kTileColumns, 0.0f);
        }
        if (problem_.keys.weights) {
            std::copy_n(problem_.keys.weights + tile.first_column, tile.columns, scratch.column_weights);
            std::fill(scratch.column_weights + tile.columns, scratch.column_weights + kTileColumns, 0.0f);
            for (int j = 0; j < kTileColumns; ++j)
                scratch.column_log_weights[j] = static_cast<float>(std::log(scratch.column_weights[j]));
            tile.column_weights = scratch.column_weights;
            tile.column_log_weights = scratch.column_log_weights;
        }
        if (!chunk.columns_count()) return tile;
        tile.skip_begin = INT32_MAX;
        for (int j = 0; j < chunk.width; ++j) {
            const int32_t begin = problem_.groups.skip_begin[tile.first_column + j];
            const int32_t end = problem_.groups.skip_end[tile.first_column + j];
            if (begin >= end) continue;
            scratch.skip_begin[j] = begin, scratch.skip_end[j] = end;
            tile.skip_begin = std::min(tile.skip_begin, begin), tile.skip_end = std::max(tile.skip_end, end);
        }
        return tile;
    }

    // Calls visit(tile, first) for the rows [first, first + kSweepRows) of a chunk, and so on. The tile is in
    // `workspace`, or where that is null, in the thread's scratch.
    template <class Visit>
    void for_each(const Tile& columns, const Plan& plan, const Chunk& chunk, float* workspace, Scratch& scratch,
                  Visit visit) const {
        const RowBlock& row_block = plan.row_blocks[chunk.row_block];
        Tile tile = columns;
        for (int32_t first = 0; first < chunk.rows; first += kSweepRows) {
            tile.values = workspace ? workspace + chunk.values + first * int64_t{kTileStride} : scratch.values;
            tile.rows = std::min(kSweepRows, chunk.rows - first);
            tile.upper_rows = chunk.columns_count() ? std::clamp(chunk.upper - first, 0, tile.rows) : 0;
            tile.first_row = problem_.offset(row_block.group) + row_block.first + first;
            tile.row_skip_begin = problem_.groups.skip_begin + tile.first_row;
            tile.row_skip_end = problem_.groups.skip_end + tile.first_row;
            if (problem_.rows.inverse_norms) tile.row_inverse_norms = problem_.rows.inverse_norms + tile.first_row;
            if (classes_.class_begin) {
                tile.row_class_begin = classes_.class_begin + tile.first_row;
                tile.row_class_end = classes_.class_end + tile.first_row;
            }
            if (!problem_.square()) tile.row_self = problem_.keys.self + tile.first_row;
            visit(static_cast<const Tile&>(tile), first);
        }
    }

    // Packs the columns that `similarities` takes.
    void pack(const Plan& plan, const Chunk& chunk, Scratch& scratch) const {
        problem_.arithmetic.pack_columns(problem_.column(problem_.column_offset(plan.group_of(chunk)) + chunk.first),
                                         chunk.width, problem_.units, scratch.packed);
    }

    void similarities(const Tile& tile, const Scratch& scratch) const {
        problem_.arithmetic.similarity(problem_.row(tile.first_row), tile.rows, scratch.packed, tile.columns,
                                       problem_.units, tile.values);
        if (problem_.rows.inverse_norms) problem_.arithmetic.apply_norms(tile);
    }

private:
    const Problem& problem_;
    const Classes classes_;
    const Buffer<float> packed_, values_;
    std::vector<Scratch> scratch_;
};

// Calls in turn, for every batch of a plan, the phases of a pass: each is called for its chunks, as phase(chunk,
// scratch), or for its output blocks, as phase(block).
template <class... Phases>
void run_batches(const Problem& problem, const Plan& plan, Tiles& tiles, const Phases&... phases) {
    Team::run(problem.threads, [&](Team& team, int member) {
        for (const Batch& batch : plan.batches) {
            const auto run = [&](const auto& phase) {
                if constexpr (std::is_invocable_v<decltype(phase), const OutputBlock&>)
                    team.for_each(batch.last_block - batch.first_block,
                                  [&](int64_t b) { phase(plan.blocks[batch.first_block + b]); });
                else
                    team.for_each(batch.last_chunk - batch.first_chunk,
                                  [&](int64_t c) { phase(plan.chunks[batch.first_chunk + c], tiles.scratch(member)); });
            };
            (run(phases), ...);
        }
    });
}

// ---- sums of exponentials --------------------------------------------------------------------------------------------

// The sums of a plan's tiles: by rows, of each chunk its own; by columns, added up.
class Sums {
public:
    Sums(const Problem& problem, const Plan& plan, double* column_sums)
        : problem_(problem), plan_(plan), rows_(plan.sums), column_sums_(column_sums) {}

    float* of_rows(const Chunk& chunk, int32_t first) const { return rows_.get() + chunk.sums + first; }

    // Turns a tile's similarities into exponentials with a fixed maximum.
    void exponentiate(const Tile& tile, const Chunk& chunk, int32_t first, Scratch& scratch) const {
        problem_.arithmetic.exponentials(tile, problem_.exponent(plan_.group_of(chunk)), of_rows(chunk, first),
                                         scratch.column_sums);
        if (chunk.columns_count())
            for (int j = 0; j < chunk.width; ++j) column_sums_[tile.first_column + j] += scratch.column_sums[j];
    }

    // The sum of row i of a row block, relative to the fixed maximum.
    double fixed(const RowBlock& row_block, int32_t i) const {
        double sum = 0.0;
        for (int32_t c = row_block.first_chunk; c < row_block.last_chunk; ++c)
            if (i < plan_.chunks[c].rows) sum += of_rows(plan_.chunks[c], i)[0];
        return column_sums_[problem_.offset(row_block.group) + row_block.first + i] + sum;
    }

    // Its log-sum-exp, from the maxima that the sums of its chunks are relative to.
    double online(const RowBlock& row_block, int32_t i, const float* maxima) const {
        float largest = -INFINITY;
        for (int32_t c = row_block.first_chunk; c < row_block.last_chunk; ++c) {
            const float m = maxima[plan_.chunks[c].sums + i];
            largest = m > largest || m != m ? m : largest;
        }
        double sum = 0.0;
        for (int32_t c = row_block.first_chunk; c < row_block.last_chunk; ++c) {
            const float m = maxima[plan_.chunks[c].sums + i];
            if (m != -INFINITY) sum += of_rows(plan_.chunks[c], i)[0] * std::exp(static_cast<double>(m) - largest);
        }
        return largest == -INFINITY ? largest : largest + std::log(sum);
    }

private:
    const Problem& problem_;
    const Plan& plan_;
    const Buffer<float> rows_;
    double* const column_sums_;
};

// The log-sum-exps are doubles: where they are large a float would lose more than a row of exponentials does.
void forward(const Problem& problem, const std::vector<int32_t>& groups, double* lse) {
    Tiles tiles(problem, {});
    Buffer<double> column_sums(problem.rows.count);
    std::fill_n(column_sums.get(), problem.rows.count, 0.0);
    for (int32_t g : groups)  // those without keys have no part in the plan
        if (problem.points(g) == 0) std::fill_n(lse + problem.offset(g), problem.anchors(g), -INFINITY);
    plan_forward(problem, groups, [&](const Plan& plan) {
        executed += plan.similarity_cells * problem.channels;
        Sums sums(problem, plan, column_sums.get());
        Buffer<float> maxima(plan.sums);
        const auto sweep = [&](const Chunk& chunk, Scratch& scratch) {
            const bool online = problem.online(plan.group_of(chunk));
            const Tile columns = tiles.columns_of(plan, chunk, scratch);
            tiles.pack(plan, chunk, scratch);
            tiles.for_each(columns, plan, chunk, nullptr, scratch, [&](const Tile& tile, int32_t first) {
                tiles.similarities(tile, scratch);
                if (online)
                    problem.arithmetic.online_row_sums(tile, problem.scale, maxima.get() + chunk.sums + first,
                                                       sums.of_rows(chunk, first));
                else
                    sums.exponentiate(tile, chunk, first, scratch);
            });
        };
        const auto finish = [&](const OutputBlock& block) {
            const RowBlock& row_block = plan.row_blocks[block.row_block];
            const int32_t g = row_block.group;
            double* const out = lse + problem.offset(g) + row_block.first;
            for (int32_t i = block.first; i < block.first + block.rows; ++i)
                out[i] = problem.online(g) ? sums.online(row_block, i, maxima.get())
                                           : problem.shift(g) + std::log(sums.fixed(row_block, i));
        };
        run_batches(problem, plan, tiles, sweep, finish);
    });
}

// The sums over positives of a plan's tiles: by rows, of each chunk its own; by columns, where these count, added up.
class PositiveSums {
public:
    PositiveSums(const Problem& problem, const Plan& plan, double* column_values, double* column_slopes)
        : problem_(problem),
          plan_(plan),
          values_(plan.sums),
          slopes_(plan.sums),
          column_values_(column_values),
          column_slopes_(column_slopes) {}

    float* values(const Chunk& chunk, int32_t first) const { return values_.get() + chunk.sums + first; }
    float* slopes(const Chunk& chunk, int32_t first) const { return slopes_.get() + chunk.sums + first; }

    void add_columns(const Tile& tile, const float* values, const float* slopes) const {
        for (int j = 0; j < tile.columns; ++j) {
            column_values_[tile.first_column + j] += values[j];
            column_slopes_[tile.first_column + j] += slopes[j];
        }
    }

    // Calls found(i, value, slope) for the rows of an output block.
    template <class Found>
    void join(const OutputBlock& block, const Found& found) const {
        const RowBlock& row_block = plan_.row_blocks[block.row_block];
        const int64_t base = problem_.offset(row_block.group) + row_block.first;
        for (int32_t i = block.first; i < block.first + block.rows; ++i) {
            double value = column_values_ ? column_values_[base + i] : 0.0;
            double slope = column_slopes_ ? column_slopes_[base + i] : 0.0;
            for (int32_t c = row_block.first_chunk; c < row_block.last_chunk; ++c) {
                const Chunk& chunk = plan_.chunks[c];
                if (i < chunk.rows) value += values(chunk, i)[0], slope += slopes(chunk, i)[0];
            }
            found(base + i, value, slope);
        }
    }

private:
    const Problem& problem_;
    const Plan& plan_;
    const Buffer<float> values_, slopes_;
    double *const column_values_, *const column_slopes_;
};

// Calls found(i, value, slope) for the anchors of the groups.
template <class Found>
void softplus(const Problem& problem, const Classes& classes, const std::vector<int32_t>& groups, const double* lse,
              const Found& found) {
    Tiles tiles(problem, classes);
    plan_positives(problem, groups, classes, [&](const Plan& plan) {
        executed += plan.similarity_cells * problem.channels;
        const PositiveSums positives(problem, plan, nullptr, nullptr);
        const auto sweep = [&](const Chunk& chunk, Scratch& scratch) {
            const Tile columns = tiles.columns_of(plan, chunk, scratch);
            tiles.pack(plan, chunk, scratch);
            tiles.for_each(columns, plan, chunk, nullptr, scratch, [&](const Tile& tile, int32_t first) {
                tiles.similarities(tile, scratch);
                problem.arithmetic.online_softplus(tile, problem.scale, lse + tile.first_row,
                                                   positives.values(chunk, first), positives.slopes(chunk, first));
            });
        };
        const auto finish = [&](const OutputBlock& block) { positives.join(block, found); };
        run_batches(problem, plan, tiles, sweep, finish);
    });
}

// ---- gradients -------------------------------------------------------------------------------------------------------

// What the weights of pairs are made of, for each row, and the products that they go into.
class Weights {
public:
    // pull(i) is what each pair with one of anchor i's positives weighs less; `pairwise`: its share of that.
    template <class Pull>
    Weights(const Problem& problem, bool unit_rows, bool pairwise, Pull pull)
        : problem_(problem),
          operands_(problem, unit_rows),
          pairwise_(pairwise),
          scales_(problem.rows.count),
          lses_(problem.rows.count),
          pulls_(static_cast<size_t>(problem.rows.count)),
          ratios_(pairwise ? static_cast<size_t>(problem.rows.count) : 0) {
        for (int32_t g : problem.live)
            for (int64_t i = problem.offset(g); i < problem.offset(g) + problem.anchors(g); ++i)
                pulls_[i] = static_cast<float>(double{problem.scale} * pull(i));
    }

    // scale weight_i / (sum of row i, relative to the fixed maximum).
    void set(int64_t i, float weight, double sum) {
        scales_[i] = sum == 0.0 ? 0.0f : static_cast<float>(problem_.scale * weight / sum);
        if (pairwise_) ratios_[i] = static_cast<float>(1.0 / sum);
    }
    // Where pairwise: multiplies what `set` has set by the mean slope of i's positives.
    void set_slope(int64_t i, double slope) { scales_[i] *= static_cast<float>(slope); }

    // scale weight_i e^{shift - lse_i}, the shift being the rounded lse_i with the online softmax; nothing where D(i)
    // is empty.
    void set_by_lse(int32_t g, int64_t i, float weight, double lse) {
        const bool counts = lse != -INFINITY && (weight != 0.0f || pulls_[i] != 0.0f);
        lses_[i] = counts ? static_cast<float>(lse) : kNever;
        if (pairwise_) {
            ratios_[i] = static_cast<float>(std::exp(problem_.shift(g) - lse));
            if (lse == -INFINITY) pulls_[i] = 0.0f;  // nothing is compared with the positives
        }
        const double relative_to = problem_.online(g) ? lses_[i] : problem_.shift(g);
        scales_[i] = counts ? static_cast<float>(problem_.scale * weight * std::exp(relative_to - lse)) : 0.0f;
    }

    // Gives a group's rows no weight and no gradient yet.
    void clear(int32_t g, float* gradient) {
        const int64_t rows = problem_.square() ? problem_.points(g) : problem_.anchors(g);
        std::fill_n(scales_.get() + problem_.offset(g), rows, 0.0f);
        if (!gradient) return;
        std::fill_n(gradient + problem_.offset(g) * problem_.channels, rows * problem_.channels, 0.0f);
    }

    // Loads the columns' scales and pulls, padded; 0 for columns that do not count.
    void load_columns(const Tile& tile, bool count, Scratch& scratch) const {
        const int held = count ? tile.columns : 0;
        const auto load = [&](const float* from, float* to, float otherwise) {
            std::copy_n(from + tile.first_column, held, to);
            std::fill(to + held, to + kTileColumns, otherwise);
        };
        load(scales_.get(), scratch.column_scales, 0.0f);
        load(pulls_.data(), scratch.column_pulls, 0.0f);
        if (pairwise_) load(ratios_.data(), scratch.column_ratios, 0.0f);
    }
    // Likewise their log-sum-exps; kNever for columns that do not count.
    void load_lses(const Tile& tile, bool count, Scratch& scratch) const {
        const int held = count ? tile.columns : 0;
        std::copy_n(lses_.get() + tile.first_column, held, scratch.column_lses);
        std::fill(scratch.column_lses + held, scratch.column_lses + kTileColumns, kNever);
    }

    // Turns a tile's exponentials into weights.
    void weigh(const Tile& tile, const Scratch& scratch) const {
        problem_.arithmetic.weigh(tile, scales_of(tile, scratch));
    }
    // Sums a tile's positives by their exponentials, where pairwise; by columns into the scratch.
    void compare(const Tile& tile, Scratch& scratch, float* values, float* slopes) const {
        problem_.arithmetic.softplus(tile, ratios_.data() + tile.first_row, scratch.column_ratios,
                                     {values, slopes, scratch.column_sums, scratch.column_slopes});
    }
    // Turns a tile's similarities into weights, with the online softmax.
    void weigh_online(const Tile& tile, const Scratch& scratch) const {
        problem_.arithmetic.online_weigh(tile, problem_.scale, scales_of(tile, scratch), lses_.get() + tile.first_row,
                                         scratch.column_lses);
    }

    // Readies a tile's weights for the products. Once kDepthRows rows of a chunk, or all, have theirs, multiplies them
    // into the columns while they are in the cache.
    void into_columns(const Tile& tile, const Plan& plan, const Chunk& chunk, int32_t first, const float* values,
                      float* gradient) {
        problem_.arithmetic.seal_weights(tile.values, tile.rows, tile.columns);
        if (!gradient) return;
        const int32_t done = first + tile.rows;
        if (done % kDepthRows != 0 && done != chunk.rows) return;
        const RowBlock& row_block = plan.row_blocks[chunk.row_block];
        const int32_t begin = (done - 1) / kDepthRows * kDepthRows, depth = std::min(done, chunk.upper) - begin;
        if (depth <= 0) return;
        operands_.into_columns(values + chunk.values + begin * int64_t{kTileStride}, row_block.group,
                               row_block.first + begin, depth, chunk.first, chunk.width, gradient);
    }

    void into_rows(const Plan& plan, const OutputBlock& block, const float* values, float* gradient) {
        const RowBlock& row_block = plan.row_blocks[block.row_block];
        for (int32_t c = row_block.first_chunk; c < row_block.last_chunk; ++c) {
            const Chunk& chunk = plan.chunks[c];
            const int32_t rows = std::min(block.rows, chunk.rows - block.first);
            if (rows > 0)
                operands_.into_rows(values + chunk.values, row_block.group, row_block.first, block.first, rows,
                                    chunk.first, chunk.width, gradient);
        }
    }

    // The gradient by the keys is that by the rows in a square problem, or null.
    void finish(float* gradient, float* key_gradient) const { operands_.add_means(gradient, key_gradient); }

private:
    PairScales scales_of(const Tile& tile, const Scratch& scratch) const {
        return {scales_.get() + tile.first_row,
                scratch.column_scales,
                pulls_.data() + tile.first_row,
                scratch.column_pulls,
                pairwise_ ? ratios_.data() + tile.first_row : nullptr,
                scratch.column_ratios};
    }

    const Problem& problem_;
    Operands operands_;
    const bool pairwise_;
    Buffer<float> scales_, lses_;
    std::vector<float> pulls_;   // what each pair with one of a row's positives weighs less
    std::vector<float> ratios_;  // e^{shift - lse}, where pairwise
};

void backward(const Problem& problem, const Classes& classes, const std::vector<int32_t>& groups, const double* lse,
              const float* grad, Weights& weights, float* gradient, float* key_gradient) {
    Tiles tiles(problem, classes);
    for_each_group(problem, groups, [&](int32_t g) {
        weights.clear(g, gradient);
        for (int64_t i = problem.offset(g); i < problem.offset(g) + problem.anchors(g); ++i)
            weights.set_by_lse(g, i, grad[i], lse[i]);
    });
    plan_backward(problem, groups, key_gradient, [&](const Plan& plan) {
        const int64_t into_keys = key_gradient ? plan.product_cells - plan.similarity_cells : 0;
        executed += (plan.similarity_cells + into_keys + (gradient ? plan.similarity_cells : 0)) * problem.channels;
        Buffer<float> values(plan.values);
        const auto weigh = [&](const Chunk& chunk, Scratch& scratch) {
            const int32_t g = plan.group_of(chunk);
            const Tile columns = tiles.columns_of(plan, chunk, scratch);
            weights.load_columns(columns, chunk.columns_count(), scratch);
            weights.load_lses(columns, chunk.columns_count(), scratch);
            tiles.pack(plan, chunk, scratch);
            tiles.for_each(columns, plan, chunk, values.get(), scratch, [&](const Tile& tile, int32_t first) {
                tiles.similarities(tile, scratch);
                if (problem.online(g)) {
                    weights.weigh_online(tile, scratch);
                } else {
                    problem.arithmetic.exponentials(tile, problem.exponent(g), scratch.maxima, scratch.column_sums);
                    weights.weigh(tile, scratch);
                }
                weights.into_columns(tile, plan, chunk, first, values.get(), key_gradient);
            });
        };
        const auto into_rows = [&](const OutputBlock& block) {
            if (gradient) weights.into_rows(plan, block, values.get(), gradient);
        };
        run_batches(problem, plan, tiles, weigh, into_rows);
    });
}

void one_pass(const Problem& problem, const Classes& classes, const std::vector<int32_t>& groups, const float* grad,
              bool pairwise, float* losses, Weights& weights, float* gradient) {
    Tiles tiles(problem, classes);
    const int64_t compared = pairwise ? problem.rows.count : 0;
    Buffer<double> column_sums(problem.rows.count), column_values(compared), column_slopes(compared);
    for_each_group(problem, groups, [&](int32_t g) {
        weights.clear(g, gradient);
        const auto zero = [&](const Buffer<double>& sums) {
            std::fill_n(&sums[problem.offset(g)], problem.points(g), 0.0);
        };
        zero(column_sums);
        if (pairwise) zero(column_values), zero(column_slopes);
    });
    plan_one_pass(problem, groups, [&](const Plan& plan) {
        executed += (plan.similarity_cells + plan.product_cells) * problem.channels;
        Buffer<float> values(plan.values);
        Sums sums(problem, plan, column_sums.get());
        const auto sweep = [&](const Chunk& chunk, Scratch& scratch) {
            const Tile columns = tiles.columns_of(plan, chunk, scratch);
            tiles.pack(plan, chunk, scratch);
            tiles.for_each(columns, plan, chunk, values.get(), scratch, [&](const Tile& tile, int32_t first) {
                tiles.similarities(tile, scratch);
                sums.exponentiate(tile, chunk, first, scratch);
            });
        };
        const auto finish = [&](const OutputBlock& block) {
            const RowBlock& row_block = plan.row_blocks[block.row_block];
            const int64_t base = problem.offset(row_block.group) + row_block.first;
            for (int32_t i = block.first; i < block.first + block.rows; ++i) {
                const double sum = sums.fixed(row_block, i);
                losses[base + i] = static_cast<float>(problem.shift(row_block.group) + std::log(sum));
                weights.set(base + i, grad[base + i], sum);
            }
        };
        const auto weigh = [&](const Chunk& chunk, Scratch& scratch) {
            const Tile columns = tiles.columns_of(plan, chunk, scratch);
            weights.load_columns(columns, chunk.columns_count(), scratch);
            tiles.for_each(columns, plan, chunk, values.get(), scratch, [&](const Tile& tile, int32_t first) {
                weights.weigh(tile, scratch);
                weights.into_columns(tile, plan, chunk, first, values.get(), gradient);
            });
        };
        const auto into_rows = [&](const OutputBlock& block) {
            weights.into_rows(plan, block, values.get(), gradient);
        };
        if (!pairwise) return run_batches(problem, plan, tiles, sweep, finish, weigh, into_rows);
        const PositiveSums positives(problem, plan, column_values.get(), column_slopes.get());
        const auto compare = [&](const Chunk& chunk, Scratch& scratch) {
            const Tile columns = tiles.columns_of(plan, chunk, scratch);
            weights.load_columns(columns, chunk.columns_count(), scratch);
            tiles.for_each(columns, plan, chunk, values.get(), scratch, [&](const Tile& tile, int32_t first) {
                weights.compare(tile, scratch, positives.values(chunk, first), positives.slopes(chunk, first));
                if (tile.upper_rows > 0) positives.add_columns(tile, scratch.column_sums, scratch.column_slopes);
            });
        };
        const auto finish_positives = [&](const OutputBlock& block) {
            positives.join(block, [&](int64_t i, double value, double slope) {
                const double count = positive_count(classes, i);
                losses[i] = static_cast<float>(value / count);
                weights.set_slope(i, slope / count);
            });
        };
        run_batches(problem, plan, tiles, sweep, finish, compare, finish_positives, weigh, into_rows);
    });
}

}  // namespace

void logsumexp(const Arithmetic& arithmetic, int threads, const Rows& rows, const Keys& keys, const Groups& groups,
               float scale, double* lse) {
    const Problem problem(arithmetic, threads, rows, keys, groups, scale);
    forward(problem, problem.live, lse);
}

void positive_softplus(const Arithmetic& arithmetic, int threads, const Rows& rows, const Keys& keys,
                       const Groups& groups, const Classes& classes, float scale, const double* lse, double* values,
                       double* slopes) {
    const Problem problem(arithmetic, threads, rows, keys, groups, scale);
    softplus(problem, classes, problem.live, lse,
             [&](int64_t i, double value, double slope) { values[i] = value, slopes[i] = slope; });
}

void logsumexp_gradient(const Arithmetic& arithmetic, int threads, const Rows& rows, const Keys& keys,
                        const Groups& groups, const Classes& classes, bool pairwise, bool unit_rows, float scale,
                        const double* lse, const float* grad, const float* pulls, float* gradient,
                        float* key_gradient) {
    const Problem problem(arithmetic, threads, rows, keys, groups, scale);
    Weights weights(problem, unit_rows, pairwise, [&](int64_t i) { return pulls ? pulls[i] : 0.0f; });
    float* const by_keys = problem.square() ? gradient : key_gradient;
    backward(problem, classes, problem.live, lse, grad, weights, gradient, by_keys);
    weights.finish(gradient, by_keys);
}

void contrast_gradient(const Arithmetic& arithmetic, int threads, const Rows& rows, const Groups& groups,
                       const Classes& classes, bool pairwise, bool unit_rows, float scale, const float* weights,
                       float* losses, float* gradient) {
    const Problem problem(arithmetic, threads, rows, {}, groups, scale);
    Weights pairs(problem, unit_rows, pairwise, [&](int64_t i) {
        return classes.class_end[i] - classes.class_begin[i] > 1 ? weights[i] / positive_count(classes, i) : 0.0;
    });
    prefer_huge_pages(gradient, rows.count * rows.channels * int64_t{sizeof(float)});
    std::vector<int32_t> at_once, apart;
    // The pass of pairwise takes the inverse of e^{s - lse}, which is at least e^{-2 shift} / points.
    const auto inverts = [&](int32_t g) {
        return 2 * problem.shift(g) + std::log(problem.points(g)) < kLargestInverse;
    };
    for (int32_t g : problem.live)
        (one_pass_pays(problem, g) && (!pairwise || inverts(g)) ? at_once : apart).push_back(g);
    if (!apart.empty()) {
        Buffer<double> lse(rows.count);
        Buffer<float> slopes(pairwise ? rows.count : 0);
        forward(problem, apart, lse.get());
        if (pairwise)
            softplus(problem, classes, apart, lse.get(), [&](int64_t i, double value, double slope) {
                const double count = positive_count(classes, i);
                losses[i] = static_cast<float>(value / count);
                slopes[i] = static_cast<float>(weights[i] * slope / count);
            });
        else
            for (int32_t g : apart)
                std::copy_n(lse.get() + problem.offset(g), problem.anchors(g), losses + problem.offset(g));
        backward(problem, classes, apart, lse.get(), pairwise ? slopes.get() : weights, pairs, gradient, gradient);
    }
    if (!at_once.empty()) one_pass(problem, classes, at_once, weights, pairwise, losses, pairs, gradient);
    pairs.finish(gradient, gradient);
    if (pairwise) return;
    Buffer<float> means(rows.count);
    positive_means(arithmetic.paired, threads, rows, groups, classes, scale, means.get());
    for_each_group(problem, problem.live, [&](int32_t g) {
        for (int64_t i = problem.offset(g); i < problem.offset(g) + problem.anchors(g); ++i) losses[i] -= means[i];
    });
}

int64_t executed_multiply_adds() { return executed.load(); }

}  // namespace semicl
