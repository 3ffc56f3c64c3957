/* Convolutions of 1-bit weights by tables of sums ("method of the four Russians", Arlazarov et al. 1970).
 *
 * For `group` channels of one vector of pixels there is a table of the 2^group vectors +-x0 +-x1 ...; the bits of the
 * weights are the index into it. One load and one addition then serve group * BW_LANES weights. The tables of a position
 * serve every tap of the window that meets it, and every output channel.
 *
 * Sums are int16 as long as they can be: |sum| <= the sum of |x| over the window so far, whatever the weights. That bound
 * is kept for each pixel, and before it could pass 32767 the sums are added to int32 ones and start again at 0. A value
 * of the table is at most group * 511, the sums of one chunk at most 12 * 5 * 511 = 30660. Halved tables add what complements
 * owe (bw_index_form), counted once in the bound: 9 * 6 * 511 + 9 * ceil(2048 / 6) = 30672.
 */

/* Entry j of the table at `table` is the sum over k < channels of x_k where bit k of j is set, else -x_k. Of six channels
 * there are only the entries with bit 5 of j not set.
 * x: the vectors, `stride` bytes apart, of a plane of `bytes`. positive: no x_k is negative. Returns the sum of |x_k|, int16. */
INLINE V make_table(const char *x, size_t stride, char *table, const int32_t channels, const int32_t bytes, int32_t zero,
                    const int positive) {
    V twice[BW_HALVED_GROUP], entry[8], highest = v_set(0), reach = v_set(0);
    UNROLL for (int32_t k = 0; k < channels; k++) {
        const V value = load_vector(x + (size_t)k * stride, bytes, zero);
        highest = v_add(highest, value);
        if (!positive) reach = v_add(reach, v_absolute(value));
        twice[k] = v_add(value, value);
    }
    const int32_t lower = channels < 3 ? channels : 3; /* bits of j that `entry` covers */
    entry[0] = v_subtract(v_set(0), highest);
    UNROLL for (int32_t k = 0; k < lower; k++)
        UNROLL for (int32_t j = 0; j < 1 << k; j++) entry[j + (1 << k)] = v_add(entry[j], twice[k]);
    const int32_t blocks = channels > 4 ? 4 : channels > 3 ? 2 : 1; /* of as many entries */
    UNROLL for (int32_t block = 0; block < blocks; block++) {
        V more = v_set(0);
        if (block & 1) more = v_add(more, twice[3]);
        if (block & 2) more = v_add(more, twice[4]);
        UNROLL for (int32_t j = 0; j < 1 << lower; j++) {
            v_store((int16_t *)(void *)(table + (8 * block + j) * VECTOR), v_add(entry[j], more));
            KEEP_STORES(); /* two to one cache line, one after the other, go to the cache as one */
        }
    }
    return positive ? highest : reach;
}

/* Where a column of tables comes from: the strides from row to row and channel to channel, in bytes. */
typedef struct {
    size_t vector, row, channel;
    int32_t zero, bytes; /* of the plane */
} table_source;

INLINE table_source open_source(const bw_plane *plane) {
    const size_t vector = BW_LANES * plane->bytes;
    return (table_source){vector, plane->row_stride * vector, plane->channel_stride * vector, plane->zero,
                          (int32_t)plane->bytes};
}

#define TABLES_OF(channels)                                                                              \
    case channels:                                                                                       \
        for (int32_t row = 0; row < rows; row++, x += source->row, table += table_step)                   \
            reach[row] = make_table(x, source->channel, table, channels, bytes, zero, positive);          \
        break;

INLINE void make_tables(const char *x, const table_source *source, char *table, V *reach, int32_t rows, size_t table_step,
                        int32_t channels, const int32_t bytes, int32_t zero, const int positive) {
    switch (channels) {
        TABLES_OF(1)
        TABLES_OF(2)
        TABLES_OF(3)
        TABLES_OF(4)
        TABLES_OF(5)
#if HAS_HALVED
        TABLES_OF(6)
#endif
    }
}

