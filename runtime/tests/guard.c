#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#endif
#include "guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PATTERN 0xC5

bw_guarded bw_guard(size_t bytes, bw_side side, unsigned char fill) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t inner = bytes == 0 ? page : (bytes + page - 1) / page * page;
    unsigned char *pages = mmap(NULL, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + page, inner, PROT_READ | PROT_WRITE) != 0) {
        perror("guard: mmap");
        exit(2);
    }
    unsigned char *block = pages + page + (side == BW_AT_END ? inner - bytes : 0);
    memset(pages + page, PATTERN, inner);
    memset(block, fill, bytes);
    return (bw_guarded){block, bytes, pages, inner + 2 * page};
}

int bw_unguard(bw_guarded guarded) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const unsigned char *block = guarded.block, *at = guarded.pages + page, *end = guarded.pages + guarded.page_bytes - page;
    int whole = 1;
    for (; at < block; at++) whole &= *at == PATTERN;
    for (at = block + guarded.bytes; at < end; at++) whole &= *at == PATTERN;
    munmap(guarded.pages, guarded.page_bytes);
    return whole;
}

static void *allocate(void *context, size_t bytes) {
    bw_guard_heap *heap = context;
    if (heap->allowed == 0 || heap->count == BW_MOST_BLOCKS) return NULL;
    if (heap->allowed > 0) heap->allowed--;
    heap->blocks[heap->count] = bw_guard(bytes, heap->side, 0xA5);
    return heap->blocks[heap->count++].block;
}

static void release(void *context, void *memory, size_t bytes) {
    bw_guard_heap *heap = context;
    size_t k = heap->count;
    while (k > 0 && heap->blocks[k - 1].block != memory) k--;
    if (k == 0 || heap->blocks[k - 1].bytes != bytes) {
        heap->harmed = 1;
        return;
    }
    if (!bw_unguard(heap->blocks[k - 1])) heap->harmed = 1;
    heap->blocks[k - 1] = heap->blocks[--heap->count];
}

bitwren_memory bw_guard_memory(bw_guard_heap *heap, bw_side side) {
    heap->side = side;
    heap->allowed = -1;
    heap->count = 0;
    heap->harmed = 0;
    return (bitwren_memory){allocate, release, heap};
}
