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

// Calls `use(device, problem)` with what `Pairs` of backends/cuda.py hands over, and the arguments after it.
template <class... Rest, class Use>
auto on_pairs(const Use& use) {
    return [use](int device, Address stream, int format, Address rows, int count, int channels,
                 const std::array<Address, 4>& groups, int group_count, float scale_log2, float shift, Rest... rest) {
        const Problem problem{
            static_cast<RowFormat>(format),
            at<void>(rows),
            count,
            channels,
            {at<int>(groups[0]), at<int>(groups[1]), at<int>(groups[2]), at<int>(groups[3]), group_count},
            scale_log2,
            shift};
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
        return std::array<int, 6>{sizes.sums.m,     sizes.sums.n,     sizes.gradient.m,
                                  sizes.gradient.n, sizes.sums_bytes, sizes.gradient_bytes};
    });
    module.def("workers", &workers);
    module.def("sum_pairs",
               on_pairs<Address, int, int, Address, Address>([](const Device& device, const Problem& problem,
                                                                Address step_ends, int column_blocks, int columns,
                                                                Address own, Address given) {
                   sum_pairs(device, problem, at<int64_t>(step_ends), {column_blocks, columns}, at<float>(own),
                             at<float>(given));
               }),
               Release());
    module.def("row_gradient",
               on_pairs<Address, float, Address, Address, Address, Address, Address, Address, Address>(
                   [](const Device& device, const Problem& problem, Address step_ends, float scale, Address row_scale,
                      Address grad_absmax, Address class_begin, Address class_end, Address pulls, Address partial_tiles,
                      Address gradient) {
                       const Positives positives{at<int>(class_begin), at<int>(class_end), at<float>(pulls)};
                       row_gradient(device, problem, at<int64_t>(step_ends), scale, at<float>(row_scale),
                                    at<double>(grad_absmax), positives, at<float>(partial_tiles), at<float>(gradient));
                   }),
               Release());
}
