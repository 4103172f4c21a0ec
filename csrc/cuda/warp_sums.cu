// The launches of logsumexp.h for the format SEMICL_FORMAT.
#include "kernels.h"
#include "logsumexp.h"

namespace semicl::cuda {

template <class FORMAT>
void Kernels<FORMAT>::warp_sums(const SumsArgument& argument, int channels, bool known, int blocks, Stream stream) {
    with_channels(channels, [&](auto count) {
        with_maximum(known, [&](auto maximum) {
            using Tile = WarpSumsTile<FORMAT, decltype(count)::value>;
            launch<SumsArgument>(cuda::warp_sums<FORMAT, decltype(count)::value, decltype(maximum)>, blocks,
                                 Tile::kThreads, Tile::kSharedBytes, stream, argument);
        });
    });
}

template void Kernels<SEMICL_FORMAT>::warp_sums(const SumsArgument&, int, bool, int, Stream);

}  // namespace semicl::cuda
