// The launches of group_logsumexp.h for the element SEMICL_ELEMENT.
#include "group_logsumexp.h"
#include "kernels.h"

namespace semicl::cuda {

template <class ELEMENT>
void Kernels<ELEMENT>::group_sums(const SumsArgument& argument, int channels, int blocks, Stream stream) {
    with_channels(channels, [&](auto count) {
        using Tile = GroupSumsTile<decltype(count)::value>;
        const TensorMap map = map_rows<ELEMENT>(argument.rows, argument.count, channels,
                                                                 Tile::Owned::kSlabChannels, kGroupRows);
        launch<GroupSumsArgument>(cuda::group_sums<ELEMENT, decltype(count)::value>, blocks, kGroupThreads,
                                  Tile::kSharedBytes, stream, {map, argument});
    });
}

template void Kernels<machine::SEMICL_ELEMENT>::group_sums(const SumsArgument&, int, int, Stream);

}  // namespace semicl::cuda
