/* Programs: what happens to sums before they are stored. Included by kernel_bodies.h, after a kernel set's vectors.
 *
 * Values are narrow, int16, wherever they fit - sums that were never spilled, codes, the stream - and wide, int32, elsewhere.
 *
 * Ranges. The plan chooses for each requantise, from the range of x, a way of computing m x + b that stays within int32:
 * for narrow x
 *
 *     BW_AS_SUM      m = 1, and x + b may saturate to int16: what is cut off lies beyond the clamp
 *     BW_AS_FRACTION m x / 2^s, halves rounded up, is f x / 2^15: most processors do that in one instruction
 *     BW_AS_PRODUCT  products of int16
 *
 * and for wide x
 *
 *     BW_SHIFT      m = 1
 *     BW_MULTIPLY   m x + b fits
 *     BW_SPLIT      x = high * 2^k + low with 0 <= low < 2^k <= 2^15, and high fits int16. As floor(floor(a) + n) loses nothing,
 *                   (m x + b) >> s = (m high + ((m low + b) >> k)) >> (s - k) for k <= s, where both sums fit
 *     BW_WIDE       64 bits
 */

/* A run of tiles, each `columns` wide and of `vectors` vectors: row by row within a tile, and tile after tile to the right,
 * then on in the tiles below. All vectors are narrow, or all are wide. */
#define BW_MAX_RUN 32 /* vectors: a row of tiles of 32 x 32 pixels */
typedef struct {
    V *narrow; /* (count) where not is_wide, and */
    W *wide;   /* (count) where is_wide; room for both, to be worked in */
    int32_t count;
    int is_wide;
} values;

/* Values kept aside. */
typedef struct {
    V narrow[BW_MAX_RUN];
    W wide[BW_MAX_RUN];
    int is_wide;
} kept_values;

/* For each vector k of a run whose tiles are of `vectors`: narrow[k] or wide[k]. Once in a block, which it declares them in. */
#define EACH(x)                                                                     \
    V *const narrow = (x)->narrow;                                                  \
    W *const wide = (x)->wide;                                                      \
    (void)narrow, (void)wide;                                                       \
    for (int32_t first_ = 0, end_ = (x)->count; first_ < end_; first_ += vectors)   \
        UNROLL for (int32_t k = first_; k < first_ + vectors; k++)

INLINE void make_narrow(values *x, const int32_t vectors) {
    if (!x->is_wide) return;
    EACH(x) narrow[k] = v_narrow(wide[k]);
    x->is_wide = 0;
}

INLINE void make_wide(values *x, const int32_t vectors) {
    if (x->is_wide) return;
    EACH(x) wide[k] = w_widen(narrow[k]);
    x->is_wide = 1;
}

INLINE void keep_values(kept_values *to, const values *from, int stays, const int32_t vectors) {
    to->is_wide = from->is_wide;
    if (stays && !to->is_wide) return;
    EACH(from) {
        if (to->is_wide) to->wide[k] = wide[k];
        else to->narrow[k] = narrow[k];
    }
}

INLINE void recall_values(values *to, const kept_values *from, int stays, const int32_t vectors) {
    if (stays && !from->is_wide) return;
    to->is_wide = from->is_wide;
    EACH(to) {
        if (from->is_wide) wide[k] = from->wide[k];
        else narrow[k] = from->narrow[k];
    }
}

/* x = clamp(wide >> shift): narrow where the node's range is, for then saturation to int16 on the way changes nothing. */
INLINE void shift_and_clamp(values *x, const bw_instruction *in, int32_t shift, const int32_t vectors) {
    if (in->low < INT16_MIN || in->high > INT16_MAX) {
        const W low = w_set(in->low), high = w_set(in->high);
        EACH(x) wide[k] = w_min(w_max(w_shift(wide[k], shift), low), high);
        return;
    }
    const V low = v_set((int16_t)in->low), high = v_set((int16_t)in->high);
    EACH(x) narrow[k] = v_min(v_max(v_narrow(w_shift(wide[k], shift)), low), high);
    x->is_wide = 0;
}

