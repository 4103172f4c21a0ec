// float, bfloat16 and float16 by their bits, so that no compiler support for the small ones is needed.
#pragma once
#include <cstdint>
#include <cstring>

namespace semicl {

struct BFloat16 {
    uint16_t bits;
};

struct Float16 {
    uint16_t bits;
};

inline float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float to_float(float value) { return value; }

inline float to_float(BFloat16 value) { return float_of(static_cast<uint32_t>(value.bits) << 16); }

inline float to_float(Float16 value) {
    const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
    const uint32_t rest = static_cast<uint32_t>(value.bits & 0x7fffu) << 13;
    // Exponent bias 15 to 127 by a multiplication, which also makes the subnormals normal. inf and NaN keep their
    // exponent.
    const float scaled = float_of(rest) * float_of(0x77800000u);  // 2^112
    const uint32_t magnitude = rest >= 0x0f800000u ? rest | 0x7f800000u : bits_of(scaled);
    return float_of(sign | magnitude);
}

inline void from_float(float value, float& out) { out = value; }

inline void from_float(float value, BFloat16& out) {
    const uint32_t bits = bits_of(value);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    out.bits = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline void from_float(float value, Float16& out) {
    const uint32_t bits = bits_of(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) {
        half = 0x7e00u;  // NaN
    } else if (magnitude >= 0x477ff000u) {
        half = 0x7c00u;  // rounds to infinity
    } else if (magnitude < 0x38800000u) {
        half = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;  // subnormal: the addition rounds to 2^-24
    } else {
        half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    }
    out.bits = static_cast<uint16_t>(sign | half);
}

}  // namespace semicl
