// Sixteen floats at a time: a block of 4 x 4 pixels, or sixteen channels of a pixel. GCC vector extensions, so
// that the same source becomes AVX2 or AVX-512 code depending on the flags of the translation unit.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>

#include "dictsplat/math.h"

namespace dictsplat {

constexpr int kWide = 16;

}  // namespace dictsplat

namespace dictsplat::DS_ISA {

#if defined(__AVX512F__)

typedef float Wide __attribute__((vector_size(kWide * sizeof(float))));
typedef int32_t WideInt __attribute__((vector_size(kWide * sizeof(int32_t))));     // comparisons give 0 or -1

DS_HD Wide splat(float value) { return value - Wide{}; }
DS_HD Wide to_float(WideInt v) { return __builtin_convertvector(v, Wide); }
// v * 2^n for the integer n in the lowest bits of `exponent`; unsigned, because the sum may wrap around.
typedef uint32_t WideBits __attribute__((vector_size(kWide * sizeof(uint32_t))));
DS_HD Wide times_power(Wide v, Wide exponent) { return (Wide)((WideBits)v + ((WideBits)exponent << 23)); }
DS_HD Wide select(WideInt mask, Wide a, Wide b) { return mask ? a : b; }

#else

// GCC keeps vectors that are wider than its registers in memory, so here they are two of half the width.
typedef float Half __attribute__((vector_size(32)));
typedef int32_t HalfInt __attribute__((vector_size(32)));

template <class T, class Lane>
struct alignas(64) Pair {
    T low, high;

