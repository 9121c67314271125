// Picks the kernels for the processor the program runs on.
#include "isa.h"
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
    if (use_avx512()) return avx512::table;
#endif
    return baseline::table;
}

const Kernels& kernels() {
    static const Kernels& chosen = choose();
    return chosen;
}

}  // namespace dictsplat
