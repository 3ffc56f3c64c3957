#include "share.h"

#define FINISH_OUTPUTS 16 /* of a unit: some microseconds */

/* ------------------------------------------------------------------ steps */

/* Output channels of an item. */
static int32_t outputs_of(const bw_lookup *lookup, int32_t item) {
    const bw_cut *cut = &lookup->cut;
    const int32_t rest = lookup->form.outputs - item % cut->parts * cut->part_outputs;
    return rest < cut->part_outputs ? rest : cut->part_outputs;
}

static void look_up(const bw_kernels *kernels, const bw_lookup *lookup, const bw_context *context, int32_t item) {
    char *sums = context->scratch + bw_tables_bytes(lookup);
    kernels->lookup(lookup, context, &(bw_sets){item, 0, lookup->form.sets, sums, 1});
    kernels->finish(lookup, context, &(bw_totals){item, 0, outputs_of(lookup, item), &sums, 1});
}

void bw_do_item(const bw_kernels *kernels, const bw_step_plan *step, const bw_context *context, int32_t item) {
    switch (step->kind) {
    case BW_GATHER: kernels->gather(&step->as.gather, context, item); break;
    case BW_LOOKUP: look_up(kernels, &step->as.lookup, context, item); break;
    case BW_DIRECT: kernels->direct(&step->as.direct, context, item); break;
    case BW_POOLING: kernels->pool(&step->as.pool, context, item); break;
    case BW_MAP: kernels->map(&step->as.map, context, item); break;
    case BW_SUMMING: kernels->sum(&step->as.sum, context); break;
    }
}

/* ------------------------------------------------------------------ stages */

static void add_stage(bw_sharing *sharing, bw_stage_kind kind, int32_t step, int32_t units) {
    sharing->stages[sharing->stage_count] = (bw_stage){kind, step};
    sharing->units[sharing->stage_count++] = units;
}

int bw_open_sharing(bw_heap *heap, const bw_kernels *kernels, const bw_plan *plan, int32_t threads, bw_sharing *sharing) {
    const size_t most = 2 * (size_t)plan->step_count;
    *sharing = (bw_sharing){.kernels = kernels, .plan = plan, .threads = threads};
    sharing->stages = bw_take(heap, most, sizeof *sharing->stages);
    sharing->units = bw_take(heap, most, sizeof *sharing->units);
    sharing->looked_up = bw_take(heap, (size_t)threads, sizeof *sharing->looked_up);
    if (sharing->stages == NULL || sharing->units == NULL || sharing->looked_up == NULL) return 0;
    for (int32_t s = 0; s < plan->step_count; s++) {
        const bw_step_plan *step = &plan->steps[s];
        if (step->shared) {
            add_stage(sharing, BW_SETS, s, step->as.lookup.form.sets);
            add_stage(sharing, BW_OUTPUTS, s, (step->as.lookup.cut.part_outputs - 1) / FINISH_OUTPUTS + 1);
        } else {
            add_stage(sharing, BW_ITEMS, s, step->items);
        }
    }
    return 1;
}

/* ------------------------------------------------------------------ units */

static void do_sets(const bw_sharing *sharing, uint64_t number, const bw_step_plan *step, int32_t thread,
                    const bw_context *context, int32_t from, int32_t to) {
    const bw_lookup *lookup = &step->as.lookup;
    bw_looked_up *mine = &sharing->looked_up[thread];
    const int starts = mine->stage != number;
    if (starts) *mine = (bw_looked_up){number, context->scratch + bw_tables_bytes(lookup)};
    for (int32_t item = 0; item < step->items; item++) {
        char *sums = mine->sums + (size_t)item * bw_sums_bytes(lookup);
        sharing->kernels->lookup(lookup, context, &(bw_sets){item, from, to, sums, starts});
    }
}

/* number: of the stage in which the sums were made. */
static void do_outputs(const bw_sharing *sharing, uint64_t number, const bw_step_plan *step, const bw_context *context,
                       int32_t from, int32_t to) {
    const bw_lookup *lookup = &step->as.lookup;
    for (int32_t item = 0; item < step->items; item++) {
        const int32_t outputs = outputs_of(lookup, item), end = to * FINISH_OUTPUTS;
        if (from * FINISH_OUTPUTS >= outputs) continue; /* the last part of all outputs may have fewer */
        char *sums[BW_MOST_SHARING];
        bw_totals totals = {item, from * FINISH_OUTPUTS, end < outputs ? end : outputs, sums, 0};
        for (int32_t thread = 0; thread < sharing->threads; thread++) {
            const bw_looked_up *its = &sharing->looked_up[thread];
            if (its->stage == number) sums[totals.count++] = its->sums + (size_t)item * bw_sums_bytes(lookup);
        }
        sharing->kernels->finish(lookup, context, &totals);
    }
}

void bw_do_units(const bw_sharing *sharing, uint64_t run, int32_t number, int32_t thread, const bw_context *context,
                 int32_t from, int32_t to) {
    const bw_stage *stage = &sharing->stages[number];
    const bw_step_plan *step = &sharing->plan->steps[stage->step];
    const uint64_t counted = run * (uint64_t)sharing->stage_count + (uint64_t)number;
    switch (stage->kind) {
    case BW_ITEMS:
        for (int32_t item = from; item < to; item++) bw_do_item(sharing->kernels, step, context, item);
        break;
    case BW_SETS: do_sets(sharing, counted, step, thread, context, from, to); break;
    case BW_OUTPUTS: do_outputs(sharing, counted - 1, step, context, from, to); break;
    }
}
