// The machine of csrc/cuda/machine.h on the host: each function does what the PTX manual says of its instruction.
//
// Threads are fibers that take turns; instructions of a warp or a warp group are meetings of its threads. Asynchronous
// work (cp.async, TMA, wgmma) is done as late as it may, or at once (fibers.h, Order). Shared memory begins as NaN.
// What this cannot find: races between threads that happen to take turns well, missing proxy fences, and what the
// manual leaves out.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <utility>

#include "fibers.h"

#define SEMICL_DEVICE inline
#define SEMICL_KERNEL(THREADS, BLOCKS) inline void
#define SEMICL_CONSTANT const
#define SEMICL_SHARED(name) unsigned char* const name = ::emulator::state().shared()

namespace emulator {

constexpr int kWarp = 32, kGroup = 128;
inline int multiprocessors = 3;

struct Copy {
    void* to;
    const void* from;  // null: zeros
    int bytes;
    void perform() const { from ? std::memcpy(to, from, bytes) : std::memset(to, 0, bytes); }
};

// Groups of asynchronous work that one thread, or one warp group, commits and waits for.
template <class Work>
struct Groups {
    std::vector<Work> open;
    std::deque<std::vector<Work>> committed;
    void commit() {
        committed.push_back(std::move(open));
        open.clear();
    }
    void finish(size_t left) {
        for (; committed.size() > left; committed.pop_front())
            for (const Work& work : committed.front()) work();
    }
};

struct BarrierState {
    int arrivals, pending;
    long bytes = 0;
    int phase = 0;
    void settle() {
        if (pending != 0 || bytes != 0) return;
        ++phase;
        pending = arrivals;
    }
};

struct WarpGroup {
    Meeting meeting;
    std::vector<std::function<void()>> open;
    std::vector<std::vector<std::function<void()>>> committed;
    size_t done = 0;
    void finish(size_t count) {
        for (; done < count; ++done)
            for (const auto& work : committed[done]) work();
    }
};

struct ThreadState {
    Groups<std::function<void()>> copies;
    size_t products = 0;  // groups of wgmma committed
};

class State {
public:
    Scheduler scheduler;
    int block = 0, blocks = 0, threads = 0;
    std::vector<Meeting> warps;
    std::map<int, Meeting> barriers;
    std::map<uint32_t, BarrierState> transactions;
    std::vector<WarpGroup> groups;
    std::vector<ThreadState> thread_states;
    std::deque<std::function<void()>> bulk;  // TMA copies on their way

    unsigned char* shared() { return shared_; }
    int shared_bytes() const { return shared_bytes_; }

    void run_block(int number, int count, int thread_count, int bytes, const std::function<void()>& body) {
        block = number, blocks = count, threads = thread_count;
        warps = std::vector<Meeting>(static_cast<size_t>(threads / kWarp));
        groups = std::vector<WarpGroup>(static_cast<size_t>((threads + kGroup - 1) / kGroup));
        thread_states = std::vector<ThreadState>(static_cast<size_t>(threads));
        barriers.clear(), transactions.clear(), bulk.clear();
        storage_.assign(static_cast<size_t>(bytes) + 1024, 0xff);
        shared_ = storage_.data() + (1024 - reinterpret_cast<uintptr_t>(storage_.data()) % 1024) % 1024;
        shared_bytes_ = bytes;
        scheduler.run(threads, body, [this] {
            if (bulk.empty()) return false;
            auto work = std::move(bulk.front());
            bulk.pop_front();
            work();
            return true;
        });
        for (const ThreadState& state : thread_states)
            for (const auto& group : state.copies.committed)
                if (!group.empty()) throw std::runtime_error("a block ends before its copies are waited for");
        for (const WarpGroup& group : groups)
            for (size_t i = group.done; i < group.committed.size(); ++i)
                if (!group.committed[i].empty())
                    throw std::runtime_error("a block ends before its products are waited for");
        if (!bulk.empty()) throw std::runtime_error("a block ends before its bulk copies are there");
    }

