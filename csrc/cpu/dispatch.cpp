#include "dispatch.h"

namespace semicl {

std::vector<const InstructionSet*> instruction_sets() {
    std::vector<const InstructionSet*> sets;
#if defined(__x86_64__)
    __builtin_cpu_init();
    [[maybe_unused]] const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#if defined(SEMICL_HAVE_AVX512)
    if (wide) sets.push_back(&avx512);
#endif
#if defined(SEMICL_HAVE_AVX512BF16)
    // Pairs of bfloat16 are multiplied at twice the rate of floats on AMD's processors, at half of it on Intel's.
    const bool pairs_pay = !__builtin_cpu_is("intel");
    if (wide && __builtin_cpu_supports("avx512bf16")) sets.insert(pairs_pay ? sets.begin() : sets.end(), &avx512bf16);
#endif
#if defined(SEMICL_HAVE_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets.push_back(&avx2);
#endif
#endif
    sets.push_back(&baseline);
    return sets;
}

}  // namespace semicl
