#include "threads.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>

#include "workers.h"

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

// Registered when the module is loaded: OpenMP would wait for ever for threads that a child does not have.
std::atomic<bool> forked{false};
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });

struct Region {
    void (*work)(void*, int, int);
    void* context;
    std::atomic<int> members{0};
};

void run_with_openmp(int threads, Region& region) {
    openmp().parallel(
        [](void* data) {
            Region& region = *static_cast<Region*>(data);
            region.work(region.context, region.members.fetch_add(1), openmp().size());
        },
        &region, static_cast<unsigned>(threads), 0);
}

void run_with_workers(int threads, Region& region) {
    Loan others(threads - 1);
    struct Shared {
        Region& region;
        int size;
    } shared{region, others.size() + 1};
    others.start({[](void* data, int member) {
                      const Shared& shared = *static_cast<Shared*>(data);
                      shared.region.work(shared.region.context, member, shared.size);
                  },
                  &shared});
    region.work(region.context, 0, shared.size);
    others.finish();
}

}  // namespace

void run_in_threads(int threads, void (*work)(void*, int, int), void* context) {
    Region region{work, context};
    if (threads <= 1)
        work(context, 0, 1);
    else if (openmp().found() && !forked)
        run_with_openmp(threads, region);
    else
        run_with_workers(threads, region);
}

}  // namespace semicl
