// Which kernel is launched: by element and channels. Each element is compiled by itself.
#pragma once
#include <stdexcept>
#include <string>
#include <type_traits>

#include "backward_epilogue.h"
#include "forward_epilogue.h"
#include "tiles.h"

namespace semicl::cuda {

// The launches of one element, each defined in the file of its name.
template <class ELEMENT>
struct Kernels {
    static void forward(const ForwardArgument& argument, int channels, int blocks, Stream stream);
    static void backward(const BackwardArgument& argument, int channels, int blocks, Stream stream);
};

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

}  // namespace semicl::cuda
