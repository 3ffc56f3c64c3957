/* The end of a lookup's item: the sums that one thread has made, or the total of several threads' sums, go to the program.
 * Included by kernel_bodies.h, after lookup.h. */

/* What lies in sums number `part` where `first` lies in the first: all are laid out alike. */
INLINE const void *in_part(const bw_totals *totals, int32_t part, const void *first) {
    return totals->sums[part] + ((const char *)first - totals->sums[0]);
}

/* spilled: of a tile of the first sums. */
INLINE int is_spilled(const bw_totals *totals, const uint8_t *spilled, const int several) {
    int any = *spilled;
    for (int32_t part = 1; several && part < totals->count; part++) any |= *(const uint8_t *)in_part(totals, part, spilled);
    return any;
}

/* x = the totals of a run of the first sums, none of which are spilled. Returns 0 where int16 does not hold them. */
static int add_up_narrow(V *x, const values *run, const bw_totals *totals, int16_t owed) {
    const V by = v_set(owed), *so_far = run->narrow;
    V most = v_set(0), least = v_set(0);
    for (int32_t part = 1; part < totals->count; part++, so_far = x) {
        const V *more = in_part(totals, part, run->narrow);
        for (int32_t k = 0; k < run->count; k++) {
            x[k] = v_add_saturating(so_far[k], v_subtract(more[k], by));
            most = v_max(most, x[k]);
            least = v_min(least, x[k]);
        }
    }
    return !v_any_full(v_max(most, v_subtract(v_set(-1), least))); /* full at either end */
}

static void add_up_wide(const values *run, const bw_totals *totals, const uint8_t *spilled, int16_t owed, int32_t vectors) {
    for (int32_t k = 0; k < run->count; k++) {
        W sum = w_set(-owed * (totals->count - 1));
        for (int32_t part = 0; part < totals->count; part++) {
            sum = w_add(sum, w_widen(*(const V *)in_part(totals, part, run->narrow + k)));
            if (*(const uint8_t *)in_part(totals, part, spilled + k / vectors))
                sum = w_add(sum, *(const W *)in_part(totals, part, run->wide + k));
        }
        run->wide[k] = sum;
    }
}

/* Let `value`, a run of the first sums whose first tile's `spilled` is given, be one of totals: narrow, in `room`, or wide.
 * All sums started at `owed`, and one of them should have. */
static void add_up(values *value, V *room, const bw_totals *totals, const uint8_t *spilled, int16_t owed, int32_t vectors) {
    if (!value->is_wide && add_up_narrow(room, value, totals, owed)) {
        value->narrow = room;
        return;
    }
    add_up_wide(value, totals, spilled, owed, vectors);
    value->is_wide = 1;
}

/* Channel by channel, so that whole rows of a plane are read and written at a time. several: sums, or one. */
INLINE void finish_tiles(const bw_lookup *step, const bw_context *context, const bw_totals *totals, const int32_t rows,
                         const int32_t columns, const int several) {
    const int32_t vectors = rows * columns;
    lookup_item item = open_item(step, totals->item, context->scratch);
    open_sums(&item, step, totals->sums[0]);
    V *sums = item.sums + totals->from * item.tiles * vectors, room[BW_MAX_RUN];
    W *wide = item.wide + totals->from * item.tiles * vectors;
    for (int32_t o = totals->from; o < totals->to; o++, sums += item.tiles * vectors, wide += item.tiles * vectors) {
        for (int32_t tile = 0, start = 0; tile < item.tiles; start = tile) {
            values value = {sums + tile * vectors, wide + tile * vectors, 0, is_spilled(totals, item.spilled + tile, several)};
            for (; tile < item.tiles && value.count < BW_MAX_RUN; tile++, value.count += vectors)
                if (is_spilled(totals, item.spilled + tile, several) != value.is_wide) break;
            if (several)
                add_up(&value, room, totals, item.spilled + start, step->most_owed > 0 ? step->owed[item.first + o] : 0, vectors);
            else if (value.is_wide)
                for (int32_t k = 0; k < value.count; k++) value.wide[k] = w_add(value.wide[k], w_widen(value.narrow[k]));
            const int32_t x = item.x + start * columns;
            if (vectors == 1) finish_1x1(&step->program, context->arena, item.first + o, item.y, x, &value);
            else if (columns == 2) finish_2x2(&step->program, context->arena, item.first + o, item.y, x, &value);
            else finish_4x1(&step->program, context->arena, item.first + o, item.y, x, &value);
        }
    }
}

static void finish(const bw_lookup *step, const bw_context *context, const bw_totals *totals) {
    double since = context->seconds != NULL ? bw_seconds() : 0;
    if (totals->count > 1) {
        switch (step->tile) {
        case BW_TILE_1X1: finish_tiles(step, context, totals, 1, 1, 1); break;
        case BW_TILE_2X2: finish_tiles(step, context, totals, 2, 2, 1); break;
        case BW_TILE_4X1: finish_tiles(step, context, totals, 4, 1, 1); break;
        }
    } else {
        switch (step->tile) {
        case BW_TILE_1X1: finish_tiles(step, context, totals, 1, 1, 0); break;
        case BW_TILE_2X2: finish_tiles(step, context, totals, 2, 2, 0); break;
        case BW_TILE_4X1: finish_tiles(step, context, totals, 4, 1, 0); break;
        }
    }
    count_time(context, BW_FINISHING, &since);
}
