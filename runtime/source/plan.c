/* From draft to plan: memory for the planes, constants for the programs, the kernels' view of every step. */
#include "plan.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const bitwren_network *network;
    const bw_draft *draft;
    bw_plan *plan;
    bw_plane *planes; /* as numbered in the draft */
    int32_t threads;
} maker;

#define FAR_BYTES ((size_t)1 << 17) /* what is larger has left the second-level cache before it is used again */
#define SHORTLY 2                   /* steps */
#define MANY_OUTPUTS 64             /* measured: for fewer, two groups at once are not quicker than one */

static const bw_tensor *tensor_of(const bitwren_network *network, int32_t tensor) {
    return tensor == BW_PIXELS ? &network->graph.pixels : &network->graph.nodes[tensor].result;
}

/* ------------------------------------------------------------------ memory */

/* Whether plane `after` may lie where `before` does, though a step reads that one and makes this one: it is read by an add
 * of the step's program, at the very place that is then stored, and for the last time. */
static int may_replace(const maker *m, int32_t before, int32_t after) {
    const bw_draft_plane *from = &m->draft->planes[before], *to = &m->draft->planes[after];
    const bw_plane *a = &m->planes[before], *b = &m->planes[after];
    if (from->last_use != to->producer || from->producer == to->producer || a->channels != b->channels) return 0;
    if (a->channel_stride != b->channel_stride || a->row_stride != b->row_stride || a->bytes != b->bytes) return 0;
    if (a->top + a->left + a->bottom + a->right > 0) return 0;
    const bw_draft_step *step = &m->draft->steps[to->producer];
    if (step->input == before) return 0;
    int32_t reads = 0, stored = 0;
    for (int32_t k = step->first_chain; k < step->first_chain + step->chain_count; k++) {
        if (m->draft->joined[k].added == before && stored) return 0;
        reads += m->draft->joined[k].added == before;
        stored |= m->draft->chain[k] == to->tensor;
    }
    return reads > 0 && stored;
}

/* Bytes to leave for a plane. The odd lines behind it keep planes whose sizes are multiples of 4096 from starting at the
 * same place in a page: processors take a load for one of what was just stored 4096 bytes away, and wait. */
static size_t reserved(const bw_plane *plane) {
    return (bw_plane_bytes(plane) + BW_ALIGNMENT - 1) / BW_ALIGNMENT * BW_ALIGNMENT + 13 * BW_ALIGNMENT;
}

/* Note for each plane which one it replaces, or -1; no two replace the same. */
static void choose_replaced(const maker *m, int32_t *replaced) {
    const int32_t count = m->draft->plane_count;
    for (int32_t k = 0; k < count; k++) replaced[k] = -1;
    for (int32_t before = 0; before < count; before++)
        for (int32_t k = 0; k < count; k++)
            if (replaced[k] < 0 && may_replace(m, before, k)) {
                replaced[k] = before;
                break;
            }
}

static int32_t first_there(const int32_t *replaced, int32_t plane) {
    while (replaced[plane] >= 0) plane = replaced[plane];
    return plane;
}

/* Give every plane a place: the largest first, each at the lowest offset where it meets nothing that lives with it. Planes
 * that replace each other stay in one place, which is in the cache already, and count as one plane that lives longer. */
