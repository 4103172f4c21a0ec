// The launches of forward.h for the element SEMICL_ELEMENT.
#include "forward.h"
#include "kernels.h"

namespace semicl::cuda {

template <class ELEMENT>
void Kernels<ELEMENT>::forward(const ForwardArgument& argument, int channels, int blocks, Stream stream) {
    with_channels(channels, [&](auto count) {
        using Tile = ForwardTile<decltype(count)::value>;
        const TensorMap map =
            map_rows<ELEMENT>(argument.rows, argument.count, channels, Tile::TileM::kSlabChannels, kGroupRows);
        launch<ForwardKernelArgument>(cuda::forward<ELEMENT, decltype(count)::value>, blocks, kKernelThreads,
                                      Tile::kSharedBytes, stream, {map, argument});
    });
}

template void Kernels<arch::SEMICL_ELEMENT>::forward(const ForwardArgument&, int, int, Stream);

}  // namespace semicl::cuda
