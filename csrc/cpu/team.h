// A team of threads that run the same code and share out the iterations of its loops.
//
// The threads live for one call: nothing survives it, so several Python threads may call at once and a forked child
// finds no dead pool. Which thread takes an iteration is left to chance; what an iteration computes must not depend on it.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace semicl {

class Team {
public:
    // Calls body(team, member) in up to `threads` threads, the caller's included, and returns when all have.
    template <class Body>
    static void run(int threads, Body body) {
        Team team;
        std::vector<std::thread> others;
        others.reserve(static_cast<size_t>(threads));
        try {
            for (int member = 1; member < threads; ++member)
                others.emplace_back([&team, &body, member] {
                    while (team.size_.load(std::memory_order_acquire) == 0) std::this_thread::yield();
                    body(team, member);
                });
        } catch (const std::system_error&) {  // no more threads to be had: go on with those there are
        }
        team.size_.store(static_cast<int>(others.size()) + 1, std::memory_order_release);
        body(team, 0);
        for (auto& thread : others) thread.join();
    }

    // Every member calls this with the same count; each iteration runs once, and all are done when it returns.
    template <class Iteration>
    void for_each(int64_t count, Iteration iteration) {
        for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count;) iteration(i);
        wait();
    }

private:
    Team() = default;

    void wait() {
        const int round = round_.load(std::memory_order_relaxed);
        if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_.load(std::memory_order_relaxed)) {
            waiting_.store(0, std::memory_order_relaxed);
            next_.store(0, std::memory_order_relaxed);
            {
                const std::lock_guard<std::mutex> lock(mutex_);
                round_.store(round + 1, std::memory_order_release);
            }
            all_there_.notify_all();
            return;
        }
        const auto passed = [&] { return round_.load(std::memory_order_acquire) != round; };
        for (int spins = 0; spins < kSpins; ++spins)
            if (passed()) return;
        std::unique_lock<std::mutex> lock(mutex_);
        all_there_.wait(lock, passed);
    }

    static constexpr int kSpins = 20000;  // some ten microseconds; then a busy machine gets the processor back

    std::atomic<int> size_{0};
    std::atomic<int64_t> next_{0};
    std::atomic<int> waiting_{0};
    std::atomic<int> round_{0};
    std::mutex mutex_;
    std::condition_variable all_there_;
};

}  // namespace semicl
