/* Programs: what happens to sums before they are stored. Included by kernel_bodies.h, after a kernel set's vectors.
 *
 * Values are narrow, int16, wherever they fit - sums that were never spilled, codes, the stream - and wide, int32, elsewhere.
 *
 * Ranges. The plan chooses for each requantise, from the range of x, a way of computing m x + b that stays within int32:
 * for narrow x, products of int16; for wide x
 *
 *     BW_SHIFT      m = 1
 *     BW_MULTIPLY   m x + b fits
 *     BW_SPLIT      x = high * 2^k + low with 0 <= low < 2^k <= 2^15, and high fits int16. As floor(floor(a) + n) loses nothing,
 *                   (m x + b) >> s = (m high + ((m low + b) >> k)) >> (s - k) for k <= s, where both sums fit
 *     BW_WIDE       64 bits
 */

/* The values of a tile: narrow or wide, all alike. */
typedef struct {
    V narrow[BW_MAX_TILE];
    W wide[BW_MAX_TILE];
    int is_wide;
} values;

INLINE void make_narrow(values *x, const int32_t vectors) {
    if (!x->is_wide) return;
    UNROLL for (int32_t i = 0; i < vectors; i++) x->narrow[i] = v_narrow(x->wide[i]);
    x->is_wide = 0;
}

INLINE void make_wide(values *x, const int32_t vectors) {
    if (x->is_wide) return;
    UNROLL for (int32_t i = 0; i < vectors; i++) x->wide[i] = w_widen(x->narrow[i]);
    x->is_wide = 1;
}

/* clamp(sum >> shift): narrow where the node's range is, for then saturation to int16 on the way changes nothing. */
INLINE void shift_and_clamp(values *x, const W *sum, const bw_instruction *in, int32_t shift, const int32_t vectors) {
    if (in->low < INT16_MIN || in->high > INT16_MAX) {
        const W low = w_set(in->low), high = w_set(in->high);
        UNROLL for (int32_t i = 0; i < vectors; i++) x->wide[i] = w_min(w_max(w_shift(sum[i], shift), low), high);
        x->is_wide = 1;
        return;
    }
    const V low = v_set((int16_t)in->low), high = v_set((int16_t)in->high);
    UNROLL for (int32_t i = 0; i < vectors; i++)
        x->narrow[i] = v_min(v_max(v_narrow(w_shift(sum[i], shift)), low), high);
    x->is_wide = 0;
}

INLINE void requantise_wide(values *x, const bw_instruction *in, int32_t channel, const int32_t vectors) {
    const int32_t multiplier = in->multiplier[channel];
    const W offset = w_set(in->offset[channel]);
    W sum[BW_MAX_TILE];
    switch (in->action) {
    case BW_SHIFT:
        UNROLL for (int32_t i = 0; i < vectors; i++) sum[i] = w_add(x->wide[i], offset);
        break;
    case BW_SPLIT: {
        const W mask = w_set((1 << in->split) - 1);
        UNROLL for (int32_t i = 0; i < vectors; i++) {
            const W lower = w_add(w_multiply_narrow(w_and(x->wide[i], mask), multiplier), offset);
            sum[i] = w_add(w_multiply_narrow(w_shift(x->wide[i], in->split), multiplier), w_shift(lower, in->split));
        }
        shift_and_clamp(x, sum, in, in->shift - in->split, vectors);
        return;
    }
    case BW_MULTIPLY:
        UNROLL for (int32_t i = 0; i < vectors; i++) sum[i] = w_add(w_multiply(x->wide[i], w_set(multiplier)), offset);
        break;
    default: /* BW_WIDE */
        for (int32_t i = 0; i < vectors; i++) {
            int32_t lanes[BW_LANES];
            w_store(lanes, x->wide[i]);
            for (int32_t lane = 0; lane < BW_LANES; lane++) {
                /* A shift of a negative number is the implementation's choice; every compiler we build with floors. */
                const int64_t shifted = ((int64_t)multiplier * lanes[lane] + in->offset[channel]) >> in->shift;
                lanes[lane] = (int32_t)(shifted < in->low ? in->low : shifted > in->high ? in->high : shifted);
            }
            sum[i] = w_load(lanes);
        }
        shift_and_clamp(x, sum, in, 0, vectors);
        return;
    }
    shift_and_clamp(x, sum, in, in->shift, vectors);
}

