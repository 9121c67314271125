// Picks the kernels for the processor the program runs on; DICTSPLAT_ISA=baseline forces the plain ones.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace dictsplat {

namespace baseline {
extern const Kernels table;
}
#if defined(DS_HAS_AVX512)
namespace avx512 {
extern const Kernels table;
}
#endif

static const Kernels& choose() {
#if defined(DS_HAS_AVX512)
    const char* forced = std::getenv("DICTSPLAT_ISA");
    const bool allowed = forced == nullptr || std::strcmp(forced, "baseline") != 0;
    if (allowed && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return avx512::table;
#endif
    return baseline::table;
}

const Kernels& kernels() {
    static const Kernels& chosen = choose();
    return chosen;
}

}  // namespace dictsplat