    Pair() = default;
    Pair(T l, T h) : low(l), high(h) {}
    DS_HD Lane& operator[](int i) { return reinterpret_cast<Lane*>(this)[i]; }
    DS_HD Lane operator[](int i) const { return reinterpret_cast<const Lane*>(this)[i]; }
};
struct Wide : Pair<Half, float> {
    using Pair::Pair;
};
struct WideInt : Pair<HalfInt, int32_t> {      // comparisons give 0 or -1
    using Pair::Pair;
};

DS_HD Wide splat(float value) { return {value - Half{}, value - Half{}}; }
DS_HD WideInt splat(int value) { return {value - HalfInt{}, value - HalfInt{}}; }

#define DS_OPERATOR(Type, Scalar, op)                                                       \
    DS_HD Type operator op(Type a, Type b) { return {a.low op b.low, a.high op b.high}; }   \
    DS_HD Type operator op(Type a, Scalar b) { return a op splat(b); }                      \
    DS_HD Type operator op(Scalar a, Type b) { return splat(a) op b; }
#define DS_COMPARISON(Type, Scalar, op)                                                                                 \
    DS_HD WideInt operator op(Type a, Type b) { return {(HalfInt)(a.low op b.low), (HalfInt)(a.high op b.high)}; }      \
    DS_HD WideInt operator op(Type a, Scalar b) { return a op splat(b); }
DS_OPERATOR(Wide, float, +)
DS_OPERATOR(Wide, float, -)
DS_OPERATOR(Wide, float, *)
DS_OPERATOR(Wide, float, /)
DS_OPERATOR(WideInt, int, +)
DS_OPERATOR(WideInt, int, -)
DS_OPERATOR(WideInt, int, *)
DS_OPERATOR(WideInt, int, %)
DS_OPERATOR(WideInt, int, /)
DS_OPERATOR(WideInt, int, &)
DS_OPERATOR(WideInt, int, <<)
DS_OPERATOR(WideInt, int, >>)
DS_COMPARISON(Wide, float, <)
DS_COMPARISON(Wide, float, >)
DS_COMPARISON(Wide, float, <=)
DS_COMPARISON(Wide, float, >=)
DS_COMPARISON(WideInt, int, <=)
#undef DS_OPERATOR
#undef DS_COMPARISON
DS_HD Wide operator-(Wide v) { return {-v.low, -v.high}; }
DS_HD WideInt operator-(WideInt v) { return {-v.low, -v.high}; }
DS_HD Wide& operator+=(Wide& a, Wide b) { return a = a + b; }
DS_HD Wide& operator-=(Wide& a, Wide b) { return a = a - b; }
DS_HD Wide& operator-=(Wide& a, float b) { return a = a - b; }
DS_HD WideInt& operator+=(WideInt& a, WideInt b) { return a = a + b; }

DS_HD Wide to_float(WideInt v) { return {__builtin_convertvector(v.low, Half), __builtin_convertvector(v.high, Half)}; }
// v * 2^n for the integer n in the lowest bits of `exponent`; unsigned, because the sum may wrap around.
typedef uint32_t HalfBits __attribute__((vector_size(32)));
DS_HD Half times_power(Half v, Half exponent) { return (Half)((HalfBits)v + ((HalfBits)exponent << 23)); }
DS_HD Wide times_power(Wide v, Wide exponent) {
    return {times_power(v.low, exponent.low), times_power(v.high, exponent.high)};
}
DS_HD Wide select(WideInt mask, Wide a, Wide b) { return {mask.low ? a.low : b.low, mask.high ? a.high : b.high}; }

#endif

DS_HD WideInt lanes() {
#if defined(__AVX512F__)
    return WideInt{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
    return {HalfInt{0, 1, 2, 3, 4, 5, 6, 7}, HalfInt{8, 9, 10, 11, 12, 13, 14, 15}};
#endif
}

// 2^x for |x| < 126 with a relative error below 2e-7; anything else gives any value. Degree-5 minimax on the
// distance to the nearest integer.
DS_HD Wide exp2_small(Wide x) {
    constexpr float kRound = 12582912.0f;    // 1.5 * 2^23: adding it rounds to an integer
    const Wide shifted = x + kRound;
    const Wide f = x - (shifted - kRound);
    Wide p = f * 1.32647272e-3f + 9.67151264e-3f;
    p = p * f + 5.55073374e-2f;
    p = p * f + 2.40222421e-1f;
    p = p * f + 6.93146978e-1f;
    p = p * f + 1.0f;
    return times_power(p, shifted);    // kRound's own bits are shifted out
}

// exp(-s) for s >= 0; s beyond 87 gives about 1e-38, which every caller discards.
DS_HD Wide exp_negative(Wide s) {
    const Wide x = s * -1.44269504088896341f;
    return exp2_small(select(x < -126.0f, splat(-126.0f), x));
}

// 1 / x for ordinary x, with a relative error below 2e-7: a division takes as long as all else in a block.
DS_HD Wide reciprocal(Wide x) {
#if defined(__AVX512F__)
    const Wide y = (Wide)_mm512_maskz_rcp14_ps(0xFFFF, (__m512)x);
#elif defined(__AVX__)
    const Wide y = {(Half)_mm256_rcp_ps((__m256)x.low), (Half)_mm256_rcp_ps((__m256)x.high)};
#else
    const Wide y = 1.0f / x;
#endif
    return y + y * (1.0f - x * y);
}

DS_HD Wide square_root(Wide x) {
#if defined(__AVX512F__)
    return (Wide)_mm512_maskz_sqrt_ps(0xFFFF, (__m512)x);
#elif defined(__AVX__)
    return {(Half)_mm256_sqrt_ps((__m256)x.low), (Half)_mm256_sqrt_ps((__m256)x.high)};
#else
    for (int i = 0; i < kWide; ++i) x[i] = __builtin_sqrtf(x[i]);
    return x;
#endif
}

#if defined(__AVX512F__)
// The lower or higher of two, `b` where either is NaN.
DS_HD Wide lower(Wide a, Wide b) { return (Wide)_mm512_maskz_min_ps(0xFFFF, (__m512)a, (__m512)b); }
DS_HD Wide higher(Wide a, Wide b) { return (Wide)_mm512_maskz_max_ps(0xFFFF, (__m512)a, (__m512)b); }
DS_HD WideInt floor_to_int(Wide v) {
    return (WideInt)_mm512_maskz_cvt_roundps_epi32(0xFFFF, (__m512)v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
DS_HD bool any_above(Wide v, float limit) {
    return _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(limit), _CMP_GT_OQ) != 0;
}
#else
DS_HD Wide lower(Wide a, Wide b) { return select(a < b, a, b); }
DS_HD Wide higher(Wide a, Wide b) { return select(a > b, a, b); }
DS_HD WideInt floor_to_int(Wide v) {
    const WideInt whole = {__builtin_convertvector(v.low, HalfInt), __builtin_convertvector(v.high, HalfInt)};
    return whole + (to_float(whole) > v);
}
DS_HD bool any_above(Wide v, float limit) {
    const WideInt m = v > limit;
#if defined(__AVX__)
    return _mm256_movemask_ps((__m256)(m.low | m.high)) != 0;
#else
    int any = 0;
    for (int i = 0; i < kWide; ++i) any |= m[i];
    return any != 0;
#endif
}
#endif

// GCC takes shuffles apart into single lanes where no instruction has their width.
#if defined(__AVX512F__)
#define DS_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, WideInt{__VA_ARGS__})
#endif

// The first `count` of sixteen, 0 in the other lanes.
DS_HD WideInt load_bytes(const uint8_t* from, int count) {
#if defined(__AVX512F__)
    const __m128i bytes = _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << count) - 1), from);
    return (WideInt)_mm512_maskz_cvtepu8_epi32(0xFFFF, bytes);
#else
    WideInt v = {};
    for (int i = 0; i < count; ++i) v[i] = from[i];
    return v;
#endif
}

DS_HD Wide load_floats(const float* from, int count) {
#if defined(__AVX512F__)
    return (Wide)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
#else
    Wide v = {};
    for (int i = 0; i < count; ++i) v[i] = from[i];
    return v;
#endif
}

DS_HD void store_shorts(uint16_t* to, WideInt v) {
#if defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_maskz_cvtepi32_epi16(0xFFFF, (__m512i)v));
#else
    for (int i = 0; i < kWide; ++i) to[i] = static_cast<uint16_t>(v[i]);
#endif
}

