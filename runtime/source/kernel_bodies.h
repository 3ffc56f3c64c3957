/* All steps of a kernel set, written once over vectors. A kernel set's file defines, for its instructions,
 *
 *     B  BW_LANES uint8, V BW_LANES int16, W BW_LANES int32, P two V made ready for products
 *     b_*, v_*, w_*, prefetch, prefetch_to_store below, INLINE, NOINLINE, UNROLL, KERNELS (its name)
 *     HAS_HALVED: 1 where it has v_xor, v_set_bits and v_spread_bit, which tables of half the sums need, else 0
 *     GROUPS_AT_ONCE: 2 where two groups of channels may be looked up together, else 1
 *     KEEP_ORDER(word, sum, vectors): where a compiler would do better to compute what comes after from what came before
 *     KEEP_STORES(): where it would do better to leave the stores before and after in their order
 *
 * and includes this file. All loads and stores are aligned to their size, but v_load of tables to VECTOR bytes only.
 */
#include <string.h>

#include "graph.h"
#include "kernels.h"

#define VECTOR 32 /* bytes of V */

INLINE V inside_mask(const bw_plane *plane, int32_t y, int32_t x) {
    return v_and(v_load(plane->row_mask + y * BW_LANES), v_load(plane->column_mask + x * BW_LANES));
}

/* A vector of a plane of codes or stream; `bytes` is the plane's. */
INLINE V load_vector(const char *from, const int32_t bytes, int32_t zero) {
    return bytes == 1 ? v_load_codes((const uint8_t *)from, zero) : v_load((const int16_t *)(const void *)from);
}

#include "finish.h"
#include "lookup.h"
#include "totals.h"
#include "elementwise.h"

#define JOIN_NAMES(a, b) a##b
#define JOIN(a, b) JOIN_NAMES(a, b)
#define QUOTE_NAME(a) #a
#define QUOTE(a) QUOTE_NAME(a)
const bw_kernels JOIN(bw_kernels_, KERNELS) = {QUOTE(KERNELS), HAS_HALVED, GROUPS_AT_ONCE,
                                                 lookup, finish, direct, pool, map, gather, sum};