    ThreadState& own() { return thread_states[static_cast<size_t>(scheduler.thread())]; }
    unsigned char* at(uint32_t address, int bytes) {
        if (address % static_cast<uint32_t>(bytes < 16 ? bytes : 16)) scheduler.fail("a misaligned shared address");
        return unaligned(address, bytes);
    }
    unsigned char* unaligned(uint32_t address, int bytes) {
        if (address + static_cast<uint32_t>(bytes) > static_cast<uint32_t>(shared_bytes_))
            throw std::runtime_error("an address past the end of shared memory");
        return shared_ + address;
    }

private:
    std::vector<unsigned char> storage_;
    unsigned char* shared_ = nullptr;
    int shared_bytes_ = 0;
};

inline State& state() {
    static State one;
    return one;
}

// A meeting of the warp: `work` gets what its lanes have brought.
template <class Brought, class Work>
void meet_warp(const void* kind, Brought& mine, const Work& work) {
    State& s = state();
    const int thread = s.scheduler.thread();
    s.warps[static_cast<size_t>(thread / kWarp)].join(s.scheduler, kind, thread % kWarp, kWarp, &mine, work);
}

inline float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// Swizzles the 16-byte pieces of lines of `bytes` (64 or 128): Swizzle<2, 4, 3> and <3, 4, 3> of the PTX manual.
inline uint32_t swizzled(uint32_t address, int bytes) {
    const uint32_t mask = bytes == 128 ? 7 : 3;
    return address ^ ((address >> 7 & mask) << 4);
}

}  // namespace emulator

