#include "apart.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guard.h"
#include "random.h"
#include "share.h"
#include "team.h"

#define MOST_PLANES 4096
#define MOST_HANDS 3 /* threads that a plan is made for */

/* How a plan is run. */
typedef struct {
    bw_side side;
    unsigned char rubbish;
    int threads; /* at most MOST_HANDS, played by one, who takes units for each at random */
    bw_tile tile;        /* where it fits */
    int32_t strip_tiles; /* of a lookup's cut, 0: all; part_outputs likewise */
    int32_t part_outputs;
    int32_t groups; /* at once, where they may be two */
} manner;

static const manner manners[] = {
    {BW_AT_END, 0xFF, 1, BW_TILE_1X1, 1, 0, 1}, {BW_AT_START, 0x80, 2, BW_TILE_1X1, 0, 1, 1},
    {BW_AT_END, 0x7F, 3, BW_TILE_2X2, 0, 0, 1}, {BW_AT_START, 0x5A, 1, BW_TILE_2X2, 2, 3, 2},
    {BW_AT_END, 0xFF, 2, BW_TILE_4X1, 0, 2, 2}, {BW_AT_START, 0x7F, 3, BW_TILE_4X1, 3, 0, 1},
    {BW_AT_END, 0x80, 2, BW_TILE_2X2, 0, 0, 2},
};

/* ------------------------------------------------------------------ planes */

/* All planes of a plan, as numbered in its draft, each with pages of its own. */
typedef struct {
    bw_plane *planes;
    const bw_draft *draft;
    bw_guarded memory[MOST_PLANES];
} plane_list;

/* Returns where the arena starts: the lowest plane. */
static char *put_apart(const bw_plan *plan, const bw_draft *draft, plane_list *list, const manner *how) {
    if (draft->plane_count > MOST_PLANES) {
        fprintf(stderr, "apart: more than %d planes\n", MOST_PLANES);
        exit(2);
    }
    list->draft = draft;
    list->planes = (bw_plane *)(uintptr_t)(plan->logits - draft->logits); /* our own plan: its offsets are ours to set */
    uintptr_t lowest = UINTPTR_MAX;
    for (int32_t k = 0; k < draft->plane_count; k++) {
        list->memory[k] = bw_guard(bw_plane_bytes(&list->planes[k]), how->side, how->rubbish);
        if ((uintptr_t)list->memory[k].block < lowest) lowest = (uintptr_t)list->memory[k].block;
    }
    for (int32_t k = 0; k < draft->plane_count; k++) list->planes[k].offset = (uintptr_t)list->memory[k].block - lowest;
    return (char *)lowest;
}

static int give_back(plane_list *list) {
    int whole = 1;
    for (int32_t k = 0; k < list->draft->plane_count; k++) whole &= bw_unguard(list->memory[k]);
    return whole;
}

/* ------------------------------------------------------------------ what planes hold */

/* Where the results of a node start, in values of one picture. */
static size_t values_before(const bw_graph *graph, int32_t node) {
    size_t values = 0;
    for (int32_t k = 0; k < node; k++) {
        const bw_tensor *r = &graph->nodes[k].result;
        values += (size_t)r->channels * (size_t)r->height * (size_t)r->width;
    }
    return values;
}

/* What the reference has at a position of a tensor; 0 outside the picture, less the zero point where it is for codes. */
static int32_t expected_at(const bw_graph *graph, const bw_case *from, const bw_draft_plane *plane, int32_t picture, int32_t c,
                           int32_t row, int32_t column) {
    const bw_tensor *t = plane->tensor == BW_PIXELS ? &graph->pixels : &graph->nodes[plane->tensor].result;
    if (row < 0 || row >= t->height || column < 0 || column >= t->width) return 0;
    const size_t channels = (size_t)t->channels, area = (size_t)t->height * (size_t)t->width;
    const size_t at = ((size_t)picture * channels + (size_t)c) * area + (size_t)row * (size_t)t->width + (size_t)column;
    if (plane->tensor == BW_PIXELS) return from->pixels[at] - (plane->codes ? graph->zeros[c] : 0);
    const int32_t *results = from->results + values_before(graph, plane->tensor) * from->pictures;
    return results[at] - (plane->codes ? t->zero : 0);
}

static int32_t value_at(const bw_plane *plane, const bw_context *context, size_t at) {
    const void *values = context->arena + plane->offset;
    if (plane->bytes == 4) return ((const int32_t *)values)[at];
    return plane->bytes == 2 ? ((const int16_t *)values)[at] : ((const uint8_t *)values)[at];
}