/* A column of `rows` tables, one above the other in memory and in the picture. */
NOINLINE static void make_column(const char *x, const table_source *source, char *table, V *reach, int32_t rows,
                                 size_t table_step, int32_t channels) {
    if (source->bytes == 2) make_tables(x, source, table, reach, rows, table_step, channels, 2, 0, 0);
    else if (source->zero == 0) make_tables(x, source, table, reach, rows, table_step, channels, 1, 0, 1);
    else make_tables(x, source, table, reach, rows, table_step, channels, 1, source->zero, 0);
}

/* Tables follow each other with one vector between them. So the tables of the positions one above the other, in which a
 * tile looks up the same entry, lie in either half of a cache line by turns: some processors (Intel's from Golden Cove)
 * load three vectors a cycle from both halves, and two from one. */
#define TABLE_BYTES(group) ((size_t)VECTOR << ((group) == BW_HALVED_GROUP ? (group) - 1 : (group)))
#define TABLE_STEP(group) (TABLE_BYTES(group) + VECTOR)

INLINE uint64_t load_index(const uint8_t *index) {
    uint64_t word;
    memcpy(&word, index, sizeof word);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* Where a shift would do: processors that rotate into another register (BMI2, Arm) save a move. */
INLINE uint64_t rotate_right(uint64_t word, const int32_t bits) {
    return bits == 0 ? word : word >> bits | word << (64 - bits);
}

/* What an item works on, and with. */
typedef struct {
    int32_t y, x, tiles; /* first output vector; tiles along x */
    int32_t first, outputs;
    char *tables;
    V *reach;         /* (positions) */
    V *sums;          /* (outputs, tiles, tile vectors): an output's are a run of the program */
    W *wide;          /* the same */
    V *bound;         /* (tiles, tile vectors) */
    uint8_t *spilled; /* (tiles) */
    int16_t most_owed;
} lookup_item;

INLINE void open_sums(lookup_item *item, const bw_lookup *step, char *sums) {
    const size_t vectors = (size_t)(step->cut.strip_tiles * bw_tile_rows(step->tile) * bw_tile_columns(step->tile));
    const size_t all = vectors * (size_t)step->cut.part_outputs;
    item->bound = (V *)(void *)sums; /* in the order of bw_sums_bytes */
    item->sums = item->bound + vectors;
    item->wide = (W *)(void *)(item->sums + all);
    item->spilled = (uint8_t *)(item->wide + all);
}

INLINE lookup_item open_item(const bw_lookup *step, int32_t number, char *tables) {
    const bw_cut *cut = &step->cut;
    const int32_t rows = bw_tile_rows(step->tile), columns = bw_tile_columns(step->tile);
    const int32_t part = number % cut->parts, strip = number / cut->parts % cut->strips;
    const int32_t tiles = step->output_width / columns - strip * cut->strip_tiles;
    const int32_t outputs = step->form.outputs - part * cut->part_outputs;
    lookup_item item;
    item.most_owed = step->most_owed;
    item.y = number / cut->parts / cut->strips * rows;
    item.x = strip * cut->strip_tiles * columns;
    item.tiles = tiles < cut->strip_tiles ? tiles : cut->strip_tiles;
    item.first = part * cut->part_outputs;
    item.outputs = outputs < cut->part_outputs ? outputs : cut->part_outputs;
    item.tables = tables; /* in the order of bw_tables_bytes */
    item.reach = (V *)(void *)(tables + (size_t)step->table_positions * bw_table_step(&step->form));
    return item;
}

/* Read rows from <= y < to of an input's channels, a byte of each cache line. */
static void touch_rows(const bw_plane *plane, const char *arena, int32_t first, int32_t channels, int32_t from, int32_t to) {
    const ptrdiff_t vector = (ptrdiff_t)(BW_LANES * plane->bytes), bytes = channels * (ptrdiff_t)plane->channel_stride * vector;
    for (int32_t y = from; y < to; y++) {
        const char *row = arena + plane->offset + ((ptrdiff_t)bw_inner(plane, first) + bw_step(plane, y, -plane->left)) * vector;
        for (ptrdiff_t at = 0; at < bytes; at += BW_ALIGNMENT) (void)*(const volatile char *)(row + at);
    }
}

/* Read what tiles need of the rows above and below their own: other threads may have them in their caches, from where many
 * lines at a time come sooner than few, as the tables need them. */
static void touch_neighbours(const bw_lookup *step, const bw_context *context, const bw_sets *sets, const lookup_item *item) {
    const bw_index_form *form = &step->form;
    const int32_t each = form->group * form->set_groups, first = sets->from * each, left = form->channels - first;
    const int32_t wanted = (sets->to - sets->from) * each, channels = wanted < left ? wanted : left;
    const int32_t rows = bw_tile_rows(step->tile), own = item->y * step->stride;
    const int32_t end = own - step->top + (rows - 1) * step->stride + form->window;
    touch_rows(step->input, context->arena, first, channels, own - step->top, own);
    touch_rows(step->input, context->arena, first, channels, own + rows * step->stride, end);
}

INLINE lookup_item open_sets(const bw_lookup *step, const bw_context *context, const bw_sets *sets, const int32_t vectors) {
    lookup_item item = open_item(step, sets->item, context->scratch);
    open_sums(&item, step, sets->sums);
    if (sets->shared && step->cut.tile_rows > 1) touch_neighbours(step, context, sets, &item);
    if (!sets->starts) return item;
    memset(item.spilled, 0, (size_t)item.tiles);
    for (int32_t k = 0; k < item.tiles * vectors; k++) item.bound[k] = v_set(step->most_owed);
    return item;
}

/* Add the int16 sums of a tile to its int32 ones, and start again. */
static void spill(lookup_item *item, int32_t tile, const int32_t vectors) {
    V *sums = item->sums + tile * vectors;
    W *wide = item->wide + tile * vectors;
    const int again = item->spilled[tile];
    for (int32_t o = 0; o < item->outputs; o++, sums += item->tiles * vectors, wide += item->tiles * vectors)
        for (int32_t i = 0; i < vectors; i++) {
            wide[i] = again ? w_add(wide[i], w_widen(sums[i])) : w_widen(sums[i]);
            sums[i] = v_set(0);
        }
    for (int32_t i = 0; i < vectors; i++) item->bound[tile * vectors + i] = v_set(item->most_owed);
    item->spilled[tile] = 1;
}

/* Bound a tile by the sums themselves: they are mostly far less than all their terms could make them. */
static void measure_bound(const lookup_item *item, int32_t tile, const int32_t vectors) {
    V *bound = item->bound + tile * vectors, most[BW_MAX_TILE];
    const V *sums = item->sums + tile * vectors;
    for (int32_t i = 0; i < vectors; i++) most[i] = v_set(0);
    for (int32_t o = 0; o < item->outputs; o++, sums += item->tiles * vectors)
        UNROLL for (int32_t i = 0; i < vectors; i++) most[i] = v_max(most[i], v_absolute(sums[i]));
    for (int32_t i = 0; i < vectors; i++) bound[i] = v_add_saturating(most[i], v_set(item->most_owed));
}

INLINE int would_fill(const V *bound, const V *more, const int32_t vectors) {
    V largest = v_set(0);
    UNROLL for (int32_t i = 0; i < vectors; i++) largest = v_max(largest, v_add_saturating(bound[i], more[i]));
    return v_any_full(largest);
}

INLINE void count_time(const bw_context *context, bw_part part, double *since) {
    if (context->seconds == NULL) return;
    const double now = bw_seconds();
    context->seconds[part] += now - *since - context->reading;
    *since = now;
}

/* Before sums of at most `more` are added to a tile: spill it if they could pass int16. What went before was for tables. */
INLINE void keep_bound(lookup_item *item, int32_t tile, const V *more, const int32_t vectors, const bw_context *context,
                       double *since) {
    V *bound = item->bound + tile * vectors;
    if (would_fill(bound, more, vectors)) {
        count_time(context, BW_TABLES, since);
        measure_bound(item, tile, vectors);
        if (would_fill(bound, more, vectors)) spill(item, tile, vectors);
        count_time(context, BW_SPILLS, since);
    }
    UNROLL for (int32_t i = 0; i < vectors; i++) bound[i] = v_add_saturating(bound[i], more[i]);
}

/* ------------------------------------------------------------------ 3 x 3 */

/* The indices of `groups` groups and as many outputs as are done between one fetching and the next. They are over before a
 * processor's own prefetching has begun; all of a set at once would wait for each other. */
#define FETCHED_OUTPUTS 32
INLINE void prefetch_indices(const uint8_t *index, size_t next_index, const int32_t bytes, const int32_t groups) {
    for (int32_t g = 0; g < groups; g++, index += next_index)
        for (int32_t at = 0; at < bytes; at += BW_ALIGNMENT) prefetch(index + at);
}

/* What lookups take and add to. */
typedef struct {
    const char *tables;
    const uint8_t *index; /* of the first output; */
    size_t next_index;    /* bytes to those of the next group, and */
    size_t ahead;         /* to those that the next call needs, 0: to none that are not at hand */
    V *sums;              /* of a tile, for the first output; */
    ptrdiff_t next_sums;  /* vectors to those of the next output */
    int32_t outputs;
    int first;            /* whether the sums start here, and */
    const int16_t *owed;  /* (outputs) where; NULL: at 0 */
} lookups;

/* The sums of a tile for output o, before lookups. */
INLINE void take_sums(V *sum, const lookups *l, const V *sums, int32_t o, const int32_t vectors) {
    if (l->first) {
        const V owed = v_set(l->owed != NULL ? l->owed[o] : 0);
        UNROLL for (int32_t i = 0; i < vectors; i++) sum[i] = owed;
    } else {
        UNROLL for (int32_t i = 0; i < vectors; i++) sum[i] = sums[i];
    }
}

/* Add the lookups of `groups` groups to the sums of one tile. The tables of a group stand column by column in a ring of as
 * many columns as a tile's window has; `phase` is the slot of its first. The tables of the next group follow. Everything
 * but the indices is a constant. */
INLINE void look_up_3x3(const lookups *all, const int32_t rows, const int32_t columns, const int32_t stride,
                        const int32_t group, const int32_t groups, const int32_t phase) {
    const lookups l = *all; /* a copy: sums might be stored into *all, for all that a compiler knows */
    const char *tables = l.tables;
    const uint8_t *index = l.index;
    V *sums = l.sums;
    const int32_t high = (rows - 1) * stride + 3, ring = (columns - 1) * stride + 3, vectors = rows * columns;
    const int32_t index_bytes = (9 * group + 7) / 8, table_step = (int32_t)TABLE_STEP(group);
    const uint64_t mask = TABLE_BYTES(group) - VECTOR;
    for (int32_t o = 0; o < l.outputs; o++, index += index_bytes, sums += l.next_sums) {
        if (l.ahead > 0 && o % FETCHED_OUTPUTS == 0)
            prefetch_indices(index + l.ahead, l.next_index, FETCHED_OUTPUTS * index_bytes, groups);
        V sum[BW_MAX_TILE];
        take_sums(sum, &l, sums, o, vectors);
        UNROLL for (int32_t g = 0; g < groups; g++) {
            uint64_t word = load_index(index + (size_t)g * l.next_index);
#if HAS_HALVED
            const V all_bits = v_set_bits(word);
#endif
            UNROLL for (int32_t t = 0; t < 9; t++) {
                /* Offset in a table, 2^5 = VECTOR; added to `tables` by the loads themselves. */
                const uint64_t entry = rotate_right(word, (group * t - 5) & 63) & mask;
#if HAS_HALVED
                const V complements = v_spread_bit(all_bits, group * t + group - 1);
#endif
                UNROLL for (int32_t i = 0; i < vectors; i++) {
                    const int32_t row = t / 3 + i / columns * stride;
                    const int32_t slot = (t % 3 + i % columns * stride + phase) % ring;
                    const size_t table = (size_t)(((g * ring + slot) * high + row) * table_step);
                    V found = v_load((const int16_t *)(const void *)(tables + table + entry));
#if HAS_HALVED
                    if (group == BW_HALVED_GROUP) found = v_xor(found, complements);
#endif
                    sum[i] = v_add(sum[i], found);
                }
                KEEP_ORDER(word, sum, vectors);
            }
        }
        UNROLL for (int32_t i = 0; i < vectors; i++) sums[i] = sum[i];
    }
}

typedef void look_up_function(const lookups *);

INLINE lookups lookups_of(const bw_lookup *step, const lookup_item *item, int32_t tile, const int32_t vectors) {
    return (lookups){.tables = item->tables, .sums = item->sums + tile * vectors, .next_sums = (ptrdiff_t)item->tiles * vectors,
                     .outputs = item->outputs, .owed = step->most_owed > 0 ? step->owed + item->first : NULL};
}

/* Add to each of a tile's vectors the sum of its window of `reach`, which lies as the tables of a group do. */
INLINE void add_reach(V *more, const V *reach, int32_t phase, const int32_t rows, const int32_t columns,
                      const int32_t stride) {
    const int32_t high = (rows - 1) * stride + 3, ring = (columns - 1) * stride + 3;
    UNROLL for (int32_t column = 0; column < columns; column++) {
        const V *at[3];
        V across[9];
        UNROLL for (int32_t u = 0; u < 3; u++) at[u] = reach + (column * stride + u + phase) % ring * high;
        UNROLL for (int32_t row = 0; row < high; row++) across[row] = v_add(v_add(at[0][row], at[1][row]), at[2][row]);
        UNROLL for (int32_t row = 0; row < rows; row++) {
            const V *window = across + row * stride;
            V *to = more + row * columns + column;
            *to = v_add(*to, v_add(v_add(window[0], window[1]), window[2]));
        }
    }
}

INLINE void lookup_3x3(const bw_lookup *step, const bw_context *context, const bw_sets *sets,
                       look_up_function *const *const *look_up, const int32_t rows, const int32_t columns,
                       const int32_t stride, const int32_t group) {
    const int32_t high = (rows - 1) * stride + 3, ring = (columns - 1) * stride + 3, vectors = rows * columns;
    const int32_t overlap = ring - columns * stride; /* columns of tables that the next tile uses again */
    const bw_index_form *form = &step->form;
    const table_source source = open_source(step->input);
    const char *input = context->arena + step->input->offset;
    double since = context->seconds != NULL ? bw_seconds() : 0;
    lookup_item item = open_sets(step, context, sets, vectors);
    const ptrdiff_t corner = bw_step(step->input, item.y * stride - step->top, item.x * stride - step->left);
    const size_t next_index = (size_t)form->outputs * (size_t)form->index_bytes;
    for (int32_t set = sets->from, groups; set < sets->to; set += groups) {
        groups = set + step->groups_at_once <= sets->to ? step->groups_at_once : 1;
        const uint8_t *index = step->indices + (size_t)set * next_index + (size_t)item.first * (size_t)form->index_bytes;
        int32_t phase = 0;
        for (int32_t tile = 0; tile < item.tiles; tile++) {
            V more[BW_MAX_TILE];
            UNROLL for (int32_t i = 0; i < vectors; i++) more[i] = v_set(0);
            for (int32_t g = 0; g < groups; g++) {
                const int32_t first = (set + g) * group, left = form->channels - first, channels = left < group ? left : group;
                const char *x = input + ((ptrdiff_t)bw_inner(step->input, first) + corner) * (ptrdiff_t)source.vector;
                char *tables = item.tables + (size_t)(g * ring * high) * TABLE_STEP(group);
                V *reach = item.reach + g * ring * high;
                for (int32_t column = tile > 0 ? overlap : 0; column < ring; column++) {
                    const int32_t slot = (phase + column) % ring;
                    make_column(x + (size_t)(tile * columns * stride + column) * source.vector, &source,
                                tables + (size_t)(slot * high) * TABLE_STEP(group), reach + slot * high, high,
                                TABLE_STEP(group), channels);
                }
                add_reach(more, reach, phase, rows, columns, stride);
            }
            keep_bound(&item, tile, more, vectors, context, &since);
            count_time(context, BW_TABLES, &since);
            lookups l = lookups_of(step, &item, tile, vectors);
            l.first = sets->starts && set == sets->from;
            l.index = index;
            l.next_index = next_index;
            l.ahead = tile == 0 && set + 2 * groups <= form->sets ? (size_t)groups * next_index : 0;
            look_up[groups - 1][phase](&l);
            count_time(context, BW_LOOKUPS, &since);
            phase = (phase + columns * stride) % ring;
        }
    }
}

/* The tiles, strides and groups that have code of their own, by the columns of their ring. */
#define PHASE(rows, columns, stride, group, groups, phase) look_up_##rows##columns##stride##group##groups##phase
#define LOOK_UP(rows, columns, stride, group, groups, phase)                                                         \
    static void PHASE(rows, columns, stride, group, groups, phase)(const lookups *l) {                               \
        look_up_3x3(l, rows, columns, stride, group, groups, phase);                                                 \
    }
#define PHASES(rows, columns, stride, group, groups)                                                                 \
    static look_up_function *const phases_##rows##columns##stride##group##groups[5]
#define LOOK_UP_3(rows, columns, stride, group, groups)                                                              \
    LOOK_UP(rows, columns, stride, group, groups, 0)                                                                 \
    LOOK_UP(rows, columns, stride, group, groups, 1)                                                                 \
    LOOK_UP(rows, columns, stride, group, groups, 2)                                                                 \
    PHASES(rows, columns, stride, group, groups) = {PHASE(rows, columns, stride, group, groups, 0),                  \
                                                    PHASE(rows, columns, stride, group, groups, 1),                  \
                                                    PHASE(rows, columns, stride, group, groups, 2)};
#define LOOK_UP_4(rows, columns, stride, group, groups) /* of 4 only every second: the next tile is 2 columns on */  \
    LOOK_UP(rows, columns, stride, group, groups, 0)                                                                 \
    LOOK_UP(rows, columns, stride, group, groups, 2)                                                                 \
    PHASES(rows, columns, stride, group, groups) = {PHASE(rows, columns, stride, group, groups, 0), NULL,            \
                                                    PHASE(rows, columns, stride, group, groups, 2)};
#define LOOK_UP_5(rows, columns, stride, group, groups)                                                              \
    LOOK_UP(rows, columns, stride, group, groups, 0)                                                                 \
    LOOK_UP(rows, columns, stride, group, groups, 1)                                                                 \
    LOOK_UP(rows, columns, stride, group, groups, 2)                                                                 \
    LOOK_UP(rows, columns, stride, group, groups, 3)                                                                 \
    LOOK_UP(rows, columns, stride, group, groups, 4)                                                                 \
    PHASES(rows, columns, stride, group, groups) = {                                                                 \
        PHASE(rows, columns, stride, group, groups, 0), PHASE(rows, columns, stride, group, groups, 1),              \
        PHASE(rows, columns, stride, group, groups, 2), PHASE(rows, columns, stride, group, groups, 3),              \
        PHASE(rows, columns, stride, group, groups, 4)};
#define LOOKUP(rows, columns, stride, group, ...)                                                                    \
    static void lookup_##rows##columns##stride##group(const bw_lookup *step, const bw_context *context,              \
                                                      const bw_sets *sets) {                                         \
        static look_up_function *const *const look_up[] = {__VA_ARGS__};                                             \
        lookup_3x3(step, context, sets, look_up, rows, columns, stride, group);                                      \
    }