static int place_planes(maker *m, bw_draft_plane *drafts) {
    const int32_t count = m->draft->plane_count;
    int32_t *replaced = bw_take(&m->plan->heap, (size_t)count, sizeof *replaced);
    int32_t *order = bw_take(&m->plan->heap, (size_t)count, sizeof *order);
    if (replaced == NULL || order == NULL) return 0;
    choose_replaced(m, replaced);
    int32_t places = 0;
    for (int32_t k = 0; k < count; k++) {
        bw_draft_plane *first = &drafts[first_there(replaced, k)];
        if (first->last_use < drafts[k].last_use) first->last_use = drafts[k].last_use;
        if (replaced[k] >= 0) continue;
        int32_t at = places++;
        for (; at > 0 && bw_plane_bytes(&m->planes[order[at - 1]]) < bw_plane_bytes(&m->planes[k]); at--)
            order[at] = order[at - 1];
        order[at] = k;
    }
    m->plan->arena_bytes = 0;
    for (int32_t k = 0; k < places; k++) {
        bw_draft_plane *mine = &drafts[order[k]];
        const size_t size = reserved(&m->planes[order[k]]);
        for (int32_t other = 0; other < k;) {
            const bw_draft_plane *placed = &drafts[order[other]];
            const size_t end = placed->offset + reserved(&m->planes[order[other]]);
            const int together = placed->producer <= mine->last_use && mine->producer <= placed->last_use;
            if (together && placed->offset < mine->offset + size && mine->offset < end) {
                mine->offset = end;
                other = 0; /* it may meet an earlier one now */
            } else {
                other++;
            }
        }
        if (mine->offset + size > m->plan->arena_bytes) m->plan->arena_bytes = mine->offset + size;
    }
    for (int32_t k = 0; k < count; k++) m->planes[k].offset = drafts[k].offset = drafts[first_there(replaced, k)].offset;
    bw_give_back(&m->plan->heap, order);
    bw_give_back(&m->plan->heap, replaced);
    return 1;
}

static int make_planes(maker *m) {
    const bw_draft *draft = m->draft;
    m->planes = bw_take(&m->plan->heap, (size_t)draft->plane_count, sizeof *m->planes);
    if (m->planes == NULL) return 0;
    for (int32_t k = 0; k < draft->plane_count; k++) {
        const bw_draft_plane *from = &draft->planes[k];
        const bw_tensor *t = tensor_of(m->network, from->tensor);
        bw_plane *plane = &m->planes[k];
        *plane = (bw_plane){.channels = t->channels, .height = t->height, .width = t->width,
                            .grid = from->blocks.grid, .block_height = from->blocks.block_height,
                            .block_width = from->blocks.block_width, .top = from->halo[0], .left = from->halo[1],
                            .bottom = from->halo[2], .right = from->halo[3], .bytes = from->bytes, .zero = t->zero};
        if (!bw_lay_out(&m->plan->heap, plane)) return 0;
    }
    return place_planes(m, draft->planes);
}

/* ------------------------------------------------------------------ programs */

static int fits(int64_t x) { return x >= INT32_MIN && x <= INT32_MAX; }

/* Whether multiplier * x + offset fits int32 for low <= x <= high, all channels; all ones: and every multiplier is 1. */
static int fits_all(const bw_constants *constants, int32_t channels, int64_t low, int64_t high, int all_ones) {
    for (int32_t c = 0; c < channels; c++) {
        const int64_t m = constants->multiplier[c], b = constants->offset[c];
        if (!fits(m * low + b) || !fits(m * high + b) || (all_ones && m != 1)) return 0;
    }
    return 1;
}

/* Whether BW_SPLIT at `split` bits keeps within its bounds (finish.h). */
static int can_split(const bw_constants *constants, int32_t channels, int64_t low, int64_t high, int32_t split) {
    const int64_t rest = ((int64_t)1 << split) - 1, lowest = low >> split, highest = high >> split;
    if (lowest < INT16_MIN || highest > INT16_MAX || !fits_all(constants, channels, 0, rest, 0)) return 0;
    for (int32_t c = 0; c < channels; c++) {
        const int64_t m = constants->multiplier[c], b = constants->offset[c];
        const int64_t carried[2] = {b >> split, (m * rest + b) >> split};
        for (int k = 0; k < 2; k++)
            if (!fits(m * lowest + carried[k]) || !fits(m * highest + carried[k])) return 0;
    }
    return 1;
}

/* Whether BW_AS_SUM gives what the node does: a sum cut off at int16's ends is beyond `low` or `high` after the shift too. */
static int can_sum(const bw_node *node, const bw_constants *constants, int32_t channels) {
    if (node->shift > 15 || INT16_MAX >> node->shift < node->high || INT16_MIN >> node->shift > node->low) return 0;
    for (int32_t c = 0; c < channels; c++)
        if (constants->multiplier[c] != 1 || constants->offset[c] < INT16_MIN || constants->offset[c] > INT16_MAX) return 0;
    return 1;
}

