// Sparsemax over Q Kᵀ (DictAS, section 3.2) without ever writing the scores of all queries and keys.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace dictsplat {

constexpr int kPanelKeys = 64;          // keys that are multiplied at a time

struct FreeAligned {
    void operator()(float* data) const { ::operator delete[](data, std::align_val_t(64)); }
};

// Keys in panels of 64, channel by channel, so that the product reads them in a row; the last panel is filled up
// with zeros.
struct PackedKeys {
    PackedKeys(const float* keys, int64_t count, int channels);

    const float* panel(int64_t index) const { return panels.get() + index * channels * kPanelKeys; }
    int64_t panel_count() const { return (count + kPanelKeys - 1) / kPanelKeys; }

    int64_t count;
    int channels;
    float largest;                      // magnitude in any key; NaN where one is
    std::unique_ptr<float[], FreeAligned> panels;
};

// Keys with a weight above 0, row after row, in the order of the keys.
struct Support {
    std::vector<int32_t> indices;
    std::vector<float> weights;         // those of a row sum to 1
};

// The support of all queries [rows, channels], in parts, and how many keys each row has. Depends on `threads` only in
// time.
struct LookupKernels {
    const char* isa;
    std::vector<Support> (*support)(const PackedKeys&, const float* queries, int64_t rows, int threads, int32_t* sizes);
};

const LookupKernels& lookup_kernels();  // the best table this processor can run

}  // namespace dictsplat
