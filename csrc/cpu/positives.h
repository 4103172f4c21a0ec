// The positive term of the contrast: linear in the rows, O(rows x channels).
#pragma once
#include <cstdint>

#include "contrast.h"

namespace semicl {

// Anchor i's positives are the other rows of its class run [class_begin[i], class_end[i]), all anchors.
// means[i] = mean over them of scale x_i . x_p.
// The sum of a run's products is x_i . (sum of the rows before i + sum of those behind it): never the sum of all less
// x_i, which leaves nothing of a short row beside a long one (docs/loss.md: the positive term).
void positive_means(bool narrow, int threads, const Rows& rows, const Groups& groups, const int32_t* class_end,
                    float scale, float* means);

}  // namespace semicl