/* Whether BW_AS_FRACTION gives what the node does. A factor of -2^15 times a value of -2^15 would not fit. */
static int can_take_fraction(const bw_node *node, const bw_constants *constants, int32_t channels) {
    if (node->shift < 1 || node->shift > 31 || node->low < INT16_MIN || node->high > INT16_MAX) return 0;
    for (int32_t c = 0; c < channels; c++) {
        const int64_t m = constants->multiplier[c], factor = bw_fraction(constants->multiplier[c], node->shift);
        if (constants->offset[c] != 1 << (node->shift - 1) || factor <= INT16_MIN || factor > INT16_MAX ||
            factor * ((int64_t)1 << node->shift) != m * (1 << 15))
            return 0;
    }
    return 1;
}

static bw_instruction requantise(const maker *m, int32_t number) {
    const bw_node *node = &m->network->graph.nodes[number];
    const bw_tensor *in = bw_input(&m->network->graph, node, 0);
    const bw_constants *constants = &m->network->constants[number];
    const int32_t channels = in->channels;
    bw_instruction to = {.low = node->low, .high = node->high, .multiplier = constants->multiplier, .offset = constants->offset};
    const int32_t low = in->low > INT16_MIN ? in->low : INT16_MIN, high = in->high < INT16_MAX ? in->high : INT16_MAX;
    if (node->shift <= 31 && (low > high || fits_all(constants, channels, low, high, 0))) to.narrow = BW_AS_PRODUCT;
    if (can_sum(node, constants, channels)) to.narrow = BW_AS_SUM;
    if (can_take_fraction(node, constants, channels)) to.narrow = BW_AS_FRACTION;
    to.action = BW_WIDE;
    to.shift = node->shift;
    if (node->shift <= 31 && fits_all(constants, channels, in->low, in->high, 0)) {
        to.action = fits_all(constants, channels, in->low, in->high, 1) ? BW_SHIFT : BW_MULTIPLY;
        return to;
    }
    for (int32_t split = node->shift < 15 ? node->shift : 15; split > 0 && node->shift - split <= 31; split--)
        if (can_split(constants, channels, in->low, in->high, split)) {
            to.action = BW_SPLIT;
            to.split = split;
            return to;
        }
    return to;
}

/* The slot in which a tensor of a step's chain is kept for a second reader, or -1. */
static int32_t slot_of(const maker *m, const bw_draft_step *step, int32_t tensor) {
    int32_t slot = 0;
    for (int32_t k = step->first_chain; k < step->first_chain + step->chain_count; k++) {
        if (m->draft->joined[k].again == BW_NO_TENSOR) continue;
        if (m->draft->joined[k].again == tensor) return slot;
        slot++;
    }
    return -1;
}

/* What is done with a tensor that a step has computed: stored in all its planes, kept for a second reader. */
static int add_stores(const maker *m, int32_t number, int32_t tensor, bw_instruction *to, int32_t *count) {
    const int32_t slot = slot_of(m, &m->draft->steps[number], tensor);
    for (int32_t k = 0; k < m->draft->plane_count; k++) {
        const bw_draft_plane *plane = &m->draft->planes[k];
        if (plane->producer != number || plane->tensor != tensor) continue;
        bw_instruction *store = &to[(*count)++];
        *store = (bw_instruction){.action = BW_STORE, .plane = &m->planes[k]};
        if (!plane->codes) continue;
        const int32_t channels = m->planes[k].channels;
        int32_t *zero = bw_take(&m->plan->heap, (size_t)channels, sizeof *zero);
        if (zero == NULL) return 0;
        for (int32_t c = 0; c < channels; c++)
            zero[c] = tensor == BW_PIXELS ? m->network->graph.zeros[c] : m->network->graph.nodes[tensor].result.zero;
        store->zero = zero;
    }
    if (slot >= 0) to[(*count)++] = (bw_instruction){.action = BW_KEEP, .slot = slot};
    return 1;
}

/* Whether a requantise makes codes of bytes that are stored, without more ado, and then no longer needed. */
static int only_codes(const bw_instruction *in, const bw_instruction *end) {
    const bw_instruction *store = in + 1, *next = in + 2;
    return in->action <= BW_WIDE && in->low == 0 && in->high == 255 && store->action == BW_STORE &&
           store->plane->bytes == 1 && store->plane->row_mask == NULL && (next == end || next->action == BW_AGAIN);
}

