// Who stored what in shared memory, and whether wgmma and TMA, which read and write it through a proxy of their own,
// see it. A store is seen once its thread has executed fence_async after it.
#pragma once
#include <cstddef>

namespace emulator {

extern int running;  // the thread that runs, -1 outside of all

namespace proxies {

// A block has `bytes` of shared memory from here on. Until end() every store of its kernel is noted.
void begin(const unsigned char* shared, int bytes);
void end();
void store(const void* to, size_t bytes, int thread);
void fence(int thread);
// What the asynchronous proxy wrote itself it sees.
void forget(const void* at, size_t bytes);
// Returns the thread that stored some of these bytes and has not fenced them, or -1.
int unfenced_writer(const void* at, size_t bytes);

}  // namespace proxies
}  // namespace emulator
