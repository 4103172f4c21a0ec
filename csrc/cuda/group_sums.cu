// The launches of group_logsumexp.h for the format SEMICL_FORMAT.
#include "group_logsumexp.h"
#include "kernels.h"

namespace semicl::cuda {

template <class FORMAT>
void Kernels<FORMAT>::group_sums(const SumsArgument& argument, int channels, int blocks, Stream stream) {
    with_channels(channels, [&](auto count) {
        using Tile = GroupSumsTile<decltype(count)::value>;
        const TensorMap map = map_rows<typename FORMAT::Element>(argument.rows, argument.count, channels,
                                                                 Tile::Owned::kSlabChannels, kGroupRows);
        launch<GroupSumsArgument>(cuda::group_sums<FORMAT, decltype(count)::value>, blocks, kGroupThreads,
                                  Tile::kSharedBytes, stream, {map, argument});
    });
}

template void Kernels<SEMICL_FORMAT>::group_sums(const SumsArgument&, int, int, Stream);

}  // namespace semicl::cuda
