// A number that threads change and wait for: they spin for as long as waking up would take, then sleep.
#pragma once
#include <atomic>
#include <condition_variable>
#include <mutex>

namespace semicl {

class Flag {
public:
    int value() const { return value_.load(std::memory_order_acquire); }

    void change(int value) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            value_.store(value, std::memory_order_release);
        }
        changed_.notify_all();
    }

    void wait_for(int value) {
        for (int spins = 0; spins < kSpins; ++spins)
            if (this->value() == value) return;
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [&] { return this->value() == value; });
    }

private:
    // About a hundred microseconds: what it may cost to wake a thread that sleeps.
    static constexpr int kSpins = 150000;

    std::atomic<int> value_{0};
    std::mutex mutex_;
    std::condition_variable changed_;
};

}  // namespace semicl
