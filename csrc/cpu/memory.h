// Memory for one call.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace semicl {

// Asks the kernel for huge pages under a large block that is about to be filled: a fresh page costs a fault, and small
// ones miss the translation cache. Without effect where the system has none, or the pages are there already.
inline void prefer_huge_pages(void* start, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t kHuge = uintptr_t{2} << 20;
    const uintptr_t first = (reinterpret_cast<uintptr_t>(start) + kHuge - 1) / kHuge * kHuge;
    const uintptr_t last = (reinterpret_cast<uintptr_t>(start) + static_cast<uintptr_t>(bytes)) / kHuge * kHuge;
    if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
    (void)start, (void)bytes;
#endif
}

// Uninitialized memory, aligned to a cache line, or to a huge page where it holds some.
template <class T>
class Buffer {
public:
    explicit Buffer(int64_t count) {
        const size_t wanted = static_cast<size_t>(std::max<int64_t>(count, 1)) * sizeof(T);
        const size_t alignment = wanted >= (size_t{4} << 20) ? size_t{2} << 20 : 64;
        const size_t bytes = (wanted + alignment - 1) / alignment * alignment;
        void* memory = nullptr;
        if (posix_memalign(&memory, alignment, bytes) != 0) throw std::bad_alloc();
        memory_.reset(static_cast<T*>(memory));
        prefer_huge_pages(memory_.get(), static_cast<int64_t>(bytes));
    }
    T* get() const { return memory_.get(); }
    T& operator[](int64_t i) const { return memory_.get()[i]; }

private:
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> memory_;
};

}  // namespace semicl
