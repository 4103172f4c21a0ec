// Threads of a block as fibers on one thread of the host, and what they wait for each other by.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "proxies.h"

namespace emulator {

// The order of threads and of asynchronous work. `late`: threads take turns from the first to the last, and
// asynchronous work is done as late as it may be, so that a missing wait finds nothing there. `early`: from the last to
// the first and at once, so that a buffer that is filled too early loses what was in it. `random`: by priorities, drawn
// anew every so often. For a while all warps take turns; then one warp, or one warp group, goes on as far as it can
// while those below it stand still, and asynchronous work is done soon or long after it was begun. A block's draws
// depend on the seed and on its number alone.
enum class Order { late, early, random };
inline Order order = Order::late;
inline unsigned seed = 0;
inline std::mt19937 draws;

// Whether something of this probability happens; only in random order.
inline bool happens(int one_in) { return order == Order::random && draws() % static_cast<unsigned>(one_in) == 0; }
// Whether asynchronous work that may begin is done now.
inline bool at_once() { return order == Order::early || happens(2); }

constexpr int kWarp = 32, kGroup = 128;

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

    // Runs `body` on every thread of block `block` until all are done. `deferred` does one piece of asynchronous work
    // and returns false where there is none.
    void run(int block, int threads, const std::function<void()>& body, const std::function<bool()>& deferred) {
        body_ = &body;
        draws.seed(seed + 1000003u * static_cast<unsigned>(block));
        if (static_cast<int>(fibers_.size()) < threads) fibers_.resize(static_cast<size_t>(threads));
        for (int i = 0; i < threads; ++i) reset(fibers_[static_cast<size_t>(i)], i);
        begin_turns(threads);
        for (int left = threads; left > 0;) {
            if (happens(32)) draw_turns();
            if (happens(delay_)) deferred();
            bool moved = false;
            for (size_t turn = 0; turn < turns_.size() && !(moved && turn % together_ == 0); ++turn) {
                Fiber& fiber = fibers_[static_cast<size_t>(turns_[turn])];
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

    // Lets other threads go first, now and then.
    void pause() {
        if (happens(4)) leave();
    }

    [[noreturn]] void fail(const std::string& what) {
        if (running < 0) throw std::runtime_error(what);
        error_ = "thread " + std::to_string(current_->thread) + ": " + what;
        leave();
        __builtin_unreachable();
    }

private:
    void begin_turns(int threads) {
        turns_.resize(static_cast<size_t>(threads));
        std::iota(turns_.begin(), turns_.end(), 0);
        if (order == Order::early) std::reverse(turns_.begin(), turns_.end());
        together_ = turns_.size();
        if (order == Order::random) draw_turns();
    }

    // Draws in which order threads take turns, how many of them before the first has one again, and how soon
    // asynchronous work is done.
    void draw_turns() {
        const size_t threads = turns_.size();
        const size_t unit = draws() % 2 == 0 || threads % kGroup != 0 ? kWarp : kGroup;
        together_ = draws() % 3 == 0 ? threads : unit;
        delay_ = 1 << draws() % 8;
        std::vector<size_t> units(threads / unit);
        std::iota(units.begin(), units.end(), 0);
        std::shuffle(units.begin(), units.end(), draws);
        const size_t lanes = draws() % 2 == 0 ? 0 : kWarp - 1;
        size_t turn = 0;
        for (size_t one : units)
            for (size_t i = 0; i < unit; ++i) turns_[turn++] = static_cast<int>(one * unit + (i ^ lanes));
    }

    void reset(Fiber& fiber, int thread) {
        fiber.thread = thread;
        fiber.started = fiber.done = false;
        fiber.ready = nullptr;
        if (!fiber.stack) fiber.stack.reset(new char[kStackBytes]);
    }

    void enter(Fiber& fiber) {
        current_ = &fiber;
        running = fiber.thread;
        if (_setjmp(main_)) {
            running = -1;
            return;
        }
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
    std::vector<int> turns_;
    size_t together_ = 0;  // threads that have a turn before the first has one again
    int delay_ = 1;
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