/* Whether all that is done between a KEEP and its AGAIN is to make codes of what is kept, and store these. */
static int only_codes_between(const bw_instruction *keep, const bw_instruction *end) {
    const bw_instruction *codes = keep + 1, *again = keep + 3;
    return keep->action == BW_KEEP && again < end && codes->to_codes && codes->narrow != BW_NEVER &&
           again->action == BW_AGAIN && again->slot == keep->slot;
}

/* Whether some of the memory of a plane was in use shortly before the step that makes it, and is in a near cache. */
static int is_at_hand(const maker *m, const bw_plane *plane) {
    const bw_draft_plane *mine = &m->draft->planes[plane - m->planes];
    for (int32_t k = 0; k < m->draft->plane_count; k++) {
        const bw_draft_plane *other = &m->draft->planes[k];
        if (other->last_use > mine->producer || other->last_use < mine->producer - SHORTLY) continue;
        if (other->offset < mine->offset + bw_plane_bytes(plane) && mine->offset < other->offset + bw_plane_bytes(&m->planes[k]))
            return 1;
    }
    return 0;
}

static bw_ahead ahead(const maker *m, const bw_instruction *in) {
    if (in->action != BW_STORE || bw_plane_bytes(in->plane) <= FAR_BYTES) return BW_NOT_AHEAD;
    if (m->threads > 1) return BW_TO_STORE; /* it may be in another thread's cache */
    return is_at_hand(m, in->plane) ? BW_NOT_AHEAD : BW_TO_READ;
}

static int make_program(const maker *m, int32_t number, bw_program *program) {
    const bw_draft_step *step = &m->draft->steps[number];
    int32_t stores = 0;
    for (int32_t k = 0; k < m->draft->plane_count; k++) stores += m->draft->planes[k].producer == number;
    bw_instruction *to = bw_take(&m->plan->heap, (size_t)(3 * step->chain_count + stores) + 2, sizeof *to);
    if (to == NULL) return 0;
    int32_t count = 0;
    if (step->base == BW_NO_TENSOR) { /* a gather from plane to plane: values as they are */
        for (int32_t k = 0; k < m->draft->plane_count; k++)
            if (m->draft->planes[k].producer == number)
                to[count++] = (bw_instruction){.action = BW_STORE, .plane = &m->planes[k]};
    } else if (step->kind != BW_MAP && !add_stores(m, number, step->base, to, &count)) {
        return 0;
    }
    for (int32_t k = step->first_chain; k < step->first_chain + step->chain_count; k++) {
        const int32_t node = m->draft->chain[k];
        const bw_joined *joined = &m->draft->joined[k];
        if (joined->again != BW_NO_TENSOR)
            to[count++] = (bw_instruction){.action = BW_AGAIN, .slot = slot_of(m, step, joined->again)};
        if (m->network->graph.nodes[node].op == BW_REQUANTISE) to[count++] = requantise(m, node);
        else to[count++] = (bw_instruction){.action = BW_ADD_PLANE, .plane = &m->planes[joined->added]};
        if (!add_stores(m, number, node, to, &count)) return 0;
    }
    for (int32_t k = 0; k + 1 < count; k++) to[k].to_codes = only_codes(to + k, to + count);
    for (int32_t k = 0; k < count; k++)
        if (only_codes_between(to + k, to + count)) to[k].stays = to[k + 3].stays = 1;
    for (int32_t k = 0; k < count; k++) to[k].prefetch = ahead(m, to + k);
    *program = (bw_program){to, count};
    return 1;
}

/* ------------------------------------------------------------------ steps */

static const char *tile_name(bw_tile tile) { return tile == BW_TILE_1X1 ? "1x1" : tile == BW_TILE_2X2 ? "2x2" : "4x1"; }

