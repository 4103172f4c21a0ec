// The engine: which tiles are computed, by which thread, in what order, and where their sums go.
//
// A *row block* is a run of anchors of one group. Its tiles are the block's rows against the group's columns, at most
// kTileColumns at a time. exp(scale x_i . x_j) is symmetric, so of the anchors' square only tiles on and above the
// diagonal are computed. A tile above it counts for its rows and, transposed, for its columns:
//
//                    columns of the group
//                 anchors             others
//     row block 0 [own|later|later| ... ]       own:   rows below the diagonal are left out, columns count too
//     row block 1 [    | own |later| ... ]      later: columns count too
//
//   logsumexp            one sweep: exponentials, row sums and column sums; nothing is kept
//   logsumexp_gradient   tiles become weights W at once, then two products: W^T x into the columns, W x into the rows
//   contrast_gradient    a row block's exponentials against *all* columns are kept until its row sums are known, then
//                        become weights, those of the positives too: each similarity is computed once. Products:
//                        6 a n C - 3 a R C operations for a anchors of n points in blocks of R rows, against
//                        4 a a C + 8 a (n - a) C for the two calls above
//
// Exponentials are taken of s - shift, shift = scale * max |x|^2 >= s up to rounding: one exponential serves for row and
// column. Where exp(-2 shift) could leave the normal float32 numbers, or a row is not finite, the group takes the safe
// way: maxima by rows, no column sums, two exponentials for a weight.
//
// Work is done in batches of row blocks, each of another group, whose tiles together fit the workspace. In a batch,
// every phase shares out iterations that write to disjoint places, each summing in a fixed order. So results do not
// depend on the number of threads. No thread allocates.
#include "contrast.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "memory.h"
#include "team.h"

namespace semicl {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{16} << 20;
constexpr int64_t kTileRowBytes = kTileStride * int64_t{sizeof(float)};
constexpr int kSweepRows = 48;      // rows computed and swept while they are in the first cache
constexpr int kDepthRows = 4 * kSweepRows;  // rows multiplied into the columns at a time, in the second cache
constexpr int kOutputRows = 96;     // rows of the gradient that one iteration of the last phase owns
constexpr int kForwardRowBlock = 4 * kTileColumns;
constexpr int kGradientRowBlock = 2 * kTileColumns;
constexpr int kSmallestRowBlock = kSweepRows;
constexpr int kSquareRows = 512;    // rows whose lengths one iteration measures
constexpr int kMeanRows = 64;       // rows of a group that its mean is taken of
constexpr int kLanes = 16;          // sums that a total of weights is put together of
constexpr size_t kPlanChunks = size_t{1} << 16;  // that a plan may hold before its rounds are done and the next planned
constexpr float kLargestShift = 40.0f;  // exp(-80) is a normal float32 and so is its inverse,
constexpr float kLargestScale = 1e3f;   // even when such a scale multiplies it
constexpr float kNever = 3e38f;         // exp(s - kNever) is 0
constexpr double kLog2E = 1.4426950408889634;

std::atomic<int64_t> executed{0};

// How a tile's columns relate to its row block's rows.
enum class Part {
    own,    // the row block's own anchors: rows below the diagonal are left out, columns count too
    later,  // anchors of later row blocks: columns count too
    other,  // all else: the tile counts for its rows alone
};

struct Chunk {
    int32_t row_block;         // index into Plan::row_blocks
    int32_t first, width;  // columns, relative to the group
    int32_t rows;          // the first `rows` rows of the row block
    int32_t upper;         // of which the first `upper` lie above the diagonal
    Part part;
    int64_t values;        // offset of the tile in the workspace, in floats
    int64_t sums;          // offset of the tile's row sums in the batch
    bool columns_count() const { return part != Part::other; }
};

struct RowBlock {
    int32_t group, first, rows;  // rows relative to the group
    int32_t first_chunk, last_chunk;
};

struct OutputBlock {
    int32_t row_block, first, rows;  // rows relative to the row block
};

struct Batch {
    int32_t first_chunk, last_chunk, first_block, last_block;
};

struct Plan {
    std::vector<RowBlock> row_blocks;
    std::vector<Chunk> chunks;
    std::vector<OutputBlock> blocks;
    std::vector<Batch> batches;
    int64_t values = 0;  // floats of workspace that the largest batch needs
    int64_t sums = 0;    // likewise for row sums
    int64_t similarity_cells = 0, product_cells = 0;
};

// Cuts row blocks into chunks and gathers them into batches.
class Planner {
public:
    // `keep` tells whether the tiles stay in the workspace until the batch ends.
    explicit Planner(bool keep) : keep_(keep) {}

    void begin_row_block(int32_t group, int32_t first, int32_t rows) {
        group_ = group, first_ = first, rows_ = rows;
        open_ = false;
    }

    void add_columns(int32_t begin, int32_t end, Part part) {
        for (int32_t j = begin; j < end; j += kTileColumns) {
            Chunk chunk{};
            chunk.first = j, chunk.width = std::min<int32_t>(kTileColumns, end - j), chunk.part = part;
            chunk.rows = part == Part::own ? j + chunk.width - first_ : rows_;
            chunk.upper = part == Part::own ? j - first_ : rows_;
            add(chunk);
        }
    }

    // The floats of workspace that the open batch holds.
    int64_t values() const { return values_; }

