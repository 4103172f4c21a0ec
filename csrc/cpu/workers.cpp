#include "workers.h"

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "flag.h"

namespace semicl {

class Worker {
public:
    Worker() { std::thread([this] { serve(); }).detach(); }

    void start(Work work, int member) {
        work_ = work, member_ = member;
        busy_.change(1);
    }
    void finish() { busy_.wait_for(0); }

private:
    [[noreturn]] void serve() {
        for (;;) {
            busy_.wait_for(1);
            work_.call(work_.context, member_);
            busy_.change(0);
        }
    }

    Flag busy_;
    Work work_{};
    int member_ = 0;
};

namespace {

// Never destroyed: its threads wait on it until the process ends.
struct Idle {
    std::mutex mutex;
    std::vector<Worker*> workers;

    Idle() {
        // Held across a fork, so that the child finds the list whole; then it forgets the threads it does not have.
        pthread_atfork([] { idle().mutex.lock(); }, [] { idle().mutex.unlock(); },
                       [] {
                           idle().workers.clear();
                           idle().mutex.unlock();
                       });
    }
    static Idle& idle() {
        static Idle* const only = new Idle;
        return *only;
    }
};

}  // namespace

Loan::Loan(int wanted) {
    workers_.reserve(static_cast<size_t>(std::max(wanted, 0)));
    {
        Idle& idle = Idle::idle();
        const std::lock_guard<std::mutex> lock(idle.mutex);
        while (size() < wanted && !idle.workers.empty()) {
            workers_.push_back(idle.workers.back());
            idle.workers.pop_back();
        }
    }
    try {
        while (size() < wanted) workers_.push_back(new Worker);
    } catch (const std::exception&) {  // no more threads or memory to be had: go on with those there are
    }
}

Loan::~Loan() {
    Idle& idle = Idle::idle();
    const std::lock_guard<std::mutex> lock(idle.mutex);
    idle.workers.insert(idle.workers.end(), workers_.begin(), workers_.end());
}

void Loan::start(Work work) {
    for (int k = 0; k < size(); ++k) workers_[static_cast<size_t>(k)]->start(work, k + 1);
}

void Loan::finish() {
    for (Worker* worker : workers_) worker->finish();
}

}  // namespace semicl
