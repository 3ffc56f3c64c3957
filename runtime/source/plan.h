/* A plan: the steps that compute a network, and where every tensor lies meanwhile. */
#ifndef BW_PLAN_H
#define BW_PLAN_H

#include "kernels.h"
#include "network.h"

typedef enum { BW_GATHER, BW_LOOKUP, BW_DIRECT, BW_POOLING, BW_MAP, BW_SUMMING } bw_step_kind;

typedef struct {
    bw_step_kind kind;
    int32_t items; /* that the kernel set's function of this kind takes, one by one, in any order */
    int shared;    /* of a lookup: whether threads share its items set by set (share.h), with sums of all items each */
    union {
        bw_gather gather;
        bw_lookup lookup;
        bw_direct direct;
        bw_pool pool;
        bw_map map;
        bw_sum sum;
    } as;
    int64_t macs; /* for one picture */
    char *layers;
    char choice[96];
} bw_step_plan;

typedef struct {
    bw_heap heap;
    bw_step_plan *steps;
    int32_t step_count;
    int32_t pictures;            /* that run together, in the lanes of a vector */
    size_t arena_bytes;          /* of all planes */
    size_t scratch_bytes;        /* that a thread needs */
    const bw_plane *logits;
    double cycles;               /* estimated, for one picture */
} bw_plan;

/* pictures: 1, 2, 4, 8 or 16. threads: how many share the items of a step. Returns 0 for want of memory. */
int bw_make_plan(const bitwren_network *network, const bitwren_memory *memory, int32_t pictures, int32_t threads,
                 bw_plan *plan);
void bw_free_plan(bw_plan *plan);
/* Scratch that a thread needs for a step. */
size_t bw_scratch_bytes(const bw_step_plan *step);

/* ------------------------------------------------------------------ shape.c: how a step is laid out and cut */

/* The part of a layout that a step and its tensors share. */
typedef struct {
    bw_grid grid;
    int32_t block_height, block_width;
} bw_blocks;

/* What a step slides a window over; 0 channels for one without weights. */
typedef struct {
    int32_t channels, outputs, window, stride;
    int32_t input_height, input_width, height, width;
    int32_t group, sets; /* of lookups; 0 and 1 where there are none */
} bw_sliding;

/* Whether a result lies well in these blocks: covers the picture, and `stride` times the blocks cover the input. */
int bw_blocks_cover(const bw_blocks *blocks, const bw_sliding *sliding);
/* The blocks of least estimated cost. */
bw_blocks bw_best_blocks(const bw_sliding *sliding, int32_t pictures);
/* Estimated cycles for these blocks, with the best tile for them. */
double bw_blocks_cycles(const bw_blocks *blocks, const bw_sliding *sliding);
/* The tile and the cut that end soonest on so many threads. */
bw_cut bw_best_cut(const bw_blocks *blocks, const bw_sliding *sliding, bw_tile *tile, int32_t threads);

/* Whether so many threads share the items of a lookup set by set. Of more than BW_MOST_SHARING, each would hold sums of a
 * whole layer, and have little of it to do. */
#define BW_MOST_SHARING 8
int bw_is_shared(int32_t items, int32_t sets, int32_t threads);

/* How many groups a lookup may take at once. More than one halves the loads and stores of sums, for more tables at hand. */
int32_t bw_most_groups(const bw_lookup *step, const bw_kernels *kernels);
/* Tables that a tile needs at once. */
int32_t bw_table_positions(const bw_lookup *step);

/* ------------------------------------------------------------------ draft.c: which nodes make a step, which planes */

typedef struct {
    int32_t tensor; /* a node, or BW_PIXELS */
    int codes;      /* x - zero for convolutions, or the values as they are */
    bw_blocks blocks;
    int32_t halo[4]; /* top, left, bottom, right */
    int32_t producer, last_use; /* steps */
    size_t bytes; /* of a value */
    size_t offset; /* in the arena */
} bw_draft_plane;

/* base: the tensor that the step itself computes; then the nodes of its program, in order. A gather between layouts has
 * no base (BW_NO_TENSOR) and copies `input` to the only plane whose producer it is. */
#define BW_NO_TENSOR (-2)
typedef struct {
    bw_step_kind kind;
    int32_t base, conv; /* conv: of a lookup, direct step, or a sum that does a 1x1 convolution too; else BW_NO_TENSOR */
    int32_t input;      /* plane, or -1: the pictures */
    int32_t first_chain, chain_count;
    bw_blocks blocks;
} bw_draft_step;

/* Of a node in a chain, what it reads beside the value at hand. */
typedef struct {
    int32_t added; /* by an add: the plane, or -1 */
    int32_t again; /* in place of that value: an earlier tensor of the step, which has a second reader; or BW_NO_TENSOR */
} bw_joined;

typedef struct {
    bw_heap heap;
    int32_t pictures;
    bw_draft_step *steps;
    bw_draft_plane *planes;
    int32_t *chain;      /* nodes */
    bw_joined *joined;   /* beside chain */
    int32_t *home;       /* (node_count): the step that computes a node, or -1 */
    int32_t step_count, plane_count, chain_count, logits; /* logits: plane */
    int32_t step_room, plane_room;
    double cycles;
} bw_draft;

int bw_make_draft(const bitwren_network *network, const bitwren_memory *memory, int32_t pictures, bw_draft *draft);
bw_sliding bw_sliding_of(const bitwren_network *network, int32_t node);

#endif
