// Threads of a block as fibers on one thread of the host, and what they wait for each other by.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace emulator {

// How adverse the order of things is. `late`: threads take turns from the first to the last, and what is asynchronous
// happens as late as it may, so that a missing wait finds nothing there. `early`: from the last to the first and at
// once, so that a buffer that is filled too early loses what was in it.
enum class Order { late, early };
inline Order order = Order::late;

struct Fiber {
    int thread = 0;
    bool started = false, done = false;
    const std::function<bool()>* ready = nullptr;  // null: nothing is waited for
    ucontext_t context;
    jmp_buf resume;
    std::unique_ptr<char[]> stack;
};

class Scheduler {
public:
    static constexpr size_t kStackBytes = 1 << 18;

    // Runs `body` on every thread until all are done. `deferred` does one piece of asynchronous work and returns false
    // where there is none.
    void run(int threads, const std::function<void()>& body, const std::function<bool()>& deferred) {
        body_ = &body;
        if (static_cast<int>(fibers_.size()) < threads) fibers_.resize(static_cast<size_t>(threads));
        for (int i = 0; i < threads; ++i) reset(fibers_[static_cast<size_t>(i)], i);
        for (int left = threads; left > 0;) {
            bool moved = false;
            for (int turn = 0; turn < threads; ++turn) {
                Fiber& fiber = fibers_[static_cast<size_t>(order == Order::late ? turn : threads - 1 - turn)];
                if (fiber.done || (fiber.ready && !(*fiber.ready)())) continue;
                moved = true;
                enter(fiber);
                if (!error_.empty()) throw std::runtime_error(std::exchange(error_, ""));
                left -= fiber.done;
            }
            if (!moved && !deferred()) throw std::runtime_error("deadlock: every thread waits");
        }
    }

    int thread() const { return current_->thread; }

    void wait(const std::function<bool()>& ready) {
        if (ready()) return;
        current_->ready = &ready;
        leave();
        current_->ready = nullptr;
    }

    [[noreturn]] void fail(const std::string& what) {
        error_ = "thread " + std::to_string(current_->thread) + ": " + what;
        leave();
        __builtin_unreachable();
    }

private:
    void reset(Fiber& fiber, int thread) {
        fiber.thread = thread;
        fiber.started = fiber.done = false;
        fiber.ready = nullptr;
        if (!fiber.stack) fiber.stack.reset(new char[kStackBytes]);
    }

    void enter(Fiber& fiber) {
        current_ = &fiber;
        if (_setjmp(main_)) return;
        if (fiber.started) _longjmp(fiber.resume, 1);
        fiber.started = true;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStackBytes;
        fiber.context.uc_link = nullptr;
        self_ = this;
        makecontext(&fiber.context, &Scheduler::entry, 0);
        setcontext(&fiber.context);
    }

    void leave() {
        if (!_setjmp(current_->resume)) _longjmp(main_, 1);
    }

    static void entry() {
        (*self_->body_)();
        self_->current_->done = true;
        self_->leave();
    }

    inline static Scheduler* self_ = nullptr;
    const std::function<void()>* body_ = nullptr;
    std::vector<Fiber> fibers_;
    Fiber* current_ = nullptr;
    jmp_buf main_;
    std::string error_;
};

// Where some number of threads meet: the last to come works on what all have brought.
class Meeting {
public:
    template <class Work>
    void join(Scheduler& scheduler, const void* kind, int place, int size, void* brought, const Work& work) {
        if (arrived_ == 0) kind_ = kind, brought_.assign(static_cast<size_t>(size), nullptr);
        if (kind_ != kind || static_cast<int>(brought_.size()) != size)
            scheduler.fail("threads meet at different instructions");
        if (brought_[static_cast<size_t>(place)] != nullptr) scheduler.fail("a thread meets itself");
        brought_[static_cast<size_t>(place)] = brought;
        const unsigned long generation = generation_;
        if (++arrived_ == size) {
            work(brought_);
            arrived_ = 0;
            ++generation_;
        } else {
            scheduler.wait([this, generation] { return generation_ != generation; });
        }
    }
    bool empty() const { return arrived_ == 0; }

private:
    const void* kind_ = nullptr;
    int arrived_ = 0;
    unsigned long generation_ = 0;
    std::vector<void*> brought_;
};

}  // namespace emulator