// Even lanes: a summed over lanes eight apart; odd lanes: b.
DS_HD Wide fold(Wide a, Wide b) {
#if defined(__AVX512F__)
    return DS_SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23) +
           DS_SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#else
    const Half x = a.low + a.high, y = b.low + b.high;
    return {__builtin_shuffle(x, y, HalfInt{0, 8, 1, 9, 2, 10, 3, 11}), __builtin_shuffle(x, y, HalfInt{4, 12, 5, 13, 6, 14, 7, 15})};
#endif
}

// Lane i: the sum over all lanes of v[i]; 0 beyond.
template <int kCount>
DS_HD Wide lane_sums(const Wide (&v)[kCount]) {
    static_assert(kCount <= kWide);
    Wide t[8];
    for (int i = 0; i < 8; ++i) t[i] = fold(i < kCount ? v[i] : Wide{}, i + 8 < kCount ? v[i + 8] : Wide{});
    for (int half = 4; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) t[i] = fold(t[i], t[i + half]);
    return t[0];
}

DS_HD float sum(Wide v) { return lane_sums({v})[0]; }

// Stores sixteen floats past the caches, at a multiple of 64 bytes: maps are larger than any cache and are written
// once, so reading their lines first would double the traffic.
DS_HD void store_streaming(float* dst, Wide v) {
#if defined(__AVX512F__)
    _mm512_stream_ps(dst, (__m512)v);
#elif defined(__AVX__)
    _mm256_stream_ps(dst, (__m256)v.low);
    _mm256_stream_ps(dst + 8, (__m256)v.high);
#else
    __builtin_memcpy(dst, &v, sizeof(v));
#endif
}

// The same four lanes, from `first` on, of four places, side by side. As loads, because one port alone shuffles.
DS_HD Wide gather_quads(const Wide* a, const Wide* b, const Wide* c, const Wide* d, int first) {
#if defined(__AVX512F__)
    auto quad = [&](const Wide* v) { return _mm_load_ps(reinterpret_cast<const float*>(v) + first); };
    __m512 all = _mm512_zextps128_ps512(quad(a));
    all = _mm512_mask_broadcast_f32x4(all, 0x00F0, quad(b));
    all = _mm512_mask_broadcast_f32x4(all, 0x0F00, quad(c));
    return (Wide)_mm512_mask_broadcast_f32x4(all, 0xF000, quad(d));
#elif defined(__AVX__)
    auto quad = [&](const Wide* v) { return _mm_load_ps(reinterpret_cast<const float*>(v) + first); };
    return {(Half)_mm256_insertf128_ps(_mm256_castps128_ps256(quad(a)), quad(b), 1),
            (Half)_mm256_insertf128_ps(_mm256_castps128_ps256(quad(c)), quad(d), 1)};
#else
    Wide all;
    const Wide* const from[] = {a, b, c, d};
    for (int i = 0; i < kWide; ++i) all[i] = (*from[i / 4])[first + i % 4];
    return all;
#endif
}

// Transposes 4 x 4 floats in each quarter of the vectors.
DS_HD void transpose_quads(const Wide in[4], Wide out[4]) {
#if defined(__AVX512F__)
    const Wide a = DS_SHUFFLE(in[0], in[1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
    const Wide b = DS_SHUFFLE(in[0], in[1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    const Wide c = DS_SHUFFLE(in[2], in[3], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
    const Wide d = DS_SHUFFLE(in[2], in[3], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    out[0] = DS_SHUFFLE(a, c, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
    out[1] = DS_SHUFFLE(a, c, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    out[2] = DS_SHUFFLE(b, d, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
    out[3] = DS_SHUFFLE(b, d, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
#else
    const HalfInt low = {0, 8, 1, 9, 4, 12, 5, 13}, high = {2, 10, 3, 11, 6, 14, 7, 15};
    const HalfInt even = {0, 1, 8, 9, 4, 5, 12, 13}, odd = {2, 3, 10, 11, 6, 7, 14, 15};
    Half parts[2][4], done[2][4];
    for (int i = 0; i < 4; ++i) parts[0][i] = in[i].low, parts[1][i] = in[i].high;
    for (int h = 0; h < 2; ++h) {
        const Half* const v = parts[h];
        const Half a = __builtin_shuffle(v[0], v[1], low), b = __builtin_shuffle(v[0], v[1], high);
        const Half c = __builtin_shuffle(v[2], v[3], low), d = __builtin_shuffle(v[2], v[3], high);
        done[h][0] = __builtin_shuffle(a, c, even);
        done[h][1] = __builtin_shuffle(a, c, odd);
        done[h][2] = __builtin_shuffle(b, d, even);
        done[h][3] = __builtin_shuffle(b, d, odd);
    }
    for (int i = 0; i < 4; ++i) out[i] = {done[0][i], done[1][i]};
#endif
}

// Four of sixteen pixels, from `first` on, out of sixteen channels: dst[i][c] = src[c][first + i].
DS_HD void transpose_row(const Wide src[kWide], int first, Wide dst[4]) {
    Wide quads[4];
    for (int i = 0; i < 4; ++i) quads[i] = gather_quads(src + i, src + 4 + i, src + 8 + i, src + 12 + i, first);
    transpose_quads(quads, dst);
}

}  // namespace dictsplat::DS_ISA
