#include "plan.h"

#include <algorithm>
#include <utility>

namespace semicl {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{16} << 20;
// Of workspace a thread, where it may be small: about a second cache (L2). Set by hand: no timing of it is kept.
constexpr int64_t kNearBytes = int64_t{1} << 20;
constexpr int64_t kTileRowBytes = kTileStride * int64_t{sizeof(float)};
// Of a row block. Set by hand: no timing of them is kept.
constexpr int kForwardRows = 4 * kTileColumns;
constexpr int kBackwardRows = 2 * kTileColumns;
constexpr int kSmallestRowBlock = kSweepRows;
constexpr size_t kPlanChunks = size_t{1} << 16;  // that a plan may hold before it is worked on and the next one made

class Planner {
public:
    // `keep` tells whether the tiles stay in the workspace until the batch ends.
    explicit Planner(bool keep, int64_t workspace_bytes = kWorkspaceBytes)
        : keep_(keep), workspace_bytes_(workspace_bytes) {}

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

    // Makes room in one batch for `floats` more of workspace.
    void reserve(int64_t floats) {
        if ((values_ + floats) * int64_t{sizeof(float)} > workspace_bytes_) close_batch();
    }

    void end_row_block() {
        if (open_) plan_.row_blocks.back().last_chunk = chunk_count();
        open_ = false;
    }

    void close_batch() {
        if (chunk_count() == batch_chunk_) return;
        end_row_block();
        const int32_t first_block = static_cast<int32_t>(plan_.blocks.size());
        for (size_t b = batch_row_block_; b < plan_.row_blocks.size(); ++b)
            for (int32_t i = 0; i < plan_.row_blocks[b].rows; i += kOutputRows)
                plan_.blocks.push_back(
                    {static_cast<int32_t>(b), i, std::min(kOutputRows, plan_.row_blocks[b].rows - i)});
        plan_.batches.push_back({batch_chunk_, chunk_count(), first_block, static_cast<int32_t>(plan_.blocks.size())});
        plan_.values = std::max(plan_.values, values_);
        plan_.sums = std::max(plan_.sums, sums_);
        values_ = sums_ = 0;
        batch_chunk_ = chunk_count();
        batch_row_block_ = plan_.row_blocks.size();
    }

    bool full() const { return plan_.chunks.size() >= kPlanChunks; }

    // Hands over what was planned and begins anew; no batch is open.
    Plan take() {
        batch_chunk_ = 0, batch_row_block_ = 0;
        return std::exchange(plan_, Plan{});
    }

private:
    int32_t chunk_count() const { return static_cast<int32_t>(plan_.chunks.size()); }

    void add(Chunk chunk) {
        const int64_t needed =
            keep_ ? (chunk.rows + kTilePadding - 1) / kTilePadding * kTilePadding * int64_t{kTileStride} : 0;
        if (values_ > 0) reserve(needed);
        if (!open_) {
            plan_.row_blocks.push_back({group_, first_, rows_, chunk_count(), 0});
            open_ = true;
        }
        chunk.row_block = static_cast<int32_t>(plan_.row_blocks.size()) - 1;
        chunk.values = values_, chunk.sums = sums_;
        values_ += needed, sums_ += chunk.rows;
        plan_.similarity_cells += int64_t{chunk.rows} * chunk.width;
        plan_.product_cells += int64_t{chunk.rows + chunk.upper} * chunk.width;
        plan_.chunks.push_back(chunk);
    }

    Plan plan_;
    bool keep_, open_ = false;
    int64_t workspace_bytes_;
    int32_t group_ = 0, first_ = 0, rows_ = 0, batch_chunk_ = 0;
    size_t batch_row_block_ = 0;
    int64_t values_ = 0, sums_ = 0;
};

// Whether two groups meet the same keys, to which two row blocks in one batch would add.
bool shares_keys(const Problem& problem, const std::vector<int32_t>& groups) {
    if (problem.square()) return false;
    int32_t last = 0;
    for (int32_t g : groups) {
        if (problem.keys.begin[g] < last) return true;
        last = std::max(last, problem.keys.end[g]);
    }
    return false;
}

// Calls add(planner, group, first, rows) for every row block, the first of every group, then the second, and so on.
// `height(group)` is the rows of its row blocks.
// `alone`: no two share a batch.
template <class Height, class Add>
void plan(const Problem& problem, Planner planner, const std::vector<int32_t>& groups, bool alone, Height height,
          Add add, const Work& work) {
    int32_t rounds = 0;
    for (int32_t g : groups) rounds = std::max(rounds, (problem.anchors(g) + height(g) - 1) / height(g));
    for (int32_t round = 0; round < rounds; ++round) {
        for (int32_t g : groups) {
            const int32_t first = round * height(g);
            if (first >= problem.anchors(g)) continue;
            const int32_t rows = std::min(height(g), problem.anchors(g) - first);
            planner.begin_row_block(g, first, rows);
            add(planner, g, first, rows);
            planner.end_row_block();
            if (alone) planner.close_batch();
        }
        planner.close_batch();
        if (planner.full() || round + 1 == rounds) work(planner.take());
    }
}

// The row block against the anchors from it on, and all others; against all keys where they are other rows.
void add_upper_triangle(Planner& planner, const Problem& problem, int32_t g, int32_t first, int32_t rows) {
    if (!problem.square()) return planner.add_columns(0, problem.points(g), Part::other);
    planner.add_columns(first, first + rows, Part::own);
    planner.add_columns(first + rows, problem.anchors(g), Part::later);
    planner.add_columns(problem.anchors(g), problem.points(g), Part::other);
}

// Tiles of a row block against its whole group, at most: the columns of own, earlier, later and others are ragged.
int64_t most_tiles(const Problem& problem, int32_t g) { return problem.points(g) / kTileColumns + 4; }

// The rows of a row block whose tiles against the whole group fit the workspace: all anchors, else whole tiles, or
// less.
int32_t resident_rows(const Problem& problem, int32_t g) {
    const int64_t fit = kWorkspaceBytes / (most_tiles(problem, g) * kTileRowBytes) - 1;
    if (fit >= problem.anchors(g)) return problem.anchors(g);
    const int64_t step = fit >= kTileColumns ? kTileColumns : kSweepRows;
    return static_cast<int32_t>(fit / step * step);
}

}  // namespace

