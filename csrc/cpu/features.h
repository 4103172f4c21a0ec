// From feature maps to packed rows and back.
#pragma once
#include <cstdint>

namespace semicl {

// A vector no longer than this has no direction, and a gradient of zero; as torch.nn.functional.normalize.
constexpr float kSmallestLength = 1e-12f;

enum class Dtype : int { float32 = 0, bfloat16 = 1, float16 = 2 };

// A map of features or of their gradient: (images, channels, *space), any strides (in elements), space padded to 3-D.
struct Map {
    void* values;
    Dtype dtype;
    int64_t images, channels, space[3];
    int64_t image_stride, channel_stride, space_stride[3];
    int64_t points() const { return images * space[0] * space[1] * space[2]; }
};

// rows[r] <- the channels of the point whose entry in row_of_point is r (-1: the point is left out), divided by their
// length where `normalize`, padded with zeros to row_channels. inverse_lengths[r] <- the factor that they were
// multiplied by. Where `inverse_norms` is not null, inverse_norms[r] <- 1 over the length of the rounded row, 1 where
// the point is too short to have a unit row. rows is float, or bfloat16 where the map is and `narrow`. row_of_point is
// of the points in order.
void gather_rows(int threads, const Map& map, const int32_t* row_of_point, bool normalize, bool narrow,
                 int64_t row_channels, void* rows, float* inverse_lengths, float* inverse_norms);

// gradient[r] <- its part across the point's vector, times inverse_lengths[r]: from a gradient by the unit rows to one
// by the vectors of the map. The vectors are those of the map, since the rows may be rounded: the part that all rows
// share is far larger than the rest. Zero where a vector was too short to have a direction.
void undo_normalization(int threads, const Map& map, const int32_t* row_of_point, int64_t row_channels,
                        const float* inverse_lengths, float* gradient);

// map <- factors[r factor_step] * rows[r], r = row_of_point, 0 where a point is left out. rows is float.
void scatter_rows(int threads, const float* rows, int64_t row_channels, const int32_t* row_of_point,
                  const float* factors, int64_t factor_step, const Map& map);

}  // namespace semicl
