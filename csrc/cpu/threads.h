// Threads that run one piece of work together: those of the OpenMP runtime that torch has loaded.
//
// It is looked up, not linked: a second runtime would bring threads of its own, and torch's spin for milliseconds after
// one of its operations. (A pool of this library was 3 to 37 % slower between operations of torch, and up to 20 % alone: vectors of
// 64 to 1024 samples, 2 cores.) One thread runs alone where there is no such runtime, and in a forked child: OpenMP would
// wait for ever for threads that a child does not have.
#pragma once

namespace semicl {

// Calls work(context, member, size) in `size` threads at once, the caller's included, member = 0 ... size - 1, and
// returns when all have. The size is `threads` at most.
void run_in_threads(int threads, void (*work)(void* context, int member, int size), void* context);

}  // namespace semicl
