// Stores of the kernels' threads as the compiler reports them. Kernels are compiled with -fsanitize=thread, which puts
// a call of __tsan_... before every load and store; in place of the sanitizer's library these are the functions below.
// This file is compiled without it and calls no function that is compiled with it.
#include "proxies.h"

#include <cstdint>
#include <cstring>

namespace emulator {

int running = -1;

namespace proxies {
namespace {

constexpr int kWord = 4, kMostThreads = 1024, kMostWords = (228 << 10) / kWord;

struct Store {
    int thread_and_one = 0;  // 0: none
    unsigned fences = 0;     // how many the thread had executed
};

const unsigned char* shared = nullptr;
int words = 0;
Store stores[kMostWords];
unsigned fences[kMostThreads];

template <class Use>
void for_words(const void* at, size_t bytes, const Use& use) {
    const size_t first = static_cast<size_t>(static_cast<const unsigned char*>(at) - shared);
    if (first / kWord >= static_cast<size_t>(words)) return;
    for (size_t word = first / kWord; word < static_cast<size_t>(words) && word * kWord < first + bytes; ++word)
        use(stores[word]);
}

}  // namespace

void begin(const unsigned char* begin, int bytes) {
    shared = begin;
    words = bytes / kWord;
    std::memset(static_cast<void*>(stores), 0, sizeof(Store) * static_cast<size_t>(words));
    std::memset(fences, 0, sizeof fences);
}

void end() { words = 0; }

void store(const void* to, size_t bytes, int thread) {
    for_words(to, bytes, [thread](Store& one) { one = {thread + 1, fences[thread]}; });
}

void fence(int thread) { ++fences[thread]; }

void forget(const void* at, size_t bytes) {
    for_words(at, bytes, [](Store& one) { one = {}; });
}

int unfenced_writer(const void* at, size_t bytes) {
    int found = -1;
    for_words(at, bytes, [&](const Store& one) {
        const int thread = one.thread_and_one - 1;
        if (thread >= 0 && fences[thread] == one.fences) found = thread;
    });
    return found;
}

}  // namespace proxies
}  // namespace emulator

extern "C" {

#define SEMICL_ON_STORE(name, bytes)                                                               \
    void name(void* to) {                                                                          \
        if (emulator::running >= 0) emulator::proxies::store(to, bytes, emulator::running);        \
    }
#define SEMICL_ON_ACCESS(bytes)                             \
    void __tsan_read##bytes(void*) {}                       \
    void __tsan_unaligned_read##bytes(void*) {}             \
    SEMICL_ON_STORE(__tsan_write##bytes, bytes)             \
    SEMICL_ON_STORE(__tsan_unaligned_write##bytes, bytes)

SEMICL_ON_ACCESS(1)
SEMICL_ON_ACCESS(2)
SEMICL_ON_ACCESS(4)
SEMICL_ON_ACCESS(8)
SEMICL_ON_ACCESS(16)

void __tsan_write_range(void* to, size_t bytes) {
    if (emulator::running >= 0) emulator::proxies::store(to, bytes, emulator::running);
}
void __tsan_read_range(void*, size_t) {}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
// The guard of a static variable.
unsigned char __tsan_atomic8_load(const volatile unsigned char* from, int) { return *from; }

}  // extern "C"