static void make_conv(const maker *m, const bw_draft_step *from, bw_step_plan *step) {
    const bw_node *node = &m->network->graph.nodes[from->conv];
    const bw_packed *packed = &m->network->packed[from->conv];
    const bw_sliding sliding = bw_sliding_of(m->network, from->conv);
    bw_tile tile;
    const bw_cut cut = bw_best_cut(&from->blocks, &sliding, &tile, m->threads);
    const bw_blocks *b = &from->blocks;
    step->items = cut.tile_rows * cut.strips * cut.parts;
    if (step->kind == BW_LOOKUP) {
        bw_lookup *to = &step->as.lookup;
        *to = (bw_lookup){.input = &m->planes[from->input], .output_height = b->block_height, .output_width = b->block_width,
                          .stride = node->stride, .top = node->padding[0], .left = node->padding[1], .tile = tile,
                          .cut = cut, .form = packed->form, .indices = packed->indices, .owed = packed->owed,
                          .most_owed = packed->most_owed};
        const int two = to->form.sets > 1 && cut.part_outputs >= MANY_OUTPUTS;
        to->groups_at_once = two ? bw_most_groups(to, m->network->kernels) : 1;
        to->table_positions = bw_table_positions(to);
        step->shared = bw_is_shared(step->items, to->form.sets, m->threads);
    } else {
        step->as.direct = (bw_direct){.input = &m->planes[from->input], .output_height = b->block_height,
                                      .output_width = b->block_width, .stride = node->stride, .top = node->padding[0],
                                      .left = node->padding[1], .window = node->window, .channels = sliding.channels,
                                      .outputs = sliding.outputs, .cut = cut, .weights = packed->pairs};
    }
    const int two = step->kind == BW_LOOKUP && step->as.lookup.groups_at_once > 1;
    snprintf(step->choice, sizeof step->choice, "%s%d%s, tile %s, %dx%dx%d lanes of %dx%d, %d items%s",
             step->kind == BW_LOOKUP ? "groups of " : "pairs, window ",
             step->kind == BW_LOOKUP ? packed->form.group : node->window, two ? ", 2 at once" : "", tile_name(tile),
             b->grid.pictures, b->grid.rows, b->grid.columns, b->block_height, b->block_width, step->items,
             step->shared ? ", shared" : "");
}

/* -1 where position `k` of a window over output vector `at` lies inside the input, lane by lane. */
static int make_inside(maker *m, const bw_node *node, const bw_draft_step *from, bw_pool *pool) {
    const bw_tensor *in = bw_input(&m->network->graph, node, 0);
    const bw_blocks *b = &from->blocks;
    int16_t *rows = bw_take(&m->plan->heap, 3 * (size_t)b->block_height * BW_LANES, sizeof *rows);
    int16_t *columns = bw_take(&m->plan->heap, 3 * (size_t)b->block_width * BW_LANES, sizeof *columns);
    if (rows == NULL || columns == NULL) return 0;
    for (int32_t k = 0; k < 3; k++)
        for (int32_t lane = 0; lane < BW_LANES; lane++) {
            const int32_t down = lane / b->grid.columns % b->grid.rows, across = lane % b->grid.columns;
            for (int32_t y = 0; y < b->block_height; y++) {
                const int32_t row = 2 * (down * b->block_height + y) - node->padding[0] + k;
                rows[(k * b->block_height + y) * BW_LANES + lane] = row >= 0 && row < in->height ? -1 : 0;
            }
            for (int32_t x = 0; x < b->block_width; x++) {
                const int32_t column = 2 * (across * b->block_width + x) - node->padding[1] + k;
                columns[(k * b->block_width + x) * BW_LANES + lane] = column >= 0 && column < in->width ? -1 : 0;
            }
        }
    pool->row_inside = rows;
    pool->column_inside = columns;
    float *reciprocal = bw_take(&m->plan->heap, (size_t)b->block_height * (size_t)b->block_width * BW_LANES, sizeof *reciprocal);
    if (reciprocal == NULL) return 0;
    pool->reciprocal = reciprocal;
    for (int32_t y = 0; y < b->block_height; y++)
        for (int32_t x = 0; x < b->block_width; x++)
            for (int32_t lane = 0; lane < BW_LANES; lane++) {
                int32_t inside = 0;
                for (int32_t v = 0; v < 3; v++)
                    for (int32_t u = 0; u < 3; u++)
                        inside += rows[(v * b->block_height + y) * BW_LANES + lane] != 0 &&
                                  columns[(u * b->block_width + x) * BW_LANES + lane] != 0;
                /* A lane outside the picture is never looked at. */
                *reciprocal++ = 1.0f / (float)(node->pool == BW_MEAN ? 9 : inside > 0 ? inside : 1);
            }
    return 1;
}