INLINE void requantise_narrow(values *x, const bw_instruction *in, int32_t channel, const int32_t vectors) {
    const W offset = w_set(in->offset[channel]);
    W sum[BW_MAX_TILE];
    UNROLL for (int32_t i = 0; i < vectors; i++)
        sum[i] = w_add(v_multiply(x->narrow[i], in->multiplier[channel]), offset);
    shift_and_clamp(x, sum, in, in->shift, vectors);
}

/* Tile vector i is inner vector (y + i / columns, x + i % columns) of channel `channel`. */
INLINE void run_program(const bw_program *program, char *arena, int32_t channel, int32_t y, int32_t x, values *value,
                        const int32_t vectors, const int32_t columns) {
    values kept[BW_MAX_KEPT];
    for (const bw_instruction *in = program->instructions; in < program->instructions + program->count; in++) {
        int16_t *inner = NULL;
        if (in->plane != NULL && in->plane->bytes == 2)
            inner = (int16_t *)(void *)(arena + in->plane->offset) + bw_inner(in->plane, channel) * BW_LANES;
        switch (in->action) {
        case BW_KEEP: kept[in->slot] = *value; break;
        case BW_AGAIN: *value = kept[in->slot]; break;
        case BW_ADD_PLANE:
            make_narrow(value, vectors);
            UNROLL for (int32_t i = 0; i < vectors; i++) {
                const ptrdiff_t at = bw_step(in->plane, y + i / columns, x + i % columns);
                value->narrow[i] = v_add_saturating(value->narrow[i], v_load(inner + at * BW_LANES));
            }
            break;
        case BW_STORE: {
            if (inner != NULL) {
                make_narrow(value, vectors);
                const V zero = v_set((int16_t)(in->zero != NULL ? in->zero[channel] : 0));
                store_with_halo(in->plane, inner, y, x, value->narrow, zero, vectors, columns);
                break;
            }
            make_wide(value, vectors);
            int32_t *wide = (int32_t *)(void *)(arena + in->plane->offset) + bw_inner(in->plane, channel) * BW_LANES;
            for (int32_t i = 0; i < vectors; i++) {
                const int32_t row = y + i / columns, column = x + i % columns;
                W inside = value->wide[i];
                if (in->plane->row_mask != NULL) inside = w_and(inside, w_widen(inside_mask(in->plane, row, column)));
                w_store(wide + bw_step(in->plane, row, column) * BW_LANES, inside);
            }
            break;
        }
        default:
            if (in->narrow && !value->is_wide) {
                requantise_narrow(value, in, channel, vectors);
            } else {
                make_wide(value, vectors);
                requantise_wide(value, in, channel, vectors);
            }
        }
    }
}

/* One copy of the code for each shape of tile. */
NOINLINE static void finish_1x1(const bw_program *program, char *arena, int32_t channel, int32_t y, int32_t x, values *value) {
    run_program(program, arena, channel, y, x, value, 1, 1);
}
NOINLINE static void finish_2x2(const bw_program *program, char *arena, int32_t channel, int32_t y, int32_t x, values *value) {
    run_program(program, arena, channel, y, x, value, 4, 2);
}
NOINLINE static void finish_4x1(const bw_program *program, char *arena, int32_t channel, int32_t y, int32_t x, values *value) {
    run_program(program, arena, channel, y, x, value, 4, 1);
}

/* One wide value. */
static void finish(const bw_program *program, char *arena, int32_t channel, int32_t y, int32_t x, W value) {
    values one;
    one.wide[0] = value;
    one.is_wide = 1;
    finish_1x1(program, arena, channel, y, x, &one);
}
