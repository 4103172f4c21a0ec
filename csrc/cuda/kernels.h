// Which kernel is launched: by format, channels and whether the maximum is known. Each format is compiled by itself.
#pragma once
#include <stdexcept>
#include <string>
#include <type_traits>

#include "sums.h"
#include "tiles.h"
#include "weights.h"

// Whether the build has code for sm_90a.
#ifndef SEMICL_HAS_GROUPS
#define SEMICL_HAS_GROUPS 0
#endif

namespace semicl::cuda {

// The launches of one format, each defined in the file of its name.
template <class FORMAT>
struct Kernels {
    static void warp_sums(const SumsArgument& argument, int channels, bool known, int blocks, Stream stream);
    static void warp_gradient(const GradientArgument& argument, int channels, bool known, int blocks, Stream stream);
    // The maximum is known and skips are mutual; not for float32 rows, nor where the build has no sm_90a.
    static void group_sums(const SumsArgument& argument, int channels, int blocks, Stream stream);
    static void group_gradient(const GradientArgument& argument, int channels, int blocks, Stream stream);
};

// Whether a format can be multiplied by warp groups: wgmma takes one plane of 16-bit numbers.
template <class FORMAT>
constexpr bool kByGroups = SEMICL_HAS_GROUPS && FORMAT::kPlanes == 1;

// Calls `use` with the number of channels as a constant, std::integral_constant<int, C>.
template <class Use>
auto with_channels(int channels, const Use& use) {
    switch (channels) {
        case 32: return use(std::integral_constant<int, 32>{});
        case 64: return use(std::integral_constant<int, 64>{});
        case 128: return use(std::integral_constant<int, 128>{});
        case 256: return use(std::integral_constant<int, 256>{});
    }
    throw std::invalid_argument("rows are packed with 32, 64, 128 or 256 channels; got " + std::to_string(channels));
}

template <class Use>
auto with_maximum(bool known, const Use& use) {
    return known ? use(KnownMaximum{}) : use(RunningMaximum{});
}

}  // namespace semicl::cuda