    void close_batch() {
        if (plan_.chunks.size() == static_cast<size_t>(batch_chunk_)) return;
        if (open_) close_row_block();
        const int32_t first_block = static_cast<int32_t>(plan_.blocks.size());
        for (size_t p = batch_row_block_; p < plan_.row_blocks.size(); ++p)
            for (int32_t i = 0; i < plan_.row_blocks[p].rows; i += kOutputRows)
                plan_.blocks.push_back(
                    {static_cast<int32_t>(p), i, std::min(kOutputRows, plan_.row_blocks[p].rows - i)});
        plan_.batches.push_back({batch_chunk_, static_cast<int32_t>(plan_.chunks.size()), first_block,
                                 static_cast<int32_t>(plan_.blocks.size())});
        plan_.values = std::max(plan_.values, values_);
        plan_.sums = std::max(plan_.sums, sums_);
        values_ = sums_ = 0;
        batch_chunk_ = static_cast<int32_t>(plan_.chunks.size());
        batch_row_block_ = plan_.row_blocks.size();
    }

    void end_row_block() {
        if (open_) close_row_block();
    }

    bool full() const { return plan_.chunks.size() >= kPlanChunks; }

    // Hands over what was planned and begins anew; no batch is open.
    Plan take() {
        batch_chunk_ = 0, batch_row_block_ = 0;
        return std::exchange(plan_, Plan{});
    }

private:
    void add(Chunk chunk) {
        const int64_t needed = keep_ ? (chunk.rows + 1) / 2 * 2 * int64_t{kTileStride} : 0;
        if (values_ > 0 && (values_ + needed) * int64_t{sizeof(float)} > kWorkspaceBytes) close_batch();
        if (!open_) {
            plan_.row_blocks.push_back({group_, first_, rows_, static_cast<int32_t>(plan_.chunks.size()), 0});
            open_ = true;
        }
        chunk.row_block = static_cast<int32_t>(plan_.row_blocks.size()) - 1;
        chunk.values = values_, chunk.sums = sums_;
        values_ += needed, sums_ += chunk.rows;
        plan_.similarity_cells += int64_t{chunk.rows} * chunk.width;
        plan_.product_cells += int64_t{chunk.rows + chunk.upper} * chunk.width;
        plan_.chunks.push_back(chunk);
    }

    void close_row_block() {
        plan_.row_blocks.back().last_chunk = static_cast<int32_t>(plan_.chunks.size());
        open_ = false;
    }

    Plan plan_;
    bool keep_, open_ = false;
    int32_t group_ = 0, first_ = 0, rows_ = 0, batch_chunk_ = 0;
    size_t batch_row_block_ = 0;
    int64_t values_ = 0, sums_ = 0;
};

// What one thread works with.
struct Scratch {
    float* packed;       // packed columns of a tile
    float* values;       // a tile's worth of swept rows
    float column_sums[kTileColumns], maxima[kSweepRows];
    float column_scales[kTileColumns], column_factors[kTileColumns], column_positives[kTileColumns], column_lses[kTileColumns];
    int32_t skip_begin[kTileColumns], skip_end[kTileColumns];
};

// Groups whose rows lie around one direction. Weights of pairs almost cancel there, so the sum of W_ij x_j rounds as its
// partial sums along that direction do. With the mean m it is the sum of W_ij (x_j - m) plus m times the sum of W_ij.
struct Centered {
    Centered(int64_t groups, int64_t rows, int64_t channels)
        : is(static_cast<size_t>(groups)),
          means(static_cast<size_t>(groups * channels)),
          rows(rows * channels),
          totals(rows),
          lanes(std::max(kTileColumns, kDepthRows) * kLanes) {
        for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = i % kLanes == i / kLanes % kLanes ? 1.0f : 0.0f;
    }

    // Adds the sums of `count` products of weights with `lanes`, at `sums`, to the totals from `first` on.
    void add(const float* sums, int64_t first, int count) {
        for (int i = 0; i < count; ++i)
            for (int lane = 0; lane < kLanes; ++lane) totals[first + i] += sums[i * kLanes + lane];
    }

    std::vector<char> is;      // per group
    std::vector<float> means;  // (groups, channels)
    Buffer<float> rows;        // (rows, channels): x_j - m
    Buffer<double> totals;     // (rows): the sum of W_ij. Many are equal: a float that sums them drifts
    std::vector<float> lanes;  // (max(kTileColumns, kDepthRows), kLanes): row j is 1 in lane j, counted round
};

class Engine {
public:
    Engine(const Arithmetic& arithmetic, int threads, const Rows& rows, const Groups& groups, float scale)
        : arithmetic_(arithmetic),
          rows_(rows),
          groups_(groups),
          scale_(scale),
          channels_(rows.channels),
          units_(arithmetic.paired ? rows.channels / 2 : rows.channels),
          threads_(worthwhile_threads(threads)),
          shifts_(static_cast<size_t>(groups.count)),
          packed_(threads_ * kTileColumns * units_),
          swept_(threads_ * kSweepRows * int64_t{kTileStride}),
          scratch_(static_cast<size_t>(threads_)),
          positives_(static_cast<size_t>(rows.count)) {
        for (int t = 0; t < threads_; ++t) {
            scratch_[t].packed = packed_.get() + t * kTileColumns * units_;
            scratch_[t].values = swept_.get() + t * kSweepRows * int64_t{kTileStride};
        }
        measure_shifts();
    }

    std::vector<int32_t> all_groups() const {
        std::vector<int32_t> live;
        for (int64_t g = 0; g < groups_.count; ++g)
            if (groups_.anchors[g] > 0) live.push_back(static_cast<int32_t>(g));
        return live;
    }

