// The Python module semicl_kernels._cuda: raw addresses and sizes in, nothing checked here but what CUDA says.
// semicl_kernels/backends/cuda.py checks every tensor, allocates everything and is the only caller.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "backend.h"

namespace py = pybind11;
using namespace semicl::cuda;

namespace {

using Address = uintptr_t;

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

// Calls `use(device, problem)` with what `Pairs` of backends/cuda.py hands over, and the addresses after it.
template <class... Rest, class Use>
auto on_pairs(const Use& use) {
    return [use](int device, Address stream, int format, Address rows, int count, int channels,
                 const std::array<Address, 4>& groups, int group_count, int row_block_size, float scale,
                 float scale_log2, float shift, Address items, Address steps, Rest... rest) {
        const Problem problem{
            static_cast<RowFormat>(format),
            at<void>(rows),
            count,
            channels,
            {at<int>(groups[0]), at<int>(groups[1]), at<int>(groups[2]), at<int>(groups[3]), group_count},
            row_block_size,
            scale,
            scale_log2,
            shift,
            at<int>(items),
            at<int64_t>(steps)};
        use(Device{device, at<void>(stream)}, problem, rest...);
    };
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
    module.doc() = "CUDA kernels of semicl_kernels; see semicl_kernels.backends.cuda.";
    using Release = py::call_guard<py::gil_scoped_release>;

    module.attr("sources") = SEMICL_SOURCES;
    module.def("tile_sizes", [](int channels) {
        const TileSizes sizes = tile_sizes(channels);
        return std::array<int, 4>{sizes.sums.m, sizes.gradient.m, sizes.sums_bytes, sizes.gradient_bytes};
    });
    module.def("workers", &workers);
    module.def("count_items", on_pairs<>(count_items), Release());
    module.def("sum_pairs", on_pairs<Address>([](const Device& device, const Problem& problem, Address partials) {
                   sum_pairs(device, problem, at<float>(partials));
               }),
               Release());
    module.def(
        "join_sums",
        on_pairs<Address, Address>([](const Device& device, const Problem& problem, Address partials, Address lse) {
            join_sums(device, problem, at<float>(partials), at<float>(lse));
        }),
        Release());
    module.def(
        "pair_scales",
        on_pairs<Address, Address, Address, Address>([](const Device& device, const Problem& problem, Address lse,
                                                        Address grad, Address grad_absmax, Address row_scale) {
            pair_scales(device, problem, at<float>(lse), at<float>(grad), at<float>(grad_absmax), at<float>(row_scale));
        }),
        Release());
    module.def("row_gradient",
               on_pairs<Address, Address, Address, Address, Address, Address, Address>(
                   [](const Device& device, const Problem& problem, Address row_scale, Address grad_absmax,
                      Address class_begin, Address class_end, Address pulls, Address partial_tiles, Address gradient) {
                       const Positives positives{at<int>(class_begin), at<int>(class_end), at<float>(pulls)};
                       row_gradient(device, problem, at<float>(row_scale), at<float>(grad_absmax), positives,
                                    at<float>(partial_tiles), at<float>(gradient));
                   }),
               Release());
}
