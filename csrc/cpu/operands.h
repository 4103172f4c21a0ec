// The gradient's products, W x into rows and W^T x into columns, and the rows x made ready for them.
//
// bfloat16 rows are interleaved by pairs, as its dot products take them. Rows of length 1 around one direction are
// centered. There the weights of pairs all but cancel, and the sum of W_ij x_j would round as its far larger partial
// sums do. With the mean m of the group it is the sum of W_ij (x_j - m), plus m times the sum of W_ij. Keys that are
// other rows have one mean, and so have their rows.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "memory.h"
#include "problem.h"

namespace semicl {

constexpr int kMaxProductRows = 192;  // of a call of into_rows or into_columns, and the columns of the latter
static_assert(kMaxProductRows >= kTileColumns, "a tile's columns are the rows of a product");

class Operands {
public:
    // `unit_rows`: rows have length 1, and only the gradient across them is wanted.
    Operands(const Problem& problem, bool unit_rows);

    // gradient[j] += sum_i W_ij x_i for the columns j of group g, `width` from `column` on, and the rows i, `rows` from
    // `row` on; both are relative to the group. `weights` is (rows, kTileStride). In a square problem the columns are
    // rows.
    void into_columns(const float* weights, int32_t g, int32_t row, int rows, int32_t column, int width,
                      float* gradient);

    // gradient[i] += sum_j W_ij y_j likewise, for the rows [skipped, skipped + rows) of the tile `weights`, whose first
    // is row `row` of the group.
    void into_rows(const float* weights, int32_t g, int32_t row, int skipped, int rows, int32_t column, int width,
                   float* gradient);

    // Adds what centered rows leave out, when all products are done.
    void add_means(float* gradient, float* key_gradient) const;

private:
    // Rows less the mean of their part; parts are runs of rows.
    struct Centered {
        struct Part {
            int64_t begin, end;
            std::vector<float> mean;  // empty where the part is not centered
        };
        std::vector<Part> parts;
        std::unique_ptr<Buffer<float>> rows;  // (rows, C): x_j - m; null where no part is centered

        void center(const Problem& problem, const void* values, int64_t count);
        bool holds(size_t part) const { return rows && !parts[part].mean.empty(); }
    };

    void interleave();
    // The part of a group, of the rows or of the keys.
    size_t part(int32_t g) const { return problem_.square() ? static_cast<size_t>(g) : 0; }
    const Centered& columns() const { return problem_.square() ? rows_ : keys_; }
    // The rows of a group from `local` on; `local` is even from the start of the anchors or of the others.
    const void* row(int32_t g, int32_t local) const;
    const void* column(int32_t g, int32_t local) const;
    static void add_totals(const float* sums, const Buffer<double>& totals, int64_t first, int count);

    const Problem& problem_;
    std::vector<int64_t> first_pairs_;      // per group: its first interleaved pair of rows
    std::unique_ptr<Buffer<float>> pairs_;  // anchors and others apart, so that each begins a pair
    Centered rows_, keys_;
    // Of each row and of each key: the sum of its W_ij. Many are equal: a float that sums them drifts.
    std::unique_ptr<Buffer<double>> row_totals_, key_totals_;
    std::vector<float> lanes_;  // (kMaxProductRows, kSumLanes): row j is 1 in lane j modulo kSumLanes
};

}  // namespace semicl
