// From labels to groups of packed rows, by a counting sort of each group.
#pragma once
#include <cstdint>

namespace semicl {

enum class Reduction : int { block = 0, anchor = 1, sum = 2 };

// Labels (images, views, three axes of space), any strides (in elements).
struct LabelMap {
    const void* values;
    int bytes;  // of a label: 1, 2, 4 or 8
    bool is_signed;
    int64_t sizes[5], strides[5];
    int64_t points() const { return sizes[0] * sizes[1] * sizes[2] * sizes[3] * sizes[4]; }
};

struct PartitionOptions {
    int64_t edges[3];  // of a block
    bool per_image, other_classes_only;
    bool has_background, has_ignored;
    int64_t background, ignored;
    Reduction reduction;
    // Every place of every image is a class of its own, the same in all views; labels are not read.
    bool self_supervised;
};

// As semicl_kernels/partition.py's Partition, M rows and G groups.
struct Partition {
    int64_t* point_of_row;
    int32_t *row_of_point, *offsets, *anchors, *skip_begin, *skip_end, *class_begin, *class_end;
    double* weights;
};

void partition(int threads, const LabelMap& labels, const PartitionOptions& options, const Partition& out);

}  // namespace semicl
