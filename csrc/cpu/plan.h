// The work of a pass, cut into parts.
//
// A *row block* is a run of anchors of one group. A *chunk* is a row block against up to kTileColumns columns of the
// group. exp(scale x_i . x_j) is symmetric, so of the anchors' square only chunks on and above the diagonal are
// computed; one above it counts for its rows and, transposed, for its columns:
//
//                    columns of the group
//                 anchors             others
//     row block 0 [own|later|later| ... ]       own:   rows below the diagonal are left out, columns count too
//     row block 1 [    | own |later| ... ]      later: columns count too
//
// Where the keys are not the rows, all columns are others.
//
// A *batch* holds row blocks of different groups whose tiles together fit the workspace. Two row blocks of one group
// never share a batch, since both add to its columns.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "problem.h"

namespace semicl {

// How a chunk's columns relate to its row block's rows.
enum class Part {
    own,    // the row block's own anchors: rows below the diagonal are left out, columns count too
    later,  // anchors of later row blocks: columns count too
    other,  // all else: the chunk counts for its rows alone
};

struct Chunk {
    int32_t row_block;     // index into Plan::row_blocks
    int32_t first, width;  // columns, relative to the group
    int32_t rows;          // the first `rows` rows of the row block
    int32_t upper;         // of which the first `upper` lie above the diagonal
    Part part;
    int64_t values;  // offset of its tile in the workspace, in floats
    int64_t sums;    // offset of its row sums in the batch
    bool columns_count() const { return part != Part::other; }
};

struct RowBlock {
    int32_t group, first, rows;  // rows relative to the group
    int32_t first_chunk, last_chunk;
};

// Rows that one iteration finishes.
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

    int32_t group_of(const Chunk& chunk) const { return row_blocks[chunk.row_block].group; }
};

constexpr int kTilePadding = 2;  // rows of a tile are padded to a multiple
constexpr int kSweepRows = 48;   // rows computed and swept while they are in the first cache
constexpr int kOutputRows = 96;  // rows of an OutputBlock

// Each calls work(plan) for as many row blocks as fill a plan: a plan of all would grow with the pairs.
using Work = std::function<void(const Plan&)>;

// Sums of exponentials: tiles are swept and forgotten.
void plan_forward(const Problem& problem, const std::vector<int32_t>& groups, const Work& work);

// The gradient from known log-sum-exps: a batch's tiles stay until its end. `into_keys`: keys have a gradient too.
void plan_backward(const Problem& problem, const std::vector<int32_t>& groups, bool into_keys, const Work& work);

// Each row against its positives alone: a row block holds rows of one class, or of several that are small.
void plan_positives(const Problem& problem, const std::vector<int32_t>& groups, const Classes& classes,
                    const Work& work);

// Both at once: a row block meets all columns of its group in one batch.
void plan_one_pass(const Problem& problem, const std::vector<int32_t>& groups, const Work& work);

// Whether the operations of plan_one_pass, 6 a n C - 3 a R C for a anchors of n points in row blocks of R rows, are no
// more than those of plan_forward and plan_backward, 4 a a C + 8 a (n - a) C.
bool one_pass_pays(const Problem& problem, int32_t group);

}  // namespace semicl
