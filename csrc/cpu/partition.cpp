// One group at a time:
//
//   labels of the group ->  class of each point  ->  points of each class  ->  first row of each class  ->  rows
//   (in map order)          (counted or sorted)      (histogram)               (anchors first)             (stable)
//
// A group's first row is the number of points in the groups before it. Points of the ignored label come after all
// groups. Groups are shared out over the threads; each writes its own rows, so results do not depend on their number.
#include "partition.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "team.h"

namespace semicl {
namespace {

// Values of a label that are always counted, however few the points are. Set by hand: no timing of it is kept.
constexpr int64_t kSmallestTable = 1024;

int64_t label_at(const LabelMap& labels, int64_t offset) {
    const auto read = [&](auto narrow, auto wide) -> int64_t {
        if (labels.is_signed) return static_cast<const decltype(narrow)*>(labels.values)[offset];
        return static_cast<int64_t>(static_cast<const decltype(wide)*>(labels.values)[offset]);
    };
    switch (labels.bytes) {
        case 1: return read(int8_t{}, uint8_t{});
        case 2: return read(int16_t{}, uint16_t{});
        case 4: return read(int32_t{}, uint32_t{});
        default: return static_cast<const int64_t*>(labels.values)[offset];
    }
}

// A group: a block of the map in every view of one image or of all.
struct Box {
    int64_t first_image, last_image, views;
    int64_t begin[3], end[3];
    int64_t places() const { return (end[0] - begin[0]) * (end[1] - begin[1]) * (end[2] - begin[2]); }
    int64_t points() const { return (last_image - first_image) * views * places(); }
};

class Grid {
public:
    Grid(const int64_t* sizes, const PartitionOptions& options) : sizes_(sizes), options_(options) {
        for (int axis = 0; axis < 3; ++axis)
            blocks_[axis] = (sizes[2 + axis] + options.edges[axis] - 1) / options.edges[axis];
    }

    int64_t count() const { return blocks_[0] * blocks_[1] * blocks_[2] * (options_.per_image ? sizes_[0] : 1); }

