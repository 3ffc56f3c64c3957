/* A network as it stands in a .bwn file: nodes, shapes, ranges (docs/integer-network.md, docs/file-format.md).
 *
 * Made by bw_read_graph from the bytes of a file, which it checks as docs/file-format.md says; a graph that exists is
 * well formed and cannot overflow. Weights and constants stay where they are in the file, little-endian and unaligned:
 * use bw_weight_bit, bw_multiplier, bw_offset.
 */
#ifndef BW_GRAPH_H
#define BW_GRAPH_H

#include "error.h"
#include "memory.h"

#define BW_PIXELS (-1) /* in place of a node's index: the network's input */
#define BW_NO_ZERO (-1)

typedef enum { BW_CONV, BW_REQUANTISE, BW_ADD, BW_POOL, BW_SUM } bw_op;
typedef enum { BW_BINOMIAL, BW_MEAN, BW_MEAN_REAL, BW_MAX } bw_pool_kind;

typedef struct {
    int32_t channels, height, width;
    int32_t low, high; /* no value lies outside, whatever the picture */
    int32_t zero;      /* the code of real zero; BW_NO_ZERO where it holds no codes, or pixels whose channels' zeros differ */
} bw_tensor;

typedef struct {
    bw_op op;
    char name[24]; /* its op and its place, from 1 on: "conv1" */
    int32_t inputs[2]; /* indices of nodes before this one, or BW_PIXELS; add has two, the others one (inputs[1] unset) */
    bw_tensor result;

    /* conv: weights of shape (result.channels, window, window, input channels); pool: window is 3, stride 2 */
    int32_t window, stride;
    int32_t padding[4]; /* top, left, bottom, right; each below the window */
    int32_t weight_bits; /* 1 or 8 */
    const uint8_t *weights;

    /* requantise */
    const uint8_t *multipliers, *offsets; /* per channel, or NULL where one serves all channels */
    int32_t offset_bytes;                 /* of each offset there, 2 or 4; a multiplier has 2 */
    int32_t multiplier, offset;           /* the one that serves all */
    int32_t multiplier_count, offset_count; /* 1, or as many as channels */
    int32_t shift, low, high;             /* zero: see result.zero */

    bw_pool_kind pool;
    int is_read; /* by a node after it */
} bw_node;

typedef struct {
    bw_tensor pixels;
    uint8_t *zeros; /* (pixels.channels): the zero point of each channel */
    bw_node *nodes;
    int32_t node_count, class_count;
    char *class_names; /* UTF-8, each ends with 0, one after another */
    double logit_scale;
    bw_heap heap; /* what to give back */
} bw_graph;

/* Read and check the bytes of a .bwn file. On failure nothing is left allocated. `file` must outlive the graph. */
bitwren_status bw_read_graph(const uint8_t *file, size_t bytes, const bitwren_memory *memory, bw_graph *graph,
                             bitwren_error *error);
void bw_free_graph(bw_graph *graph);

static inline int bw_input_count(const bw_node *node) { return node->op == BW_ADD ? 2 : 1; }

static inline const bw_tensor *bw_input(const bw_graph *graph, const bw_node *node, int which) {
    const int32_t index = node->inputs[which];
    return index == BW_PIXELS ? &graph->pixels : &graph->nodes[index].result;
}

/* 1 where the weight is +1, 0 where it is -1; number = ((o * window + y) * window + x) * channels + c. */
static inline unsigned bw_weight_bit(const bw_node *conv, size_t number) {
    return (conv->weights[number >> 3] >> (number & 7)) & 1u;
}

static inline int32_t bw_int16(const uint8_t *p) {
    const int32_t bits = p[0] | p[1] << 8;
    return bits < 0x8000 ? bits : bits - 0x10000;
}

static inline int32_t bw_multiplier(const bw_node *node, int32_t channel) {
    return node->multipliers == NULL ? node->multiplier : bw_int16(node->multipliers + 2 * (size_t)channel);
}

static inline int32_t bw_offset(const bw_node *node, int32_t channel) {
    if (node->offsets == NULL) return node->offset;
    const uint8_t *p = node->offsets + (size_t)node->offset_bytes * (size_t)channel;
    if (node->offset_bytes == 2) return bw_int16(p);
    const int64_t bits = (int64_t)p[0] | (int64_t)p[1] << 8 | (int64_t)p[2] << 16 | (int64_t)p[3] << 24;
    return (int32_t)(bits < 0x80000000 ? bits : bits - 0x100000000);
}

#endif