#define ONE(ring, rows, columns, stride, group)                                                                      \
    LOOK_UP_##ring(rows, columns, stride, group, 1)                                                                  \
    LOOKUP(rows, columns, stride, group, phases_##rows##columns##stride##group##1)
#if GROUPS_AT_ONCE > 1
#define ONE_OR_TWO(ring, rows, columns, stride, group)                                                               \
    LOOK_UP_##ring(rows, columns, stride, group, 1)                                                                  \
    LOOK_UP_##ring(rows, columns, stride, group, 2)                                                                  \
    LOOKUP(rows, columns, stride, group, phases_##rows##columns##stride##group##1, phases_##rows##columns##stride##group##2)
#else
#define ONE_OR_TWO ONE
#endif
#define LOOKUPS(group)                                                                                               \
    ONE(3, 1, 1, 1, group)                                                                                           \
    ONE_OR_TWO(3, 4, 1, 1, group)                                                                                    \
    ONE_OR_TWO(4, 2, 2, 1, group)                                                                                    \
    ONE(3, 1, 1, 2, group)                                                                                           \
    ONE(3, 4, 1, 2, group)                                                                                           \
    ONE(5, 2, 2, 2, group)
LOOKUPS(4)
LOOKUPS(5)
#if HAS_HALVED
LOOKUPS(6)
#define OR_NULL(function) function
#else
#define OR_NULL(function) NULL
#endif

/* ------------------------------------------------------------------ any window */

INLINE void look_up_any(const lookups *all, const int32_t *at, int32_t taps, const int32_t *tile_at, int32_t index_bytes,
                        const int32_t vectors, const int32_t group) {
    const lookups l = *all;
    const uint8_t *index = l.index;
    V *sums = l.sums;
    const uint64_t mask = ((uint64_t)1 << group) - 1;
    for (int32_t o = 0; o < l.outputs; o++, index += index_bytes, sums += l.next_sums) {
        uint64_t word = load_index(index);
        V sum[BW_MAX_TILE];
        take_sums(sum, &l, sums, o, vectors);
        for (int32_t t = 0; t < taps; t++, word >>= group) {
            const char *entry = l.tables + at[t] + (word & mask) * VECTOR;
            UNROLL for (int32_t i = 0; i < vectors; i++)
                sum[i] = v_add(sum[i], v_load((const int16_t *)(const void *)(entry + tile_at[i])));
        }
        UNROLL for (int32_t i = 0; i < vectors; i++) sums[i] = sum[i];
    }
}

INLINE void lookup_any(const bw_lookup *step, const bw_context *context, const bw_sets *sets, const int32_t rows,
                       const int32_t columns, const int32_t group) {
    const bw_index_form *form = &step->form;
    const int32_t window = form->window, stride = step->stride, vectors = rows * columns;
    const int32_t high = (rows - 1) * stride + window, wide = (columns - 1) * stride + window;
    const int32_t table_step = (int32_t)TABLE_STEP(group);
    const table_source source = open_source(step->input);
    const char *input = context->arena + step->input->offset;
    const uint8_t *index = step->indices;
    double since = context->seconds != NULL ? bw_seconds() : 0;
    lookup_item item = open_sets(step, context, sets, vectors);
    /* Tables stand as the positions do, column by column; under a window of one, group by group. */
    int32_t tile_at[BW_MAX_TILE];
    for (int32_t i = 0; i < vectors; i++)
        tile_at[i] = window > 1 ? (i % columns * stride * high + i / columns * stride) * table_step : i * table_step;
    for (int32_t set = sets->from; set < sets->to; set++) {
        const int32_t first = set * form->set_groups * group, left = (form->channels - first + group - 1) / group;
        const int32_t groups = left < form->set_groups ? left : form->set_groups;
        const int32_t all_taps = groups * window * window;
        for (int32_t tile = 0; tile < item.tiles; tile++) {
            const int32_t y = item.y * stride - step->top, x = (item.x + tile * columns) * stride - step->left;
            for (int32_t g = 0; g < groups; g++) {
                const int32_t c = first + g * group;
                const int32_t channels = form->channels - c < group ? form->channels - c : group;
                const char *from =
                    input + ((ptrdiff_t)bw_inner(step->input, c) + bw_step(step->input, y, x)) * (ptrdiff_t)source.vector;
                if (window > 1) {
                    for (int32_t column = 0; column < wide; column++)
                        make_column(from + (size_t)column * source.vector, &source,
                                    item.tables + (size_t)(column * high) * (size_t)table_step,
                                    item.reach + column * high, high, (size_t)table_step, channels);
                } else {
                    for (int32_t i = 0; i < vectors; i++) {
                        const ptrdiff_t at = bw_step(step->input, i / columns * stride, i % columns * stride);
                        make_column(from + at * (ptrdiff_t)source.vector, &source,
                                    item.tables + (size_t)(g * vectors + i) * (size_t)table_step,
                                    item.reach + g * vectors + i, 1, (size_t)table_step, channels);
                    }
                }
            }
            for (int32_t chunk = 0; chunk * form->chunk_taps < all_taps; chunk++) {
                const int32_t start = chunk * form->chunk_taps, rest = all_taps - start;
                const int32_t taps = rest < form->chunk_taps ? rest : form->chunk_taps;
                int32_t at[BW_MAX_TAPS];
                V more[BW_MAX_TILE];
                UNROLL for (int32_t i = 0; i < vectors; i++) more[i] = v_set(0);
                for (int32_t t = 0; t < taps; t++) {
                    const int32_t k = start + t;
                    const int32_t table = window > 1 ? k % window * high + k / window : k * vectors;
                    at[t] = table * table_step;
                    UNROLL for (int32_t i = 0; i < vectors; i++)
                        more[i] = v_add(more[i], item.reach[table + tile_at[i] / table_step]);
                }
                keep_bound(&item, tile, more, vectors, context, &since);
                count_time(context, BW_TABLES, &since);
                const size_t row = ((size_t)set * (size_t)form->chunks + (size_t)chunk) * (size_t)form->outputs;
                lookups l = lookups_of(step, &item, tile, vectors);
                l.first = sets->starts && set == sets->from && chunk == 0;
                l.index = index + (row + (size_t)item.first) * (size_t)form->index_bytes;
                look_up_any(&l, at, taps, tile_at, form->index_bytes, vectors, group);
                count_time(context, BW_LOOKUPS, &since);
            }
        }
    }
}

static void lookup_any_114(const bw_lookup *s, const bw_context *c, const bw_sets *k) { lookup_any(s, c, k, 1, 1, 4); }
static void lookup_any_115(const bw_lookup *s, const bw_context *c, const bw_sets *k) { lookup_any(s, c, k, 1, 1, 5); }
static void lookup_any_224(const bw_lookup *s, const bw_context *c, const bw_sets *k) { lookup_any(s, c, k, 2, 2, 4); }
static void lookup_any_225(const bw_lookup *s, const bw_context *c, const bw_sets *k) { lookup_any(s, c, k, 2, 2, 5); }
static void lookup_any_414(const bw_lookup *s, const bw_context *c, const bw_sets *k) { lookup_any(s, c, k, 4, 1, 4); }
static void lookup_any_415(const bw_lookup *s, const bw_context *c, const bw_sets *k) { lookup_any(s, c, k, 4, 1, 5); }

static void lookup(const bw_lookup *step, const bw_context *context, const bw_sets *sets) {
    typedef void lookup_function(const bw_lookup *, const bw_context *, const bw_sets *);
    static lookup_function *const any[3][2] = {
        {lookup_any_114, lookup_any_115}, {lookup_any_224, lookup_any_225}, {lookup_any_414, lookup_any_415}};
    static lookup_function *const three[2][3][3] = {{{lookup_1114, lookup_1115, OR_NULL(lookup_1116)},
                                                     {lookup_2214, lookup_2215, OR_NULL(lookup_2216)},
                                                     {lookup_4114, lookup_4115, OR_NULL(lookup_4116)}},
                                                    {{lookup_1124, lookup_1125, OR_NULL(lookup_1126)},
                                                     {lookup_2224, lookup_2225, OR_NULL(lookup_2226)},
                                                     {lookup_4124, lookup_4125, OR_NULL(lookup_4126)}}};
    const int32_t group = step->form.group - 4;
    if (step->form.window == 3) three[step->stride - 1][step->tile][group](step, context, sets);
    else any[step->tile][group](step, context, sets);
}
