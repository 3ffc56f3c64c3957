/* Memory from the caller's functions or the C library's, in blocks that are given back all at once. */
#ifndef BW_MEMORY_H
#define BW_MEMORY_H

#include "bitwren.h"

#define BW_ALIGNMENT 64 /* bytes: a cache line, and at least the widest vector */

typedef struct bw_block bw_block;

typedef struct {
    bitwren_memory from;
    bw_block *last;
    size_t bytes; /* of all blocks, with what they cost themselves */
} bw_heap;

/* from: NULL for the C library. */
void bw_heap_open(bw_heap *heap, const bitwren_memory *from);
/* Zeroed, aligned to BW_ALIGNMENT; NULL where there is none or count * size passes size_t. At least one byte. */
void *bw_take(bw_heap *heap, size_t count, size_t size);
/* Give back one block (the last taken is quickest) before the others. NULL is allowed. */
void bw_give_back(bw_heap *heap, void *block);
void bw_heap_close(bw_heap *heap);

#endif
