// The grouped log-sum-exp, its gradient, and the gradient of the whole contrast, on packed rows.
#pragma once
#include <cstdint>

#include "tiles.h"

namespace semicl {

// Rows of C values cut into groups [offsets[g], offsets[g + 1]). The first anchors[g] rows of a group are its anchors.
// Anchor i leaves the columns [skip_begin[i], skip_end[i]) out of its denominator D(i).
struct Groups {
    int64_t count;
    const int32_t *offsets, *anchors, *skip_begin, *skip_end;
};

struct Rows {
    const void* values;  // float or bfloat16, as the arithmetic takes them
    int64_t count, channels;
    const float* inverse_norms;  // what similarities are multiplied by, or null: rounded unit rows are not of length 1
};

// The keys [begin[g], end[g]) that the rows of group g meet. Skips and class ranges are then ranges of keys. A square
// problem has none: its keys are the rows of the group.
struct Keys {
    const void* values;  // as the rows
    int64_t count;
    const int32_t *begin, *end;  // of each group, the ranges of two may overlap; null in a square problem
    const int32_t* self;         // of each row: the key that it is itself, or -1
    const float* weights;        // of each key, by which its exponential and its share of the positives count; null: 1
};

// Row i and the other rows (keys) of [class_begin[i], class_end[i]) are of one class. Null where there are no
// positives.
struct Classes {
    const int32_t *class_begin, *class_end;
};

// lse[i] = log sum over D(i) of weight_j exp(scale x_i . y_j) for the anchors, -inf where D(i) is empty. Other rows are
// not written.
void logsumexp(const Arithmetic& arithmetic, int threads, const Rows& rows, const Keys& keys, const Groups& groups,
               float scale, double* lse);

// values[i] = sum over i's positives p of weight_p log(1 + e^{lse_i - scale x_i . y_p}) for the anchors, and slopes[i]
// its derivative by lse_i. Other rows are not written.
void positive_softplus(const Arithmetic& arithmetic, int threads, const Rows& rows, const Keys& keys,
                       const Groups& groups, const Classes& classes, float scale, const double* lse, double* values,
                       double* slopes);

// gradient (rows.count, channels) <- scale sum_j W_ij y_j, with
//   W_ij = weight_j (grad_i e^{scale x_i . y_j - lse_i} [j in D(i)] - pulls_i share_ij [j of i's class, not i itself])
// for the rows of groups that have an anchor, and key_gradient (keys.count, channels) += scale sum_i W_ij x_i.
// share_ij is 1, or with `pairwise` 1 / (1 + e^{scale x_i . y_j - lse_i}); no positive is in D(i) then.
//
// Where the keys are other rows either gradient may be null. In a square problem both are the one gradient by the rows.
// lse need not be of these pairs alone. `unit_rows`: rows and keys have length 1, and only the gradient across them is
// wanted.
void logsumexp_gradient(const Arithmetic& arithmetic, int threads, const Rows& rows, const Keys& keys,
                        const Groups& groups, const Classes& classes, bool pairwise, bool unit_rows, float scale,
                        const double* lse, const float* grad, const float* pulls, float* gradient, float* key_gradient);

// Of a square problem: losses[i] of the anchors and gradient <- d(sum_i weights[i] losses[i]) / d rows together, with
//   losses[i] = lse[i] - mean over i's positives p of scale x_i . x_p, or where `pairwise`,
//   losses[i] = mean over i's positives p of log(1 + e^{lse[i] - scale x_i . x_p}),
// the positives being the other rows of its class. The similarities are computed once where that costs less than
// computing half of them twice. `unit_rows`: rows have length 1, and only the gradient across them is wanted.
void contrast_gradient(const Arithmetic& arithmetic, int threads, const Rows& rows, const Groups& groups,
                       const Classes& classes, bool pairwise, bool unit_rows, float scale, const float* weights,
                       float* losses, float* gradient);

// The multiply-adds executed in this process by the calls above.
int64_t executed_multiply_adds();

}  // namespace semicl
