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
    kernels->lookup(lookup, context, &(bw_sets){item, 0, lookup->form.sets, sums, 1, 0});
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

static void add_stage(bw_sharing *sharing, bw_stage_kind kind, int32_t step, int32_t units, int32_t block) {
    sharing->stages[sharing->stage_count] = (bw_stage){kind, step};
    sharing->units[sharing->stage_count++] = (bw_team_step){units, block};
}

static int32_t units_of_outputs(const bw_lookup *lookup) { return (lookup->cut.part_outputs - 1) / FINISH_OUTPUTS + 1; }

int bw_open_sharing(bw_heap *heap, const bw_kernels *kernels, const bw_plan *plan, int32_t threads, bw_sharing *sharing) {
    const size_t most = 2 * (size_t)plan->step_count;
    *sharing = (bw_sharing){.kernels = kernels, .plan = plan, .threads = threads, .most_items = 1};
    sharing->stages = bw_take(heap, most, sizeof *sharing->stages);
    sharing->units = bw_take(heap, most, sizeof *sharing->units);
    if (sharing->stages == NULL || sharing->units == NULL) return 0;
    for (int32_t s = 0; s < plan->step_count; s++) {
        const bw_step_plan *step = &plan->steps[s];
        if (step->shared) {
            const bw_lookup *lookup = &step->as.lookup;
            add_stage(sharing, BW_SETS, s, step->items * lookup->form.sets, lookup->form.sets);
            add_stage(sharing, BW_OUTPUTS, s, step->items * units_of_outputs(lookup), 1);
            if (step->items > sharing->most_items) sharing->most_items = step->items;
        } else {
            add_stage(sharing, BW_ITEMS, s, step->items, 1);
        }
    }
    sharing->looked_up = bw_take(heap, (size_t)threads * (size_t)sharing->most_items, sizeof *sharing->looked_up);
    return sharing->looked_up != NULL;
}

/* ------------------------------------------------------------------ units */

/* Where units from <= k < to begin that are of one item, which has `each`. */
typedef struct {
    int32_t item, from, to; /* units within the item */
} units_of_item;

static units_of_item first_units(int32_t from, int32_t to, int32_t each) {
    const int32_t item = from / each, before = item * each;
    return (units_of_item){item, from - before, to - before < each ? to - before : each};
}

static bw_looked_up *looked_up_by(const bw_sharing *sharing, int32_t thread, int32_t item) {
    return &sharing->looked_up[thread * sharing->most_items + item];
}

static void do_sets(const bw_sharing *sharing, uint64_t number, const bw_step_plan *step, int32_t thread,
                    const bw_context *context, const units_of_item *sets) {
    const bw_lookup *lookup = &step->as.lookup;
    bw_looked_up *mine = looked_up_by(sharing, thread, sets->item);
    const int starts = mine->stage != number;
    char *all = context->scratch + bw_tables_bytes(lookup);
    if (starts) *mine = (bw_looked_up){number, all + (size_t)sets->item * bw_sums_bytes(lookup)};
    sharing->kernels->lookup(lookup, context, &(bw_sets){sets->item, sets->from, sets->to, mine->sums, starts, 1});
}

/* number: of the stage in which the sums were made. */
static void do_outputs(const bw_sharing *sharing, uint64_t number, const bw_step_plan *step, const bw_context *context,
                       const units_of_item *units) {
    const bw_lookup *lookup = &step->as.lookup;
    const int32_t outputs = outputs_of(lookup, units->item), from = units->from * FINISH_OUTPUTS, to = units->to * FINISH_OUTPUTS;
    if (from >= outputs) return; /* the last part of all outputs may have fewer */
    char *sums[BW_MOST_SHARING];
    bw_totals totals = {units->item, from, to < outputs ? to : outputs, sums, 0};
    for (int32_t thread = 0; thread < sharing->threads; thread++) {
        const bw_looked_up *its = looked_up_by(sharing, thread, units->item);
        if (its->stage == number) sums[totals.count++] = its->sums;
    }
    sharing->kernels->finish(lookup, context, &totals);
}

void bw_do_units(const bw_sharing *sharing, uint64_t run, int32_t number, int32_t thread, const bw_context *context,
                 int32_t from, int32_t to) {
    const bw_stage *stage = &sharing->stages[number];
    const bw_step_plan *step = &sharing->plan->steps[stage->step];
    const uint64_t counted = run * (uint64_t)sharing->stage_count + (uint64_t)number;
    const int32_t each = sharing->units[number].items / step->items; /* units of an item */
    while (from < to) {
        const units_of_item units = first_units(from, to, each);
        switch (stage->kind) {
        case BW_ITEMS: bw_do_item(sharing->kernels, step, context, from); break;
        case BW_SETS: do_sets(sharing, counted, step, thread, context, &units); break;
        case BW_OUTPUTS: do_outputs(sharing, counted - 1, step, context, &units); break;
        }
        from += units.to - units.from;
    }
}
