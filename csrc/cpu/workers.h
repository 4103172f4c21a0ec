// Threads that wait for work between calls.
//
// A new thread often starts on its parent's processor and runs only when the scheduler next balances, some milliseconds
// later: more than a small problem takes. So threads are kept, idle and asleep, and lent to one call at a time. Several
// callers at once each get their own. A forked child has none of its parent's threads and starts with none.
#pragma once
#include <vector>

namespace semicl {

struct Work {
    void (*call)(void* context, int member);
    void* context;
};

class Worker;

// Idle threads on loan, returned on destruction.
class Loan {
public:
    // Takes `wanted` idle threads and starts those that are missing; fewer where the system has no more.
    explicit Loan(int wanted);
    ~Loan();
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;

    int size() const { return static_cast<int>(workers_.size()); }
    void start(Work work);  // work.call(work.context, member) in all of them, member = 1 ... size
    void finish();          // returns when all have come to the end of it

private:
    std::vector<Worker*> workers_;
};

}  // namespace semicl
