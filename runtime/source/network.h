/* An open network: its graph, its weights made ready for the kernels, its constants. Read-only, shared by all runners. */
#ifndef BW_NETWORK_H
#define BW_NETWORK_H

#include "graph.h"
#include "kernels.h"

typedef enum {
    BW_BY_LOOKUP,  /* tables of sums, 1-bit weights */
    BW_BY_PRODUCT, /* multiplications: 8-bit weights, and windows too large for tables */
    BW_BY_SUM      /* a 1x1 convolution that only a sum reads: done after it, on one value for each channel */
} bw_method;

/* A convolution's weights. Which of the pointers is set follows from the method (and the bits, for BW_BY_SUM). */
typedef struct {
    bw_method method;
    bw_index_form form;
    const uint8_t *indices; /* bw_lookup; owed and most_owed too */
    const int16_t *owed;
    int16_t most_owed;
    const int16_t *pairs;   /* bw_direct */
    const uint8_t *bits;    /* bw_sum */
    const int8_t *weights;  /* bw_sum */
} bw_packed;

/* A requantise node's constants, one for each channel. */
typedef struct {
    const int32_t *multiplier, *offset;
} bw_constants;

struct bitwren_network {
    bw_graph graph; /* its weights, multipliers and offsets are gone with the file: use the arrays below */
    const bw_kernels *kernels;
    bw_packed *packed;       /* (node_count), of convolutions */
    bw_constants *constants; /* (node_count), of requantise nodes */
    int32_t *readers;        /* (node_count + 1): how many nodes read node k; [node_count]: the pixels */
    bw_heap heap;
};

/* pack.c: choose the method and make the weights ready for those kernels. Returns 0 for want of memory. */
int bw_pack(bw_heap *heap, const bw_graph *graph, int32_t node, bw_method method, const bw_kernels *kernels,
            bw_packed *packed);

/* Whether the only reader of a 1x1 convolution is a sum. */
int bw_is_summed(const bw_graph *graph, int32_t node, const int32_t *readers);

/* Estimated processor cycles of a tile's tables and lookups for all sets; `new_positions` tables are made per tile. */
double bw_lookup_cycles(int32_t channels, int32_t outputs, int32_t window, int32_t group, int32_t vectors,
                        double new_positions);

#endif
