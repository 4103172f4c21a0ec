// How rows are held for the tensor cores: as 16-bit numbers, one plane of them or, for float32, three.
//
// A float32 is the sum of three bfloat16: itself rounded, what is then missing rounded, and what is missing still. Of
// the nine products of two such numbers the six largest are computed; those left out are 2^-24 of the largest, what
// float32 loses anyway. Rows are packed as (planes, M, channels), the channels padded with zeros.
#pragma once
#include <cstdint>

#include "host_device.h"
#include "machine.h"

namespace semicl::cuda {

template <class ELEMENT, int PLANES>
struct Format {
    using Element = ELEMENT;
    static constexpr int kPlanes = PLANES;

    // Whether the product of these planes is computed.
    static SEMICL_HOST_DEVICE constexpr bool counts(int plane, int other) { return plane + other < kPlanes; }

    // The planes of two numbers, a word of two 16-bit numbers each.
    static SEMICL_DEVICE void split(float low, float high, uint32_t (&words)[PLANES]) {
#pragma unroll
        for (int plane = 0; plane < PLANES; ++plane) {
            words[plane] = Element::pack(low, high);
            low -= Element::low(words[plane]);
            high -= Element::high(words[plane]);
        }
    }
};

using BFloat16Rows = Format<machine::BFloat16, 1>;
using Float16Rows = Format<machine::Float16, 1>;
using Float32Rows = Format<machine::BFloat16, 3>;

// A matrix in the dtype of a format's rows as torch holds them, `channels` apart.
template <class FORMAT>
struct PlainRows {
    const uint16_t* values;
    int channels;

    static SEMICL_DEVICE PlainRows at(const void* values, int channels) {
        return {static_cast<const uint16_t*>(values), channels};
    }
    SEMICL_DEVICE float get(int64_t row, int channel) const {
        return FORMAT::Element::low(values[row * channels + channel]);
    }
};

template <>
struct PlainRows<Float32Rows> {
    const float* values;
    int channels;

    static SEMICL_DEVICE PlainRows at(const void* values, int channels) {
        return {static_cast<const float*>(values), channels};
    }
    SEMICL_DEVICE float get(int64_t row, int channel) const { return values[row * channels + channel]; }
};

}  // namespace semicl::cuda
