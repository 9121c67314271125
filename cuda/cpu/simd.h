// Sixteen floats at a time: one row of a tile. GCC vector extensions, so that the same source
// becomes AVX2 or AVX-512 code depending on the flags of the translation unit.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>

#include "dictsplat/math.h"

namespace dictsplat {

typedef float Row __attribute__((vector_size(kTile * sizeof(float))));
typedef int32_t RowMask __attribute__((vector_size(kTile * sizeof(int32_t))));

}  // namespace dictsplat

namespace dictsplat::DS_ISA {

DS_HD Row splat(float value) { return value - Row{}; }

DS_HD Row lanes() { return Row{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }

// exp(-s) for s >= 0 with a relative error below 2e-7 (degree-6 minimax on the fraction); s beyond 87
// gives about 1e-38, which every caller discards.
DS_HD Row exp_negative(Row s) {
    constexpr float kRound = 12582912.0f;    // 1.5 * 2^23: adding it rounds to an integer
    Row x = s * -1.44269504088896341f;
    x = x < -126.0f ? splat(-126.0f) : x;
    const Row shifted = x + kRound;
    const Row f = x - (shifted - kRound);
    Row p = f * 1.540353e-4f + 1.33335581e-3f;
    p = p * f + 9.61812911e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    p = p * f + 1.0f;
    const RowMask exponent = ((RowMask)shifted - 0x4B400000) << 23;
    return (Row)((RowMask)p + exponent);
}

DS_HD float sum(Row v) {
    float halves[8];
    for (int i = 0; i < 8; ++i) halves[i] = v[i] + v[i + 8];
    return ((halves[0] + halves[4]) + (halves[2] + halves[6])) + ((halves[1] + halves[5]) + (halves[3] + halves[7]));
}

DS_HD bool any_positive(Row v) {
    const RowMask m = v > 0.0f;
    typedef int64_t Wide __attribute__((vector_size(kTile * sizeof(int32_t))));
    const Wide w = (Wide)m;
    return (w[0] | w[1] | w[2] | w[3] | w[4] | w[5] | w[6] | w[7]) != 0;
}

// Stores sixteen floats past the caches when dst is aligned: output maps are larger than any cache and are
// written once, so reading their lines first would double the traffic.
DS_HD void store_streaming(float* dst, Row v) {
#if defined(__AVX512F__)
    if ((reinterpret_cast<uintptr_t>(dst) & 63) == 0) return _mm512_stream_ps(dst, (__m512)v);
#elif defined(__AVX__)
    if ((reinterpret_cast<uintptr_t>(dst) & 31) == 0) {
        __m256 halves[2];
        __builtin_memcpy(halves, &v, sizeof(v));
        _mm256_stream_ps(dst, halves[0]);
        _mm256_stream_ps(dst + 8, halves[1]);
        return;
    }
#endif
    __builtin_memcpy(dst, &v, sizeof(v));
}

// dst[i * stride + j] = src[j][i]: sixteen channel rows to sixteen pixels with sixteen channels each.
DS_HD void transpose_store(const Row* const src[kTile], float* dst, int64_t stride, int pixels) {
    Row a[kTile], b[kTile];
    for (int i = 0; i < kTile; ++i) a[i] = *src[i];
    // Four rounds of interleaving row i with row i + 8 transpose a 16x16 block.
    const RowMask low = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
    const RowMask high = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    for (int round = 0; round < 4; ++round) {
        for (int i = 0; i < 8; ++i) {
            b[2 * i] = __builtin_shuffle(a[i], a[i + 8], low);
            b[2 * i + 1] = __builtin_shuffle(a[i], a[i + 8], high);
        }
        for (int i = 0; i < kTile; ++i) a[i] = b[i];
    }
    for (int i = 0; i < pixels; ++i) store_streaming(dst + i * stride, a[i]);
}

}  // namespace dictsplat::DS_ISA
