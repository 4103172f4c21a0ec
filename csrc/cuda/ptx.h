// The functions of arch.h on a GPU: PTX instructions by name, and launches.
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "status.h"

#define SEMICL_DEVICE __device__ __forceinline__
#define SEMICL_KERNEL(THREADS, BLOCKS) __global__ void __launch_bounds__(THREADS, BLOCKS)
#define SEMICL_CONSTANT __grid_constant__ const
// Declares `name`, the block's dynamic shared memory.
#define SEMICL_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

namespace semicl::cuda {

using Stream = cudaStream_t;
using TensorMap = CUtensorMap;

namespace arch {

// ---- threads --------------------------------------------------------------------------------------------------------

SEMICL_DEVICE int thread() { return threadIdx.x; }
SEMICL_DEVICE int block() { return blockIdx.x; }
SEMICL_DEVICE int blocks() { return gridDim.x; }
SEMICL_DEVICE int lane() { return threadIdx.x % 32; }
// The same for all lanes, and the compiler knows it.
SEMICL_DEVICE int warp() { return __shfl_sync(0xffffffffu, threadIdx.x / 32, 0); }

SEMICL_DEVICE void sync_block() { __syncthreads(); }
SEMICL_DEVICE void sync_warp() { __syncwarp(); }
// Waits for `threads` threads that name the barrier `id`, 1 to 15.
SEMICL_DEVICE void sync_threads(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

SEMICL_DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
SEMICL_DEVICE int warp_min(int value) { return __reduce_min_sync(0xffffffffu, value); }
SEMICL_DEVICE int warp_max(int value) { return __reduce_max_sync(0xffffffffu, value); }

// ---- numbers --------------------------------------------------------------------------------------------------------

SEMICL_DEVICE float exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// The number itself, which the compiler cannot tell: what is computed of it is computed where it is needed, not kept.
SEMICL_DEVICE uint32_t opaque(uint32_t x) {
    asm volatile("" : "+r"(x));
    return x;
}

// ---- shared memory --------------------------------------------------------------------------------------------------

// The address of shared memory that the functions below take.
SEMICL_DEVICE uint32_t address(const void* shared) { return static_cast<uint32_t>(__cvta_generic_to_shared(shared)); }

// ---- elements -------------------------------------------------------------------------------------------------------

struct BFloat16 {
    static constexpr CUtensorMapDataType kTensorMapType = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;

    // Two numbers rounded into one word, `low` in the lower half.
    static SEMICL_DEVICE uint32_t pack(float low, float high) {
        uint32_t word;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
        return word;
    }
};

struct Float16 {
    static constexpr CUtensorMapDataType kTensorMapType = CU_TENSOR_MAP_DATA_TYPE_FLOAT16;

    static SEMICL_DEVICE uint32_t pack(float low, float high) {
        uint32_t word;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
        return word;
    }
};

// ---- transaction barriers and TMA -----------------------------------------------------------------------------------

// A barrier in shared memory, eight bytes: a phase ends when `arrivals` have come and all expected bytes are there.
SEMICL_DEVICE void init_barrier(uint32_t barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes initialized barriers known to the asynchronous copies.
SEMICL_DEVICE void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
SEMICL_DEVICE void arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
SEMICL_DEVICE void arrive_expecting(uint32_t barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Waits for the end of the phase of this parity: the first phase has parity 0.
SEMICL_DEVICE void wait_barrier(uint32_t barrier, int parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}\n" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

// Copies a box of the mapped tensor, from these coordinates on, and counts its bytes at the barrier.
SEMICL_DEVICE void copy_box(uint32_t to, const TensorMap& map, int channel, int row, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
            to),
        "l"(&map), "r"(channel), "r"(row), "r"(barrier)
        : "memory");
}
SEMICL_DEVICE void copy_line(uint32_t to, const TensorMap& map, int first, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2}], [%3];" ::"r"(to),
        "l"(&map), "r"(first), "r"(barrier)
        : "memory");
}
// Orders this thread's writes to shared memory before later reads of it by WGMMA and writes by TMA.
SEMICL_DEVICE void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Moves registers between warp groups: each gives up, or takes, what leaves it COUNT a thread.
template <int COUNT>
SEMICL_DEVICE void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT>
SEMICL_DEVICE void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

}  // namespace arch

// ---- the host's side ------------------------------------------------------------------------------------------------

// What a block gets without asking.
constexpr int kUsualSharedBytes = 48 << 10;

// Launches a kernel that takes one argument, on the stream and nowhere else, without waiting.
template <class Argument>
void launch(void (*kernel)(Argument), int blocks, int threads, int shared_bytes, Stream stream,
            const Argument& argument) {
    if (shared_bytes > kUsualSharedBytes)
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
              "cudaFuncSetAttribute");
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
    config.stream = stream;
    check(cudaLaunchKernelEx(&config, kernel, argument), "cudaLaunchKernelEx");
}

inline int attribute(cudaDeviceAttr name, int device) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, name, device), "cudaDeviceGetAttribute");
    return value;
}
inline int multiprocessors(int device) { return attribute(cudaDevAttrMultiProcessorCount, device); }

}  // namespace semicl::cuda
