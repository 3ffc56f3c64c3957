#include "memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Stands before each block; BW_ALIGNMENT bytes, so what follows it is aligned too. */
struct bw_block {
    bw_block *before;
    size_t bytes; /* this header included */
};

static void *library_allocate(void *context, size_t bytes) {
    (void)context;
    return aligned_alloc(BW_ALIGNMENT, bytes); /* bytes is a multiple of the alignment */
}

static void library_release(void *context, void *memory, size_t bytes) {
    (void)context;
    (void)bytes;
    free(memory);
}

void bw_heap_open(bw_heap *heap, const bitwren_memory *from) {
    heap->from = from != NULL ? *from : (bitwren_memory){library_allocate, library_release, NULL};
    heap->last = NULL;
    heap->bytes = 0;
}

void *bw_take(bw_heap *heap, size_t count, size_t size) {
    const size_t most = SIZE_MAX - 2 * BW_ALIGNMENT;
    if (size != 0 && count > most / size) return NULL;
    const size_t bytes = BW_ALIGNMENT + (count * size + BW_ALIGNMENT - 1) / BW_ALIGNMENT * BW_ALIGNMENT;
    bw_block *block = heap->from.allocate(heap->from.context, bytes);
    if (block == NULL) return NULL;
    memset(block, 0, bytes);
    block->before = heap->last;
    block->bytes = bytes;
    heap->last = block;
    heap->bytes += bytes;
    return (char *)block + BW_ALIGNMENT;
}

static void release(bw_heap *heap, bw_block **place) {
    bw_block *block = *place;
    *place = block->before;
    heap->bytes -= block->bytes;
    heap->from.release(heap->from.context, block, block->bytes);
}

void bw_give_back(bw_heap *heap, void *memory) {
    if (memory == NULL) return;
    bw_block *block = (bw_block *)(void *)((char *)memory - BW_ALIGNMENT);
    bw_block **place = &heap->last;
    while (*place != block) place = &(*place)->before;
    release(heap, place);
}

void bw_heap_close(bw_heap *heap) {
    while (heap->last != NULL) release(heap, &heap->last);
}
