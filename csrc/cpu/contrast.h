// The grouped log-sum-exp, its gradient, and the gradient of the whole contrast, on packed rows.
#pragma once
#include <cstdint>

#include "tiles.h"

namespace semicl {

// Rows of C values cut into groups [offsets[g], offsets[g + 1]); the first anchors[g] rows of a group are its anchors, and
// anchor i leaves the columns [skip_begin[i], skip_end[i]) out of its denominator D(i).
struct Groups {
    int64_t count;
    const int32_t *offsets, *anchors, *skip_begin, *skip_end;
};

struct Rows {
    const void* values;  // float or bfloat16, as the arithmetic takes them
    int64_t count, channels;
    const float* inverse_norms;  // what similarities are multiplied by, or null: rounded unit rows are not of length 1
};

// lse[i] = log sum over D(i) of exp(scale x_i . x_j) for the anchors (-inf where D(i) is empty); others are left alone.
void logsumexp(const Arithmetic& arithmetic, int threads, const Rows& rows, const Groups& groups, float scale, float* lse);

// gradient (rows.count x channels) <- d(sum_i grad[i] lse[i]) / d rows, in the groups that have an anchor.
void logsumexp_gradient(const Arithmetic& arithmetic, int threads, const Rows& rows, const Groups& groups, float scale,
                        const float* lse, const float* grad, float* gradient);

// Row i and the other rows of [class_begin[i], class_end[i]) are of one class; a class is all anchors or none.
struct Classes {
    const int32_t *class_begin, *class_end;
};

// lse as above and gradient <- d(sum_i weights[i] (lse[i] - mean of i's positives)) / d rows together, the positives
// being the other rows of its class. The similarities are computed once where that costs less than twice over half of
// them. `unit_rows`: rows have length 1, and only the gradient across them is wanted.
void contrast_gradient(const Arithmetic& arithmetic, int threads, const Rows& rows, const Groups& groups,
                       const Classes& classes, bool unit_rows, float scale, const float* weights, float* lse, float* gradient);

// The multiply-adds executed in this process by the calls above.
int64_t executed_multiply_adds();

}  // namespace semicl