INLINE void requantise_wide(values *x, const bw_instruction *in, int32_t channel, const int32_t vectors) {
    const int32_t multiplier = in->multiplier[channel];
    const W offset = w_set(in->offset[channel]);
    switch (in->action) {
    case BW_SHIFT: {
        EACH(x) wide[k] = w_add(wide[k], offset);
        break;
    }
    case BW_MULTIPLY: {
        EACH(x) wide[k] = w_add(w_multiply(wide[k], w_set(multiplier)), offset);
        break;
    }
    case BW_SPLIT: {
        const W mask = w_set((1 << in->split) - 1);
        EACH(x) {
            const W lower = w_add(w_multiply_narrow(w_and(wide[k], mask), multiplier), offset);
            wide[k] = w_add(w_multiply_narrow(w_shift(wide[k], in->split), multiplier), w_shift(lower, in->split));
        }
        shift_and_clamp(x, in, in->shift - in->split, vectors);
        return;
    }
    default: { /* BW_WIDE */
        EACH(x) {
            int32_t lanes[BW_LANES];
            w_store(lanes, wide[k]);
            for (int32_t lane = 0; lane < BW_LANES; lane++) {
                /* A shift of a negative number is the implementation's choice; every compiler we build with floors. */
                const int64_t shifted = ((int64_t)multiplier * lanes[lane] + in->offset[channel]) >> in->shift;
                lanes[lane] = (int32_t)(shifted < in->low ? in->low : shifted > in->high ? in->high : shifted);
            }
            wide[k] = w_load(lanes);
        }
        shift_and_clamp(x, in, 0, vectors);
        return;
    }
    }
    shift_and_clamp(x, in, in->shift, vectors);
}

/* What requantises the narrow values of a channel. */
typedef struct {
    int32_t multiplier, shift;
    V narrow; /* BW_AS_FRACTION: the factor; BW_AS_SUM: the offset */
    W offset;
} narrow_constants;

INLINE narrow_constants narrow_constants_of(const bw_instruction *in, int32_t channel, const bw_narrow way) {
    const int32_t multiplier = in->multiplier[channel], offset = in->offset[channel];
    return (narrow_constants){.multiplier = multiplier, .shift = in->shift, .offset = w_set(offset),
                              .narrow = v_set((int16_t)(way == BW_AS_FRACTION ? bw_fraction(multiplier, in->shift) : offset))};
}

/* Before the clamp, but saturated. */
INLINE V requantised(V x, const narrow_constants *by, const bw_narrow way) {
    switch (way) {
    case BW_AS_FRACTION: return v_multiply_fraction(x, by->narrow);
    case BW_AS_SUM: return v_shift(v_add_saturating(x, by->narrow), by->shift);
    default: return v_narrow(w_shift(w_add(v_multiply(x, by->multiplier), by->offset), by->shift));
    }
}

INLINE void requantise_each(values *x, const bw_instruction *in, int32_t channel, const bw_narrow way, const int32_t vectors) {
    const narrow_constants by = narrow_constants_of(in, channel, way);
    if (in->low == INT16_MIN && in->high == INT16_MAX) { /* saturated already */
        EACH(x) narrow[k] = requantised(narrow[k], &by, way);
        return;
    }
    const V low = v_set((int16_t)in->low), high = v_set((int16_t)in->high);
    EACH(x) narrow[k] = v_min(v_max(requantised(narrow[k], &by, way), low), high);
}

