/* Kernel set for x86-64 with AVX-512 (F, BW, DQ, VL): the vectors are those of AVX2, for loads of tables bind, and two of 256
 * bits are as many bytes in a cycle as one of 512. What is new is that a bit becomes a mask in two instructions, cheap
 * enough for tables of half the sums. */
#define KERNELS avx512
#define HAS_HALVED 1
#define GROUPS_AT_ONCE 2
#include "vectors_avx2.h"

INLINE V v_xor(V a, V b) { return _mm256_xor_si256(a, b); }
INLINE V v_set_bits(uint64_t bits) { return _mm256_set1_epi64x((int64_t)bits); }
/* Every lane -1 where that bit of v_set_bits is 1, else 0. */
INLINE V v_spread_bit(V bits, const int32_t bit) {
    return _mm256_srai_epi64(_mm256_slli_epi64(bits, 63 - bit), 63);
}

#include "kernel_bodies.h"
