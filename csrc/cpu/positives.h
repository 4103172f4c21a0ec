// The positive term of the contrast: linear in the rows, O(rows x channels).
#pragma once
#include <cstdint>

#include "contrast.h"

namespace semicl {

// Anchor i's positives are the other rows (keys) of its class range [class_begin[i], class_end[i]).
// The sum of its products is x_i . (sum of those before i + sum of those behind it): never the sum of all less x_i, which
// leaves nothing of a short row beside a long one (docs/loss.md: the positive term).

// means[i] = mean over i's positives of scale x_i . x_p, in a square problem; 0 where there are none. Others than anchors
// are left alone.
void positive_means(bool narrow, int threads, const Rows& rows, const Groups& groups, const Classes& classes,
                    float scale, float* means);

// sums[i] = sum over i's positives p of weight_p x_i . y_p; 0 where there are none. Others than anchors are left alone.
void positive_sums(bool narrow, int threads, const Rows& rows, const Keys& keys, const Groups& groups,
                   const Classes& classes, double* sums);

}  // namespace semicl
