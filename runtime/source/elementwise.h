/* The steps other than lookups: 8-bit convolutions, pooling, gathering, sums. Included by kernel_bodies.h. */

static const int16_t *int16_plane(const bw_plane *plane, const char *arena) {
    return (const int16_t *)(const void *)(arena + plane->offset);
}

/* ------------------------------------------------------------------ runs */

/* Collects the values of a channel, vector after vector of a block, for the program: many at a time cost little more than
 * one. */
typedef struct {
    const bw_program *program;
    char *arena;
    int32_t channel, columns, vector; /* columns: of the block; vector: number of the first in `value` */
    values value;
    V narrow[BW_MAX_RUN];
    W wide[BW_MAX_RUN];
} block_run;

INLINE void open_run(block_run *run, const bw_program *program, const bw_context *context, int32_t channel, int32_t columns) {
    run->program = program; /* field by field: a list would clear all values */
    run->arena = context->arena;
    run->channel = channel;
    run->columns = columns;
    run->vector = 0;
    run->value = (values){run->narrow, run->wide, 0, 0};
}

INLINE void finish_run(block_run *run) {
    const int32_t count = run->value.count, y = run->vector / run->columns, x = run->vector % run->columns;
    /* Four at a time where they are so in the plane. */
    if (run->columns % 4 == 0) finish_1x4(run->program, run->arena, run->channel, y, x, &run->value);
    else if (run->columns == 2 && count == 4) finish_2x2(run->program, run->arena, run->channel, y, x, &run->value);
    else if (count > 0) finish_1x1(run->program, run->arena, run->channel, y, x, &run->value);
    run->vector += count;
    run->value.count = 0;
}

/* All values of a run are wide, or all are narrow. */
INLINE void add_to_run(block_run *run, W value) {
    if (run->value.count == BW_MAX_RUN) finish_run(run);
    run->value.is_wide = 1;
    run->value.wide[run->value.count++] = value;
}

INLINE void add_narrow_to_run(block_run *run, V value) {
    if (run->value.count == BW_MAX_RUN) finish_run(run);
    run->value.is_wide = 0;
    run->value.narrow[run->value.count++] = value;
}

INLINE void finish_one(const bw_program *program, char *arena, int32_t channel, int32_t y, int32_t x, W value) {
    V narrow;
    values one = {&narrow, &value, 1, 1};
    finish_1x1(program, arena, channel, y, x, &one);
}

/* ------------------------------------------------------------------ convolutions by multiplication */

/* Sums of `outputs` channels at output vector (y, x): products of pairs of channels, added in int32. */
INLINE void multiply_window(const bw_direct *step, const bw_context *context, int32_t y, int32_t x, int32_t first,
                            const int32_t outputs) {
    const int32_t window = step->window, pairs = (step->channels + 1) / 2;
    const int32_t bytes = (int32_t)step->input->bytes, zero = step->input->zero;
    const size_t vector = BW_LANES * step->input->bytes, tap_weights = 2 * (size_t)pairs;
    const size_t stride_c = step->input->channel_stride * vector;
    const size_t output_weights = (size_t)window * (size_t)window * tap_weights;
    const char *input = context->arena + step->input->offset + bw_inner(step->input, 0) * vector;
    const int16_t *weights = step->weights + (size_t)first * output_weights;
    W sum[4];
    UNROLL for (int32_t o = 0; o < outputs; o++) sum[o] = w_set(0);
    for (int32_t v = 0; v < window; v++)
        for (int32_t u = 0; u < window; u++) {
            const char *from = input + bw_step(step->input, y * step->stride - step->top + v,
                                               x * step->stride - step->left + u) * (ptrdiff_t)vector;
            for (int32_t pair = 0; pair < pairs; pair++, weights += 2) {
                const size_t second = 2 * pair + 1 < step->channels ? stride_c : 0; /* odd: its weight is 0 */
                const P both = v_pair(load_vector(from, bytes, zero), load_vector(from + second, bytes, zero));
                UNROLL for (int32_t o = 0; o < outputs; o++)
                    sum[o] = w_add_products(sum[o], both, weights + (size_t)o * output_weights);
                from += 2 * stride_c;
            }
        }
    for (int32_t o = 0; o < outputs; o++) {
        finish_one(&step->program, context->arena, first + o, y, x, sum[o]);
    }
}