/* Whether each lane of each vector of a plane, its halo included, holds what it should. */
static int check_plane(const bw_graph *graph, const bw_case *from, const bw_draft_plane *drafted, const bw_plane *plane,
                       const bw_context *context, uint32_t first) {
    const int32_t lanes_each = BW_LANES / plane->grid.pictures;
    for (int32_t c = 0; c < plane->channels; c++)
        for (int32_t y = -plane->top; y < plane->block_height + plane->bottom; y++)
            for (int32_t x = -plane->left; x < plane->block_width + plane->right; x++)
                for (int32_t lane = 0; lane < context->pictures * lanes_each; lane++) {
                    const int32_t down = lane / plane->grid.columns % plane->grid.rows, across = lane % plane->grid.columns;
                    const int32_t row = down * plane->block_height + y, column = across * plane->block_width + x;
                    const int32_t picture = (int32_t)first + lane / lanes_each;
                    const size_t at = (size_t)((ptrdiff_t)bw_inner(plane, c) + bw_step(plane, y, x)) * BW_LANES + (size_t)lane;
                    const int32_t value = value_at(plane, context, at);
                    int32_t expected = expected_at(graph, from, drafted, picture, c, row, column);
                    if (plane->bytes == 1) expected &= 0xFF;
                    if (value == expected) continue;
                    printf("FAILED %s, planes apart: %s%s, picture %d channel %d row %d column %d (vector %d, %d lane %d): "
                           "%d, expected %d\n", from->name,
                           drafted->tensor == BW_PIXELS ? "pixels" : graph->nodes[drafted->tensor].name,
                           drafted->codes ? " for a convolution" : "", picture, c, row, column, y, x, lane, value, expected);
                    return 0;
                }
    return 1;
}

/* ------------------------------------------------------------------ steps */

/* Another tile and cut for a lookup, where they fit. */
static void change_lookup(bw_step_plan *step, const manner *how, const bw_kernels *kernels) {
    bw_lookup *lookup = &step->as.lookup;
    const int32_t rows = bw_tile_rows(how->tile), columns = bw_tile_columns(how->tile);
    if (lookup->output_height % rows != 0 || lookup->output_width % columns != 0) return;
    lookup->tile = how->tile;
    const int32_t most = bw_most_groups(lookup, kernels);
    lookup->groups_at_once = how->groups < most ? how->groups : most;
    lookup->table_positions = bw_table_positions(lookup);
    bw_cut *cut = &lookup->cut;
    const int32_t tiles = lookup->output_width / columns, outputs = lookup->form.outputs;
    cut->tile_rows = lookup->output_height / rows;
    cut->strip_tiles = how->strip_tiles > 0 && how->strip_tiles < tiles ? how->strip_tiles : tiles;
    cut->strips = (tiles + cut->strip_tiles - 1) / cut->strip_tiles;
    cut->part_outputs = how->part_outputs > 0 && how->part_outputs < outputs ? how->part_outputs : outputs;
    cut->parts = (outputs + cut->part_outputs - 1) / cut->part_outputs;
    step->items = cut->tile_rows * cut->strips * cut->parts;
    step->shared = how->threads > 1; /* be they many or few */
}

static void note_variant(const bw_lookup *lookup, bw_variants *variants) {
    variants->seen[lookup->form.window == 3][lookup->stride - 1][lookup->tile][lookup->form.group - 4]
                  [lookup->groups_at_once - 1] = 1;
}

/* Units of a stage, for one thread or another, some at a time, from the end that it takes them from. What a thread knows of
 * a lookup is in its sums; all else of its scratch is rubbish each time. */
static void run_stage(const bw_sharing *sharing, int32_t stage, const bw_context *from, const bw_guarded *scratch,
                      const manner *how, uint64_t *random) {
    const bw_step_plan *step = &sharing->plan->steps[sharing->stages[stage].step];
    const size_t passing = step->kind == BW_LOOKUP ? bw_tables_bytes(&step->as.lookup) : scratch->bytes;
    bw_context context = *from;
    for (int32_t low = 0, high = sharing->units[stage].items; low < high;) {
        const int32_t thread = (int32_t)(bw_random(random) % (uint64_t)how->threads);
        const int32_t most = bw_random(random) % 2 ? high - low : (high - low + 3) / 4;
        const int32_t take = 1 + (int32_t)(bw_random(random) % (uint64_t)most);
        const int32_t start = bw_takes_upwards(thread) ? low : high - take;
        context.scratch = scratch[thread].block;
        memset(context.scratch, how->rubbish, passing);
        bw_do_units(sharing, 1, stage, thread, &context, start, start + take);
        if (bw_takes_upwards(thread)) low += take;
        else high -= take;
    }
}