    Box box(int64_t group) const {
        Box box{0, sizes_[0], sizes_[1], {}, {}};
        for (int axis = 2; axis >= 0; --axis) {
            box.begin[axis] = group % blocks_[axis] * options_.edges[axis];
            box.end[axis] = std::min(box.begin[axis] + options_.edges[axis], sizes_[2 + axis]);
            group /= blocks_[axis];
        }
        if (options_.per_image) box.first_image = group, box.last_image = group + 1;
        return box;
    }

private:
    const int64_t* sizes_;
    const PartitionOptions& options_;
    int64_t blocks_[3];
};

// Calls visit(point, offset of its label, place within the images of the box) for the points of a box in map order.
template <class Visit>
void for_each_point(const LabelMap& labels, const Box& box, Visit visit) {
    const int64_t *sizes = labels.sizes, *strides = labels.strides;
    for (int64_t image = box.first_image; image < box.last_image; ++image)
        for (int64_t view = 0; view < box.views; ++view) {
            int64_t place = (image - box.first_image) * box.places();
            for (int64_t z = box.begin[0]; z < box.end[0]; ++z)
                for (int64_t y = box.begin[1]; y < box.end[1]; ++y) {
                    const int64_t line = (((image * sizes[1] + view) * sizes[2] + z) * sizes[3] + y) * sizes[4];
                    const int64_t start = image * strides[0] + view * strides[1] + z * strides[2] + y * strides[3];
                    for (int64_t x = box.begin[2]; x < box.end[2]; ++x)
                        visit(line + x, start + x * strides[4], place++);
                }
        }
}

// What a thread holds of the group that it works on.
struct Scratch {
    std::vector<int64_t> labels, points;  // of the group's points in map order, without those that are left out
    std::vector<int64_t> values;          // the group's labels, ascending, where they are sorted
    std::vector<int32_t> classes;         // of the group's points
    std::vector<int32_t> counts, begins;  // of the classes; a count of 0 is no class
};

// Loads the group's points and gives them classes in the order of their labels.
void classify(const LabelMap& labels, const PartitionOptions& options, const Box& box, Scratch& scratch) {
    scratch.labels.clear(), scratch.points.clear();
    for_each_point(labels, box, [&](int64_t point, int64_t offset, int64_t place) {
        const int64_t label = options.self_supervised ? place : label_at(labels, offset);
        if (options.has_ignored && label == options.ignored) return;
        scratch.labels.push_back(label), scratch.points.push_back(point);
    });
    const size_t count = scratch.labels.size();
    scratch.classes.resize(count);
    scratch.values.clear(), scratch.counts.clear();
    if (count == 0) return;
    const auto [low, high] = std::minmax_element(scratch.labels.begin(), scratch.labels.end());
    const int64_t first = *low;
    // The difference of two labels may need 64 bits without a sign.
    const uint64_t last = static_cast<uint64_t>(*high) - static_cast<uint64_t>(first);
    if (last < static_cast<uint64_t>(std::max<int64_t>(kSmallestTable, 2 * static_cast<int64_t>(count)))) {
        scratch.counts.assign(static_cast<size_t>(last) + 1, 0);
        for (size_t i = 0; i < count; ++i) {
            scratch.classes[i] = static_cast<int32_t>(scratch.labels[i] - first);
            ++scratch.counts[scratch.classes[i]];
        }
        for (uint64_t k = 0; k <= last; ++k) scratch.values.push_back(first + static_cast<int64_t>(k));
        return;
    }
    scratch.values = scratch.labels;
    std::sort(scratch.values.begin(), scratch.values.end());
    scratch.values.erase(std::unique(scratch.values.begin(), scratch.values.end()), scratch.values.end());
    scratch.counts.assign(scratch.values.size(), 0);
    for (size_t i = 0; i < count; ++i) {
        const auto found = std::lower_bound(scratch.values.begin(), scratch.values.end(), scratch.labels[i]);
        scratch.classes[i] = static_cast<int32_t>(found - scratch.values.begin());
        ++scratch.counts[scratch.classes[i]];
    }
}

// Writes the rows of a group, which begin at `first`, all but their weights.
void place(const PartitionOptions& options, int64_t group, int32_t first, Scratch& scratch, const Partition& out) {
    const int32_t total = static_cast<int32_t>(scratch.labels.size());
    const auto is_anchor = [&](size_t k) {
        return scratch.counts[k] > 1 && !(options.has_background && scratch.values[k] == options.background) &&
               !(options.other_classes_only && scratch.counts[k] == total);
    };
    const size_t classes = scratch.counts.size();
    scratch.begins.resize(classes);
    int32_t row = first, anchors = 0;
    for (const bool anchor : {true, false}) {
        for (size_t k = 0; k < classes; ++k) {
            if (is_anchor(k) != anchor) continue;
            scratch.begins[k] = row;
            const int32_t end = row + scratch.counts[k];
            std::fill(out.class_begin + row, out.class_begin + end, row);
            std::fill(out.class_end + row, out.class_end + end, end);
            row = end;
        }
        if (anchor) anchors = row - first;
    }
    out.anchors[group] = anchors;
    for (size_t i = 0; i < scratch.points.size(); ++i) {
        const int32_t at = scratch.begins[scratch.classes[i]]++;
        out.point_of_row[at] = scratch.points[i];
        out.row_of_point[scratch.points[i]] = anchors > 0 ? at : -1;
    }
}

// Writes the ranges that the rows [begin, end) leave out of their denominators.
void skip(const PartitionOptions& options, int32_t begin, int32_t end, const Partition& out) {
    if (options.other_classes_only) {
        std::copy(out.class_begin + begin, out.class_begin + end, out.skip_begin + begin);
        std::copy(out.class_end + begin, out.class_end + end, out.skip_end + begin);
        return;
    }
    for (int32_t row = begin; row < end; ++row) out.skip_begin[row] = row, out.skip_end[row] = row + 1;
}

// Writes the rows of the points that are left out: one run past all groups.
void leave_out(const LabelMap& labels, const PartitionOptions& options, int32_t first, const Partition& out) {
    const int32_t total = static_cast<int32_t>(labels.points());
    if (first == total) return;
    int32_t row = first;
    const Box all{0, labels.sizes[0], labels.sizes[1], {}, {labels.sizes[2], labels.sizes[3], labels.sizes[4]}};
    for_each_point(labels, all, [&](int64_t point, int64_t offset, int64_t) {
        if (label_at(labels, offset) != options.ignored) return;
        out.point_of_row[row++] = point;
        out.row_of_point[point] = -1;
    });
    std::fill(out.class_begin + first, out.class_begin + total, first);
    std::fill(out.class_end + first, out.class_end + total, total);
    std::fill(out.weights + first, out.weights + total, 0.0);
    skip(options, first, total, out);
}

double weight_in(const PartitionOptions& options, int64_t filled, int64_t all_anchors, int64_t anchors) {
    switch (options.reduction) {
        case Reduction::block: return 1.0 / static_cast<double>(filled * anchors);
        case Reduction::anchor: return 1.0 / static_cast<double>(all_anchors);
        case Reduction::sum: return 1.0;
    }
    throw std::invalid_argument("no weights for this reduction");
}

}  // namespace

void partition(int threads, const LabelMap& labels, const PartitionOptions& options, const Partition& out) {
    const Grid grid(labels.sizes, options);
    const int64_t groups = grid.count();
    const int size = team_size(threads, labels.points());
    std::vector<Scratch> scratches(static_cast<size_t>(size));

    const bool ignores = options.has_ignored && !options.self_supervised;
    out.offsets[0] = 0;
    Team::run(size, [&](Team& team, int member) {
        team.for_each(groups, [&](int64_t g) {
            const Box box = grid.box(g);
            int64_t points = box.points();
            if (ignores)
                for_each_point(labels, box, [&](int64_t, int64_t offset, int64_t) {
                    points -= label_at(labels, offset) == options.ignored;
                });
            out.offsets[g + 1] = static_cast<int32_t>(points);
        });
        if (member == 0)
            for (int64_t g = 0; g < groups; ++g) out.offsets[g + 1] += out.offsets[g];
        team.for_each(groups, [&](int64_t) {});  // a barrier
        team.for_each(groups, [&](int64_t g) {
            classify(labels, options, grid.box(g), scratches[member]);
            place(options, g, out.offsets[g], scratches[member], out);
            skip(options, out.offsets[g], out.offsets[g + 1], out);
        });
    });
    leave_out(labels, options, out.offsets[groups], out);

    int64_t filled = 0, all_anchors = 0;
    for (int64_t g = 0; g < groups; ++g) filled += out.anchors[g] > 0, all_anchors += out.anchors[g];
    for (int64_t g = 0; g < groups; ++g) {
        double* weights = out.weights + out.offsets[g];
        const int32_t rows = out.offsets[g + 1] - out.offsets[g], anchors = out.anchors[g];
        if (anchors > 0) std::fill_n(weights, anchors, weight_in(options, filled, all_anchors, anchors));
        std::fill_n(weights + anchors, rows - anchors, 0.0);
    }
}

}  // namespace semicl