INLINE void requantise_narrow(values *x, const bw_instruction *in, int32_t channel, const int32_t vectors) {
    if (in->narrow == BW_AS_FRACTION) {
        requantise_each(x, in, channel, BW_AS_FRACTION, vectors);
    } else if (in->narrow == BW_AS_SUM) {
        requantise_each(x, in, channel, BW_AS_SUM, vectors);
    } else if (in->low >= INT16_MIN && in->high <= INT16_MAX) {
        requantise_each(x, in, channel, BW_AS_PRODUCT, vectors);
    } else {
        const W offset = w_set(in->offset[channel]);
        EACH(x) wide[k] = w_add(v_multiply(narrow[k], in->multiplier[channel]), offset);
        x->is_wide = 1;
        shift_and_clamp(x, in, in->shift, vectors);
    }
}

/* Where the tiles of a run lie in a channel of a plane, one after the other. In bytes, from the first inner vector. */
typedef struct {
    ptrdiff_t at, vector, row; /* the tile at hand; the steps to the next vector and to the next row */
    ptrdiff_t down;            /* from past the last tile of a row of tiles to the first of the next */
    int32_t x, width;          /* vectors */
} tile_place;

INLINE tile_place first_tile(const bw_plane *plane, int32_t y, int32_t x, const int32_t rows, const int32_t bytes) {
    const ptrdiff_t vector = (ptrdiff_t)BW_LANES * bytes, row = (ptrdiff_t)plane->row_stride * vector;
    return (tile_place){bw_step(plane, y, x) * vector, vector, row, rows * row - plane->block_width * vector, x, plane->block_width};
}

INLINE void next_tile(tile_place *place, const int32_t columns) {
    place->at += columns * place->vector;
    place->x += columns;
    if (place->x < place->width) return;
    place->x = 0;
    place->at += place->down;
}

INLINE ptrdiff_t vector_place(const tile_place *place, const int32_t i, const int32_t columns) {
    return place->at + i / columns * place->row + i % columns * place->vector;
}

/* For each vector k of a run, which is number `i` of the tile at `place`. */
#define EACH_PLACE(place, count, vectors, columns)                                                          \
    for (int32_t first_ = 0, end_ = (count); first_ < end_; first_ += (vectors), next_tile(&(place), (columns))) \
        UNROLL for (int32_t i = 0; i < (vectors); i++)

/* Make real zeros, `zero` where narrow and 0 where wide, of the lanes outside the picture. */
static void clear_outside(const bw_plane *plane, int32_t y, int32_t x, values *value, V zero, int32_t vectors,
                          int32_t columns) {
    for (int32_t k = 0; k < value->count; k++) {
        const int32_t i = k % vectors, row = y + i / columns, column = x + i % columns;
        const V inside = inside_mask(plane, row, column);
        if (value->is_wide) value->wide[k] = w_and(value->wide[k], w_widen(inside));
        else value->narrow[k] = v_add(v_and(v_subtract(value->narrow[k], zero), inside), zero);
        if (i < vectors - 1) continue;
        x += columns;
        if (x < plane->block_width) continue;
        x = 0;
        y += vectors / columns;
    }
}

/* Make the halo vectors of a run of inner ones, once these are stored: in loops so long that branch prediction pays. */
INLINE void store_halo(const bw_plane *plane, char *inner, int32_t y, int32_t x, int32_t count, const int32_t rows,
                       const int32_t bytes) {
    const int32_t row = count / rows; /* vectors; a run of single ones goes on in the rows below */
    const int whole = row == plane->block_width;
    const int32_t lists = whole ? 1 : rows, length = whole ? count : row;
    for (int32_t list = 0; list < lists; list++) {
        const int32_t *first = plane->first_halo + (ptrdiff_t)(y + list) * plane->block_width + x;
        const bw_halo *end = plane->halos + first[length];
        for (const bw_halo *halo = plane->halos + first[0]; halo < end; halo++) {
            if (bytes == 1) {
                b_store((uint8_t *)inner + halo->target, b_shuffle(b_load((uint8_t *)inner + halo->source), halo->shuffle));
            } else {
                const V from = v_load((const int16_t *)(const void *)(inner + halo->source));
                v_store((int16_t *)(void *)(inner + halo->target), v_shuffle(from, halo->shuffle));
            }
        }
    }
}

