// The launches of group_gradient.h for the element SEMICL_ELEMENT.
#include "group_gradient.h"

#include "kernels.h"

namespace semicl::cuda {

template <class ELEMENT>
void Kernels<ELEMENT>::group_gradient(const GradientArgument& argument, int channels, int blocks, Stream stream) {
    with_channels(channels, [&](auto count) {
        using Tile = GroupGradientTile<decltype(count)::value>;
        const TensorMap map = map_rows<ELEMENT>(argument.rows, argument.count, channels,
                                                                 Tile::Owned::kSlabChannels, kGroupRows);
        const TensorMap factors = map_line(argument.factors, argument.count, Tile::Streamed::kRows);
        launch<GroupGradientArgument>(cuda::group_gradient<ELEMENT, decltype(count)::value>, blocks, kGroupThreads,
                                      Tile::kSharedBytes, stream, {map, factors, argument});
    });
}

template void Kernels<machine::SEMICL_ELEMENT>::group_gradient(const GradientArgument&, int, int, Stream);

}  // namespace semicl::cuda