    // The log-sum-exps are doubles: where they are large a float would lose more than a row of exponentials does.
    void logsumexp(const std::vector<int32_t>& live, double* lse);
    void gradient(const std::vector<int32_t>& live, const double* lse, const float* grad, float* out);
    void contrast(const Classes& classes, bool unit_rows, const float* weights, float* lse, float* out);

private:
    int64_t offset(int32_t g) const { return groups_.offsets[g]; }
    int32_t points(int32_t g) const { return groups_.offsets[g + 1] - groups_.offsets[g]; }
    int32_t anchors(int32_t g) const { return groups_.anchors[g]; }
    bool safe_needed(int32_t g) const {
        return !(shifts_[g] <= kLargestShift && std::fabs(scale_) <= kLargestScale);
    }
    Exponent exponent(int32_t g) const {
        const double rate = scale_ * kLog2E;
        const float near = static_cast<float>(rate);
        return {near, static_cast<float>(rate - near), static_cast<float>(shifts_[g] * kLog2E)};
    }
    // What the logarithm of a group's sums of exponentials is relative to.
    double shift(int32_t g) const { return exponent(g).shift / kLog2E; }
    const void* row(int64_t i) const { return static_cast<const float*>(rows_.values) + i * units_; }

    int worthwhile_threads(int threads) const;
    void measure_shifts();
    float largest_square(int64_t begin, int64_t end) const;

    template <class RowsOf, class PlanRowBlock, class Work>
    void plan_rounds(Planner planner, const std::vector<int32_t>& live, RowsOf rows_of, PlanRowBlock plan_row_block,
                     Work work) const;
    template <class Work>
    void plan_logsumexp(const std::vector<int32_t>& live, Work work) const;
    template <class Work>
    void plan_gradient(const std::vector<int32_t>& live, Work work) const;
    template <class Work>
    void plan_weighted(const std::vector<int32_t>& live, Work work) const;
    int32_t resident_rows(int32_t g) const;
    bool one_pass_pays(int32_t g) const;

    Tile columns_of(const Plan& plan, const Chunk& chunk, Scratch& scratch) const;
    Tile rows_of(const Tile& columns, const Plan& plan, const Chunk& chunk, int32_t first, float* values) const;
    void pack(const Plan& plan, const Chunk& chunk, Scratch& scratch) const;
    void similarities(const Tile& tile, Scratch& scratch) const;

    void interleave();
    const void* operand(int32_t g, int32_t local) const;
    void center();
    void add_means(float* gradient) const;
    void clear(Team& team, const std::vector<int32_t>& live, float* gradient) const;
    void into_columns_when_deep(const Plan& plan, const Chunk& chunk, int32_t done, const float* values,
                                float* gradient) const;
    void into_rows(const Plan& plan, const OutputBlock& block, const float* values, float* gradient) const;
    void measure_positives(const Classes& classes, const float* weights);
    void load_columns(const Tile& tile, const float* factors, const float* lses, bool count, Scratch& scratch) const;
    Factors factors_of(const Tile& tile, const float* factors, const Scratch& scratch) const;
    double sum_of_row(const Plan& plan, const RowBlock& row_block, int32_t i, const float* sums) const;

