// The positive term of the contrast: linear in the rows, O(rows x channels).
#pragma once
#include <cstdint>

#include "contrast.h"

namespace semicl {

// Anchor i's positives are the other rows (keys) of its class range [class_begin[i], class_end[i]). The sum of its
// products is x_i . (sum of the rows before i + sum of the rows after i). The sum of all rows less x_i would leave
// nothing of a short row beside a long one (docs/loss.md, "The positive term is linear").

// means[i] = mean over i's positives of scale x_i . x_p, in a square problem; 0 where there are none. Rows that are no
// anchors are not written.
void positive_means(bool narrow, int threads, const Rows& rows, const Groups& groups, const Classes& classes,
                    float scale, float* means);

// sums[i] = sum over i's positives p of weight_p x_i . y_p; 0 where there are none. Rows that are no anchors are not
// written.
void positive_sums(bool narrow, int threads, const Rows& rows, const Keys& keys, const Groups& groups,
                   const Classes& classes, double* sums);

}  // namespace semicl
