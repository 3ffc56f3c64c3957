/* A team of threads that work on the same thing, meet, and go on: few microseconds apart, so they wait for each other a
 * short while by looking again and again. How long adapts: where the processor is busy with somebody else they soon go
 * straight to sleep. */
#ifndef BW_TEAM_H
#define BW_TEAM_H

#include "memory.h"

typedef struct bw_team bw_team;
typedef void bw_task(void *about, int32_t thread);

/* threads: 1 or more, the caller's own included. Fails with BITWREN_NO_MEMORY or BITWREN_NO_THREADS. */
bitwren_status bw_team_start(bw_heap *heap, int32_t threads, bw_team **team);
void bw_team_stop(bw_team *team);
/* Call task(about, 0) here and task(about, 1), ... on the others; returns when all have returned. */
void bw_team_run(bw_team *team, bw_task *task, void *about);
/* Within a task: wait until all are here. What any has written before, all see after. */
void bw_team_meet(bw_team *team);

/* Cores that this process may use. */
int32_t bw_cores(void);

#endif
