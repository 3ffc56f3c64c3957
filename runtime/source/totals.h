/* The end of a lookup's item: the sums that one thread has made, or the total of several threads' sums, go to the program.
 * Included by kernel_bodies.h, after lookup.h. */

/* What lies in sums number `part` where `first` lies in the first: all are laid out alike. */
INLINE const void *in_part(const bw_totals *totals, int32_t part, const void *first) {
    return totals->sums[part] + ((const char *)first - totals->sums[0]);
}

INLINE int is_spilled(const bw_totals *totals, const uint8_t *spilled) {
    int any = 0;
    for (int32_t part = 0; part < totals->count; part++) any |= *(const uint8_t *)in_part(totals, part, spilled);
    return any;
}

/* `value` is a run of the first sums, none of them spilled: let it be one of totals, in `room`, or wide where these do not
 * fit int16. Each sum but one started at `owed` for nothing. */
static void add_up_narrow(values *value, const bw_totals *totals, V *room, int16_t owed) {
    V most = v_set(0);
    for (int32_t k = 0; k < value->count; k++) {
        room[k] = value->narrow[k];
        for (int32_t part = 1; part < totals->count; part++) {
            const V *more = in_part(totals, part, value->narrow + k);
            room[k] = v_add_saturating(room[k], v_subtract(*more, v_set(owed)));
            most = v_max(most, v_max(room[k], v_subtract(v_set(-1), room[k]))); /* full at either end */
        }
    }
    value->is_wide = v_any_full(most);
    if (!value->is_wide) value->narrow = room;
}

/* The same, wide. spilled: of its first tile. */
static void add_up_wide(const values *value, const bw_totals *totals, const uint8_t *spilled, int16_t owed, int32_t vectors) {
    for (int32_t k = 0; k < value->count; k++) {
        W sum = w_set(-owed * (totals->count - 1));
        for (int32_t part = 0; part < totals->count; part++) {
            sum = w_add(sum, w_widen(*(const V *)in_part(totals, part, value->narrow + k)));
            if (*(const uint8_t *)in_part(totals, part, spilled + k / vectors))
                sum = w_add(sum, *(const W *)in_part(totals, part, value->wide + k));
        }
        value->wide[k] = sum;
    }
}

/* Channel by channel, so that whole rows of a plane are read and written at a time. */
INLINE void finish_tiles(const bw_lookup *step, const bw_context *context, const bw_totals *totals, const int32_t rows,
                         const int32_t columns) {
    const int32_t vectors = rows * columns;
    lookup_item item = open_item(step, totals->item, NULL);
    open_sums(&item, step, totals->sums[0]);
    int spills = 0; /* mostly there are none, and nobody need look for them again */
    for (int32_t tile = 0; tile < item.tiles; tile++) spills |= is_spilled(totals, item.spilled + tile);
    V room[BW_MAX_RUN];
    for (int32_t o = totals->from; o < totals->to; o++) {
        const int16_t owed = step->most_owed > 0 ? step->owed[item.first + o] : 0;
        for (int32_t tile = 0, start = 0; tile < item.tiles; start = tile) {
            const ptrdiff_t at = ((ptrdiff_t)o * item.tiles + tile) * vectors;
            values value = {item.sums + at, item.wide + at, 0, spills && is_spilled(totals, item.spilled + tile)};
            for (; tile < item.tiles && value.count < BW_MAX_RUN; tile++) {
                if (spills && is_spilled(totals, item.spilled + tile) != value.is_wide) break;
                value.count += vectors;
            }
            if (totals->count > 1 && !value.is_wide) add_up_narrow(&value, totals, room, owed);
            if (value.is_wide) add_up_wide(&value, totals, item.spilled + start, owed, vectors);
            const int32_t x = item.x + start * columns;
            if (vectors == 1) finish_1x1(&step->program, context->arena, item.first + o, item.y, x, &value);
            else if (columns == 2) finish_2x2(&step->program, context->arena, item.first + o, item.y, x, &value);
            else finish_4x1(&step->program, context->arena, item.first + o, item.y, x, &value);
        }
    }
}

static void finish(const bw_lookup *step, const bw_context *context, const bw_totals *totals) {
    double since = context->seconds != NULL ? bw_seconds() : 0;
    switch (step->tile) {
    case BW_TILE_1X1: finish_tiles(step, context, totals, 1, 1); break;
    case BW_TILE_2X2: finish_tiles(step, context, totals, 2, 2); break;
    case BW_TILE_4X1: finish_tiles(step, context, totals, 4, 1); break;
    }
    count_time(context, BW_FINISHING, &since);
}
