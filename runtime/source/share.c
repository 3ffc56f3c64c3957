#include "share.h"

#include "team.h"

#define FINISH_OUTPUTS 16 /* of a unit: some microseconds */

/* ------------------------------------------------------------------ steps */

/* Sums number `slot` of a thread. */
static char *sums_of(const bw_lookup *lookup, const bw_context *context, int32_t slot) {
    return context->scratch + bw_tables_bytes(lookup) + (size_t)slot * bw_sums_bytes(lookup);
}

/* Output channels of an item. */
static int32_t outputs_of(const bw_lookup *lookup, int32_t item) {
    const bw_cut *cut = &lookup->cut;
    const int32_t rest = lookup->form.outputs - item % cut->parts * cut->part_outputs;
    return rest < cut->part_outputs ? rest : cut->part_outputs;
}

static void look_up(const bw_kernels *kernels, const bw_lookup *lookup, const bw_context *context, int32_t item) {
    char *sums = sums_of(lookup, context, 0);
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

/* Units of an item: as many sets as are looked up at once, and FINISH_OUTPUTS outputs. */
static int32_t set_units(const bw_lookup *lookup) { return (lookup->form.sets - 1) / lookup->groups_at_once + 1; }
static int32_t output_units(const bw_lookup *lookup) { return (lookup->cut.part_outputs - 1) / FINISH_OUTPUTS + 1; }

static void add_stage(bw_sharing *sharing, bw_stage_kind kind, int32_t step, int32_t units) {
    sharing->stages[sharing->stage_count] = (bw_stage){kind, step};
    sharing->units[sharing->stage_count++] = units;
}

int bw_open_sharing(bw_heap *heap, const bw_kernels *kernels, const bw_plan *plan, int32_t threads, bw_sharing *sharing) {
    const size_t most = 2 * (size_t)plan->step_count;
    *sharing = (bw_sharing){.kernels = kernels, .plan = plan, .threads = threads, .slot_room = 1};
    sharing->stages = bw_take(heap, most, sizeof *sharing->stages);
    sharing->units = bw_take(heap, most, sizeof *sharing->units);
    sharing->latest = bw_take(heap, (size_t)threads, sizeof *sharing->latest);
    if (sharing->stages == NULL || sharing->units == NULL || sharing->latest == NULL) return 0;
    for (int32_t s = 0; s < plan->step_count; s++) {
        const bw_step_plan *step = &plan->steps[s];
        if (step->slots == 0) {
            add_stage(sharing, BW_ITEMS, s, step->items);
            continue;
        }
        add_stage(sharing, BW_SETS, s, step->items * set_units(&step->as.lookup));
        add_stage(sharing, BW_OUTPUTS, s, step->items * output_units(&step->as.lookup));
        if (step->slots > sharing->slot_room) sharing->slot_room = step->slots;
    }
    sharing->slots = bw_take(heap, (size_t)threads * (size_t)sharing->slot_room, sizeof *sharing->slots);
    return sharing->slots != NULL;
}

/* ------------------------------------------------------------------ units */

/* Units of one item. */
typedef struct {
    int32_t item, from, to; /* within the item */
} stretch;

/* Take the first item's units off the front of a range, or the last one's off its end; each item has `each`. */
static stretch take_stretch(int32_t *from, int32_t *to, int32_t each, int upwards) {
    const int32_t item = (upwards ? *from : *to - 1) / each, start = item * each;
    const int32_t low = *from > start ? *from : start, high = *to < start + each ? *to : start + each;
    if (upwards) *from = high;
    else *to = low;
    return (stretch){item, low - start, high - start};
}

static void finish_whole(const bw_sharing *sharing, const bw_lookup *lookup, const bw_context *context, bw_slot *slot) {
    sharing->kernels->finish(lookup, context, &(bw_totals){slot->item, 0, outputs_of(lookup, slot->item), &slot->sums, 1});
    slot->stage = 0;
}

static void do_sets(const bw_sharing *sharing, uint64_t number, const bw_step_plan *step, int32_t thread,
                    const bw_context *context, stretch units) {
    const bw_lookup *lookup = &step->as.lookup;
    const int32_t from = units.from * lookup->groups_at_once, end = units.to * lookup->groups_at_once;
    const int32_t to = end < lookup->form.sets ? end : lookup->form.sets, at = units.item % step->slots;
    bw_slot *slot = &sharing->slots[thread * sharing->slot_room + at], **latest = &sharing->latest[thread];
    if (*latest != NULL && (*latest)->stage == number && (*latest)->item != units.item && (*latest)->sets == lookup->form.sets)
        finish_whole(sharing, lookup, context, *latest);
    const int starts = slot->stage != number;
    if (starts) *slot = (bw_slot){number, units.item, 0, sums_of(lookup, context, at)};
    sharing->kernels->lookup(lookup, context, &(bw_sets){units.item, from, to, slot->sums, starts});
    slot->sets += to - from;
    *latest = slot;
}

/* What is not finished has sums of stage `number`, of one thread or several. */
static void do_outputs(const bw_sharing *sharing, uint64_t number, const bw_step_plan *step, const bw_context *context,
                       stretch units) {
    const bw_lookup *lookup = &step->as.lookup;
    const int32_t outputs = outputs_of(lookup, units.item), end = units.to * FINISH_OUTPUTS;
    char *sums[BW_MOST_SHARING];
    bw_totals totals = {units.item, units.from * FINISH_OUTPUTS, end < outputs ? end : outputs, sums, 0};
    for (int32_t thread = 0; thread < sharing->threads; thread++) {
        const bw_slot *slot = &sharing->slots[thread * sharing->slot_room + units.item % step->slots];
        if (slot->stage == number && slot->item == units.item) sums[totals.count++] = slot->sums;
    }
    if (totals.count > 0) sharing->kernels->finish(lookup, context, &totals);
}

void bw_do_units(const bw_sharing *sharing, uint64_t run, int32_t number, int32_t thread, const bw_context *context,
                 int32_t from, int32_t to) {
    const bw_stage *stage = &sharing->stages[number];
    const bw_step_plan *step = &sharing->plan->steps[stage->step];
    const uint64_t counted = run * (uint64_t)sharing->stage_count + (uint64_t)number;
    const int upwards = bw_takes_upwards(thread);
    switch (stage->kind) {
    case BW_ITEMS:
        for (int32_t item = from; item < to; item++) bw_do_item(sharing->kernels, step, context, item);
        break;
    case BW_SETS:
        while (from < to)
            do_sets(sharing, counted, step, thread, context, take_stretch(&from, &to, set_units(&step->as.lookup), upwards));
        break;
    case BW_OUTPUTS:
        while (from < to)
            do_outputs(sharing, counted - 1, step, context, take_stretch(&from, &to, output_units(&step->as.lookup), upwards));
        break;
    }
}
