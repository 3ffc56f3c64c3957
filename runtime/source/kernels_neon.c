/* Kernel set for 64-bit Arm: every such processor has these instructions. Little-endian. */
#define KERNELS neon
#define HAS_HALVED 0
#define GROUPS_AT_ONCE 1
#define KEEP_ORDER(word, sum, vectors)
#define KEEP_STORES()
#include <arm_neon.h>
#include <stdint.h>

#include "layout.h"

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

INLINE void prefetch(const void *from) { __builtin_prefetch(from); }
INLINE void prefetch_to_store(const void *to) { __builtin_prefetch(to, 1); }

typedef struct {
    int16x8_t low, high; /* lanes 0..7 and 8..15 */
} V;
typedef uint8x16_t B;
typedef struct {
    int32x4_t a, b, c, d; /* lanes 0..3, 4..7, 8..11, 12..15 */
} W;
typedef struct {
    V first, second;
} P;

INLINE B b_narrow(V a) { /* the low bytes */
    return vuzp1q_u8(vreinterpretq_u8_s16(a.low), vreinterpretq_u8_s16(a.high));
}
INLINE B b_codes(V a, int32_t zero) { /* clamp(a, 0, 255) - zero, modulo 256 */
    return vsubq_u8(vqmovun_high_s16(vqmovun_s16(a.low), a.high), vdupq_n_u8((uint8_t)zero));
}
INLINE B b_load(const uint8_t *from) { return vld1q_u8(from); }
INLINE void b_store(uint8_t *to, B x) { vst1q_u8(to, x); }
INLINE B b_shuffle(B a, const bw_shuffle *shuffle) { return vqtbl1q_u8(a, vld1q_u8(shuffle->source)); }

INLINE V v_set(int16_t x) { return (V){vdupq_n_s16(x), vdupq_n_s16(x)}; }
INLINE V v_load(const int16_t *from) { return (V){vld1q_s16(from), vld1q_s16(from + 8)}; }
/* Codes less their zero point, from bytes that are so modulo 256. */
INLINE V v_load_codes(const uint8_t *from, int32_t zero) {
    const uint8x16_t codes = vaddq_u8(vld1q_u8(from), vdupq_n_u8((uint8_t)zero));
    const int16x8_t by = vdupq_n_s16((int16_t)zero);
    return (V){vsubq_s16(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(codes))), by),
               vsubq_s16(vreinterpretq_s16_u16(vmovl_high_u8(codes)), by)};
}
INLINE void v_store(int16_t *to, V x) {
    vst1q_s16(to, x.low);
    vst1q_s16(to + 8, x.high);
}
INLINE V v_add(V a, V b) { return (V){vaddq_s16(a.low, b.low), vaddq_s16(a.high, b.high)}; }
INLINE V v_add_saturating(V a, V b) { return (V){vqaddq_s16(a.low, b.low), vqaddq_s16(a.high, b.high)}; }
INLINE V v_subtract(V a, V b) { return (V){vsubq_s16(a.low, b.low), vsubq_s16(a.high, b.high)}; }
INLINE V v_absolute(V a) { return (V){vabsq_s16(a.low), vabsq_s16(a.high)}; }
INLINE V v_max(V a, V b) { return (V){vmaxq_s16(a.low, b.low), vmaxq_s16(a.high, b.high)}; }
INLINE V v_min(V a, V b) { return (V){vminq_s16(a.low, b.low), vminq_s16(a.high, b.high)}; }
INLINE V v_and(V a, V b) { return (V){vandq_s16(a.low, b.low), vandq_s16(a.high, b.high)}; }
INLINE V v_shift(V a, int32_t right) {
    const int16x8_t left = vdupq_n_s16((int16_t)-right); /* to the right by a variable is to the left by less than 0 */
    return (V){vshlq_s16(a.low, left), vshlq_s16(a.high, left)};
}
/* (a * factor + 2^14) >> 15, of a factor that is not -2^15. */
INLINE V v_multiply_fraction(V a, V factor) {
    return (V){vqrdmulhq_s16(a.low, factor.low), vqrdmulhq_s16(a.high, factor.high)};
}
INLINE V v_select(V mask, V yes, V no) {
    return (V){vbslq_s16(vreinterpretq_u16_s16(mask.low), yes.low, no.low),
               vbslq_s16(vreinterpretq_u16_s16(mask.high), yes.high, no.high)};
}
INLINE int v_any_full(V a) { return vmaxvq_s16(vmaxq_s16(a.low, a.high)) == INT16_MAX; }
/* Bytes of `own` come from the half that the result lies in, those of `other` from the other one; what is past 15 is 0. */
INLINE V v_shuffle(V a, const bw_shuffle *shuffle) {
    const uint8x16_t low = vreinterpretq_u8_s16(a.low), high = vreinterpretq_u8_s16(a.high);
    const uint8x16_t to_low =
        vorrq_u8(vqtbl1q_u8(low, vld1q_u8(shuffle->own)), vqtbl1q_u8(high, vld1q_u8(shuffle->other)));
    const uint8x16_t to_high =
        vorrq_u8(vqtbl1q_u8(high, vld1q_u8(shuffle->own + 16)), vqtbl1q_u8(low, vld1q_u8(shuffle->other + 16)));
    return (V){vreinterpretq_s16_u8(to_low), vreinterpretq_s16_u8(to_high)};
}

