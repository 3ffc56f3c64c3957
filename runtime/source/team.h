/* A team of threads that go through the steps of a task together: the items of a step are taken one after the other by
 * whoever has time, and a step begins when the one before has ended.
 *
 * A thread that the system gives no time is not waited for, unless it is in the middle of an item: on a busy machine the
 * caller does all the work itself. Steps are few microseconds apart, so threads wait for a step's end a short while by
 * looking again and again, and then sleep. How long adapts: where the processor is busy with somebody else they soon go
 * straight to sleep.
 */
#ifndef BW_TEAM_H
#define BW_TEAM_H

#include "memory.h"

typedef struct bw_team bw_team;

/* Does items from <= k < to of a step, on that thread of the team; the caller's is 0. */
typedef void bw_work(void *about, int32_t thread, int32_t step, int32_t from, int32_t to);

/* threads: 1 or more, the caller's own included. Fails with BITWREN_NO_MEMORY or BITWREN_NO_THREADS. */
bitwren_status bw_team_start(bw_heap *heap, int32_t threads, int32_t most_steps, bw_team **team);
void bw_team_stop(bw_team *team);
/* What a step consists of, 1 or more items. Those of a block, which are next to each other, are best done by one thread. */
typedef struct {
    int32_t items, block; /* block: of so many; items are a multiple of it */
} bw_team_step;

/* Returns when all items of all steps are done. What a step has written, the steps after it see, and the caller. */
void bw_team_run(bw_team *team, const bw_team_step *steps, int32_t count, bw_work *work, void *about);

/* Items are taken from the first on by half of the threads, and by the others from the last on: so two threads work on the
 * same halves of the picture from step to step, and find in their cache what they wrote. */
static inline int bw_takes_upwards(int32_t thread) { return thread % 2 == 0; }

/* Cores that this process may use. */
int32_t bw_cores(void);

#endif