static void direct(const bw_direct *step, const bw_context *context, int32_t number) {
    const bw_cut *cut = &step->cut;
    const int32_t part = number % cut->parts, strip = number / cut->parts % cut->strips;
    const int32_t y = number / cut->parts / cut->strips, from = strip * cut->strip_tiles;
    const int32_t columns = step->output_width - from, first = part * cut->part_outputs;
    const int32_t to = from + (columns < cut->strip_tiles ? columns : cut->strip_tiles);
    const int32_t left = step->outputs - first, last = first + (left < cut->part_outputs ? left : cut->part_outputs);
    for (int32_t x = from; x < to; x++) {
        int32_t o = first;
        for (; o + 4 <= last; o += 4) multiply_window(step, context, y, x, o, 4);
        for (; o < last; o++) multiply_window(step, context, y, x, o, 1);
    }
}

/* ------------------------------------------------------------------ pooling */

/* floor((2 sum + count) / (2 count)), lane by lane: the mean, halves rounded up. reciprocal: 1 / count, of a count of 1..9,
 * and |sum| <= count * 2^15.
 *
 * It is the floor of m = (sum + 1/4) / count + 1/2 too, which no integer is nearer to than 1 / (4 count) >= 1/36. As float,
 * |m| <= 2^15 + 1 comes out wrong by at most 3 * 2^-24 of itself; 2^16 more makes it positive, so that to cut off is to
 * floor, and costs a rounding of at most 2^-8: together less than 1/100. */
INLINE W rounded_mean(W sum, const float *reciprocal) {
    int32_t value[BW_LANES];
    w_store(value, sum);
    for (int32_t lane = 0; lane < BW_LANES; lane++)
        value[lane] = (int32_t)(((float)value[lane] + 0.25f) * reciprocal[lane] + 0.5f + 65536.0f) - 65536;
    return w_load(value);
}

/* start + the weighted sum of a window. weights: nine, and a 0. */
INLINE W pool_sum(W start, const int16_t *from, size_t row_stride, const int16_t *weights) {
    V value[10];
    UNROLL for (int32_t k = 0; k < 9; k++) value[k] = v_load(from + (size_t)(k / 3) * row_stride + k % 3 * BW_LANES);
    value[9] = value[8];
    UNROLL for (int32_t k = 0; k < 10; k += 2)
        start = w_add_products(start, v_pair(value[k], value[k + 1]), weights + k);
    return start;
}

static const int16_t binomial[10] = {1, 2, 1, 2, 4, 2, 1, 2, 1, 0}, uniform[10] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 0};

INLINE V pool_max(const bw_pool *step, const int16_t *from, size_t row_stride, int32_t y, int32_t x) {
    V largest = v_set(INT16_MIN);
    for (int32_t v = 0; v < 3; v++, from += row_stride) {
        const V row = v_load(step->row_inside + (v * step->output_height + y) * BW_LANES);
        for (int32_t u = 0; u < 3; u++) {
            const V inside = v_and(row, v_load(step->column_inside + (u * step->output_width + x) * BW_LANES));
            const V value = v_load(from + u * BW_LANES);
            largest = v_max(largest, v_select(inside, value, v_set(INT16_MIN)));
        }
    }
    return largest;
}

/* The window whose first vector is at `from`, for result vector (y, x). */
INLINE V pool_window(const bw_pool *step, const int16_t *from, size_t row_stride, int32_t y, int32_t x, const bw_pool_kind kind) {
    switch (kind) {
    case BW_BINOMIAL: return v_narrow(w_shift(pool_sum(w_set(8), from, row_stride, binomial), 4));
    case BW_MAX: return pool_max(step, from, row_stride, y, x);
    case BW_MEAN:
    case BW_MEAN_REAL: break;
    }
    const float *reciprocal = step->reciprocal + (y * step->output_width + x) * BW_LANES;
    return v_narrow(rounded_mean(pool_sum(w_set(0), from, row_stride, uniform), reciprocal));
}

