// Whether to run the AVX-512 builds of kernels; DICTSPLAT_ISA=baseline forces the plain ones.
#pragma once

#include <cstdlib>
#include <cstring>

namespace dictsplat {

inline bool use_avx512() {
#if defined(DS_HAS_AVX512)
    const char* forced = std::getenv("DICTSPLAT_ISA");
    const bool allowed = forced == nullptr || std::strcmp(forced, "baseline") != 0;
    return allowed && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#else
    return false;
#endif
}

}  // namespace dictsplat
