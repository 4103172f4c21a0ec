// The backend's calls over the emulated GPU, and its schedules and layouts, as C functions: what __init__.py loads.
//
// Every call returns null, or what went wrong.
#include <set>

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
    const int* groups[4];
    int format, count, channels, group_count;
    float scale_log2, shift;
};

void set_multiprocessors(int count) { emulator::multiprocessors = count; }

void set_order(int order, unsigned seed) {
    emulator::order = static_cast<emulator::Order>(order);
    emulator::seed = seed;
}

void set_missing(int fence) { emulator::missing = static_cast<emulator::Missing>(fence); }

// Writes, for each of `rounds` barriers of a block, in which order its warps came past it.
void turns(int warps, int rounds, int* out) {
    emulator::state().run_block(0, 1, warps * emulator::kWarp, 0, [&] {
        for (int round = 0; round < rounds; ++round) {
            if (arch::lane() == 0) *out++ = arch::warp();
            arch::sync_block();
        }
    });
}

void sizes(int channels, int* out) {
    const TileSizes found = tile_sizes(channels);
    for (const int one : {found.sums.m, found.sums.n, found.gradient.m, found.gradient.n, found.sums_bytes,
                          found.gradient_bytes})
        *out++ = one;
}

int workers_of() { return workers(0); }

static Problem problem_of(const EmulatedProblem& p) {
    const Groups groups{p.groups[0], p.groups[1], p.groups[2], p.groups[3], p.group_count};
    return {static_cast<RowFormat>(p.format),
            p.rows,
            p.count,
            p.channels,
            groups,
            p.scale_log2,
            p.shift};
}

const char* sum_pairs_of(const EmulatedProblem* p, const int64_t* step_ends, int column_blocks, int columns, float* own,
                         float* given) {
    return guarded([&] { sum_pairs({}, problem_of(*p), step_ends, {column_blocks, columns}, own, given); });
}

const char* row_gradient_of(const EmulatedProblem* p, const int64_t* step_ends, float scale, const float* row_scale,
                            const double* grad_absmax, const int* class_begin, const int* class_end, const float* pulls,
                            float* partial_tiles, float* gradient) {
    return guarded([&] {
        row_gradient({}, problem_of(*p), step_ends, scale, row_scale, grad_absmax, {class_begin, class_end, pulls},
                     partial_tiles, gradient);
    });
}

// ---- schedules: the loops of the kernels, with a mark where they multiply ------------------------------------------

static Skips skips_of(const Groups& groups, int first, int end) {
    Skips skips;
    for (int row = first; row < end; ++row) skips.include({groups.skip_begin[row], groups.skip_end[row]});
    return skips;
}

// Counts, in visits (M, M) or null, how often each pair (row, column) gets into the row's sums, or its gradient, where
// `workers` share the work; most[0] and most[1] become the steps and the partial tiles of the one that has the most to
// do, each partial tile counted as its prologue cost. Each row of a tile must be in one whole tile or in one first
// partial tile, and each partial tile has a place of its own.
const char* visit_pairs(const EmulatedProblem* p, int of_gradient, int m_rows, int n_rows, int column_blocks, int size,
                        int workers, int* visits, int* most) {
    return guarded([&] {
        const Problem problem = problem_of(*p);
        const Groups& groups = problem.groups;
        const TileShape shape{m_rows, n_rows};
        const Pass pass = of_gradient ? Pass::gradient : Pass::sums;
        const Columns columns{column_blocks, size};
        std::vector<int64_t> step_ends;
        for (int block = 0; block < groups.count * columns.blocks; ++block) {
            const BlockTiles tiles(groups, block, shape, pass, columns);
            step_ends.push_back((block ? step_ends.back() : 0) + tiles.before(tiles.count()));
        }
        const auto visit = [&](int row, int column) { ++visits[int64_t{row} * problem.count + column]; };
        std::set<int> places;  // of partial tiles
        std::vector<int> written(static_cast<size_t>(problem.count));  // how often, in blocks of columns
        for (int worker = 0; worker < workers; ++worker) {
            int own_steps = 0, own_tiles = 0;
            int64_t done = 0;
            for (PartialTile part;
                 next_partial_tile(part, done, groups, step_ends.data(), shape, pass, columns, worker, workers);) {
                const MTile& tile = part.tile;
                if (part.partial == kNothing) continue;
                ++own_tiles;
                // Of the partial tiles of a tile one begins it.
                if (part.partial == kWhole || part.partial % 2 == 1)
                    for (int i = tile.first; i < tile.end; ++i) ++written[static_cast<size_t>(i)];
                if (part.partial != kWhole && !places.insert(part.partial).second)
                    throw std::logic_error("two partial tiles in one place");
                const Steps steps(tile.column, tile.column_end, n_rows, skips_of(groups, tile.first, tile.end));
                for (int n = steps.begin(); n < steps.end(); n = steps.after(n), ++own_steps)
                    for (int i = tile.first; visits && i < tile.end; ++i)
                        for (int j = n; j < smaller(n + n_rows, steps.end()); ++j) {
                            const Range range{groups.skip_begin[i], groups.skip_end[i]};
                            if (range.holds(j) && !steps.masked(n)) throw std::logic_error("a mask is missing");
                            if (pass == Pass::sums && range.holds(j)) continue;
                            visit(i, j);
                            if (pass == Pass::sums && n >= tile.first + m_rows && j < tile.anchor_end) visit(j, i);
                        }
            }
            if (own_steps + kPrologueCost * own_tiles > most[0] + kPrologueCost * most[1])
                most[0] = own_steps, most[1] = own_tiles;
        }
        for (int g = 0; g < groups.count; ++g) {
            const Group group = find_group(groups, g);
            for (int i = group.begin; i < group.end; ++i) {
                const int blocks = pass == Pass::sums ? ceil_div(group.points(), size) - (i - group.begin) / size : 1;
                const bool counts = pass == Pass::sums ? i < group.anchor_end : group.anchors() > 0;
                if (written[static_cast<size_t>(i)] != (counts ? blocks : 0))
                    throw std::logic_error("a row is not written once");
            }
        }
    });
}

// The constants that Python code repeats.
void constants(int* out) {
    for (const int one : {kPrologueCost, kMinStreamKRange, kMaxRows, static_cast<int>(kHeadroom)}) *out++ = one;
}

// The bytes at which the 16-byte chunks of a tile of 64 rows lie, row by row.
void chunks(int channels, int* out) {
    with_channels(channels, [&](auto count) {
        for (int row = 0; row < 64; ++row)
            for (int channel = 0; channel < channels; channel += 8)
                *out++ = TileLayout<64, decltype(count)::value>::chunk(row, channel);
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
