// Threads that run one piece of work together.
//
// They are those of the OpenMP runtime that torch has loaded, where it can be found: its threads spin for milliseconds
// after an operation of torch, and threads of our own would have to share their processors with them. Elsewhere, and in
// a forked child, where OpenMP's threads are gone, they are our own workers.
#pragma once

namespace semicl {

// Calls work(context, member, size) in `size` threads at once, the caller's included, member = 0 ... size - 1, and
// returns when all have. The size is `threads`, less where the system has no more.
void run_in_threads(int threads, void (*work)(void* context, int member, int size), void* context);

}  // namespace semicl