INLINE void pool_channel(const bw_pool *step, const bw_context *context, int32_t channel, const bw_pool_kind kind) {
    const bw_plane *in = step->input;
    const size_t row_stride = in->row_stride * BW_LANES;
    const int16_t *inner = int16_plane(in, context->arena) + bw_inner(in, channel) * BW_LANES;
    block_run run;
    open_run(&run, &step->program, context, channel, step->output_width);
    for (int32_t y = 0; y < step->output_height; y++) {
        const int16_t *from = inner + bw_step(in, 2 * y - step->top, -step->left) * BW_LANES;
        for (int32_t x = 0; x < step->output_width; x++, from += 2 * BW_LANES)
            add_narrow_to_run(&run, pool_window(step, from, row_stride, y, x, kind));
    }
    finish_run(&run);
}

/* Channels past the input's are 0. */
static void pool_nothing(const bw_pool *step, const bw_context *context, int32_t channel) {
    block_run run;
    open_run(&run, &step->program, context, channel, step->output_width);
    for (int32_t k = 0; k < step->output_height * step->output_width; k++) add_narrow_to_run(&run, v_set(0));
    finish_run(&run);
}

static void pool(const bw_pool *step, const bw_context *context, int32_t channel) {
    if (channel >= step->channels) {
        pool_nothing(step, context, channel);
        return;
    }
    switch ((bw_pool_kind)step->kind) {
    case BW_BINOMIAL: pool_channel(step, context, channel, BW_BINOMIAL); break;
    case BW_MAX: pool_channel(step, context, channel, BW_MAX); break;
    case BW_MEAN:
    case BW_MEAN_REAL: pool_channel(step, context, channel, BW_MEAN); break;
    }
}

/* ------------------------------------------------------------------ one value to one value */

INLINE W plane_value(const bw_plane *plane, const char *arena, size_t vector) {
    const char *from = arena + plane->offset + vector * BW_LANES * plane->bytes;
    if (plane->bytes == 4) return w_load((const int32_t *)(const void *)from);
    return w_widen(load_vector(from, (int32_t)plane->bytes, plane->zero));
}

static void map(const bw_map *step, const bw_context *context, int32_t channel) {
    const W zero = w_set(step->zero != NULL ? step->zero[channel] : 0);
    block_run run;
    open_run(&run, &step->program, context, channel, step->input->block_width);
    for (int32_t y = 0; y < step->input->block_height; y++)
        for (int32_t x = 0; x < step->input->block_width; x++) {
            const size_t vector = bw_inner(step->input, channel) + (size_t)bw_step(step->input, y, x);
            add_to_run(&run, w_add(plane_value(step->input, context->arena, vector), zero));
        }
    finish_run(&run);
}

static void gather(const bw_gather *step, const bw_context *context, int32_t channel) {
    const int32_t *from = step->from;
    block_run run;
    open_run(&run, &step->program, context, channel, step->columns);
    for (int32_t vector = 0; vector < step->vectors; vector++, from += BW_LANES) {
        int32_t lanes[BW_LANES];
        if (step->input == NULL) {
            const uint8_t *given = context->pixels + (size_t)channel * step->channel_stride;
            for (int32_t lane = 0; lane < BW_LANES; lane++) {
                const int inside = from[lane] >= 0 && step->picture[lane] < context->pictures;
                lanes[lane] = inside ? given[step->picture[lane] * step->picture_stride + (size_t)from[lane]] : 0;
            }
        } else if (step->input->bytes == 1) { /* as they are, less their zero point */
            const uint8_t *given = (const uint8_t *)(context->arena + step->input->offset);
            given += (size_t)channel * step->channel_stride;
            for (int32_t lane = 0; lane < BW_LANES; lane++) lanes[lane] = from[lane] >= 0 ? given[from[lane]] : 0;
        } else if (step->input->bytes == 4) {
            const int32_t *given = (const int32_t *)(const void *)(context->arena + step->input->offset);
            given += (size_t)channel * step->channel_stride;
            for (int32_t lane = 0; lane < BW_LANES; lane++) lanes[lane] = from[lane] >= 0 ? given[from[lane]] : 0;
        } else {
            const int16_t *given = int16_plane(step->input, context->arena) + (size_t)channel * step->channel_stride;
            for (int32_t lane = 0; lane < BW_LANES; lane++) lanes[lane] = from[lane] >= 0 ? given[from[lane]] : 0;
        }
        add_to_run(&run, w_load(lanes));
    }
    finish_run(&run);
}

