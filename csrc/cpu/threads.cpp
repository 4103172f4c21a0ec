#include "threads.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>

namespace semicl {
namespace {

// The two entry points of an OpenMP runtime that a parallel region needs, as GCC's code calls them.
struct OpenMp {
    void (*parallel)(void (*body)(void*), void* data, unsigned threads, unsigned flags) = nullptr;
    int (*size)() = nullptr;

    OpenMp() {
        parallel = reinterpret_cast<decltype(parallel)>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
        size = reinterpret_cast<decltype(size)>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"));
    }
    bool found() const { return parallel != nullptr && size != nullptr; }
};

const OpenMp& openmp() {
    static const OpenMp only;
    return only;
}

// Registered when the module is loaded.
std::atomic<bool> forked{false};
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });

struct Region {
    void (*work)(void*, int, int);
    void* context;
    std::atomic<int> members{0};
};

}  // namespace

void run_in_threads(int threads, void (*work)(void*, int, int), void* context) {
    if (threads <= 1 || forked || !openmp().found()) {
        work(context, 0, 1);
        return;
    }
    Region region{work, context};
    openmp().parallel(
        [](void* data) {
            Region& region = *static_cast<Region*>(data);
            region.work(region.context, region.members.fetch_add(1), openmp().size());
        },
        &region, static_cast<unsigned>(threads), 0);
}

}  // namespace semicl
