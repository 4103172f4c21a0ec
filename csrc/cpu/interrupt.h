// The way to stop a long call: the thread that made it asks now and then whether it is to go on.
#pragma once
#include <chrono>
#include <exception>

namespace semicl {

// Thrown by a call that was told to stop: what it was to write is not all there.
struct Interrupted : std::exception {
    const char* what() const noexcept override { return "the call was interrupted"; }
};

// Tells whether the thread that asks is to stop; set once by those who load this code, nullptr where nothing stops it.
inline bool (*interrupted)() = nullptr;

// The same, asked every twentieth of a second at most, by any one thread.
inline bool interrupted_now() {
    using Clock = std::chrono::steady_clock;
    thread_local Clock::time_point next{};
    const Clock::time_point now = Clock::now();
    if (interrupted == nullptr || now < next) return false;
    next = now + std::chrono::milliseconds(50);
    return interrupted();
}

}  // namespace semicl
