// The functions of csrc/cuda/arch.h on the host: each does what the PTX manual says of its instruction.
//
// Threads are fibers that take turns; instructions of a warp or a warp group are meetings of its threads. Asynchronous
// work (TMA, wgmma) is done late, at once or at random (fibers.h, Order). Shared memory begins as NaN. Every
// store of a kernel to shared memory is noted, and is an error where TMA or wgmma meets it without a fence (proxies.h).
// What this cannot find: races between threads that no order shows, and what the manual leaves out.
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

inline int multiprocessors = 3;

// Which fence does nothing: tests take one away to see that it is missed.
enum class Missing { none, fence_async, publish_barriers };
inline Missing missing = Missing::none;

struct BarrierState {
    int arrivals, pending, owner;
    bool published = false;
    long bytes = 0;
    int phase = 0;
    void settle() {
        if (pending != 0 || bytes != 0) return;
        ++phase;
        pending = arrivals;
    }
};

// Each warp of a group has its own quarter of a product's rows, and waits for that alone.
struct WarpGroup {
    using Work = std::function<void(int warp)>;
    static constexpr int kWarps = kGroup / kWarp;
    Meeting meeting;
    std::vector<Work> open;
    std::vector<std::vector<Work>> committed;
    size_t done[kWarps] = {}, open_done[kWarps] = {};  // of the groups, and of the open products, for each warp
    void finish(int warp, size_t count) {
        for (; done[warp] < count; ++done[warp], open_done[warp] = 0)
            for (size_t i = open_done[warp]; i < committed[done[warp]].size(); ++i) committed[done[warp]][i](warp);
    }
    void finish_all() {
        for (int warp = 0; warp < kWarps; ++warp) {
            finish(warp, committed.size());
            for (size_t& i = open_done[warp]; i < open.size(); ++i) open[i](warp);
        }
    }
    bool empty() const {
        for (size_t i = 0; i < committed.size(); ++i)
            for (size_t own : done)
                if (i >= own && !committed[i].empty()) return false;
        return true;
    }
};

class State {
public:
    Scheduler scheduler;
    int block = 0, blocks = 0, threads = 0;
    std::vector<Meeting> warps;
    std::map<int, Meeting> barriers;
    std::map<uint32_t, BarrierState> transactions;
    std::vector<WarpGroup> groups;
    std::vector<size_t> products;  // groups of wgmma that each thread has committed
    std::deque<std::function<void()>> bulk;  // TMA copies on their way

    unsigned char* shared() { return shared_; }
    int shared_bytes() const { return shared_bytes_; }

    void run_block(int number, int count, int thread_count, int bytes, const std::function<void()>& body) {
        block = number, blocks = count, threads = thread_count;
        warps = std::vector<Meeting>(static_cast<size_t>(threads / kWarp));
        groups = std::vector<WarpGroup>(static_cast<size_t>((threads + kGroup - 1) / kGroup));
        products.assign(static_cast<size_t>(threads), 0);
        barriers.clear(), transactions.clear(), bulk.clear();
        storage_.assign(static_cast<size_t>(bytes) + 1024, 0xff);
        shared_ = storage_.data() + (1024 - reinterpret_cast<uintptr_t>(storage_.data()) % 1024) % 1024;
        shared_bytes_ = bytes;
        proxies::begin(shared_, bytes);
        try {
            scheduler.run(number, threads, body, [this] { return copy_bulk(); });
        } catch (...) {
            proxies::end();
            throw;
        }
        proxies::end();
        for (const WarpGroup& group : groups)
            if (!group.empty()) throw std::runtime_error("a block ends before its products are waited for");
        if (!bulk.empty()) throw std::runtime_error("a block ends before its bulk copies are there");
    }

    size_t& own_products() { return products[static_cast<size_t>(scheduler.thread())]; }
    unsigned char* at(uint32_t address, int bytes) {
        if (address % static_cast<uint32_t>(bytes < 16 ? bytes : 16)) scheduler.fail("a misaligned shared address");
        return unaligned(address, bytes);
    }
    unsigned char* unaligned(uint32_t address, int bytes) {
        if (address + static_cast<uint32_t>(bytes) > static_cast<uint32_t>(shared_bytes_))
            scheduler.fail("an address past the end of shared memory");
        return shared_ + address;
    }