    const Arithmetic& arithmetic_;
    const Rows rows_;
    const Groups groups_;
    const float scale_;
    const int64_t channels_, units_;
    const int threads_;
    Classes classes_{nullptr, nullptr};
    std::vector<float> shifts_;
    Buffer<float> packed_, swept_;
    std::vector<Scratch> scratch_;
    std::vector<int64_t> pair_rows_;  // per group: its first interleaved pair of rows, anchors and others apart
    std::unique_ptr<Buffer<float>> pairs_;
    std::vector<float> positives_;  // per row: what each pair with one of its positives weighs
    std::unique_ptr<Centered> centered_;
};

int Engine::worthwhile_threads(int threads) const {
    int64_t cells = 0;
    for (int64_t g = 0; g < groups_.count; ++g) cells += int64_t{groups_.anchors[g]} * points(static_cast<int32_t>(g));
    return cells * channels_ < (int64_t{1} << 21) ? 1 : std::max(threads, 1);  // a thread costs about 20 us to start
}

float Engine::largest_square(int64_t begin, int64_t end) const {
    float largest = 0.0f;
    for (int64_t i = begin; i < end; ++i) {
        float parts[16] = {};
        if (arithmetic_.paired) {
            const uint32_t* units = static_cast<const uint32_t*>(row(i));
            for (int64_t u = 0; u < units_; ++u) {
                const uint32_t bits[2] = {units[u] << 16, units[u] & 0xffff0000u};
                float v[2];
                std::memcpy(v, bits, sizeof v);
                parts[u % 8] += v[0] * v[0] + v[1] * v[1];
            }
        } else {
            const float* v = static_cast<const float*>(row(i));
            for (int64_t c = 0; c < channels_; c += 16)
                for (int lane = 0; lane < 16; ++lane) parts[lane] += v[c + lane] * v[c + lane];
        }
        float square = 0.0f;
        for (float part : parts) square += part;
        largest = square > largest || square != square ? square : largest;
        if (largest != largest) return largest;
    }
    return largest;
}

void Engine::measure_shifts() {
    struct Block {
        int32_t group;
        int64_t begin, end;
    };
    std::vector<Block> blocks;
    for (int32_t g : all_groups())
        for (int64_t begin = offset(g), end = begin + points(g); begin < end; begin += kSquareRows)
            blocks.push_back({g, begin, std::min(begin + kSquareRows, end)});
    std::vector<float> squares(blocks.size());
    Team::run(threads_, [&](Team& team, int) {
        team.for_each(static_cast<int64_t>(blocks.size()),
                      [&](int64_t b) { squares[b] = largest_square(blocks[b].begin, blocks[b].end); });
    });
    for (size_t b = 0; b < blocks.size(); ++b) {
        const float shift = std::fabs(scale_) * squares[b];
        float& largest = shifts_[blocks[b].group];
        largest = shift > largest || shift != shift ? shift : largest;
    }
}

// ---- plans -----------------------------------------------------------------------------------------------------------

int32_t row_blocks_in(int32_t anchors, int32_t rows) { return (anchors + rows - 1) / rows; }

// Calls plan_row_block(group, first, rows) for every row block: the first of every group, then the second, and so on.
// Two row blocks of a group never share a batch, since both add to its columns. `rows_of(group)` is the height of its row
// blocks. Calls work(plan) for as many rounds as fill a plan: a plan of all rounds would grow with the pairs.
template <class RowsOf, class PlanRowBlock, class Work>
void Engine::plan_rounds(Planner planner, const std::vector<int32_t>& live, RowsOf rows_of, PlanRowBlock plan_row_block,
                         Work work) const {
    int32_t rounds = 0;
    for (int32_t g : live) rounds = std::max(rounds, row_blocks_in(anchors(g), rows_of(g)));
    for (int32_t round = 0; round < rounds; ++round) {
        for (int32_t g : live) {
            const int32_t height = rows_of(g), first = round * height;
            if (first >= anchors(g)) continue;
            const int32_t rows = std::min(height, anchors(g) - first);
            planner.begin_row_block(g, first, rows);
            plan_row_block(planner, g, first, rows);
            planner.end_row_block();
        }
        planner.close_batch();
        if (planner.full() || round + 1 == rounds) work(planner.take());
    }
}

template <class Work>
void Engine::plan_logsumexp(const std::vector<int32_t>& live, Work work) const {
    plan_rounds(
        Planner(false), live, [](int32_t) { return kForwardRowBlock; },
        [&](Planner& planner, int32_t g, int32_t first, int32_t rows) {
            if (safe_needed(g)) {
                planner.add_columns(0, points(g), Part::other);
                return;
            }
            planner.add_columns(first, first + rows, Part::own);
            planner.add_columns(first + rows, anchors(g), Part::later);
            planner.add_columns(anchors(g), points(g), Part::other);
        },
        work);
}

template <class Work>
void Engine::plan_gradient(const std::vector<int32_t>& live, Work work) const {
    plan_rounds(
        Planner(true), live, [](int32_t) { return kGradientRowBlock; },
        [&](Planner& planner, int32_t g, int32_t first, int32_t rows) {
            planner.add_columns(first, first + rows, Part::own);
            planner.add_columns(first + rows, anchors(g), Part::later);
            planner.add_columns(anchors(g), points(g), Part::other);
        },
        work);
}

// The rows of a row block whose tiles against the whole group fit the workspace: all anchors, else whole tiles, or less.
int32_t Engine::resident_rows(int32_t g) const {
    const int64_t tiles = points(g) / kTileColumns + 4;  // ragged: own, before, after, others
    const int64_t fit = kWorkspaceBytes / (tiles * kTileRowBytes) - 1;
    if (fit >= anchors(g)) return anchors(g);
    if (fit >= kTileColumns) return static_cast<int32_t>(fit / kTileColumns * kTileColumns);
    return static_cast<int32_t>(fit / kSweepRows * kSweepRows);
}

bool Engine::one_pass_pays(int32_t g) const {
    const int32_t resident = resident_rows(g);
    if (safe_needed(g) || resident < std::min<int32_t>(kSmallestRowBlock, anchors(g))) return false;
    const double a = anchors(g), n = points(g);
    return 6 * a * n - 3 * a * resident <= 4 * a * a + 8 * a * (n - a);
}

template <class Work>
void Engine::plan_weighted(const std::vector<int32_t>& live, Work work) const {
    plan_rounds(
        Planner(true), live, [&](int32_t g) { return resident_rows(g); },
        [&](Planner& planner, int32_t g, int32_t first, int32_t rows) {
            // A row block needs all its columns in one batch.
            const int64_t needed = int64_t{rows + 1} * kTileStride * (points(g) / kTileColumns + 4);
            if ((planner.values() + needed) * int64_t{sizeof(float)} > kWorkspaceBytes) planner.close_batch();
            planner.begin_row_block(g, first, rows);
            planner.add_columns(0, first, Part::other);
            planner.add_columns(first, first + rows, Part::own);
            planner.add_columns(first + rows, anchors(g), Part::other);
            planner.add_columns(anchors(g), points(g), Part::other);
        },
        work);
}

// ---- tiles -----------------------------------------------------------------------------------------------------------

// The tile of a whole chunk without its rows: the columns' ranges, padded, and their union.
Tile Engine::columns_of(const Plan& plan, const Chunk& chunk, Scratch& scratch) const {
    const RowBlock& row_block = plan.row_blocks[chunk.row_block];
    const int64_t base = offset(row_block.group);
    Tile tile{};
    tile.columns = chunk.width;
    tile.first_column = base + chunk.first;
    tile.column_skip_begin = scratch.skip_begin;
    tile.column_skip_end = scratch.skip_end;
    std::fill(scratch.skip_begin, scratch.skip_begin + kTileColumns, 0);
    std::fill(scratch.skip_end, scratch.skip_end + kTileColumns, 0);
    if (rows_.scales) {
        tile.column_scales = scratch.column_scales;
        std::copy_n(rows_.scales + tile.first_column, tile.columns, scratch.column_scales);
        std::fill(scratch.column_scales + tile.columns, scratch.column_scales + kTileColumns, 0.0f);
    }
    if (!chunk.columns_count()) return tile;
    tile.skip_begin = INT32_MAX;
    for (int j = 0; j < chunk.width; ++j) {
        const int32_t low = groups_.skip_begin[tile.first_column + j], high = groups_.skip_end[tile.first_column + j];
        if (low >= high) continue;
        scratch.skip_begin[j] = low, scratch.skip_end[j] = high;
        tile.skip_begin = std::min(tile.skip_begin, low), tile.skip_end = std::max(tile.skip_end, high);
    }
    return tile;
}

// The rows [first, first + kSweepRows) of a chunk, at `values`.
Tile Engine::rows_of(const Tile& columns, const Plan& plan, const Chunk& chunk, int32_t first, float* values) const {
    const RowBlock& row_block = plan.row_blocks[chunk.row_block];
    Tile tile = columns;
    tile.values = values;
    tile.rows = std::min(kSweepRows, chunk.rows - first);
    tile.upper_rows = chunk.columns_count() ? std::clamp(chunk.upper - first, 0, tile.rows) : 0;
    tile.first_row = offset(row_block.group) + row_block.first + first;
    tile.row_skip_begin = groups_.skip_begin + tile.first_row;
    tile.row_skip_end = groups_.skip_end + tile.first_row;
    if (rows_.scales) tile.row_scales = rows_.scales + tile.first_row;
    if (classes_.class_begin) {
        tile.row_class_begin = classes_.class_begin + tile.first_row;
        tile.row_class_end = classes_.class_end + tile.first_row;
    }
    return tile;
}

void Engine::pack(const Plan& plan, const Chunk& chunk, Scratch& scratch) const {
    arithmetic_.pack_columns(row(offset(plan.row_blocks[chunk.row_block].group) + chunk.first), chunk.width, units_,
                             scratch.packed);
}

void Engine::similarities(const Tile& tile, Scratch& scratch) const {
    arithmetic_.similarity(row(tile.first_row), tile.rows, scratch.packed, tile.columns, units_, tile.values);
    if (rows_.scales) arithmetic_.rescale(tile);
}

double Engine::sum_of_row(const Plan& plan, const RowBlock& row_block, int32_t i, const float* sums) const {
    double sum = 0.0;
    for (int32_t c = row_block.first_chunk; c < row_block.last_chunk; ++c)
        if (i < plan.chunks[c].rows) sum += sums[plan.chunks[c].sums + i];
    return sum;
}

// ---- log-sum-exp -----------------------------------------------------------------------------------------------------

void Engine::logsumexp(const std::vector<int32_t>& live, double* lse) {
    Buffer<double> column_sums(rows_.count);
    std::fill_n(column_sums.get(), rows_.count, 0.0);
    plan_logsumexp(live, [&](const Plan& plan) {
        executed += plan.similarity_cells * channels_;
        Buffer<float> sums(plan.sums), maxima(plan.sums);

        const auto sweep = [&](const Chunk& chunk, Scratch& scratch) {
            const bool safe = safe_needed(plan.row_blocks[chunk.row_block].group);
            const Exponent exponents = exponent(plan.row_blocks[chunk.row_block].group);
            const Tile columns = columns_of(plan, chunk, scratch);
            pack(plan, chunk, scratch);
            for (int32_t first = 0; first < chunk.rows; first += kSweepRows) {
                const Tile tile = rows_of(columns, plan, chunk, first, scratch.values);
                float* row_sums = sums.get() + chunk.sums + first;
                similarities(tile, scratch);
                if (safe) {
                    arithmetic_.safe_row_sums(tile, scale_, maxima.get() + chunk.sums + first, row_sums);
                    continue;
                }
                arithmetic_.exponentials(tile, exponents, row_sums, scratch.column_sums);
                if (chunk.columns_count())
                    for (int j = 0; j < chunk.width; ++j) column_sums[tile.first_column + j] += scratch.column_sums[j];
            }
        };
        const auto finish = [&](const OutputBlock& block) {
            const RowBlock& row_block = plan.row_blocks[block.row_block];
            const int64_t base = offset(row_block.group) + row_block.first;
            for (int32_t i = block.first; i < block.first + block.rows; ++i) {
                if (!safe_needed(row_block.group)) {
                    const double sum = column_sums[base + i] + sum_of_row(plan, row_block, i, sums.get());
                    lse[base + i] = shift(row_block.group) + std::log(sum);
                    continue;
                }
                float largest = -INFINITY;
                for (int32_t c = row_block.first_chunk; c < row_block.last_chunk; ++c) {
                    const float m = maxima[plan.chunks[c].sums + i];
                    largest = m > largest || m != m ? m : largest;
                }
                double sum = 0.0;
                for (int32_t c = row_block.first_chunk; c < row_block.last_chunk; ++c) {
                    const float m = maxima[plan.chunks[c].sums + i];
                    if (m != -INFINITY) sum += sums[plan.chunks[c].sums + i] * std::exp(static_cast<double>(m) - largest);
                }
                lse[base + i] = largest == -INFINITY ? largest : largest + std::log(sum);
            }
        };
        Team::run(threads_, [&](Team& team, int member) {
            for (const Batch& batch : plan.batches) {
                team.for_each(batch.last_chunk - batch.first_chunk,
                              [&](int64_t c) { sweep(plan.chunks[batch.first_chunk + c], scratch_[member]); });
                team.for_each(batch.last_block - batch.first_block,
                              [&](int64_t b) { finish(plan.blocks[batch.first_block + b]); });
            }
        });
    });
}

// ---- gradient --------------------------------------------------------------------------------------------------------

// Interleaves the rows for the bfloat16 products, anchors and others of a group apart so that each begins a pair.
void Engine::interleave() {
    if (!arithmetic_.paired || pairs_) return;
    int64_t pairs = 0;
    for (int64_t g = 0; g < groups_.count; ++g) {
        const int32_t group = static_cast<int32_t>(g);
        pair_rows_.push_back(pairs);
        if (anchors(group) > 0) pairs += (anchors(group) + 1) / 2 + (points(group) - anchors(group) + 1) / 2;
    }
    pairs_ = std::make_unique<Buffer<float>>(pairs * channels_);
    const std::vector<int32_t> live = all_groups();
    Team::run(threads_, [&](Team& team, int) {
        team.for_each(2 * static_cast<int64_t>(live.size()), [&](int64_t k) {
            const int32_t g = live[k / 2], first = k % 2 ? anchors(g) : 0, end = k % 2 ? points(g) : anchors(g);
            const int64_t pair = pair_rows_[g] + (k % 2 ? (anchors(g) + 1) / 2 : 0);
            arithmetic_.interleave_rows(row(offset(g) + first), end - first, channels_, pairs_->get() + pair * channels_);
        });
    });
}

// The rows from `local` on as the right operand of a product; `local` is even from the start of the anchors or the others.
const void* Engine::operand(int32_t g, int32_t local) const {
    if (centered_ && centered_->is[g]) return centered_->rows.get() + (offset(g) + local) * channels_;
    if (!arithmetic_.paired) return row(offset(g) + local);
    const int64_t pair = local < anchors(g) ? local / 2 : (anchors(g) + 1) / 2 + (local - anchors(g)) / 2;
    return pairs_->get() + (pair_rows_[g] + pair) * channels_;
}

// Finds the groups whose rows, of length 1, lie around one direction: a mean of some of them has a length near 1 too.
void Engine::center() {
    if (arithmetic_.paired) return;
    for (int32_t g : all_groups()) {
        const int64_t taken = std::min<int64_t>(points(g), kMeanRows);
        std::vector<float> mean(static_cast<size_t>(channels_));
        for (int64_t t = 0; t < taken; ++t) {
            const float* x = static_cast<const float*>(row(offset(g) + t * points(g) / taken));
            for (int64_t c = 0; c < channels_; ++c) mean[c] += x[c];
        }
        double square = 0.0;
        for (float& m : mean) m /= static_cast<float>(taken), square += double{m} * m;
        if (!(square > 0.5)) continue;
        if (!centered_) centered_ = std::make_unique<Centered>(groups_.count, rows_.count, channels_);
        centered_->is[g] = 1;
        std::copy(mean.begin(), mean.end(), centered_->means.begin() + g * channels_);
    }
    if (!centered_) return;
    const std::vector<int32_t> live = all_groups();
    Team::run(threads_, [&](Team& team, int) {
        team.for_each(static_cast<int64_t>(live.size()), [&](int64_t k) {
            const int32_t g = live[k];
            if (!centered_->is[g]) return;
            const float* mean = centered_->means.data() + g * channels_;
            std::fill_n(centered_->totals.get() + offset(g), points(g), 0.0);
            for (int64_t i = offset(g); i < offset(g) + points(g); ++i) {
                const float* x = static_cast<const float*>(row(i));
                for (int64_t c = 0; c < channels_; ++c) centered_->rows[i * channels_ + c] = x[c] - mean[c];
            }
        });
    });
}

// gradient_i += m times the sum of W_ij.
void Engine::add_means(float* gradient) const {
    if (!centered_) return;
    const std::vector<int32_t> live = all_groups();
    Team::run(threads_, [&](Team& team, int) {
        team.for_each(static_cast<int64_t>(live.size()), [&](int64_t k) {
            const int32_t g = live[k];
            if (!centered_->is[g]) return;
            const float* mean = centered_->means.data() + g * channels_;
            for (int64_t i = offset(g); i < offset(g) + points(g); ++i)
                for (int64_t c = 0; c < channels_; ++c)
                    gradient[i * channels_ + c] += static_cast<float>(centered_->totals[i] * mean[c]);
        });
    });
}

void Engine::clear(Team& team, const std::vector<int32_t>& live, float* gradient) const {
    team.for_each(static_cast<int64_t>(live.size()), [&](int64_t k) {
        std::fill_n(gradient + offset(live[k]) * channels_, points(live[k]) * channels_, 0.0f);
    });
}

// Multiplies the weights of the last kDepthRows rows into the columns once `done` rows of the chunk have them, while
// they are in the cache.
void Engine::into_columns_when_deep(const Plan& plan, const Chunk& chunk, int32_t done, const float* values,
                                    float* gradient) const {
    if (done % kDepthRows != 0 && done != chunk.rows) return;
    const RowBlock& row_block = plan.row_blocks[chunk.row_block];
    const int32_t first = (done - 1) / kDepthRows * kDepthRows, depth = std::min(done, chunk.upper) - first;
    if (depth <= 0) return;
    const float* weights = values + chunk.values + first * int64_t{kTileStride};
    const int64_t out = offset(row_block.group) + chunk.first;
    arithmetic_.multiply_into_columns(weights, depth, chunk.width, operand(row_block.group, row_block.first + first),
                                      channels_, gradient + out * channels_);
    if (!centered_ || !centered_->is[row_block.group]) return;
    float sums[kTileColumns * kLanes] = {};
    arithmetic_.multiply_into_columns(weights, depth, chunk.width, centered_->lanes.data(), kLanes, sums);
    centered_->add(sums, out, chunk.width);
}

void Engine::into_rows(const Plan& plan, const OutputBlock& block, const float* values, float* gradient) const {
    const RowBlock& row_block = plan.row_blocks[block.row_block];
    const int64_t out = offset(row_block.group) + row_block.first + block.first;
    for (int32_t c = row_block.first_chunk; c < row_block.last_chunk; ++c) {
        const Chunk& chunk = plan.chunks[c];
        const int32_t rows = std::min(block.rows, chunk.rows - block.first);
        if (rows <= 0) continue;
        arithmetic_.multiply_into_rows(values + chunk.values, block.first, rows, chunk.width,
                                       operand(row_block.group, chunk.first), channels_, gradient + out * channels_);
        if (!centered_ || !centered_->is[row_block.group]) continue;
        float sums[kOutputRows * kLanes] = {};
        arithmetic_.multiply_into_rows(values + chunk.values, block.first, rows, chunk.width, centered_->lanes.data(),
                                       kLanes, sums);
        centered_->add(sums, out, rows);
    }
}

// scale weight_i / |P(i)|, which no similarity enters: 0 for rows that are no anchors.
void Engine::measure_positives(const Classes& classes, const float* weights) {
    classes_ = classes;
    for (int32_t g : all_groups())
        for (int64_t i = offset(g); i < offset(g) + anchors(g); ++i) {
            const int32_t count = classes.class_end[i] - classes.class_begin[i] - 1;
            if (count > 0) positives_[i] = static_cast<float>(double{scale_} * weights[i] / count);
        }
}

// The columns' factors and log-sum-exps as padded arrays; 0 and kNever for columns that do not count.
void Engine::load_columns(const Tile& tile, const float* factors, const float* lses, bool count, Scratch& scratch) const {
    const int held = count ? tile.columns : 0;
    const auto load = [&](const float* from, float* to, float otherwise) {
        std::copy_n(from + tile.first_column, held, to);
        std::fill(to + held, to + kTileColumns, otherwise);
    };
    load(factors, scratch.column_factors, 0.0f);
    load(positives_.data(), scratch.column_positives, 0.0f);
    load(lses, scratch.column_lses, kNever);
}

Factors Engine::factors_of(const Tile& tile, const float* factors, const Scratch& scratch) const {
    return {factors + tile.first_row, scratch.column_factors, positives_.data() + tile.first_row,
            scratch.column_positives};
}

void Engine::gradient(const std::vector<int32_t>& live, const double* lse, const float* grad, float* out) {
    interleave();
    Buffer<float> factors(rows_.count), lses(rows_.count);

    // scale grad_i e^{shift - lse_i}, the shift being the rounded lse_i where the group is safe; nothing where D(i) is
    // empty.
    const auto prepare = [&](int32_t g) {
        for (int64_t i = offset(g); i < offset(g) + anchors(g); ++i) {
            const bool counts = lse[i] != -INFINITY && grad[i] != 0.0f;
            lses[i] = counts ? static_cast<float>(lse[i]) : kNever;
            const double relative_to = safe_needed(g) ? lses[i] : shift(g);
            factors[i] = counts ? static_cast<float>(scale_ * grad[i] * std::exp(relative_to - lse[i])) : 0.0f;
        }
    };
    Team::run(threads_, [&](Team& team, int) {
        clear(team, live, out);
        team.for_each(static_cast<int64_t>(live.size()), [&](int64_t k) { prepare(live[k]); });
    });
    plan_gradient(live, [&](const Plan& plan) {
        executed += (plan.similarity_cells + plan.product_cells) * channels_;
        Buffer<float> values(plan.values);
        const auto weigh = [&](const Chunk& chunk, Scratch& scratch) {
            const int32_t group = plan.row_blocks[chunk.row_block].group;
            const Tile columns = columns_of(plan, chunk, scratch);
            load_columns(columns, factors.get(), lses.get(), chunk.columns_count(), scratch);
            pack(plan, chunk, scratch);
            for (int32_t first = 0; first < chunk.rows; first += kSweepRows) {
                const Tile tile =
                    rows_of(columns, plan, chunk, first, values.get() + chunk.values + first * int64_t{kTileStride});
                similarities(tile, scratch);
                const Factors weighing = factors_of(tile, factors.get(), scratch);
                if (safe_needed(group)) {
                    arithmetic_.safe_weigh(tile, scale_, weighing, lses.get() + tile.first_row, scratch.column_lses);
                } else {
                    arithmetic_.exponentials(tile, exponent(group), scratch.maxima, scratch.column_sums);
                    arithmetic_.weigh(tile, weighing);
                }
                arithmetic_.seal_weights(tile.values, tile.rows, tile.columns);
                into_columns_when_deep(plan, chunk, first + tile.rows, values.get(), out);
            }
        };
        Team::run(threads_, [&](Team& team, int member) {
            for (const Batch& batch : plan.batches) {
                team.for_each(batch.last_chunk - batch.first_chunk,
                              [&](int64_t c) { weigh(plan.chunks[batch.first_chunk + c], scratch_[member]); });
                team.for_each(batch.last_block - batch.first_block, [&](int64_t b) {
                    into_rows(plan, plan.blocks[batch.first_block + b], values.get(), out);
                });
            }
        });
    });
}

// ---- both at once ----------------------------------------------------------------------------------------------------

void Engine::contrast(const Classes& classes, bool unit_rows, const float* weights, float* lse, float* out) {
    measure_positives(classes, weights);
    if (unit_rows) center();
    prefer_huge_pages(out, rows_.count * channels_ * int64_t{sizeof(float)});
    interleave();
    std::vector<int32_t> together, apart;
    for (int32_t g : all_groups()) (one_pass_pays(g) ? together : apart).push_back(g);
    if (!apart.empty()) {
        Buffer<double> exact(rows_.count);
        logsumexp(apart, exact.get());
        gradient(apart, exact.get(), weights, out);
        for (int32_t g : apart) std::copy_n(exact.get() + offset(g), anchors(g), lse + offset(g));
    }
    Buffer<float> factors(rows_.count);
    Buffer<double> column_sums(rows_.count);
    const auto start = [&](int32_t g) {
        std::fill_n(column_sums.get() + offset(g), points(g), 0.0);
        std::fill_n(factors.get() + offset(g), points(g), 0.0f);
    };
    Team::run(threads_, [&](Team& team, int) {
        clear(team, together, out);
        team.for_each(static_cast<int64_t>(together.size()), [&](int64_t k) { start(together[k]); });
    });
    plan_weighted(together, [&](const Plan& plan) {
        executed += (plan.similarity_cells + plan.product_cells) * channels_;
        Buffer<float> values(plan.values), sums(plan.sums);
        const auto sweep = [&](const Chunk& chunk, Scratch& scratch) {
            const Tile columns = columns_of(plan, chunk, scratch);
            pack(plan, chunk, scratch);
            for (int32_t first = 0; first < chunk.rows; first += kSweepRows) {
                const Tile tile =
                    rows_of(columns, plan, chunk, first, values.get() + chunk.values + first * int64_t{kTileStride});
                similarities(tile, scratch);
                arithmetic_.exponentials(tile, exponent(plan.row_blocks[chunk.row_block].group), sums.get() + chunk.sums + first,
                                         scratch.column_sums);
                if (chunk.columns_count())
                    for (int j = 0; j < chunk.width; ++j) column_sums[tile.first_column + j] += scratch.column_sums[j];
            }
        };
        const auto finish = [&](const OutputBlock& block) {
            const RowBlock& row_block = plan.row_blocks[block.row_block];
            const int64_t base = offset(row_block.group) + row_block.first;
            for (int32_t i = block.first; i < block.first + block.rows; ++i) {
                const double sum = column_sums[base + i] + sum_of_row(plan, row_block, i, sums.get());
                lse[base + i] = static_cast<float>(shift(row_block.group) + std::log(sum));
                factors[base + i] = sum == 0.0 ? 0.0f : static_cast<float>(scale_ * weights[base + i] / sum);
            }
        };
        const auto weigh = [&](const Chunk& chunk, Scratch& scratch) {
            const Tile columns = columns_of(plan, chunk, scratch);
            load_columns(columns, factors.get(), factors.get(), chunk.columns_count(), scratch);
            for (int32_t first = 0; first < chunk.rows; first += kSweepRows) {
                const Tile tile =
                    rows_of(columns, plan, chunk, first, values.get() + chunk.values + first * int64_t{kTileStride});
                arithmetic_.weigh(tile, factors_of(tile, factors.get(), scratch));
                arithmetic_.seal_weights(tile.values, tile.rows, tile.columns);
                into_columns_when_deep(plan, chunk, first + tile.rows, values.get(), out);
            }
        };
        Team::run(threads_, [&](Team& team, int member) {
            for (const Batch& batch : plan.batches) {
                const int64_t chunks = batch.last_chunk - batch.first_chunk, blocks = batch.last_block - batch.first_block;
                team.for_each(chunks, [&](int64_t c) { sweep(plan.chunks[batch.first_chunk + c], scratch_[member]); });
                team.for_each(blocks, [&](int64_t b) { finish(plan.blocks[batch.first_block + b]); });
                team.for_each(chunks, [&](int64_t c) { weigh(plan.chunks[batch.first_chunk + c], scratch_[member]); });
                team.for_each(blocks, [&](int64_t b) {
                    into_rows(plan, plan.blocks[batch.first_block + b], values.get(), out);
                });
            }
        });
    });
    add_means(out);
}

}  // namespace

