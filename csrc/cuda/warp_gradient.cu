// The launches of gradient.h for the format SEMICL_FORMAT.
#include "gradient.h"
#include "kernels.h"

namespace semicl::cuda {

template <class FORMAT>
void Kernels<FORMAT>::warp_gradient(const GradientArgument& argument, int channels, bool known, int blocks,
                                    Stream stream) {
    with_channels(channels, [&](auto count) {
        with_maximum(known, [&](auto maximum) {
            using Tile = WarpGradientTile<FORMAT, decltype(count)::value>;
            launch<GradientArgument>(cuda::warp_gradient<FORMAT, decltype(count)::value, decltype(maximum)>, blocks,
                                     Tile::kThreads, Tile::kSharedBytes, stream, argument);
        });
    });
}

template void Kernels<SEMICL_FORMAT>::warp_gradient(const GradientArgument&, int, bool, int, Stream);

}  // namespace semicl::cuda
