// Products of 16-bit values as tensor cores were found to sum them (Fasi et al., PeerJ Computer Science 2021): products
// and the addend are aligned to the largest exponent, cut toward zero kExtraBits below float32's 24 bits and summed;
// the sum is cut toward zero too. Compiled by itself, optimized: nearly all the time of the emulator goes here.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace semicl::cuda::arch {

void add_products(float* d, const float* left, const float* right, int rows, int columns);

namespace {

constexpr int kDepth = 16, kBits = 24, kExtraBits = 2;

double power_of_two(int exponent) {
    const int64_t bits = static_cast<int64_t>(exponent + 1023) << 52;
    double value;
    std::memcpy(&value, &bits, 8);
    return value;
}

// The sign, exponent and first 20 bits of a double's mantissa, less the sign.
int32_t upper_bits(double value) {
    int64_t bits;
    std::memcpy(&bits, &value, 8);
    return static_cast<int32_t>(bits >> 32) & 0x7fffffff;
}

// Everything is finite.
float truncated_sum(float addend, const float* row, const float* column) {
    double terms[kDepth];
    int32_t most = upper_bits(addend);
    for (int k = 0; k < kDepth; ++k) {
        terms[k] = static_cast<double>(row[k]) * column[k];
        const int32_t upper = upper_bits(terms[k]);
        most = upper > most ? upper : most;
    }
    if (most == 0) return addend;
    // Terms are below 2^exponent, so in the unit they are below 2^26, and the sum of 17 fits 31 bits.
    const int exponent = (most >> 20) - 1022;
    const double per_unit = power_of_two(kBits + kExtraBits - exponent);
    int32_t sum = static_cast<int32_t>(addend * per_unit);
    for (int k = 0; k < kDepth; ++k) sum += static_cast<int32_t>(terms[k] * per_unit);
    if (sum == 0) return 0;
    const uint32_t size = static_cast<uint32_t>(sum < 0 ? -sum : sum);
    const int excess = 32 - __builtin_clz(size) - kBits;
    const uint32_t cut = excess > 0 ? size >> excess << excess : size;
    const double found = cut * power_of_two(exponent - kBits - kExtraBits);
    return static_cast<float>(sum < 0 ? -found : found);
}

bool is_finite(const float* values) {
    bool finite = true;
    for (int k = 0; k < kDepth; ++k) finite = finite && std::isfinite(values[k]);
    return finite;
}

}  // namespace

void add_products(float* d, const float* left, const float* right, int rows, int columns) {
    static bool finite_columns[256];
    for (int j = 0; j < columns; ++j) finite_columns[j] = is_finite(right + j * kDepth);
    for (int i = 0; i < rows; ++i) {
        const float* const row = left + i * kDepth;
        const bool finite_row = is_finite(row);
        for (int j = 0; j < columns; ++j) {
            const float* const column = right + j * kDepth;
            float& sum = d[i * columns + j];
            if (finite_row && finite_columns[j] && std::isfinite(sum))
                sum = truncated_sum(sum, row, column);
            else
                for (int k = 0; k < kDepth; ++k) sum += row[k] * column[k];
        }
    }
}

}  // namespace semicl::cuda::arch