static int make_pool(maker *m, const bw_draft_step *from, bw_step_plan *step) {
    const bw_node *node = &m->network->graph.nodes[from->base];
    step->as.pool = (bw_pool){.input = &m->planes[from->input], .kind = (int32_t)node->pool, .top = node->padding[0],
                              .left = node->padding[1], .channels = bw_input(&m->network->graph, node, 0)->channels,
                              .output_height = from->blocks.block_height, .output_width = from->blocks.block_width};
    step->items = node->result.channels;
    return make_inside(m, node, from, &step->as.pool);
}

static int make_gather(maker *m, const bw_draft_step *from, int32_t number, bw_step_plan *step) {
    const bw_plane *source = from->input >= 0 ? &m->planes[from->input] : NULL;
    const bw_plane *target = NULL; /* any plane of this step has its blocks */
    bw_plane pictures = {0};
    for (int32_t k = 0; k < m->draft->plane_count && target == NULL; k++)
        if (m->draft->planes[k].producer == number) target = &m->planes[k];
    const bw_tensor *pixels = &m->network->graph.pixels;
    const bw_tensor *t = source == NULL ? pixels : tensor_of(m->network, m->draft->planes[from->input].tensor);
    pictures.grid = from->blocks.grid;
    pictures.block_height = from->blocks.block_height;
    pictures.block_width = from->blocks.block_width;
    pictures.height = t->height;
    pictures.width = t->width;
    if (target == NULL) target = &pictures;
    const int32_t vectors = from->blocks.block_height * from->blocks.block_width;
    int32_t *place = bw_take(&m->plan->heap, (size_t)vectors * BW_LANES, sizeof *place);
    uint8_t *picture = bw_take(&m->plan->heap, BW_LANES, 1);
    if (place == NULL || picture == NULL) return 0;
    for (int32_t vector = 0; vector < vectors; vector++)
        for (int32_t lane = 0; lane < BW_LANES; lane++) {
            int32_t p, row, column, at = -1;
            const int32_t y = vector / pictures.block_width, x = vector % pictures.block_width;
            if (bw_locate(&pictures, y, x, lane, &p, &row, &column)) {
                if (source == NULL) {
                    at = row * t->width + column;
                } else {
                    const int32_t block = row / source->block_height * source->grid.columns + column / source->block_width;
                    const int32_t from_lane = p * source->grid.rows * source->grid.columns + block;
                    const ptrdiff_t inner = (ptrdiff_t)bw_inner(source, 0) +
                                            bw_step(source, row % source->block_height, column % source->block_width);
                    at = (int32_t)(inner * BW_LANES) + from_lane;
                }
            }
            place[vector * BW_LANES + lane] = at;
            picture[lane] = (uint8_t)p;
        }
    step->as.gather = (bw_gather){.input = source, .channels = t->channels, .vectors = vectors, .columns = pictures.block_width,
                                  .from = place, .picture = picture};
    step->as.gather.channel_stride =
        source != NULL ? source->channel_stride * BW_LANES : (size_t)t->height * (size_t)t->width;
    step->as.gather.picture_stride = (size_t)pixels->channels * (size_t)pixels->height * (size_t)pixels->width;
    step->items = t->channels;
    return 1;
}

static int make_map(maker *m, const bw_draft_step *from, bw_step_plan *step) {
    step->as.map = (bw_map){.input = &m->planes[from->input]};
    step->items = m->planes[from->input].channels;
    return 1;
}

static void make_sum(maker *m, const bw_draft_step *from, bw_step_plan *step) {
    bw_sum *to = &step->as.sum;
    *to = (bw_sum){.input = &m->planes[from->input], .outputs = m->network->graph.nodes[from->base].result.channels};
    if (from->conv != BW_NO_TENSOR) {
        to->bits = m->network->packed[from->conv].bits;
        to->weights = m->network->packed[from->conv].weights;
    }
    step->items = 1;
}

static bw_program *program_of(bw_step_plan *step) {
    switch (step->kind) {
    case BW_GATHER: return &step->as.gather.program;
    case BW_LOOKUP: return &step->as.lookup.program;
    case BW_DIRECT: return &step->as.direct.program;
    case BW_POOLING: return &step->as.pool.program;
    case BW_MAP: return &step->as.map.program;
    case BW_SUMMING: return &step->as.sum.program;
    }
    return NULL;
}

