// The backend's calls over the emulated machine, and its schedules and layouts, as C functions: what __init__.py loads.
//
// Every call returns null, or what went wrong.
#include "backend.cu"

using namespace semicl::cuda;

namespace {

template <class Call>
const char* guarded(const Call& call) {
    static std::string message;
    try {
        call();
        return nullptr;
    } catch (const std::exception& error) {
        message = error.what();
        return message.c_str();
    }
}

}  // namespace

extern "C" {

struct EmulatedProblem {
    const void* rows;
    const int* groups[5];
    int* work;
    int route, format, count, channels, group_count, span, mutual, known;
    float scale, rate, shift;
};

void set_early(int early) { emulator::order = early ? emulator::Order::early : emulator::Order::late; }

void sizes(int route, int format, int channels, int* out) {
    const TileSizes found = tile_sizes(static_cast<Route>(route), static_cast<RowFormat>(format), channels);
    out[0] = found.sums_rows, out[1] = found.gradient_rows, out[2] = found.sums_bytes, out[3] = found.gradient_bytes;
}

const char* pack_rows_of(int format, const void* rows, int64_t count, int channels, int padded, void* packed) {
    return guarded([&] { pack({}, static_cast<RowFormat>(format), rows, count, channels, padded, packed); });
}

static Problem problem_of(const EmulatedProblem& p) {
    const Groups groups{p.groups[0], p.groups[1], p.groups[2], p.groups[3], p.groups[4], p.group_count, p.mutual != 0};
    return {static_cast<Route>(p.route),
            static_cast<RowFormat>(p.format),
            p.rows,
            p.count,
            p.channels,
            groups,
            p.span,
            p.known != 0,
            p.scale,
            p.rate,
            p.shift,
            p.work};
}

const char* count_items_of(const EmulatedProblem* p) {
    return guarded([&] { count_items({}, problem_of(*p)); });
}

const char* sum_pairs_of(const EmulatedProblem* p, float* slots) {
    return guarded([&] { sum_pairs({}, problem_of(*p), slots); });
}

const char* join_sums_of(const EmulatedProblem* p, const float* slots, float* lse) {
    return guarded([&] { join_sums({}, problem_of(*p), slots, lse); });
}

const char* pair_factors_of(const EmulatedProblem* p, const float* lse, const float* grad, const float* peak,
                            float* factors) {
    return guarded([&] { pair_factors({}, problem_of(*p), lse, grad, peak, factors); });
}

const char* row_gradient_of(const EmulatedProblem* p, const float* factors, const float* peak, float* gradient,
                            int gradient_channels) {
    return guarded([&] { row_gradient({}, problem_of(*p), factors, peak, gradient, gradient_channels); });
}

// ---- schedules: the loops of the kernels, with a mark where they multiply ------------------------------------------

// Sums the items of the groups up, as count_work does on the device; returns their number.
static int run_totals(const Groups& groups, int span, bool triangle, int rows, int* pair_ends, int* tile_ends) {
    int pairs = 0, tiles = 0;
    for (int rank = 0; rank < groups.count; ++rank) {
        const Group group = group_at(groups, rank);
        pair_ends[rank] = pairs += panel_pair_count(group, span, triangle);
        tile_ends[rank] = tiles += row_tile_count(group, rows);
    }
    return tiles;
}

static Skips skips_of(const Groups& groups, int first, int end) {
    Skips skips;
    for (int row = first; row < end; ++row) skips.include({groups.skip_low[row], groups.skip_high[row]});
    return skips;
}

// Counts, in visits (M, M), how often each pair (anchor, point) gets into the anchor's sums; tiles[0] becomes the
// number of streamed tiles. Returns null, or which invariant does not hold.
const char* visit_sums(const EmulatedProblem* p, int owned_rows, int streamed_rows, int triangle, int* visits,
                       int* tiles) {
    return guarded([&] {
        const Problem problem = problem_of(*p);
        const Groups& groups = problem.groups;
        std::vector<int> pair_ends(static_cast<size_t>(groups.count)), tile_ends(pair_ends);
        run_totals(groups, problem.span, triangle, owned_rows, pair_ends.data(), tile_ends.data());
        const auto visit = [&](int anchor, int point) { ++visits[int64_t{anchor} * problem.count + point]; };
        for (int number = 0; number < pair_ends.back(); ++number) {
            const Item item = find_item(number, pair_ends.data(), groups.count);
            const Group group = group_at(groups, item.rank);
            const PanelPair pair = find_panel_pair(group, item.number, problem.span, triangle);
            for (int owned = pair.owned; owned < pair.owned_end; owned += owned_rows) {
                const int owned_end = smaller(owned + owned_rows, pair.owned_end);
                const Steps steps(pair.first_streamed(owned, triangle), pair.streamed_end, streamed_rows,
                                  skips_of(groups, owned, owned_end));
                for (int tile = steps.begin(); tile < steps.end(); tile = steps.after(tile), ++tiles[0]) {
                    if (tile < group.begin || tile >= group.end) throw std::logic_error("a tile outside its group");
                    if ((tile - pair.streamed) % streamed_rows) throw std::logic_error("a tile off its panel's grid");
                    const bool gives = triangle && tile >= owned + owned_rows && tile < pair.given_end;
                    for (int i = owned; i < owned_end; ++i)
                        for (int j = tile; j < smaller(tile + streamed_rows, pair.streamed_end); ++j) {
                            const Range range{groups.skip_low[i], groups.skip_high[i]};
                            if (range.holds(j) && !steps.masked(tile)) throw std::logic_error("a mask is missing");
                            if (range.holds(j)) continue;
                            visit(i, j);
                            if (gives && j < pair.given_end) visit(j, i);
                        }
                }
            }
        }
    });
}

// Counts, in visits (M, M), how often each pair (row, column) gets into the row's gradient.
const char* visit_gradient(const EmulatedProblem* p, int owned_rows, int streamed_rows, int* visits, int* tiles) {
    return guarded([&] {
        const Problem problem = problem_of(*p);
        const Groups& groups = problem.groups;
        std::vector<int> pair_ends(static_cast<size_t>(groups.count)), tile_ends(pair_ends);
        const int items = run_totals(groups, problem.span, false, owned_rows, pair_ends.data(), tile_ends.data());
        for (int number = 0; number < items; ++number) {
            const Item item = find_item(number, tile_ends.data(), groups.count);
            const Group group = group_at(groups, item.rank);
            const RowTile tile = find_row_tile(group, item.number, owned_rows);
            if (tile.first < group.begin || tile.end > group.end) throw std::logic_error("a tile outside its group");
            const Steps steps(tile.column, tile.column_end, streamed_rows,
                              groups.mutual ? skips_of(groups, tile.first, tile.end) : unknown_skips());
            for (int column = steps.begin(); column < steps.end(); column = steps.after(column), ++tiles[0])
                for (int i = tile.first; i < tile.end; ++i)
                    for (int j = column; j < smaller(column + streamed_rows, tile.column_end); ++j)
                        ++visits[int64_t{i} * problem.count + j];
        }
    });
}

// The bytes at which the 16-byte pieces of a tile of 64 rows lie, row by row.
void pieces(int channels, int* out) {
    with_channels(channels, [&](auto count) {
        for (int row = 0; row < 64; ++row)
            for (int channel = 0; channel < channels; channel += 8)
                *out++ = TileLayout<64, decltype(count)::value>::piece(row, channel);
    });
}

// Row and column of every element that the lanes of a warp hold of an accumulator of `columns`.
void fragments(int columns, int* out) {
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < columns / 2; ++i)
            *out++ = fragment_row(lane, i % 4), *out++ = fragment_column(lane, i / 4, i % 4);
}

// Which of a lane's 8 COUNT sums each of those that remain with it is, of reduce_rows.
void reduced(int* out) {
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 4; ++i) *out++ = reduced_index<32>(lane, i);
}

}  // extern "C"
