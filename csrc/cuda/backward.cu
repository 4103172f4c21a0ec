// The launches of backward.h for the element SEMICL_ELEMENT.
#include "backward.h"
#include "kernels.h"

namespace semicl::cuda {

template <class ELEMENT>
void Kernels<ELEMENT>::backward(const BackwardArgument& argument, int channels, int blocks, Stream stream) {
    with_channels(channels, [&](auto count) {
        using Tile = BackwardTile<decltype(count)::value>;
        const TensorMap map =
            map_rows<ELEMENT>(argument.rows, argument.count, channels, Tile::TileM::kSlabChannels, kGroupRows);
        const TensorMap row_scale = map_line(argument.row_scale, argument.count, Tile::TileN::kRows);
        launch<BackwardKernelArgument>(cuda::backward<ELEMENT, decltype(count)::value>, blocks, kKernelThreads,
                                       Tile::kSharedBytes, stream, {map, row_scale, argument});
    });
}

template void Kernels<arch::SEMICL_ELEMENT>::backward(const BackwardArgument&, int, int, Stream);

}  // namespace semicl::cuda
