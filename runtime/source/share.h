/* How threads share the steps of a plan, stage by stage: a stage begins when the one before has ended, and its units may be
 * done in any order on any thread.
 *
 * Mostly a step is a stage, and its items are the units. Where they are few, threads would wait for the last of them, and
 * seldom are all cores equally quick: there are other processes, other guests of the machine, cores of two kinds. So a
 * lookup of few items is shared set by set, and takes two stages. In the first, a unit is a set of an item, and each thread
 * adds what it looks up to sums of its own. In the second, a unit is some outputs of an item, and the sums of the threads
 * are totalled: one or a few items have several. What a thread finishes is then mostly what it looks up next: the same rows,
 * or of a single item the same channels, in its own cache.
 */
#ifndef BW_SHARE_H
#define BW_SHARE_H

#include "plan.h"
#include "team.h"

typedef enum { BW_ITEMS, BW_SETS, BW_OUTPUTS } bw_stage_kind;

typedef struct {
    bw_stage_kind kind;
    int32_t step;
} bw_stage;

/* What a thread has looked up of an item last. */
typedef struct {
    uint64_t stage; /* in which its sums were made, counted over all runs from 1 on; 0: none */
    char *sums;
} bw_looked_up;

typedef struct {
    const bw_kernels *kernels;
    const bw_plan *plan;
    bw_stage *stages;
    bw_team_step *units; /* (stage_count): a stage is a step of the team */
    int32_t stage_count, threads;
    int32_t most_items;      /* of a step that is shared set by set */
    bw_looked_up *looked_up; /* (threads, most_items) */
} bw_sharing;

/* Returns 0 for want of memory. */
int bw_open_sharing(bw_heap *heap, const bw_kernels *kernels, const bw_plan *plan, int32_t threads, bw_sharing *sharing);

/* Units from <= k < to of a stage, on a thread of the team. run: a number for each time that all stages are done, from 1 on. */
void bw_do_units(const bw_sharing *sharing, uint64_t run, int32_t stage, int32_t thread, const bw_context *context,
                 int32_t from, int32_t to);

/* An item of a step from its beginning to its end. */
void bw_do_item(const bw_kernels *kernels, const bw_step_plan *step, const bw_context *context, int32_t item);

#endif
