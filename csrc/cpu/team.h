// A team of threads that run the same code and share out the iterations of its loops.
//
// Which thread takes an iteration is left to chance; what an iteration computes must not depend on it.
#pragma once
#include <atomic>
#include <cstdint>

#include "flag.h"
#include "workers.h"

namespace semicl {

class Team {
public:
    // Calls body(team, member) in up to `threads` threads, the caller's included, and returns when all have.
    template <class Body>
    static void run(int threads, Body body) {
        Loan others(threads - 1);
        Team team(others.size() + 1);
        const auto call = [&](int member) { body(team, member); };
        using Call = decltype(call);
        others.start({[](void* context, int member) { (*static_cast<Call*>(context))(member); },
                      const_cast<void*>(static_cast<const void*>(&call))});
        call(0);
        others.finish();
    }

    // Every member calls this with the same count; each iteration runs once, and all are done when it returns.
    template <class Iteration>
    void for_each(int64_t count, Iteration iteration) {
        for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count;) iteration(i);
        wait();
    }

private:
    explicit Team(int size) : size_(size) {}

    void wait() {
        const int next = round_.value() + 1;
        if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 < size_) {
            round_.wait_for(next);
            return;
        }
        waiting_.store(0, std::memory_order_relaxed);
        next_.store(0, std::memory_order_relaxed);
        round_.change(next);
    }

    const int size_;
    std::atomic<int64_t> next_{0};
    std::atomic<int> waiting_{0};
    Flag round_;
};

}  // namespace semicl
