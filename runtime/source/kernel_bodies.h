/* All steps of a kernel set, written once over vectors. A kernel set's file defines, for its instructions,
 *
 *     V  BW_LANES int16, W BW_LANES int32, P two V made ready for products
 *     v_*, w_* below, INLINE, NOINLINE, UNROLL, KERNELS (its name)
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

/* Store a tile, less `zero`, in the channel whose first inner vector is at `inner`, and the halo vectors made of it. */
INLINE void store_with_halo(const bw_plane *plane, int16_t *inner, int32_t y, int32_t x, const V *value, V zero,
                            const int32_t vectors, const int32_t columns) {
    V stored[BW_MAX_TILE];
    UNROLL for (int32_t i = 0; i < vectors; i++) {
        const int32_t row = y + i / columns, column = x + i % columns;
        stored[i] = v_subtract(value[i], zero);
        if (plane->row_mask != NULL) stored[i] = v_and(stored[i], inside_mask(plane, row, column));
        v_store(inner + bw_step(plane, row, column) * BW_LANES, stored[i]);
    }
    for (int32_t i = 0; i < vectors; i++) {
        const int32_t vector = (y + i / columns) * plane->block_width + x + i % columns;
        for (int32_t k = plane->first_halo[vector]; k < plane->first_halo[vector + 1]; k++)
            v_store(inner + (ptrdiff_t)plane->halos[k].target * BW_LANES,
                    v_shuffle(stored[i], &plane->shuffles[plane->halos[k].shuffle]));
    }
}

#include "finish.h"
#include "lookup.h"
#include "elementwise.h"

#define JOIN_NAMES(a, b) a##b
#define JOIN(a, b) JOIN_NAMES(a, b)
#define QUOTE_NAME(a) #a
#define QUOTE(a) QUOTE_NAME(a)
const bw_kernels JOIN(bw_kernels_, KERNELS) = {QUOTE(KERNELS), lookup, direct, pool, map, gather, sum};
