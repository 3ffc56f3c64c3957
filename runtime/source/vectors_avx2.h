/* Vectors of 256 bits, for the kernel sets of x86-64. */
#include <immintrin.h>
#include <stdint.h>

#include "layout.h"

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

typedef __m256i V;

/* Compilers like to compute all offsets first, run out of registers, and spill: 20 % slower. */
#define KEEP_ORDER(word, sum, vectors)                                                                    \
    do {                                                                                                  \
        if ((vectors) == 4) __asm__("" : "+r"(word), "+x"(sum[0]), "+x"(sum[1]), "+x"(sum[2]), "+x"(sum[3])); \
        else __asm__("" : "+r"(word), "+x"(sum[0]));                                                      \
    } while (0)
/* And they like to change the order of stores: tables took a fifth longer. */
#define KEEP_STORES() __asm__ volatile("" ::: "memory")
INLINE void prefetch(const void *from) { _mm_prefetch((const char *)from, _MM_HINT_T0); }
/* Every processor with AVX2 takes the instruction; the oldest do nothing. */
INLINE void prefetch_to_store(const void *to) { __builtin_prefetch(to, 1); }

typedef struct {
    __m256i low, high; /* lanes 0..3 and 8..11, 4..7 and 12..15: the order of unpack and pack */
} W, P;

typedef __m128i B;

INLINE B b_narrow(V a) { /* the low bytes */
    const __m256i low = _mm256_and_si256(a, _mm256_set1_epi16(0xFF));
    return _mm_packus_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
}
INLINE B b_codes(V a, int32_t zero) { /* clamp(a, 0, 255) - zero, modulo 256 */
    const __m128i codes = _mm_packus_epi16(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    return _mm_sub_epi8(codes, _mm_set1_epi8((char)zero));
}
INLINE B b_load(const uint8_t *from) { return _mm_load_si128((const __m128i *)(const void *)from); }
INLINE void b_store(uint8_t *to, B x) { _mm_store_si128((__m128i *)(void *)to, x); }
INLINE B b_shuffle(B a, const bw_shuffle *shuffle) {
    return _mm_shuffle_epi8(a, _mm_loadu_si128((const __m128i *)(const void *)shuffle->source));
}

INLINE V v_set(int16_t x) { return _mm256_set1_epi16(x); }
INLINE V v_load(const int16_t *from) { return _mm256_load_si256((const __m256i *)(const void *)from); }
/* Codes less their zero point, from bytes that are so modulo 256. */
INLINE V v_load_codes(const uint8_t *from, int32_t zero) {
    const __m128i codes = _mm_add_epi8(_mm_load_si128((const __m128i *)(const void *)from), _mm_set1_epi8((char)zero));
    return _mm256_sub_epi16(_mm256_cvtepu8_epi16(codes), _mm256_set1_epi16((int16_t)zero));
}
INLINE void v_store(int16_t *to, V x) { _mm256_store_si256((__m256i *)(void *)to, x); }
INLINE V v_add(V a, V b) { return _mm256_add_epi16(a, b); }
INLINE V v_add_saturating(V a, V b) { return _mm256_adds_epi16(a, b); }
INLINE V v_subtract(V a, V b) { return _mm256_sub_epi16(a, b); }
INLINE V v_absolute(V a) { return _mm256_abs_epi16(a); }
INLINE V v_max(V a, V b) { return _mm256_max_epi16(a, b); }
INLINE V v_min(V a, V b) { return _mm256_min_epi16(a, b); }
INLINE V v_and(V a, V b) { return _mm256_and_si256(a, b); }
INLINE V v_shift(V a, int32_t right) { return _mm256_sra_epi16(a, _mm_cvtsi32_si128(right)); }
/* (a * factor + 2^14) >> 15, of a factor that is not -2^15. */
INLINE V v_multiply_fraction(V a, V factor) { return _mm256_mulhrs_epi16(a, factor); }
INLINE V v_select(V mask, V yes, V no) { return _mm256_blendv_epi8(no, yes, mask); }
INLINE int v_any_full(V a) { return _mm256_movemask_epi8(_mm256_cmpeq_epi16(a, _mm256_set1_epi16(INT16_MAX))) != 0; }
INLINE V v_shuffle(V a, const bw_shuffle *shuffle) {
    const V own = _mm256_loadu_si256((const __m256i *)(const void *)shuffle->own);
    const V other = _mm256_loadu_si256((const __m256i *)(const void *)shuffle->other);
    return _mm256_or_si256(_mm256_shuffle_epi8(a, own),
                           _mm256_shuffle_epi8(_mm256_permute2x128_si256(a, a, 1), other));
}

INLINE W w_set(int32_t x) { return (W){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
/* In the order of the lanes. */
INLINE W w_load(const int32_t *from) {
    const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)from);
    const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(from + 8));
    return (W){_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31)};
}
INLINE void w_store(int32_t *to, W x) {
    _mm256_storeu_si256((__m256i *)(void *)to, _mm256_permute2x128_si256(x.low, x.high, 0x20));
    _mm256_storeu_si256((__m256i *)(void *)(to + 8), _mm256_permute2x128_si256(x.low, x.high, 0x31));
}
INLINE W w_widen(V a) {
    return (W){_mm256_srai_epi32(_mm256_unpacklo_epi16(a, a), 16), _mm256_srai_epi32(_mm256_unpackhi_epi16(a, a), 16)};
}
/* Saturates. */
INLINE V v_narrow(W x) { return _mm256_packs_epi32(x.low, x.high); }
/* Products of int16, the second given as int32. */
INLINE W v_multiply(V a, int32_t b) {
    const __m256i zero = _mm256_setzero_si256(), factor = _mm256_set1_epi32(b & 0xFFFF);
    return (W){_mm256_madd_epi16(_mm256_unpacklo_epi16(a, zero), factor),
               _mm256_madd_epi16(_mm256_unpackhi_epi16(a, zero), factor)};
}
INLINE W w_multiply_narrow(W a, int32_t b) { /* every lane of a fits int16 */
    const __m256i factor = _mm256_set1_epi32(b & 0xFFFF);
    return (W){_mm256_madd_epi16(a.low, factor), _mm256_madd_epi16(a.high, factor)};
}
INLINE W w_add(W a, W b) { return (W){_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
INLINE W w_multiply(W a, W b) { return (W){_mm256_mullo_epi32(a.low, b.low), _mm256_mullo_epi32(a.high, b.high)}; }
INLINE W w_and(W a, W b) { return (W){_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)}; }
INLINE W w_min(W a, W b) { return (W){_mm256_min_epi32(a.low, b.low), _mm256_min_epi32(a.high, b.high)}; }
INLINE W w_max(W a, W b) { return (W){_mm256_max_epi32(a.low, b.low), _mm256_max_epi32(a.high, b.high)}; }
INLINE W w_shift(W a, int32_t right) {
    const __m256i count = _mm256_set1_epi32(right); /* lane by lane: quicker, on Intel's processors, than by one count */
    return (W){_mm256_srav_epi32(a.low, count), _mm256_srav_epi32(a.high, count)};
}

INLINE P v_pair(V a, V b) { return (P){_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)}; }
/* sum + a * weights[0] + b * weights[1], lane by lane. */
INLINE W w_add_products(W sum, P pair, const int16_t *weights) {
    int32_t both;
    __builtin_memcpy(&both, weights, sizeof both);
    const __m256i weight = _mm256_set1_epi32(both);
    return (W){_mm256_add_epi32(sum.low, _mm256_madd_epi16(pair.low, weight)),
               _mm256_add_epi32(sum.high, _mm256_madd_epi16(pair.high, weight))};
}