namespace semicl::cuda {

using Stream = void*;

struct TensorMap {
    const unsigned char* base;
    int element_bytes, columns, box_columns, box_rows;
    long rows;
};

namespace machine {

using emulator::state;

inline int thread() { return state().scheduler.thread(); }
inline int block() { return state().block; }
inline int blocks() { return state().blocks; }
inline int lane() { return thread() % 32; }
inline int warp() { return thread() / 32; }

inline void sync_threads(int id, int threads) {
    emulator::State& s = state();
    // Any threads may meet: their places are the order in which they come.
    static std::map<int, int> places;
    int& place = places[id];
    const int mine = place++ % threads;
    static const int kind = 0;
    int token = 0;
    s.barriers[id].join(s.scheduler, &kind, mine, threads, &token, [&](auto&) { place = 0; });
}
inline void sync_block() { sync_threads(0, state().threads); }
inline void sync_warp() {
    static const int kind = 0;
    int token = 0;
    emulator::meet_warp(&kind, token, [](auto&) {});
}

template <class Value>
struct Exchange {
    Value value, result;
};

template <class Value, class From>
Value exchange(const void* kind, Value value, const From& from) {
    Exchange<Value> mine{value, value};
    emulator::meet_warp(kind, mine, [&](const std::vector<void*>& lanes) {
        for (int lane = 0; lane < 32; ++lane)
            static_cast<Exchange<Value>*>(lanes[static_cast<size_t>(lane)])->result =
                static_cast<Exchange<Value>*>(lanes[static_cast<size_t>(from(lane))])->value;
    });
    return mine.result;
}

inline float shuffle_xor(float value, int mask) {
    static const int kind = 0;
    return exchange(&kind, value, [mask](int lane) { return lane ^ mask; });
}
inline int64_t shuffle_up(int64_t value, int distance) {
    static const int kind = 0;
    return exchange(&kind, value, [distance](int lane) { return lane < distance ? lane : lane - distance; });
}

template <class Better>
int reduce(const void* kind, int value, const Better& better) {
    Exchange<int> mine{value, value};
    emulator::meet_warp(kind, mine, [&](const std::vector<void*>& lanes) {
        int best = static_cast<Exchange<int>*>(lanes[0])->value;
        for (void* one : lanes)
            if (better(static_cast<Exchange<int>*>(one)->value, best)) best = static_cast<Exchange<int>*>(one)->value;
        for (void* one : lanes) static_cast<Exchange<int>*>(one)->result = best;
    });
    return mine.result;
}
inline int warp_min(int value) {
    static const int kind = 0;
    return reduce(&kind, value, [](int a, int b) { return a < b; });
}
inline int warp_max(int value) {
    static const int kind = 0;
    return reduce(&kind, value, [](int a, int b) { return a > b; });
}

inline float exp2(float x) { return std::exp2f(x); }
inline float log2(float x) { return std::log2f(x); }
inline uint32_t opaque(uint32_t x) { return x; }

inline uint32_t address(const void* shared) {
    return static_cast<uint32_t>(static_cast<const unsigned char*>(shared) - state().shared());
}

// ---- cp.async and ldmatrix ------------------------------------------------------------------------------------------

inline void copy(uint32_t to, const void* from, bool valid, int bytes) {
    if (reinterpret_cast<uintptr_t>(from) % static_cast<uintptr_t>(bytes)) state().scheduler.fail("a misaligned copy");
    const emulator::Copy work{state().at(to, bytes), valid ? from : nullptr, bytes};
    if (emulator::order == emulator::Order::early)
        work.perform();
    else
        state().own().copies.open.push_back([work] { work.perform(); });
}
inline void copy16(uint32_t to, const void* from, bool valid) { copy(to, from, valid, 16); }
inline void copy4(uint32_t to, const void* from, bool valid) { copy(to, from, valid, 4); }
inline void commit_copies() { state().own().copies.commit(); }
template <int PENDING>
void wait_copies() {
    state().own().copies.finish(PENDING);
}

struct Matrices {
    uint32_t row;
    uint32_t* out;
};

inline void load(const void* kind, uint32_t (&out)[4], uint32_t row, bool transposed) {
    Matrices mine{row, out};
    emulator::meet_warp(kind, mine, [transposed](const std::vector<void*>& lanes) {
        for (int matrix = 0; matrix < 4; ++matrix) {
            uint16_t values[8][8];
            for (int r = 0; r < 8; ++r) {
                const auto* from = static_cast<Matrices*>(lanes[static_cast<size_t>(matrix * 8 + r)]);
                std::memcpy(values[r], state().at(from->row, 16), 16);
            }
            for (int lane = 0; lane < 32; ++lane) {
                const int r = lane / 4, c = lane % 4 * 2;
                const uint16_t low = transposed ? values[c][r] : values[r][c];
                const uint16_t high = transposed ? values[c + 1][r] : values[r][c + 1];
                static_cast<Matrices*>(lanes[static_cast<size_t>(lane)])->out[matrix] =
                    low | static_cast<uint32_t>(high) << 16;
            }
        }
    });
}
inline void load_matrices(uint32_t (&out)[4], uint32_t row) {
    static const int kind = 0;
    load(&kind, out, row, false);
}
inline void load_transposed(uint32_t (&out)[4], uint32_t row) {
    static const int kind = 0;
    load(&kind, out, row, true);
}

// ---- elements -------------------------------------------------------------------------------------------------------

// Tensor cores as they were found to sum (Fasi et al., PeerJ Computer Science 2021): products and the addend are
// aligned to the largest exponent, cut toward zero kExtraBits below float32's 24 bits and summed; the sum is cut toward
// zero too.
constexpr int kExtraBits = 2;

inline float truncated_sum(float addend, const float* row, const float* column, int depth) {
    double terms[17];
    double most = std::fabs(static_cast<double>(addend));
    terms[depth] = addend;
    bool finite = std::isfinite(addend);
    for (int k = 0; k < depth; ++k) {
        terms[k] = static_cast<double>(row[k]) * column[k];
        finite = finite && std::isfinite(terms[k]);
        most = std::fmax(most, std::fabs(terms[k]));
    }
    if (!finite) {
        float sum = addend;
        for (int k = 0; k < depth; ++k) sum += row[k] * column[k];
        return sum;
    }
    if (most == 0) return addend;
    int exponent;
    std::frexp(most, &exponent);
    const double unit = std::ldexp(1.0, exponent - 24 - kExtraBits);
    double sum = 0;
    for (int k = 0; k <= depth; ++k) sum += std::trunc(terms[k] / unit) * unit;
    if (sum == 0) return 0;
    std::frexp(sum, &exponent);
    const double last = std::ldexp(1.0, exponent - 24);
    return static_cast<float>(std::trunc(sum / last) * last);
}

struct Operands {
    float* d;
    const uint32_t* a;
    uint32_t b[2];
};

template <class Element>
float unpacked(uint32_t word, int half) {
    return half ? Element::high(word) : Element::low(word);
}

// mma.m16n8k16: a[i] holds row lane / 4 + 8 (i % 2) and columns lane % 4 * 2 + 8 (i / 2); b[i] holds column lane / 4
// and rows lane % 4 * 2 + 8 i.
template <class Element>
void multiply_warp(const void* kind, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    Operands mine{d, a, {b0, b1}};
    emulator::meet_warp(kind, mine, [](const std::vector<void*>& lanes) {
        float left[16][16], right[8][16];
        for (int lane = 0; lane < 32; ++lane) {
            const auto* from = static_cast<Operands*>(lanes[static_cast<size_t>(lane)]);
            for (int half = 0; half < 2; ++half) {
                const int k = lane % 4 * 2 + half;
                for (int i = 0; i < 4; ++i)
                    left[lane / 4 + i % 2 * 8][k + i / 2 * 8] = unpacked<Element>(from->a[i], half);
                for (int i = 0; i < 2; ++i) right[lane / 4][k + i * 8] = unpacked<Element>(from->b[i], half);
            }
        }
        for (int lane = 0; lane < 32; ++lane)
            for (int e = 0; e < 4; ++e) {
                const float* row = left[lane / 4 + e / 2 * 8];
                const float* column = right[lane % 4 * 2 + e % 2];
                float& d = static_cast<Operands*>(lanes[static_cast<size_t>(lane)])->d[e];
                d = truncated_sum(d, row, column, 16);
            }
    });
}

struct BFloat16 {
    static uint16_t rounded(float value) {
        uint32_t bits;
        std::memcpy(&bits, &value, 4);
        if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
        return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
    static uint32_t pack(float low, float high) { return rounded(low) | static_cast<uint32_t>(rounded(high)) << 16; }
    static float low(uint32_t word) { return emulator::from_bits(word << 16); }
    static float high(uint32_t word) { return emulator::from_bits(word & 0xffff0000u); }
    static void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
        static const int kind = 0;
        multiply_warp<BFloat16>(&kind, d, a, b0, b1);
    }
};

struct Float16 {
    static uint16_t rounded(float value) {
        const _Float16 half = static_cast<_Float16>(value);
        uint16_t bits;
        std::memcpy(&bits, &half, 2);
        return bits;
    }
    static float widened(uint32_t word) {
        const uint16_t bits = static_cast<uint16_t>(word);
        _Float16 half;
        std::memcpy(&half, &bits, 2);
        return static_cast<float>(half);
    }
    static uint32_t pack(float low, float high) { return rounded(low) | static_cast<uint32_t>(rounded(high)) << 16; }
    static float low(uint32_t word) { return widened(word); }
    static float high(uint32_t word) { return widened(word >> 16); }
    static void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
        static const int kind = 0;
        multiply_warp<Float16>(&kind, d, a, b0, b1);
    }
};

// ---- transaction barriers and TMA -----------------------------------------------------------------------------------

using Barrier = uint64_t;

inline emulator::BarrierState& transaction(uint32_t barrier) {
    const auto found = state().transactions.find(barrier);
    if (found == state().transactions.end()) state().scheduler.fail("a barrier that was not initialised");
    return found->second;
}
inline void init_barrier(uint32_t barrier, int arrivals) {
    state().at(barrier, 8);
    state().transactions[barrier] = {arrivals, arrivals};
}
inline void publish_barriers() {}
inline void arrive(uint32_t barrier) {
    emulator::BarrierState& found = transaction(barrier);
    if (found.pending == 0) state().scheduler.fail("more arrivals at a barrier than it takes");
    --found.pending;
    found.settle();
}
inline void arrive_expecting(uint32_t barrier, int bytes) {
    transaction(barrier).bytes += bytes;
    arrive(barrier);
}
inline void wait_barrier(uint32_t barrier, int parity) {
    emulator::BarrierState& found = transaction(barrier);
    state().scheduler.wait([&found, parity] { return (found.phase & 1) != parity; });
}

inline void bulk_copy(uint32_t barrier, std::function<int()> work) {
    emulator::BarrierState* found = &transaction(barrier);
    const auto all = [found, work] {
        found->bytes -= work();
        found->settle();
    };
    if (emulator::order == emulator::Order::early)
        all();
    else
        state().bulk.push_back(all);
}
inline void copy_box(uint32_t to, const TensorMap& map, int channel, int row, uint32_t barrier) {
    if (to % 1024) state().scheduler.fail("a swizzled box must begin at a multiple of its pattern");
    bulk_copy(barrier, [=] {
        const int line = map.box_columns * map.element_bytes;
        for (int r = 0; r < map.box_rows; ++r)
            for (int piece = 0; piece < line; piece += 16) {
                unsigned char* out = state().unaligned(to + emulator::swizzled(r * line + piece, line), 16);
                const bool inside = row + r >= 0 && row + r < map.rows &&
                                    channel * map.element_bytes + piece < map.columns * map.element_bytes;
                const long offset = (static_cast<long>(row + r) * map.columns + channel) * map.element_bytes + piece;
                inside ? std::memcpy(out, map.base + offset, 16) : std::memset(out, 0, 16);
            }
        return line * map.box_rows;
    });
}
inline void copy_line(uint32_t to, const TensorMap& map, int first, uint32_t barrier) {
    if (to % 128) state().scheduler.fail("a box must begin at a multiple of 128 bytes");
    bulk_copy(barrier, [=] {
        for (int i = 0; i < map.box_columns; ++i) {
            unsigned char* out = state().unaligned(to + i * map.element_bytes, map.element_bytes);
            const bool inside = first + i >= 0 && first + i < map.columns;
            const long offset = static_cast<long>(first + i) * map.element_bytes;
            inside ? std::memcpy(out, map.base + offset, map.element_bytes) : std::memset(out, 0, map.element_bytes);
        }
        return map.box_columns * map.element_bytes;
    });
}
// ---- wgmma ----------------------------------------------------------------------------------------------------------

// An operand in shared memory as its descriptor tells: the canonical layouts of the PTX manual.
struct Operand {
    uint32_t start, leading, stride;
    int line;
    explicit Operand(uint64_t descriptor)
        : start((descriptor & 0x3fff) << 4),
          leading((descriptor >> 16 & 0x3fff) << 4),
          stride((descriptor >> 32 & 0x3fff) << 4),
          line(descriptor >> 62 == 1 ? 128 : 64) {
        if (descriptor >> 62 == 0 || descriptor >> 62 == 3 || descriptor >> 46 & 0xffff)
            state().scheduler.fail("a descriptor that is not one");
    }
    // Value k of row m, rows along the depth.
    uint16_t row_value(int m, int k) const { return value(start + m / 8 * stride + m % 8 * line + k * 2); }
    // Value n of step k, rows along N.
    uint16_t column_value(int n, int k) const {
        return value(start + n / (line / 2) * leading + n % (line / 2) * 2 + k / 8 * stride + k % 8 * line);
    }

private:
    uint16_t value(uint32_t address) const {
        uint16_t out;
        std::memcpy(&out, state().unaligned(emulator::swizzled(address, line), 2), 2);
        return out;
    }
};

struct Product {
    float* d;
    uint32_t a[4];
    uint64_t a_tile, b_tile;
    bool add;
};

template <class Element, int N>
void perform(const std::vector<Product>& lanes, bool fragments) {
    static float left[64][16], right[N][16];
    const Operand a(fragments ? uint64_t{1} << 62 : lanes[0].a_tile), b(lanes[0].b_tile);
    for (int k = 0; k < 16; ++k) {
        for (int n = 0; n < N; ++n) right[n][k] = Element::low(fragments ? b.column_value(n, k) : b.row_value(n, k));
        if (!fragments)
            for (int m = 0; m < 64; ++m) left[m][k] = Element::low(a.row_value(m, k));
    }
    for (int thread = 0; fragments && thread < 128; ++thread)
        for (int i = 0; i < 4; ++i)
            for (int half = 0; half < 2; ++half)
                left[thread / 32 * 16 + thread % 32 / 4 + i % 2 * 8][thread % 4 * 2 + half + i / 2 * 8] =
                    unpacked<Element>(lanes[static_cast<size_t>(thread)].a[i], half);
    for (int thread = 0; thread < 128; ++thread) {
        const Product& own = lanes[static_cast<size_t>(thread)];
        for (int i = 0; i < N / 2; ++i) {
            const float* row = left[thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8];
            const float* column = right[i / 4 * 8 + thread % 4 * 2 + i % 2];
            own.d[i] = truncated_sum(own.add ? own.d[i] : 0, row, column, 16);
        }
    }
}

inline emulator::WarpGroup& warp_group() { return state().groups[static_cast<size_t>(thread() / 128)]; }

template <class Element, int N>
void issue(Product& mine, bool fragments) {
    static const int kinds[2] = {0, 0};
    emulator::WarpGroup& group = warp_group();
    group.meeting.join(state().scheduler, &kinds[fragments], thread() % 128, 128, &mine,
                       [&](const std::vector<void*>& all) {
                           std::vector<Product> lanes;
                           for (void* one : all) {
                               lanes.push_back(*static_cast<Product*>(one));
                               if (lanes.back().a_tile != lanes[0].a_tile || lanes.back().b_tile != lanes[0].b_tile)
                                   state().scheduler.fail("descriptors differ within a warp group");
                           }
                           const auto work = [lanes, fragments] { perform<Element, N>(lanes, fragments); };
                           if (emulator::order == emulator::Order::early)
                               work();
                           else
                               group.open.push_back(work);
                       });
}

template <class Element, int N>
void multiply_tiles(float (&d)[N / 2], uint64_t a, uint64_t b, bool add) {
    Product mine{d, {}, a, b, add};
    issue<Element, N>(mine, false);
}
template <class Element, int N>
void multiply_fragments(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b) {
    Product mine{d, {a[0], a[1], a[2], a[3]}, 0, b, true};
    issue<Element, N>(mine, true);
}
inline void fence_products() {}
inline void commit_products() {
    emulator::WarpGroup& group = warp_group();
    if (++state().own().products > group.committed.size()) {
        group.committed.push_back(std::move(group.open));
        group.open.clear();
    }
}
template <int PENDING>
void wait_products() {
    const size_t mine = state().own().products;
    if (mine > PENDING) warp_group().finish(mine - PENDING);
}

inline void fence_async() {}
template <int COUNT>
void give_registers() {}
template <int COUNT>
void take_registers() {}

}  // namespace machine

// ---- launches -------------------------------------------------------------------------------------------------------

template <class Argument>
void launch(void (*kernel)(Argument), int blocks, int threads, int shared_bytes, Stream, const Argument& argument) {
    for (int block = 0; block < blocks; ++block)
        emulator::state().run_block(block, blocks, threads, shared_bytes, [&] { kernel(argument); });
}

template <class ELEMENT>
TensorMap map_rows(const void* rows, int count, int channels, int box_channels, int box_rows) {
    return {static_cast<const unsigned char*>(rows), 2, channels, box_channels, box_rows, count};
}
inline TensorMap map_line(const float* values, int count, int box_values) {
    return {reinterpret_cast<const unsigned char*>(values), 4, count, box_values, 1, 1};
}

inline int multiprocessors(int) { return emulator::multiprocessors; }
inline int most_shared_bytes(int) { return 227 << 10; }

struct DeviceGuard {
    explicit DeviceGuard(int) {}
};

}  // namespace semicl::cuda
