#include "dispatch.h"

namespace semicl {

std::vector<const InstructionSet*> instruction_sets() {
    std::vector<const InstructionSet*> sets;
#if defined(__x86_64__)
    __builtin_cpu_init();
    [[maybe_unused]] const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#if defined(SEMICL_HAVE_AVX512BF16)
    if (wide && __builtin_cpu_supports("avx512bf16")) sets.push_back(&avx512bf16);
#endif
#if defined(SEMICL_HAVE_AVX512)
    if (wide) sets.push_back(&avx512);
#endif
#if defined(SEMICL_HAVE_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets.push_back(&avx2);
#endif
#endif
    sets.push_back(&baseline);
    return sets;
}

}  // namespace semicl
