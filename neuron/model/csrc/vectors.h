/* Vectors of W floats in the widest registers that this file is compiled for, and loads of every stored type. */
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define LANES 16 /* outputs that lie side by side in a tile */

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#define W 16
typedef __m512 vf;
typedef int32_t vi __attribute__((vector_size(64)));
INLINE vf vset(float x) { return _mm512_set1_ps(x); }
INLINE vf vload(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vstore(float *p, vf x) { _mm512_storeu_ps(p, x); }
INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE float vsum(vf x) { return _mm512_reduce_add_ps(x); }
INLINE float vmost(vf x) { return _mm512_reduce_max_ps(x); }
INLINE vf vround(vf x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf vpow2(vf n) { return _mm512_scalef_ps(vset(1), n); }
INLINE vf load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE vf load_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
INLINE vf to_floats(vi x) { return _mm512_cvtepi32_ps((__m512i)x); }
INLINE vi to_integers(vf x) { return (vi)_mm512_cvtps_epi32(x); } /* the nearest */
INLINE vi load_u8(const uint8_t *p) { return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
INLINE vi load_s8(const uint8_t *p) { return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)); }
/* Float16 numbers whose low and high bytes lie LANES apart. */
INLINE vf load_split_f16(const uint8_t *p) {
    __m256i low = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
    __m256i high = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(p + LANES)));
    return _mm512_cvtph_ps(_mm256_or_si256(low, _mm256_slli_epi16(high, 8)));
}
/* The low and the high four bits of W bytes, less `zero`: a look-up does it in one instruction each. */
INLINE void load_nibbles(const uint8_t *p, int zero, vf *low, vf *high) {
    vf values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) - vset((float)zero);
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
    *low = _mm512_permutexvar_ps(bytes, values);
    *high = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), values);
}

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>
#define W 8
typedef __m256 vf;
typedef int32_t vi __attribute__((vector_size(32)));
INLINE vf vset(float x) { return _mm256_set1_ps(x); }
INLINE vf vload(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vstore(float *p, vf x) { _mm256_storeu_ps(p, x); }
INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE float vsum(vf x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
INLINE float vmost(vf x) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
INLINE vf vround(vf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf vpow2(vf n) {
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
INLINE vf load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
INLINE vf load_bf16(const uint16_t *p) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
INLINE vf to_floats(vi x) { return _mm256_cvtepi32_ps((__m256i)x); }
INLINE vi to_integers(vf x) { return (vi)_mm256_cvtps_epi32(x); }
INLINE vi load_u8(const uint8_t *p) { return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
INLINE vi load_s8(const uint8_t *p) { return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
INLINE vf load_split_f16(const uint8_t *p) {
    __m128i low = _mm_loadl_epi64((const __m128i *)p), high = _mm_loadl_epi64((const __m128i *)(p + LANES));
    return _mm256_cvtph_ps(_mm_unpacklo_epi8(low, high));
}
INLINE void load_nibbles(const uint8_t *p, int zero, vf *low, vf *high) {
    __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    __m256i nothing = _mm256_set1_epi32(zero);
    *low = _mm256_cvtepi32_ps(
        _mm256_sub_epi32(_mm256_and_si256(bytes, _mm256_set1_epi32(15)), nothing));
    *high = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(bytes, 4), nothing));
}

#else /* any processor: the compiler does what it can */
#define W 4
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
INLINE vf vset(float x) { return (vf){x, x, x, x}; }
INLINE vf vload(const float *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}
INLINE void vstore(float *p, vf x) { memcpy(p, &x, sizeof x); }
INLINE float vsum(vf x) { return (x[0] + x[1]) + (x[2] + x[3]); }
INLINE float vmost(vf x) { return fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3])); }
#define EACH(expression)                                                                                     \
    vf out;                                                                                                  \
    for (int i = 0; i < W; i++) out[i] = (expression);                                                       \
    return out
INLINE float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
INLINE float half(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, mantissa = bits & 1023;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * (float)mantissa * 0x1p-24f;
    if (exponent == 31) return from_bits(sign | 0x7f800000 | mantissa << 13);
    return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}
INLINE vf vmax(vf a, vf b) { EACH(a[i] > b[i] ? a[i] : b[i]); }
INLINE vf vround(vf x) { EACH(rintf(x[i])); }
INLINE vf vpow2(vf n) { EACH(from_bits((uint32_t)((int32_t)n[i] + 127) << 23)); }
INLINE vf load_f16(const uint16_t *p) { EACH(half(p[i])); }
INLINE vf load_bf16(const uint16_t *p) { EACH(from_bits((uint32_t)p[i] << 16)); }
INLINE vf to_floats(vi x) { EACH((float)x[i]); }
INLINE vi to_integers(vf x) { return (vi){(int)rintf(x[0]), (int)rintf(x[1]), (int)rintf(x[2]), (int)rintf(x[3])}; }
INLINE vi load_u8(const uint8_t *p) { return (vi){p[0], p[1], p[2], p[3]}; }
INLINE vi load_s8(const uint8_t *p) { return (vi){(int8_t)p[0], (int8_t)p[1], (int8_t)p[2], (int8_t)p[3]}; }
INLINE vf load_split_f16(const uint8_t *p) { EACH(half((uint16_t)(p[i] | p[i + LANES] << 8))); }
INLINE void load_nibbles(const uint8_t *p, int zero, vf *low, vf *high) {
    for (int i = 0; i < W; i++) {
        (*low)[i] = (float)((p[i] & 15) - zero);
        (*high)[i] = (float)((p[i] >> 4) - zero);
    }
}
#endif

/* e to the x within two units in the last place; next to nothing below -87, and never more than e to the 88. What is no
 * number stays so: of two that are compared the second is kept then.
 */
INLINE vf vexp(vf x) {
    vf low = vset(-87.3f), n, r, p;
    x = vmax(low, x);
    x = -vmax(vset(-88.0f), -x);
    n = vround(x * vset(1.44269504f));
    r = x - n * vset(0.693359375f) + n * vset(2.12194440e-4f);
    p = vset(1.9875691e-4f);
    p = p * r + vset(1.3981999e-3f);
    p = p * r + vset(8.3334519e-3f);
    p = p * r + vset(4.1665795e-2f);
    p = p * r + vset(1.6666665e-1f);
    p = p * r + vset(0.5f);
    return (p * r * r + r + vset(1)) * vpow2(n);
}
