/* Kernel set in plain C11: loops over lanes that a compiler turns into whatever vectors its target has. */
#define KERNELS portable
#define HAS_HALVED 0
#define GROUPS_AT_ONCE 1
#define KEEP_ORDER(word, sum, vectors)
#define KEEP_STORES()
#include <stdint.h>
#include <string.h>

#include "layout.h"

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#else
#define INLINE static inline
#define NOINLINE
#endif
#define UNROLL

INLINE void prefetch(const void *from) { (void)from; }
INLINE void prefetch_to_store(const void *to) { (void)to; }

typedef struct {
    int16_t lane[BW_LANES];
} V;
typedef struct {
    int32_t lane[BW_LANES];
} W;
typedef struct {
    V a, b;
} P;

#define EACH_LANE for (int32_t l = 0; l < BW_LANES; l++)

typedef struct {
    uint8_t lane[BW_LANES];
} B;

INLINE B b_narrow(V a) { /* the low bytes */
    B r;
    EACH_LANE r.lane[l] = (uint8_t)a.lane[l];
    return r;
}
INLINE B b_codes(V a, int32_t zero) { /* clamp(a, 0, 255) - zero, modulo 256 */
    B r;
    EACH_LANE {
        const int16_t code = a.lane[l] < 0 ? 0 : a.lane[l] > 255 ? 255 : a.lane[l];
        r.lane[l] = (uint8_t)(code - zero);
    }
    return r;
}
INLINE B b_load(const uint8_t *from) {
    B r;
    memcpy(r.lane, from, sizeof r.lane);
    return r;
}
INLINE void b_store(uint8_t *to, B x) { memcpy(to, x.lane, sizeof x.lane); }
INLINE B b_shuffle(B a, const bw_shuffle *shuffle) {
    B r;
    EACH_LANE r.lane[l] = shuffle->source[l] == BW_OUTSIDE ? 0 : a.lane[shuffle->source[l]];
    return r;
}

INLINE V v_set(int16_t x) {
    V r;
    EACH_LANE r.lane[l] = x;
    return r;
}
INLINE V v_load(const int16_t *from) {
    V r;
    memcpy(r.lane, from, sizeof r.lane);
    return r;
}
/* Codes less their zero point, from bytes that are so modulo 256. */
INLINE V v_load_codes(const uint8_t *from, int32_t zero) {
    V r;
    EACH_LANE r.lane[l] = (int16_t)((uint8_t)(from[l] + zero) - zero);
    return r;
}
INLINE void v_store(int16_t *to, V x) { memcpy(to, x.lane, sizeof x.lane); }
INLINE V v_add(V a, V b) {
    EACH_LANE a.lane[l] = (int16_t)(a.lane[l] + b.lane[l]);
    return a;
}
INLINE V v_add_saturating(V a, V b) {
    EACH_LANE {
        const int32_t sum = a.lane[l] + b.lane[l];
        a.lane[l] = (int16_t)(sum > INT16_MAX ? INT16_MAX : sum < INT16_MIN ? INT16_MIN : sum);
    }
    return a;
}
INLINE V v_subtract(V a, V b) {
    EACH_LANE a.lane[l] = (int16_t)(a.lane[l] - b.lane[l]);
    return a;
}
INLINE V v_absolute(V a) {
    EACH_LANE a.lane[l] = (int16_t)(a.lane[l] < 0 ? -a.lane[l] : a.lane[l]);
    return a;
}
INLINE V v_max(V a, V b) {
    EACH_LANE a.lane[l] = a.lane[l] > b.lane[l] ? a.lane[l] : b.lane[l];
    return a;
}
INLINE V v_min(V a, V b) {
    EACH_LANE a.lane[l] = a.lane[l] < b.lane[l] ? a.lane[l] : b.lane[l];
    return a;
}
INLINE V v_and(V a, V b) {
    EACH_LANE a.lane[l] = (int16_t)(a.lane[l] & b.lane[l]);
    return a;
}
INLINE V v_shift(V a, int32_t right) {
    EACH_LANE a.lane[l] = (int16_t)(a.lane[l] >> right);
    return a;
}
/* (a * factor + 2^14) >> 15, of a factor that is not -2^15. */
INLINE V v_multiply_fraction(V a, V factor) {
    EACH_LANE a.lane[l] = (int16_t)((a.lane[l] * factor.lane[l] + (1 << 14)) >> 15);
    return a;
}
INLINE V v_select(V mask, V yes, V no) {
    EACH_LANE yes.lane[l] = mask.lane[l] ? yes.lane[l] : no.lane[l];
    return yes;
}
INLINE int v_any_full(V a) {
    int full = 0;
    EACH_LANE full |= a.lane[l] == INT16_MAX;
    return full;
}
INLINE V v_shuffle(V a, const bw_shuffle *shuffle) {
    V r;
    EACH_LANE r.lane[l] = shuffle->source[l] == BW_OUTSIDE ? 0 : a.lane[shuffle->source[l]];
    return r;
}

INLINE W w_set(int32_t x) {
    W r;
    EACH_LANE r.lane[l] = x;
    return r;
}
INLINE W w_load(const int32_t *from) {
    W r;
    memcpy(r.lane, from, sizeof r.lane);
    return r;
}
INLINE void w_store(int32_t *to, W x) { memcpy(to, x.lane, sizeof x.lane); }
INLINE W w_widen(V a) {
    W r;
    EACH_LANE r.lane[l] = a.lane[l];
    return r;
}
/* Saturates. */
INLINE V v_narrow(W x) {
    V r;
    EACH_LANE r.lane[l] = (int16_t)(x.lane[l] > INT16_MAX ? INT16_MAX : x.lane[l] < INT16_MIN ? INT16_MIN : x.lane[l]);
    return r;
}
/* Products of int16, the second given as int32. */
INLINE W v_multiply(V a, int32_t b) {
    W r;
    EACH_LANE r.lane[l] = a.lane[l] * b;
    return r;
}
/* Through unsigned, as vectors do it: a lane outside the picture may hold anything, and wrap. */
INLINE W w_add(W a, W b) {
    EACH_LANE a.lane[l] = (int32_t)((uint32_t)a.lane[l] + (uint32_t)b.lane[l]);
    return a;
}
INLINE W w_multiply(W a, W b) {
    EACH_LANE a.lane[l] = (int32_t)((uint32_t)a.lane[l] * (uint32_t)b.lane[l]);
    return a;
}
INLINE W w_multiply_narrow(W a, int32_t b) {
    EACH_LANE a.lane[l] = (int32_t)((uint32_t)a.lane[l] * (uint32_t)b);
    return a;
}
INLINE W w_and(W a, W b) {
    EACH_LANE a.lane[l] &= b.lane[l];
    return a;
}
INLINE W w_min(W a, W b) {
    EACH_LANE a.lane[l] = a.lane[l] < b.lane[l] ? a.lane[l] : b.lane[l];
    return a;
}
INLINE W w_max(W a, W b) {
    EACH_LANE a.lane[l] = a.lane[l] > b.lane[l] ? a.lane[l] : b.lane[l];
    return a;
}
INLINE W w_shift(W a, int32_t right) {
    EACH_LANE a.lane[l] >>= right;
    return a;
}

INLINE P v_pair(V a, V b) { return (P){a, b}; }
/* sum + a * weights[0] + b * weights[1], lane by lane. */
INLINE W w_add_products(W sum, P pair, const int16_t *weights) {
    EACH_LANE sum.lane[l] += pair.a.lane[l] * weights[0] + pair.b.lane[l] * weights[1];
    return sum;
}

#include "kernel_bodies.h"