/* Store vectors, less `zero`, in the channel whose first inner vector is at `inner`, and the halo vectors made of them. */
INLINE void store_narrow(const bw_plane *plane, char *inner, int32_t y, int32_t x, values *value, V zero,
                         const int32_t vectors, const int32_t columns, const int32_t bytes) {
    if (plane->row_mask != NULL) clear_outside(plane, y, x, value, zero, vectors, columns);
    tile_place place = first_tile(plane, y, x, vectors / columns, bytes);
    const V *narrow = value->narrow;
    EACH_PLACE(place, value->count, vectors, columns) {
        const V stored = v_subtract(narrow[first_ + i], zero);
        char *to = inner + vector_place(&place, i, columns);
        if (bytes == 1) b_store((uint8_t *)to, b_narrow(stored));
        else v_store((int16_t *)(void *)to, stored);
    }
    store_halo(plane, inner, y, x, value->count, vectors / columns, bytes);
}

INLINE void store_codes_of(const bw_instruction *in, const bw_plane *plane, char *inner, int32_t channel, int32_t y, int32_t x,
                           const values *value, int32_t zero, const bw_narrow way, const int32_t vectors,
                           const int32_t columns) {
    const narrow_constants by = narrow_constants_of(in, channel, way);
    tile_place place = first_tile(plane, y, x, vectors / columns, 1);
    const V *narrow = value->narrow;
    EACH_PLACE(place, value->count, vectors, columns) {
        const B codes = b_codes(requantised(narrow[first_ + i], &by, way), zero);
        b_store((uint8_t *)inner + vector_place(&place, i, columns), codes);
    }
    store_halo(plane, inner, y, x, value->count, vectors / columns, 1);
}

/* Requantise narrow values to codes and store these, less `zero`: one way where each would go to memory and back. */
INLINE void store_codes(const bw_instruction *in, const bw_plane *plane, char *inner, int32_t channel, int32_t y, int32_t x,
                        const values *value, int32_t zero, const int32_t vectors, const int32_t columns) {
    if (in->narrow == BW_AS_PRODUCT) store_codes_of(in, plane, inner, channel, y, x, value, zero, BW_AS_PRODUCT, vectors, columns);
    else if (in->narrow == BW_AS_SUM) store_codes_of(in, plane, inner, channel, y, x, value, zero, BW_AS_SUM, vectors, columns);
    else store_codes_of(in, plane, inner, channel, y, x, value, zero, BW_AS_FRACTION, vectors, columns);
}

INLINE void store_wide(const bw_plane *plane, char *inner, int32_t y, int32_t x, values *value, const int32_t vectors,
                       const int32_t columns) {
    if (plane->row_mask != NULL) clear_outside(plane, y, x, value, v_set(0), vectors, columns);
    tile_place place = first_tile(plane, y, x, vectors / columns, 4);
    const W *wide = value->wide;
    EACH_PLACE(place, value->count, vectors, columns)
        w_store((int32_t *)(void *)(inner + vector_place(&place, i, columns)), wide[first_ + i]);
}

INLINE void add_plane(const bw_plane *plane, const char *inner, int32_t y, int32_t x, values *value,
                      const int32_t vectors, const int32_t columns) {
    tile_place place = first_tile(plane, y, x, vectors / columns, 2);
    V *narrow = value->narrow;
    EACH_PLACE(place, value->count, vectors, columns) {
        const V other = v_load((const int16_t *)(const void *)(inner + vector_place(&place, i, columns)));
        narrow[first_ + i] = v_add_saturating(narrow[first_ + i], other);
    }
}

/* Fetch rows from <= y < to of a channel, whose first inner vector is at `inner`. */
INLINE void prefetch_rows(const bw_plane *plane, const char *inner, int32_t from, int32_t to, const int to_store) {
    const ptrdiff_t vector = (ptrdiff_t)(BW_LANES * plane->bytes), row = (ptrdiff_t)plane->row_stride * vector;
    for (int32_t y = from; y < to; y++) {
        const char *at = inner + y * row - plane->left * vector;
        for (const char *end = at + (ptrdiff_t)plane->channel_stride * vector; at < end; at += BW_ALIGNMENT) {
            if (to_store) prefetch_to_store(at);
            else prefetch(at);
        }
    }
}

