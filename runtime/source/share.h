/* How threads share the steps of a plan, stage by stage: a stage begins when the one before has ended, and its units may be
 * done in any order on any thread.
 *
 * Mostly a step is a stage, and its items are the units. Where they are few, threads would wait for the last of them, and
 * seldom are all cores equally quick: there are other processes, other guests of the machine, cores of two kinds. So the
 * items of a lookup, where they are few, are shared set by set, and take two stages. In the first, each thread adds what it
 * looks up to sums of its own. An item all of whose sets it has done it finishes when it goes on to another. The outputs of
 * the other items are the units of the second, in which the sums of several threads are totalled.
 */
#ifndef BW_SHARE_H
#define BW_SHARE_H

#include "plan.h"

typedef enum { BW_ITEMS, BW_SETS, BW_OUTPUTS } bw_stage_kind;

typedef struct {
    bw_stage_kind kind;
    int32_t step;
} bw_stage;

/* The sums of an item that a thread has at hand. */
typedef struct {
    uint64_t stage; /* in which it has made them, counted over all runs from 1 on; 0: there are none */
    int32_t item, sets; /* sets: that are in them */
    char *sums;
} bw_slot;

typedef struct {
    const bw_kernels *kernels;
    const bw_plan *plan;
    bw_stage *stages;
    int32_t *units;    /* (stage_count) */
    int32_t stage_count, threads;
    int32_t slot_room; /* the most slots of a step */
    bw_slot *slots;    /* (threads, slot_room) */
    bw_slot **latest;  /* (threads): the slot that a thread has worked in last, or NULL */
} bw_sharing;

/* Returns 0 for want of memory. */
int bw_open_sharing(bw_heap *heap, const bw_kernels *kernels, const bw_plan *plan, int32_t threads, bw_sharing *sharing);

/* Units from <= k < to of a stage, on a thread of the team: of two threads, the first takes units from the first on and the
 * second from the last on (team.h). run: a number for each time that all stages are done, from 1 on. */
void bw_do_units(const bw_sharing *sharing, uint64_t run, int32_t stage, int32_t thread, const bw_context *context,
                 int32_t from, int32_t to);

/* An item of a step from its beginning to its end. */
void bw_do_item(const bw_kernels *kernels, const bw_step_plan *step, const bw_context *context, int32_t item);

#endif