void logsumexp(const Arithmetic& arithmetic, int threads, const Rows& rows, const Groups& groups, float scale,
               float* lse) {
    Engine engine(arithmetic, threads, rows, groups, scale);
    Buffer<double> exact(rows.count);
    engine.logsumexp(engine.all_groups(), exact.get());
    for (int32_t g : engine.all_groups())
        std::copy_n(exact.get() + groups.offsets[g], groups.anchors[g], lse + groups.offsets[g]);
}

void logsumexp_gradient(const Arithmetic& arithmetic, int threads, const Rows& rows, const Groups& groups, float scale,
                        const float* lse, const float* grad, float* gradient) {
    Engine engine(arithmetic, threads, rows, groups, scale);
    Buffer<double> exact(rows.count);
    for (int32_t g : engine.all_groups())
        std::copy_n(lse + groups.offsets[g], groups.anchors[g], exact.get() + groups.offsets[g]);
    engine.gradient(engine.all_groups(), exact.get(), grad, gradient);
}

void contrast_gradient(const Arithmetic& arithmetic, int threads, const Rows& rows, const Groups& groups,
                       const Classes& classes, bool unit_rows, float scale, const float* weights, float* lse,
                       float* gradient) {
    Engine(arithmetic, threads, rows, groups, scale).contrast(classes, unit_rows, weights, lse, gradient);
}

int64_t executed_multiply_adds() { return executed.load(); }

}  // namespace semicl
