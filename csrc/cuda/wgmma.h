// Products of warp groups (wgmma, sm_90a) by name. Asynchronous: fence_products before, commit_products after, and
// wait_products before the sums, or registers that were multiplied, are touched again.
#pragma once
#include "ptx.h"

#define SEMICL_WGMMA_TEXT_32 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define SEMICL_WGMMA_TEXT_64                                                 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SEMICL_WGMMA_TEXT_128                                                          \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SEMICL_WGMMA_SUMS_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SEMICL_WGMMA_SUMS_16(d, i)                                                           \
    SEMICL_WGMMA_SUMS_4(d, i), SEMICL_WGMMA_SUMS_4(d, i + 4), SEMICL_WGMMA_SUMS_4(d, i + 8), \
        SEMICL_WGMMA_SUMS_4(d, i + 12)
#define SEMICL_WGMMA_SUMS_32(d) SEMICL_WGMMA_SUMS_16(d, 0)
#define SEMICL_WGMMA_SUMS_64(d) SEMICL_WGMMA_SUMS_16(d, 0), SEMICL_WGMMA_SUMS_16(d, 16)
#define SEMICL_WGMMA_SUMS_128(d) SEMICL_WGMMA_SUMS_64(d), SEMICL_WGMMA_SUMS_16(d, 32), SEMICL_WGMMA_SUMS_16(d, 48)

// d (64 x N) = a (64 x 16) b (N x 16)^T, plus d where `add`; both in shared memory, rows along the depth. A, B and ADD
// are the numbers of the operands after d.
#define SEMICL_WGMMA_TILES(ELEMENT, TYPE, N, A, B, ADD)                                                         \
    template <>                                                                                                 \
    SEMICL_DEVICE void multiply_tiles<ELEMENT, N>(float (&d)[N / 2], uint64_t a, uint64_t b, bool add) {        \
        asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #ADD                                              \
                     ", 0;\n"                                                                                   \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" SEMICL_WGMMA_TEXT_##N \
                     "}, %" #A ", %" #B ", add, 1, 1, 0, 0;\n}\n"                                               \
                     : SEMICL_WGMMA_SUMS_##N(d)                                                                 \
                     : "l"(a), "l"(b), "r"(static_cast<int>(add)));                                             \
    }

// d (64 x N) += a (64 x 16) b (16 x N): a in registers, as accumulators are held; b in shared memory, rows along N.
#define SEMICL_WGMMA_FRAGMENTS(ELEMENT, TYPE, N, A0, A1, A2, A3, B)                                            \
    template <>                                                                                                \
    SEMICL_DEVICE void multiply_fragments<ELEMENT, N>(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b) { \
        asm volatile(                                                                                          \
            "{\n.reg .pred add;\nmov.pred add, 1;\n"                                                           \
            "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" SEMICL_WGMMA_TEXT_##N         \
            "}, {%" #A0 ", %" #A1 ", %" #A2 ", %" #A3 "}, %" #B ", add, 1, 1, 1;\n}\n"                         \
            : SEMICL_WGMMA_SUMS_##N(d)                                                                         \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                             \
    }

namespace semicl::cuda::arch {

SEMICL_DEVICE void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
SEMICL_DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most PENDING of this warp group's groups of products are not done.
template <int PENDING>
SEMICL_DEVICE void wait_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

template <class ELEMENT, int N>
SEMICL_DEVICE void multiply_tiles(float (&d)[N / 2], uint64_t a, uint64_t b, bool add);

SEMICL_WGMMA_TILES(BFloat16, "bf16", 64, 32, 33, 34)
SEMICL_WGMMA_TILES(BFloat16, "bf16", 128, 64, 65, 66)
SEMICL_WGMMA_TILES(Float16, "f16", 64, 32, 33, 34)
SEMICL_WGMMA_TILES(Float16, "f16", 128, 64, 65, 66)

template <class ELEMENT, int N>
SEMICL_DEVICE void multiply_fragments(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b);

SEMICL_WGMMA_FRAGMENTS(BFloat16, "bf16", 32, 16, 17, 18, 19, 20)
SEMICL_WGMMA_FRAGMENTS(BFloat16, "bf16", 64, 32, 33, 34, 35, 36)
SEMICL_WGMMA_FRAGMENTS(BFloat16, "bf16", 128, 64, 65, 66, 67, 68)
SEMICL_WGMMA_FRAGMENTS(Float16, "f16", 32, 16, 17, 18, 19, 20)
SEMICL_WGMMA_FRAGMENTS(Float16, "f16", 64, 32, 33, 34, 35, 36)
SEMICL_WGMMA_FRAGMENTS(Float16, "f16", 128, 64, 65, 66, 67, 68)

}  // namespace semicl::cuda::arch
