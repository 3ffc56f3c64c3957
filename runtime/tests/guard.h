/* Memory that notices what is written or read beside it: each block lies between two pages that nobody may touch, right
 * before the second (BW_AT_END) or right behind the first (BW_AT_START); what is left of its own pages is filled with a
 * pattern, and looked at when the block is given back. */
#ifndef BW_GUARD_H
#define BW_GUARD_H

#include "bitwren.h"

typedef enum { BW_AT_END, BW_AT_START } bw_side;

typedef struct {
    void *block;
    size_t bytes;
    unsigned char *pages; /* with both guards */
    size_t page_bytes;
} bw_guarded;

/* Filled with `fill`. Ends the program where the system gives no memory. */
bw_guarded bw_guard(size_t bytes, bw_side side, unsigned char fill);
/* Returns 0 where the pattern beside the block was changed. */
int bw_unguard(bw_guarded guarded);

#define BW_MOST_BLOCKS 65536

/* An allocator of such blocks for bitwren_memory.context. */
typedef struct {
    bw_side side;
    long allowed; /* allocations until it refuses; negative: any number */
    size_t count; /* blocks out now */
    int harmed;   /* a block's surroundings were changed, or one was given back that was never given out */
    bw_guarded blocks[BW_MOST_BLOCKS];
} bw_guard_heap;

bitwren_memory bw_guard_memory(bw_guard_heap *heap, bw_side side);

#endif