    // Fails where wgmma or TMA, which are about to use these bytes, would not see what a thread stored there.
    void use_asynchronously(uint32_t address, int bytes) {
        const int writer = proxies::unfenced_writer(unaligned(address, bytes), bytes);
        if (writer >= 0)
            scheduler.fail("wgmma or TMA meets what thread " + std::to_string(writer) +
                           " stored in shared memory and did not fence");
    }

private:
    // Does one of the bulk copies on their way.
    bool copy_bulk() {
        if (bulk.empty()) return false;
        const auto which = bulk.begin() + (order == Order::random ? static_cast<long>(draws() % bulk.size()) : 0);
        const auto work = std::move(*which);
        bulk.erase(which);
        work();
        return true;
    }

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

// Swizzles the 16-byte chunks of lines of `bytes` (64 or 128): Swizzle<2, 4, 3> and <3, 4, 3> of the PTX manual.
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

namespace arch {

using emulator::state;

inline int thread() { return state().scheduler.thread(); }
inline int block() { return state().block; }
inline int blocks() { return state().blocks; }
inline int lane() { return thread() % 32; }
inline int warp() { return thread() / 32; }

inline void sync_threads(int id, int threads) {
    emulator::State& s = state();
    s.scheduler.pause();
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
inline uint32_t opaque(uint32_t x) { return x; }

inline uint32_t address(const void* shared) {
    return static_cast<uint32_t>(static_cast<const unsigned char*>(shared) - state().shared());
}

// ---- elements -------------------------------------------------------------------------------------------------------

// d (rows, columns) += left (rows, 16) right (columns, 16)^T as tensor cores sum: tensor_cores.cpp.
void add_products(float* d, const float* left, const float* right, int rows, int columns);

template <class Element>
float unpacked(uint32_t word, int half) {
    return half ? Element::high(word) : Element::low(word);
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
};

// ---- transaction barriers and TMA -----------------------------------------------------------------------------------

inline emulator::BarrierState& transaction(uint32_t barrier) {
    const auto found = state().transactions.find(barrier);
    if (found == state().transactions.end()) state().scheduler.fail("a barrier that was not initialised");
    return found->second;
}
inline void init_barrier(uint32_t barrier, int arrivals) {
    state().at(barrier, 8);
    state().transactions[barrier] = {arrivals, arrivals, thread()};
}
inline void publish_barriers() {
    if (emulator::missing == emulator::Missing::publish_barriers) return;
    for (auto& [address, barrier] : state().transactions) barrier.published |= barrier.owner == thread();
}
inline void arrive(uint32_t barrier) {
    state().scheduler.pause();
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
    if (!found->published) state().scheduler.fail("a copy counts at a barrier that was not published");
    const auto all = [found, work] {
        found->bytes -= work();
        found->settle();
    };
    if (emulator::at_once())
        all();
    else
        state().bulk.push_back(all);
}
inline void copy_box(uint32_t to, const TensorMap& map, int channel, int row, uint32_t barrier) {
    if (to % 1024) state().scheduler.fail("a swizzled box must begin at a multiple of its pattern");
    state().use_asynchronously(to, map.box_columns * map.element_bytes * map.box_rows);
    bulk_copy(barrier, [=] {
        const int line = map.box_columns * map.element_bytes;
        for (int r = 0; r < map.box_rows; ++r)
            for (int chunk = 0; chunk < line; chunk += 16) {
                unsigned char* out = state().unaligned(to + emulator::swizzled(r * line + chunk, line), 16);
                const bool inside = row + r >= 0 && row + r < map.rows &&
                                    channel * map.element_bytes + chunk < map.columns * map.element_bytes;
                const long offset = (static_cast<long>(row + r) * map.columns + channel) * map.element_bytes + chunk;
                inside ? std::memcpy(out, map.base + offset, 16) : std::memset(out, 0, 16);
            }
        emulator::proxies::forget(state().unaligned(to, line * map.box_rows), line * map.box_rows);
        return line * map.box_rows;
    });
}
inline void copy_line(uint32_t to, const TensorMap& map, int first, uint32_t barrier) {
    if (to % 128) state().scheduler.fail("a box must begin at a multiple of 128 bytes");
    const int bytes = map.box_columns * map.element_bytes;
    state().use_asynchronously(to, bytes);
    bulk_copy(barrier, [=] {
        for (int i = 0; i < map.box_columns; ++i) {
            unsigned char* out = state().unaligned(to + i * map.element_bytes, map.element_bytes);
            const bool inside = first + i >= 0 && first + i < map.columns;
            const long offset = static_cast<long>(first + i) * map.element_bytes;
            inside ? std::memcpy(out, map.base + offset, map.element_bytes) : std::memset(out, 0, map.element_bytes);
        }
        emulator::proxies::forget(state().unaligned(to, bytes), bytes);
        return bytes;
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
    // Calls use(row, k, address) for each chunk of eight values of `count` rows along the depth, from `first` on.
    template <class Use>
    void for_chunks_of_rows(int first, int count, const Use& use) const {
        for (int row = first; row < first + count; ++row)
            for (int k = 0; k < 16; k += 8) use(row, k, swizzled(start + row / 8 * stride + row % 8 * line + k * 2));
    }
    // Calls use(n, k, address) for each chunk of eight values of the steps k, `count` values along N.
    template <class Use>
    void for_chunks_of_steps(int count, const Use& use) const {
        for (int k = 0; k < 16; ++k)
            for (int n = 0; n < count; n += 8)
                use(n, k,
                    swizzled(start + n / (line / 2) * leading + n % (line / 2) * 2 + k / 8 * stride + k % 8 * line));
    }

private:
    uint32_t swizzled(uint32_t address) const { return emulator::swizzled(address, line); }
};

struct Product {
    float* d;
    const uint32_t* a;  // read when the product is computed: until it is waited for they must not change
    uint64_t a_tile, b_tile;
    bool add;
};

// Computes the rows of one warp of the group: 16 of the 64.
template <class Element, int N>
void perform(const std::vector<Product>& lanes, bool fragments, int warp) {
    constexpr int kRows = 16;
    static float left[kRows][16], right[N][16], sums[kRows][N];
    const auto read = [](uint32_t address, const auto& use) {
        state().use_asynchronously(address, 16);
        uint16_t values[8];
        std::memcpy(values, state().unaligned(address, 16), 16);
        for (int i = 0; i < 8; ++i) use(i, Element::low(values[i]));
    };
    const Product* const own = lanes.data() + warp * emulator::kWarp;
    const Operand b(own->b_tile);
    if (fragments) {
        b.for_chunks_of_steps(N, [&](int n, int k, uint32_t address) {
            read(address, [&](int i, float value) { right[n + i][k] = value; });
        });
        for (int lane = 0; lane < 32; ++lane)
            for (int i = 0; i < 4; ++i)
                for (int half = 0; half < 2; ++half)
                    left[lane / 4 + i % 2 * 8][lane % 4 * 2 + half + i / 2 * 8] =
                        unpacked<Element>(own[lane].a[i], half);
    } else {
        b.for_chunks_of_rows(0, N, [&](int row, int k, uint32_t address) {
            read(address, [&](int i, float value) { right[row][k + i] = value; });
        });
        Operand(own->a_tile).for_chunks_of_rows(warp * kRows, kRows, [&](int row, int k, uint32_t address) {
            read(address, [&](int i, float value) { left[row - warp * kRows][k + i] = value; });
        });
    }
    const auto each = [&](const auto& use) {
        for (int lane = 0; lane < 32; ++lane)
            for (int i = 0; i < N / 2; ++i)
                use(sums[lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2], own[lane].d[i]);
    };
    const bool add = own->add;
    each([add](float& sum, float& d) { sum = add ? d : 0; });
    add_products(sums[0], left[0], right[0], kRows, N);
    each([](float& sum, float& d) { d = sum; });
}

// What a product reads of shared memory must be fenced when it is issued, and still when it is computed.
inline void check_fenced(const Product& product, bool fragments, int columns) {
    const auto check = [](int, int, uint32_t address) { state().use_asynchronously(address, 16); };
    const Operand b(product.b_tile);
    fragments ? b.for_chunks_of_steps(columns, check) : b.for_chunks_of_rows(0, columns, check);
    if (!fragments) Operand(product.a_tile).for_chunks_of_rows(0, 64, check);
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
                               if (lanes.back().a_tile != lanes[0].a_tile || lanes.back().b_tile != lanes[0].b_tile ||
                                   lanes.back().add != lanes[0].add)
                                   state().scheduler.fail("operands differ within a warp group");
                           }
                           check_fenced(lanes[0], fragments, N);
                           group.open.push_back(
                               [lanes, fragments](int warp) { perform<Element, N>(lanes, fragments, warp); });
                           if (emulator::at_once()) group.finish_all();
                       });
}

template <class Element, int N>
void multiply_tiles(float (&d)[N / 2], uint64_t a, uint64_t b, bool add) {
    Product mine{d, nullptr, a, b, add};
    issue<Element, N>(mine, false);
}
template <class Element, int N>
void multiply_fragments(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b) {
    Product mine{d, a, 0, b, true};
    issue<Element, N>(mine, true);
}
inline void fence_products() {}
inline void commit_products() {
    emulator::WarpGroup& group = warp_group();
    if (++state().own_products() > group.committed.size()) {
        group.committed.push_back(std::move(group.open));
        group.open.clear();
    }
}
template <int PENDING>
void wait_products() {
    state().scheduler.pause();
    sync_warp();
    const size_t mine = state().own_products();
    if (mine > PENDING) warp_group().finish(warp() % emulator::WarpGroup::kWarps, mine - PENDING);
}

inline void fence_async() {
    if (emulator::missing != emulator::Missing::fence_async) emulator::proxies::fence(thread());
}
template <int COUNT>
void give_registers() {}
template <int COUNT>
void take_registers() {}

}  // namespace arch

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

struct DeviceGuard {
    explicit DeviceGuard(int) {}
};

}  // namespace semicl::cuda
