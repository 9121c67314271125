// What of the lookup is compiled once: packing keys and picking the kernels for this processor.
#include "lookup.h"

#include <cmath>

#include "isa.h"

namespace dictsplat {

namespace baseline {
extern const LookupKernels lookup_table;
}
#if defined(DS_HAS_AVX512)
namespace avx512 {
extern const LookupKernels lookup_table;
}
#endif

static const LookupKernels& choose() {
#if defined(DS_HAS_AVX512)
    if (use_avx512()) return avx512::lookup_table;
#endif
    return baseline::lookup_table;
}

const LookupKernels& lookup_kernels() {
    static const LookupKernels& chosen = choose();
    return chosen;
}

PackedKeys::PackedKeys(const float* keys, int64_t count_, int channels_)
    : count(count_), channels(channels_), largest(0.0f) {
    const size_t size = panel_count() * channels * kPanelKeys;
    float* out = new (std::align_val_t(64)) float[size]();
    panels.reset(out);
    for (int64_t i = 0; i < count; ++i) {
        float* panel = out + i / kPanelKeys * channels * kPanelKeys + i % kPanelKeys;
        for (int c = 0; c < channels; ++c) {
            const float value = keys[i * channels + c];
            panel[c * kPanelKeys] = value;
            // Written so that a NaN is kept.
            if (!(std::fabs(value) <= largest)) largest = std::isnan(largest) ? largest : std::fabs(value);
        }
    }
}

}  // namespace dictsplat