/* Returns 0 where a step wrote beside its scratch. */
static int run_stages(const bw_sharing *sharing, const bw_context *context, const manner *how, uint64_t seed,
                      const char *name) {
    bw_guarded scratch[MOST_HANDS];
    int good = 1;
    for (int32_t s = 0; s < sharing->stage_count; s++) {
        const bw_step_plan *step = &sharing->plan->steps[sharing->stages[s].step];
        for (int32_t k = 0; k < how->threads && sharing->stages[s].kind != BW_OUTPUTS; k++)
            scratch[k] = bw_guard(bw_scratch_bytes(step), how->side, how->rubbish);
        run_stage(sharing, s, context, scratch, how, &seed);
        for (int32_t k = 0; k < how->threads && sharing->stages[s].kind != BW_SETS; k++)
            if (!bw_unguard(scratch[k])) {
                printf("FAILED %s, planes apart: step %s (%s) wrote beside its scratch\n", name, step->layers, step->choice);
                good = 0;
            }
    }
    return good;
}

static int same_logits(const bw_plan *plan, const bw_context *context, const bw_case *from, uint32_t first) {
    const bw_plane *plane = plan->logits;
    for (int32_t p = 0; p < context->pictures; p++)
        for (uint32_t c = 0; c < from->classes; c++) {
            const size_t lane = (size_t)(p * (BW_LANES / plane->grid.pictures));
            const size_t at = bw_inner(plane, (int32_t)c) * BW_LANES + lane;
            const int32_t logit = value_at(plane, context, at);
            const int32_t expected = from->logits[(size_t)(first + (uint32_t)p) * from->classes + c];
            if (logit == expected) continue;
            printf("FAILED %s, planes apart: picture %u class %u is %d, expected %d\n", from->name, first + (uint32_t)p, c,
                   logit, expected);
            return 0;
        }
    return 1;
}

/* Pictures first, first + 1, ... of the case, as many as the plan takes or as there are. */
static int run_plan(const bitwren_network *network, const bw_plan *plan, const manner *how, const bw_case *from, uint32_t first) {
    const int32_t rest = (int32_t)(from->pictures - first);
    const size_t there = (size_t)(rest < plan->pictures ? rest : plan->pictures) * from->picture_bytes;
    const bw_guarded pixels = bw_guard(there, how->side, 0);
    memcpy(pixels.block, from->pixels + (size_t)first * from->picture_bytes, there);
    static plane_list list;
    bw_draft draft;
    if (!bw_make_draft(network, NULL, plan->pictures, &draft)) return 0;
    bw_context context = {.arena = put_apart(plan, &draft, &list, how), .pixels = pixels.block,
                          .pictures = rest < plan->pictures ? rest : plan->pictures};
    bw_heap heap;
    bw_sharing sharing;
    bw_heap_open(&heap, NULL);
    int good = bw_open_sharing(&heap, network->kernels, plan, how->threads, &sharing) &&
               run_stages(&sharing, &context, how, first, from->name);
    bw_heap_close(&heap);
    for (int32_t k = 0; from->values > 0 && k < draft.plane_count; k++)
        good &= check_plane(&network->graph, from, &draft.planes[k], &list.planes[k], &context, first);
    good &= same_logits(plan, &context, from, first);
    if (!give_back(&list)) {
        printf("FAILED %s, planes apart: wrote beside a plane\n", from->name);
        good = 0;
    }
    bw_unguard(pixels);
    bw_heap_close(&draft.heap);
    if (!good)
        printf("  kernels %s, %d together, tile %d, strips of %d, parts of %d, %d at once, %d threads\n", network->kernels->name,
               (int)plan->pictures, (int)how->tile, (int)how->strip_tiles, (int)how->part_outputs, (int)how->groups,
               how->threads);
    return good;
}

int bw_run_apart(const bitwren_network *network, const bw_case *from, bw_variants *variants) {
    int good = 1;
    for (int32_t pictures = 1; pictures <= BW_LANES; pictures *= 2)
        for (size_t m = 0; m < sizeof manners / sizeof *manners; m++) {
            if (from->pictures == 0 || (pictures > 1 && pictures / 2 >= (int32_t)from->pictures)) continue;
            const manner *how = &manners[m];
            bw_plan plan;
            if (!bw_make_plan(network, NULL, pictures, how->threads, &plan)) {
                printf("FAILED %s: no plan for %d pictures together\n", from->name, (int)pictures);
                return 0;
            }
            for (int32_t k = 0; k < plan.step_count; k++)
                if (plan.steps[k].kind == BW_LOOKUP) {
                    change_lookup(&plan.steps[k], how, network->kernels);
                    note_variant(&plan.steps[k].as.lookup, variants);
                }
            good &= run_plan(network, &plan, how, from, (uint32_t)m % from->pictures);
            bw_free_plan(&plan);
        }
    return good;
}