INLINE W w_set(int32_t x) { return (W){vdupq_n_s32(x), vdupq_n_s32(x), vdupq_n_s32(x), vdupq_n_s32(x)}; }
INLINE W w_load(const int32_t *from) {
    return (W){vld1q_s32(from), vld1q_s32(from + 4), vld1q_s32(from + 8), vld1q_s32(from + 12)};
}
INLINE void w_store(int32_t *to, W x) {
    vst1q_s32(to, x.a);
    vst1q_s32(to + 4, x.b);
    vst1q_s32(to + 8, x.c);
    vst1q_s32(to + 12, x.d);
}
INLINE W w_widen(V x) {
    return (W){vmovl_s16(vget_low_s16(x.low)), vmovl_high_s16(x.low), vmovl_s16(vget_low_s16(x.high)),
               vmovl_high_s16(x.high)};
}
/* Saturates. */
INLINE V v_narrow(W x) {
    return (V){vqmovn_high_s32(vqmovn_s32(x.a), x.b), vqmovn_high_s32(vqmovn_s32(x.c), x.d)};
}
/* Products of int16, the second given as int32. */
INLINE W v_multiply(V x, int32_t by) {
    const int16_t factor = (int16_t)by;
    return (W){vmull_n_s16(vget_low_s16(x.low), factor), vmull_high_n_s16(x.low, factor),
               vmull_n_s16(vget_low_s16(x.high), factor), vmull_high_n_s16(x.high, factor)};
}
INLINE W w_add(W x, W y) {
    return (W){vaddq_s32(x.a, y.a), vaddq_s32(x.b, y.b), vaddq_s32(x.c, y.c), vaddq_s32(x.d, y.d)};
}
INLINE W w_multiply(W x, W y) {
    return (W){vmulq_s32(x.a, y.a), vmulq_s32(x.b, y.b), vmulq_s32(x.c, y.c), vmulq_s32(x.d, y.d)};
}
INLINE W w_multiply_narrow(W x, int32_t by) { return w_multiply(x, w_set(by)); }
INLINE W w_and(W x, W y) {
    return (W){vandq_s32(x.a, y.a), vandq_s32(x.b, y.b), vandq_s32(x.c, y.c), vandq_s32(x.d, y.d)};
}
INLINE W w_min(W x, W y) {
    return (W){vminq_s32(x.a, y.a), vminq_s32(x.b, y.b), vminq_s32(x.c, y.c), vminq_s32(x.d, y.d)};
}
INLINE W w_max(W x, W y) {
    return (W){vmaxq_s32(x.a, y.a), vmaxq_s32(x.b, y.b), vmaxq_s32(x.c, y.c), vmaxq_s32(x.d, y.d)};
}
INLINE W w_shift(W x, int32_t right) {
    const int32x4_t left = vdupq_n_s32(-right);
    return (W){vshlq_s32(x.a, left), vshlq_s32(x.b, left), vshlq_s32(x.c, left), vshlq_s32(x.d, left)};
}

INLINE P v_pair(V a, V b) { return (P){a, b}; }
/* sum + a * weights[0] + b * weights[1], lane by lane. */
INLINE W w_add_products(W sum, P pair, const int16_t *weights) {
    const V a = pair.first, b = pair.second;
    const int16_t one = weights[0], two = weights[1];
    sum.a = vmlal_n_s16(vmlal_n_s16(sum.a, vget_low_s16(a.low), one), vget_low_s16(b.low), two);
    sum.b = vmlal_high_n_s16(vmlal_high_n_s16(sum.b, a.low, one), b.low, two);
    sum.c = vmlal_n_s16(vmlal_n_s16(sum.c, vget_low_s16(a.high), one), vget_low_s16(b.high), two);
    sum.d = vmlal_high_n_s16(vmlal_high_n_s16(sum.d, a.high, one), b.high, two);
    return sum;
}

#include "kernel_bodies.h"
