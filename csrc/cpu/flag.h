// A number that threads change and wait for: they spin a little, then sleep.
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
    static constexpr int kSpins = 20000;  // some ten microseconds; then a busy machine gets the processor back

    std::atomic<int> value_{0};
    std::mutex mutex_;
    std::condition_variable changed_;
};

}  // namespace semicl