/* "conv1+act2": the nodes that a step computes. */
static char *name_layers(const maker *m, const bw_draft_step *step) {
    const bw_node *nodes = m->network->graph.nodes;
    const int has_base = step->kind != BW_MAP && step->base != BW_NO_TENSOR;
    const size_t room = (size_t)(step->chain_count + 3) * (sizeof nodes->name + 1);
    char *names = bw_take(&m->plan->heap, room, 1);
    if (names == NULL) return NULL;
    int used = 0;
    if (!has_base && step->kind != BW_MAP) used = snprintf(names, room, "(layout)");
    if (has_base && step->conv != BW_NO_TENSOR && step->conv != step->base) used = snprintf(names, room, "%s+", nodes[step->conv].name);
    if (has_base)
        used += snprintf(names + used, room - (size_t)used, "%s", step->base == BW_PIXELS ? "pixels" : nodes[step->base].name);
    for (int32_t k = 0; k < step->chain_count; k++)
        used += snprintf(names + used, room - (size_t)used, "%s%s", used ? "+" : "", nodes[m->draft->chain[step->first_chain + k]].name);
    return names;
}

size_t bw_scratch_bytes(const bw_step_plan *step) {
    if (step->kind == BW_SUMMING) return bw_totals_bytes(&step->as.sum);
    if (step->kind != BW_LOOKUP) return 0;
    const size_t at_once = step->shared ? (size_t)step->items : 1;
    return bw_tables_bytes(&step->as.lookup) + at_once * bw_sums_bytes(&step->as.lookup);
}

static int make_step(maker *m, int32_t number) {
    const bw_draft_step *from = &m->draft->steps[number];
    bw_step_plan *step = &m->plan->steps[number];
    int ok = 1;
    step->kind = from->kind;
    snprintf(step->choice, sizeof step->choice, "%dx%dx%d lanes of %dx%d", from->blocks.grid.pictures, from->blocks.grid.rows,
             from->blocks.grid.columns, from->blocks.block_height, from->blocks.block_width);
    switch (from->kind) {
    case BW_GATHER: ok = make_gather(m, from, number, step); break;
    case BW_LOOKUP:
    case BW_DIRECT: make_conv(m, from, step); break;
    case BW_POOLING: ok = make_pool(m, from, step); break;
    case BW_MAP: ok = make_map(m, from, step); break;
    case BW_SUMMING: make_sum(m, from, step); break;
    }
    if (from->conv != BW_NO_TENSOR) {
        const bw_node *node = &m->network->graph.nodes[from->conv];
        const bw_tensor *r = &node->result;
        step->macs = (int64_t)r->channels * r->height * r->width * node->window * node->window *
                     bw_input(&m->network->graph, node, 0)->channels;
    }
    const size_t scratch = bw_scratch_bytes(step);
    if (scratch > m->plan->scratch_bytes) m->plan->scratch_bytes = scratch;
    step->layers = name_layers(m, from);
    return ok && step->layers != NULL && make_program(m, number, program_of(step));
}

int bw_make_plan(const bitwren_network *network, const bitwren_memory *memory, int32_t pictures, int32_t threads,
                 bw_plan *plan) {
    bw_draft draft;
    memset(plan, 0, sizeof *plan);
    bw_heap_open(&plan->heap, memory);
    if (!bw_make_draft(network, memory, pictures, &draft)) return 0;
    maker m = {network, &draft, plan, NULL, threads};
    plan->pictures = pictures;
    plan->cycles = draft.cycles;
    plan->step_count = draft.step_count;
    plan->steps = bw_take(&plan->heap, (size_t)draft.step_count, sizeof *plan->steps);
    int ok = plan->steps != NULL && make_planes(&m);
    for (int32_t k = 0; ok && k < draft.step_count; k++) ok = make_step(&m, k);
    if (ok) plan->logits = &m.planes[draft.logits];
    bw_heap_close(&draft.heap);
    if (!ok) bw_free_plan(plan);
    return ok;
}

void bw_free_plan(bw_plan *plan) { bw_heap_close(&plan->heap); }
