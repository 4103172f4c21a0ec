// A team of threads that run the same code and share out the iterations of its loops.
//
// Which thread takes an iteration is left to chance; what an iteration computes must not depend on it.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>

#include "flag.h"
#include "interrupt.h"
#include "threads.h"

namespace semicl {

// Values below which one thread is taken. Set by hand: no timing of it is kept.
constexpr int64_t kWorthwhile = int64_t{1} << 17;

// The threads that a pass over so many values is worth.
inline int team_size(int threads, int64_t values) { return values < kWorthwhile ? 1 : std::max(threads, 1); }

class Team {
public:
    // Calls body(team, member) in up to `threads` threads, the caller's included, and returns when all have. Throws
    // Interrupted when the caller is told to stop: then no loop of the team has begun another iteration.
    template <class Body>
    static void run(int threads, Body body) {
        struct Job {
            Body& body;
            Team team;
        } job{body, {}};
        run_in_threads(
            threads,
            [](void* context, int member, int size) {
                Job& job = *static_cast<Job*>(context);
                job.team.size_.store(size, std::memory_order_relaxed);  // the same from all
                job.body(job.team, member);
            },
            &job);
        if (job.team.stopped_) throw Interrupted();
    }

    // Every member calls this with the same count; each iteration runs once, and all are done when it returns.
    template <class Iteration>
    void for_each(int64_t count, Iteration iteration) {
        for (int64_t i; !stopped() && (i = next_.fetch_add(1, std::memory_order_relaxed)) < count;) iteration(i);
        wait();
    }

private:
    bool stopped() {
        if (std::this_thread::get_id() == caller_ && ++asked_ % kIterationsBetween == 0 && interrupted_now())
            stopped_.store(true, std::memory_order_relaxed);
        return stopped_.load(std::memory_order_relaxed);
    }

    void wait() {
        const int next = round_.value() + 1;
        if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 < size_.load(std::memory_order_relaxed)) {
            round_.wait_for(next);
            return;
        }
        waiting_.store(0, std::memory_order_relaxed);
        next_.store(0, std::memory_order_relaxed);
        round_.change(next);
    }

    static constexpr int kIterationsBetween = 4;  // a look at the clock is dear beside the smallest iterations

    const std::thread::id caller_ = std::this_thread::get_id();
    int asked_ = 0;  // by the caller alone
    std::atomic<bool> stopped_{false};
    std::atomic<int> size_{1};
    std::atomic<int64_t> next_{0};
    std::atomic<int> waiting_{0};
    Flag round_;
};

}  // namespace semicl