/* ------------------------------------------------------------------ sums over all positions */

/* Entry (k, j) of the tables is the sum of total[4 k + i] where bit i of j is set, else of -total[4 k + i]. */
static void make_sum_tables(const int32_t *total, int32_t channels, int32_t *tables) {
    for (int32_t c = 0; c < channels; c += 4, tables += 16) {
        tables[0] = 0;
        for (int32_t k = 0; k < 4 && c + k < channels; k++) tables[0] -= total[c + k];
        for (int32_t k = 0; k < 4; k++) {
            const int32_t more = c + k < channels ? total[c + k] : 0;
            for (int32_t j = 0; j < 1 << k; j++) tables[j + (1 << k)] = tables[j] + more + more; /* twice may not fit */
        }
    }
}

static int32_t one_sum(const bw_sum *step, const int32_t *total, const int32_t *tables, int32_t output) {
    const int32_t channels = step->input->channels;
    int32_t sum = 0;
    if (step->bits != NULL) {
        const int32_t groups = (channels + 3) / 4;
        const uint8_t *bits = step->bits + (size_t)output * (size_t)((groups + 1) / 2);
        for (int32_t k = 0; k < groups; k++) sum += tables[16 * k + (bits[k / 2] >> (k % 2 * 4) & 15)];
        return sum;
    }
    if (step->weights == NULL) return total[output];
    const int8_t *weights = step->weights + (size_t)output * (size_t)channels;
    for (int32_t c = 0; c < channels; c++) sum += weights[c] * total[c];
    return sum;
}

static void sum(const bw_sum *step, const bw_context *context) {
    const bw_plane *in = step->input;
    const int32_t lanes_each = BW_LANES / in->grid.pictures;
    int32_t *totals = (int32_t *)(void *)context->scratch; /* (pictures, channels) */
    int32_t *sums = totals + in->grid.pictures * in->channels; /* (outputs, BW_LANES) */
    int32_t *tables = sums + step->outputs * BW_LANES;
    for (int32_t c = 0; c < in->channels; c++) {
        W all = w_set(0);
        for (int32_t y = 0; y < in->block_height; y++)
            for (int32_t x = 0; x < in->block_width; x++)
                all = w_add(all, plane_value(in, context->arena, bw_inner(in, c) + (size_t)bw_step(in, y, x)));
        int32_t lanes[BW_LANES];
        w_store(lanes, all);
        for (int32_t p = 0; p < in->grid.pictures; p++) {
            int32_t total = 0;
            for (int32_t lane = p * lanes_each; lane < (p + 1) * lanes_each; lane++) total += lanes[lane];
            totals[p * in->channels + c] = total;
        }
    }
    memset(sums, 0, (size_t)step->outputs * BW_LANES * sizeof *sums);
    for (int32_t p = 0; p < in->grid.pictures; p++) {
        const int32_t *total = totals + p * in->channels;
        if (step->bits != NULL) make_sum_tables(total, in->channels, tables);
        for (int32_t o = 0; o < step->outputs; o++)
            sums[o * BW_LANES + p * lanes_each] = one_sum(step, total, tables, o);
    }
    for (int32_t o = 0; o < step->outputs; o++) {
        finish_one(&step->program, context->arena, o, 0, 0, w_load(sums + o * BW_LANES));
    }
}
