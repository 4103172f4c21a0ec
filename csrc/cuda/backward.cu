// The launches of backward.h for the element SEMICL_ELEMENT.
#include "backward.h"

#include "kernels.h"

namespace semicl::cuda {

template <class ELEMENT>
void Kernels<ELEMENT>::backward(const BackwardArgument& argument, int channels, int blocks, Stream stream) {
    with_channels(channels, [&](auto count) {
        using Tile = BackwardTile<decltype(count)::value>;
        const TensorMap map = map_rows<ELEMENT>(argument.rows, argument.count, channels,
                                                                 Tile::Owned::kSlabChannels, kGroupRows);
        const TensorMap factors = map_line(argument.factors, argument.count, Tile::Streamed::kRows);
        launch<BackwardKernelArgument>(cuda::backward<ELEMENT, decltype(count)::value>, blocks, kKernelThreads,
                                      Tile::kSharedBytes, stream, {map, factors, argument});
    });
}

template void Kernels<arch::SEMICL_ELEMENT>::backward(const BackwardArgument&, int, int, Stream);

}  // namespace semicl::cuda
