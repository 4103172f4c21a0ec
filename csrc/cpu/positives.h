// The positive term of the contrast: linear in the rows, O(rows x channels).
#pragma once
#include <cstdint>

#include "contrast.h"

namespace semicl {

// Anchor i's positives are the other rows of its class run [run_low[i], run_high[i]), all anchors.
// means[i] = mean over them of scale x_i . x_p.
// The sum of a run's products is x_i . (M - x_i) with M the sum of its rows (docs/loss.md: the positive term).
void positive_means(bool narrow, int threads, const Rows& rows, const Groups& groups, const int32_t* run_high,
                    float scale, float* means);

// means as above, and gradient -= d(sum_i weights[i] means[i]) / d rows, in place.
void subtract_positives(bool narrow, int threads, const Rows& rows, const Groups& groups, const int32_t* run_high,
                        float scale, const float* weights, float* means, float* gradient);

// gradient <- its part across x, times inverse_lengths: from a gradient by the unit rows to one by the rows before they
// were normalised. Zero for rows that were too short to have a direction.
void undo_normalization(bool narrow, int threads, const Rows& rows, const Groups& groups, const float* inverse_lengths,
                        float* gradient);

}  // namespace semicl
