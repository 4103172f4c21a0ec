// Threads that run one piece of work together: those of the OpenMP runtime that torch has loaded.
//
// It is looked up, not linked. Threads of our own, or of a second runtime, would share the processors with torch's,
// which spin for milliseconds after each of its operations. One thread runs alone where there is no such runtime, and
// in a forked child: OpenMP would wait forever for threads that a child does not have.
#pragma once

namespace semicl {

// Calls work(context, member, size) in `size` threads at once, the caller's included, member = 0 ... size - 1, and
// returns when all have. The size is `threads` at most.
void run_in_threads(int threads, void (*work)(void* context, int member, int size), void* context);

}  // namespace semicl