/* Fetch what comes next of a plane, its next channel: the run's rows, and, where other threads have the plane in their
 * caches, the halo's that are made of them, so that these give it up before the stores wait for it. */
INLINE void prefetch_next(const bw_instruction *in, const char *inner, int32_t channel, int32_t y, int32_t count,
                          const int32_t rows) {
    const bw_plane *plane = in->plane;
    if (channel + 1 >= plane->channels) return;
    inner += plane->channel_stride * BW_LANES * plane->bytes;
    const int32_t whole = count / plane->block_width, below = y + (whole > rows ? whole : rows);
    prefetch_rows(plane, inner, y, below, in->prefetch == BW_TO_STORE);
    if (in->prefetch == BW_TO_READ) return;
    if (y == 0) prefetch_rows(plane, inner, plane->block_height, plane->block_height + plane->bottom, 1);
    if (below == plane->block_height) prefetch_rows(plane, inner, -plane->top, 0, 1);
}

/* The first tile of the run begins at inner vector (y, x) of `channel`. */
INLINE void run_program(const bw_program *program, char *arena, int32_t channel, int32_t y, int32_t x, values *value,
                        const int32_t vectors, const int32_t columns) {
    kept_values kept[BW_MAX_KEPT];
    for (const bw_instruction *in = program->instructions; in < program->instructions + program->count; in++) {
        const bw_instruction *requantise = in->to_codes && in->narrow != BW_NEVER && !value->is_wide ? in++ : NULL;
        char *inner = NULL; /* of the plane's channel */
        if (in->plane != NULL) {
            inner = arena + in->plane->offset + bw_inner(in->plane, channel) * BW_LANES * in->plane->bytes;
            if (in->prefetch != BW_NOT_AHEAD) prefetch_next(in, inner, channel, y, value->count, vectors / columns);
        }
        switch (in->action) {
        case BW_KEEP: keep_values(&kept[in->slot], value, in->stays, vectors); break;
        case BW_AGAIN: recall_values(value, &kept[in->slot], in->stays, vectors); break;
        case BW_ADD_PLANE:
            make_narrow(value, vectors);
            add_plane(in->plane, inner, y, x, value, vectors, columns);
            break;
        case BW_STORE:
            if (in->plane->bytes == 4) {
                make_wide(value, vectors);
                store_wide(in->plane, inner, y, x, value, vectors, columns);
            } else {
                const int32_t by = in->zero != NULL ? in->zero[channel] : 0;
                if (requantise != NULL) {
                    store_codes(requantise, in->plane, inner, channel, y, x, value, by, vectors, columns);
                    break;
                }
                make_narrow(value, vectors);
                const V zero = v_set((int16_t)by);
                if (in->plane->bytes == 1) store_narrow(in->plane, inner, y, x, value, zero, vectors, columns, 1);
                else store_narrow(in->plane, inner, y, x, value, zero, vectors, columns, 2);
            }
            break;
        default:
            if (in->narrow != BW_NEVER && !value->is_wide) {
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
NOINLINE static void finish_1x4(const bw_program *program, char *arena, int32_t channel, int32_t y, int32_t x, values *value) {
    run_program(program, arena, channel, y, x, value, 4, 4);
}
NOINLINE static void finish_2x2(const bw_program *program, char *arena, int32_t channel, int32_t y, int32_t x, values *value) {
    run_program(program, arena, channel, y, x, value, 4, 2);
}
NOINLINE static void finish_4x1(const bw_program *program, char *arena, int32_t channel, int32_t y, int32_t x, values *value) {
    run_program(program, arena, channel, y, x, value, 4, 1);
}