void plan_forward(const Problem& problem, const std::vector<int32_t>& groups, const Work& work) {
    const auto add = [&](Planner& planner, int32_t g, int32_t first, int32_t rows) {
        // With the online softmax an exponential is relative to its row's maximum: it serves no column.
        if (problem.online(g) || !problem.square())
            planner.add_columns(0, problem.points(g), Part::other);
        else
            add_upper_triangle(planner, problem, g, first, rows);
    };
    plan(problem, Planner(false), groups, false, [](int32_t) { return kForwardRows; }, add, work);
}

void plan_backward(const Problem& problem, const std::vector<int32_t>& groups, bool into_keys, const Work& work) {
    const auto add = [&](Planner& planner, int32_t g, int32_t first, int32_t rows) {
        add_upper_triangle(planner, problem, g, first, rows);
    };
    // Against other keys a chunk is like the next, and few fill a batch.
    const int64_t bytes = problem.square() ? kWorkspaceBytes : std::min(kWorkspaceBytes, problem.threads * kNearBytes);
    const bool alone = into_keys && shares_keys(problem, groups);
    plan(problem, Planner(true, bytes), groups, alone, [](int32_t) { return kBackwardRows; }, add, work);
}

void plan_positives(const Problem& problem, const std::vector<int32_t>& groups, const Classes& classes,
                    const Work& work) {
    Planner planner(false);
    for (int32_t g : groups) {
        const int64_t offset = problem.offset(g), column = problem.column_offset(g);
        for (int32_t first = 0, next; first < problem.anchors(g); first = next) {
            int32_t begin = INT32_MAX, end = 0;
            for (next = first; next < problem.anchors(g) && next < first + kForwardRows; ++next) {
                const int64_t from = classes.class_begin[offset + next] - column;
                const int64_t to = classes.class_end[offset + next] - column;
                const int32_t wider = static_cast<int32_t>(std::max<int64_t>(end, to));
                const int32_t left = static_cast<int32_t>(std::min<int64_t>(begin, from));
                const bool as_before = left == begin && wider == end;
                if (from >= to || as_before) continue;
                if (next > first && end > 0 && wider - left > kTileColumns) break;
                begin = left, end = wider;
            }
            planner.begin_row_block(g, first, next - first);
            planner.add_columns(std::min(begin, end), end, Part::other);
            planner.end_row_block();
            if (!planner.full()) continue;
            planner.close_batch();
            work(planner.take());
        }
    }
    planner.close_batch();
    work(planner.take());
}

void plan_one_pass(const Problem& problem, const std::vector<int32_t>& groups, const Work& work) {
    const auto add = [&](Planner& planner, int32_t g, int32_t first, int32_t rows) {
        planner.reserve(int64_t{rows + 1} * kTileStride * most_tiles(problem, g));
        planner.add_columns(0, first, Part::other);
        planner.add_columns(first, first + rows, Part::own);
        planner.add_columns(first + rows, problem.anchors(g), Part::other);
        planner.add_columns(problem.anchors(g), problem.points(g), Part::other);
    };
    plan(problem, Planner(true), groups, false, [&](int32_t g) { return resident_rows(problem, g); }, add, work);
}

bool one_pass_pays(const Problem& problem, int32_t g) {
    const int32_t resident = resident_rows(problem, g);
    if (problem.online(g) || resident < std::min<int32_t>(kSmallestRowBlock, problem.anchors(g))) return false;
    const double a = problem.anchors(g), n = problem.points(g);
    return 6 * a * n - 3 * a * resident <= 4 * a * a + 8 * a * (n - a);
}

}  // namespace semicl
