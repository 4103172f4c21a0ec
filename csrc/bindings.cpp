// The Python module semicl_kernels._C: raw addresses and sizes in, nothing checked here. semicl_kernels/backends/cpu.py
// checks every tensor, allocates every output and is the only caller.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/contrast.h"
#include "cpu/dispatch.h"
#include "cpu/features.h"
#include "cpu/interrupt.h"
#include "cpu/partition.h"
#include "cpu/positives.h"
#include "cpu/team.h"

namespace py = pybind11;
using namespace semicl;

namespace {

using Address = uintptr_t;

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

const InstructionSet& find(const std::string& name) {
    for (const InstructionSet* set : instruction_sets())
        if (name == set->name) return *set;
    throw std::invalid_argument("this processor or build has no instruction set named '" + name + "'");
}

const Arithmetic& arithmetic(const std::string& set, bool narrow) {
    const InstructionSet& found = find(set);
    if (narrow && !found.bfloat16)
        throw std::invalid_argument("instruction set '" + set + "' has no bfloat16 dot products");
    return narrow ? *found.bfloat16 : *found.float32;
}

// Rows and their groups, as every pass takes them.
struct Packed {
    Rows rows;
    Groups groups;
};

Packed packed_of(Address rows, int64_t count, int64_t channels, Address inverse_norms,
                 const std::array<Address, 4>& groups, int64_t group_count) {
    return {
        {at<void>(rows), count, channels, at<float>(inverse_norms)},
        {group_count, at<int32_t>(groups[0]), at<int32_t>(groups[1]), at<int32_t>(groups[2]), at<int32_t>(groups[3])}};
}

// sizes and strides: images, channels, three of space.
Map map_of(Address values, int dtype, const std::array<int64_t, 5>& sizes, const std::array<int64_t, 5>& strides) {
    return {at<void>(values), static_cast<Dtype>(dtype),           sizes[0],
            sizes[1],         {sizes[2], sizes[3], sizes[4]},      strides[0],
            strides[1],       {strides[2], strides[3], strides[4]}};
}

// Multiply-adds a second of all threads together, on registers alone.
double peak_rate(const std::string& set, bool narrow, int threads, double seconds) {
    const Arithmetic& chosen = arithmetic(set, narrow);
    std::vector<int64_t> done(static_cast<size_t>(threads));
    const auto start = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    Team::run(threads, [&](Team& team, int) {
        team.for_each(threads, [&](int64_t member) {
            while (elapsed() < seconds) done[member] += chosen.spin(4096);
        });
    });
    int64_t total = 0;
    for (int64_t part : done) total += part;
    return static_cast<double>(total) / elapsed();
}

// Python runs the handlers of signals in its main thread alone.
unsigned long main_thread = 0;

bool signal_stops_this_thread() {
    if (PyThread_get_thread_ident() != main_thread) return false;
    const py::gil_scoped_acquire acquired;
    return PyErr_CheckSignals() != 0;
}

void raise_what_the_handler_raised(std::exception_ptr thrown) {
    try {
        if (thrown) std::rethrow_exception(thrown);
    } catch (const Interrupted& interruption) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_KeyboardInterrupt, interruption.what());
    }
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    module.doc() = "Compiled kernels of semicl_kernels; see semicl_kernels.backends.cpu.";
    main_thread = py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
    interrupted = signal_stops_this_thread;
    py::register_exception_translator(raise_what_the_handler_raised);
    using Release = py::call_guard<py::gil_scoped_release>;

    module.attr("sources") = SEMICL_SOURCES;
    module.def("instruction_sets", [] {
        std::vector<std::pair<std::string, bool>> sets;
        for (const InstructionSet* set : instruction_sets()) sets.emplace_back(set->name, set->bfloat16 != nullptr);
        return sets;
    });
    module.def("executed_multiply_adds", &executed_multiply_adds);
    module.def("peak_rate", &peak_rate, Release());

    py::class_<Keys>(module, "Keys")
        .def(py::init([](Address values, int64_t count, const std::array<Address, 2>& ranges, Address own,
                         Address weights) {
                 return Keys{at<void>(values),  count, at<int32_t>(ranges[0]), at<int32_t>(ranges[1]), at<int32_t>(own),
                             at<float>(weights)};
             }),
             py::arg("values") = 0, py::arg("count") = 0, py::arg("ranges") = std::array<Address, 2>{},
             py::arg("own") = 0, py::arg("weights") = 0);
    py::class_<Packed>(module, "Packed")
        .def(py::init(&packed_of), py::arg("rows"), py::arg("count"), py::arg("channels"), py::arg("inverse_norms"),
             py::arg("groups"), py::arg("group_count"));
    module.def(
        "logsumexp",
        [](const std::string& set, bool narrow, int threads, const Packed& packed, const Keys& keys, float scale,
           Address lse) {
            logsumexp(arithmetic(set, narrow), threads, packed.rows, keys, packed.groups, scale, at<double>(lse));
        },
        Release());
    module.def(
        "positive_softplus",
        [](const std::string& set, bool narrow, int threads, const Packed& packed, const Keys& keys, float scale,
           Address class_begin, Address class_end, Address lse, Address values, Address slopes) {
            positive_softplus(arithmetic(set, narrow), threads, packed.rows, keys, packed.groups,
                              {at<int32_t>(class_begin), at<int32_t>(class_end)}, scale, at<double>(lse),
                              at<double>(values), at<double>(slopes));
        },
        Release());
    module.def(
        "logsumexp_gradient",
        [](const std::string& set, bool narrow, int threads, const Packed& packed, const Keys& keys, bool pairwise,
           bool unit_rows, float scale, Address class_begin, Address class_end, Address lse, Address grad,
           Address pulls, Address gradient, Address key_gradient) {
            logsumexp_gradient(arithmetic(set, narrow), threads, packed.rows, keys, packed.groups,
                               {at<int32_t>(class_begin), at<int32_t>(class_end)}, pairwise, unit_rows, scale,
                               at<double>(lse), at<float>(grad), at<float>(pulls), at<float>(gradient),
                               at<float>(key_gradient));
        },
        Release());
    // From a map to the losses of its rows and their gradient, in one call: with few points the Python between several
    // calls would take longer than a pass.
    module.def(
        "contrast",
        [](const std::string& set, bool narrow, int threads, Address values, int dtype,
           const std::array<int64_t, 5>& sizes, const std::array<int64_t, 5>& strides, Address row_of_point,
           bool normalize, int64_t row_channels, Address rows, const std::array<Address, 4>& groups,
           int64_t group_count, bool pairwise, float scale, Address class_begin, Address class_end, Address weights,
           Address losses, Address gradient) {
            const Map map = map_of(values, dtype, sizes, strides);
            const int32_t* const row_of = at<int32_t>(row_of_point);
            const int64_t count = map.points();
            std::vector<float> inverse_lengths(count), inverse_norms(normalize && narrow ? count : 0), of_rows(count);
            const std::vector<float> weight(at<double>(weights), at<double>(weights) + count);
            const auto norms = reinterpret_cast<Address>(inverse_norms.empty() ? nullptr : inverse_norms.data());
            gather_rows(threads, map, row_of, normalize, narrow, row_channels, at<void>(rows), inverse_lengths.data(),
                        at<float>(norms));
            const Packed packed = packed_of(rows, count, row_channels, norms, groups, group_count);
            contrast_gradient(arithmetic(set, narrow), threads, packed.rows, packed.groups,
                              {at<int32_t>(class_begin), at<int32_t>(class_end)}, pairwise, normalize, scale,
                              weight.data(), of_rows.data(), at<float>(gradient));
            std::copy(of_rows.begin(), of_rows.end(), at<double>(losses));
            if (normalize)
                undo_normalization(threads, map, row_of, row_channels, inverse_lengths.data(), at<float>(gradient));
        },
        Release());
    module.def(
        "positive_means",
        [](bool narrow, int threads, const Packed& packed, float scale, Address class_begin, Address class_end,
           Address means) {
            positive_means(narrow, threads, packed.rows, packed.groups,
                           {at<int32_t>(class_begin), at<int32_t>(class_end)}, scale, at<float>(means));
        },
        Release());
    module.def(
        "positive_sums",
        [](bool narrow, int threads, const Packed& packed, const Keys& keys, Address class_begin, Address class_end,
           Address sums) {
            positive_sums(narrow, threads, packed.rows, keys, packed.groups,
                          {at<int32_t>(class_begin), at<int32_t>(class_end)}, at<double>(sums));
        },
        Release());
    module.def(
        "partition",
        [](int threads, Address labels, int bytes, bool is_signed, const std::array<int64_t, 5>& sizes,
           const std::array<int64_t, 5>& strides, const std::array<int64_t, 3>& edges, bool per_image,
           bool other_classes_only, std::optional<int64_t> background, std::optional<int64_t> ignored, int reduction,
           bool self_supervised, const std::array<Address, 9>& out) {
            LabelMap map{at<void>(labels), bytes, is_signed, {}, {}};
            std::copy(sizes.begin(), sizes.end(), map.sizes);
            std::copy(strides.begin(), strides.end(), map.strides);
            const PartitionOptions options{{edges[0], edges[1], edges[2]},
                                           per_image,
                                           other_classes_only,
                                           background.has_value(),
                                           ignored.has_value(),
                                           background.value_or(0),
                                           ignored.value_or(0),
                                           static_cast<Reduction>(reduction),
                                           self_supervised};
            partition(threads, map, options,
                      {at<int64_t>(out[0]), at<int32_t>(out[1]), at<int32_t>(out[2]), at<int32_t>(out[3]),
                       at<int32_t>(out[4]), at<int32_t>(out[5]), at<int32_t>(out[6]), at<int32_t>(out[7]),
                       at<double>(out[8])});
        },
        Release());
    module.def(
        "gather_rows",
        [](int threads, Address values, int dtype, const std::array<int64_t, 5>& sizes,
           const std::array<int64_t, 5>& strides, Address row_of_point, bool normalize, bool narrow,
           int64_t row_channels, Address rows, Address inverse_lengths, Address inverse_norms) {
            gather_rows(threads, map_of(values, dtype, sizes, strides), at<int32_t>(row_of_point), normalize, narrow,
                        row_channels, at<void>(rows), at<float>(inverse_lengths), at<float>(inverse_norms));
        },
        Release());
    module.def(
        "scatter_rows",
        [](int threads, Address rows, int64_t row_channels, Address row_of_point, Address factors, int64_t factor_step,
           Address values, int dtype, const std::array<int64_t, 5>& sizes, const std::array<int64_t, 5>& strides) {
            scatter_rows(threads, at<float>(rows), row_channels, at<int32_t>(row_of_point), at<float>(factors),
                         factor_step, map_of(values, dtype, sizes, strides));
        },
        Release());
}
