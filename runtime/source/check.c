/* What a graph must be (docs/integer-network.md): names and readers are right, shapes fit, no sum can pass int32. */
#include <string.h>

#include "read.h"

#define MAX_CODE 511

typedef struct {
    bw_graph *graph;
    bitwren_error *error;
    int32_t number; /* of the node at hand */
    bw_node *node;
} checker;

#define REFUSE(...) return refuse(c, __VA_ARGS__)

static bitwren_status refuse(const checker *c, const char *what, int64_t a, int64_t b, int64_t expected) {
    return bw_fail(c->error, BITWREN_BAD_FILE, c->number, "%s: %s: %lld and %lld, expected %lld",
                   c->node->name, what, (long long)a, (long long)b, (long long)expected);
}

static int fits16(int64_t low, int64_t high) { return low >= INT16_MIN && high <= INT16_MAX; }
static int fits32(int64_t low, int64_t high) { return low >= INT32_MIN && high <= INT32_MAX; }
static int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Positions of a sliding window, below 1 where it does not fit. */
static int32_t positions(int32_t size, int32_t before, int32_t after, const bw_node *node) {
    const int32_t room = size + before + after - node->window;
    return room < 0 ? 0 : room / node->stride + 1;
}

static bitwren_status check_window(const checker *c, const bw_tensor *x) {
    bw_node *node = c->node;
    for (int k = 0; k < 4; k++) /* narrower than the window: so each of its positions meets a real pixel */
        if (node->padding[k] >= node->window) REFUSE("padding and window", node->padding[k], node->window, node->window - 1);
    node->result.height = positions(x->height, node->padding[0], node->padding[2], node);
    node->result.width = positions(x->width, node->padding[1], node->padding[3], node);
    if (node->result.height < 1 || node->result.width < 1)
        REFUSE("the window does not fit height and width", x->height, x->width, node->window);
    return BITWREN_OK;
}

/* The largest |sum|: every code as far from its zero point as it can be, all with the weight's sign. At most 2^31 weights of
 * 127 * 511, which int64 holds. */
static int64_t reach_of_conv(const checker *c, const bw_tensor *x) {
    const bw_node *node = c->node;
    const int64_t area = (int64_t)node->window * node->window;
    int64_t same = 0, largest = 0;
    for (int32_t channel = 0; channel < x->channels; channel++) {
        const int32_t zero = node->inputs[0] == BW_PIXELS ? c->graph->zeros[channel] : x->zero;
        same += area * most(x->high - zero, zero - x->low);
    }
    if (node->weight_bits == 1) return same;
    const uint8_t *weight = node->weights;
    for (int32_t o = 0; o < node->result.channels; o++) {
        int64_t reach = 0;
        for (int64_t tap = 0; tap < area; tap++)
            for (int32_t channel = 0; channel < x->channels; channel++, weight++) {
                const int32_t zero = node->inputs[0] == BW_PIXELS ? c->graph->zeros[channel] : x->zero;
                const int32_t size = *weight < 128 ? *weight : 256 - *weight;
                reach += size * most(x->high - zero, zero - x->low);
            }
        largest = most(largest, reach);
    }
    return largest;
}

static bitwren_status check_conv(const checker *c, const bw_tensor *x) {
    bw_node *node = c->node;
    if (x->zero == BW_NO_ZERO && node->inputs[0] != BW_PIXELS) REFUSE("reads no codes, range", x->low, x->high, 0);
    const bitwren_status status = check_window(c, x);
    if (status != BITWREN_OK) return status;
    if (node->weight_bits == 8) {
        const size_t count = (size_t)node->result.channels * (size_t)node->window * (size_t)node->window * (size_t)x->channels;
        if (memchr(node->weights, 128, count) != NULL) REFUSE("weights, one of which is", -128, 127, -127);
    }
    const int64_t reach = reach_of_conv(c, x);
    if (reach > INT32_MAX) REFUSE("sums reach", -reach, reach, INT32_MAX);
    node->result.low = (int32_t)-reach;
    node->result.high = (int32_t)reach;
    node->result.zero = BW_NO_ZERO;
    return BITWREN_OK;
}

static int is_power_of_two(int32_t x) { return (x & (x - 1)) == 0; } /* 0 too */

static bitwren_status check_requantise(const checker *c, const bw_tensor *x) {
    bw_node *node = c->node;
    bw_tensor *y = &node->result;
    if (node->low > node->high) REFUSE("low and high", node->low, node->high, node->high);
    if (y->zero != BW_NO_ZERO) {
        if (node->low < 0 || node->high > MAX_CODE) REFUSE("codes from and to", node->low, node->high, MAX_CODE);
        if (y->zero < node->low || y->zero > node->high) REFUSE("low and high round a zero point", node->low, node->high, y->zero);
    }
    int64_t before[2] = {INT64_MAX, INT64_MIN}, after[2] = {INT64_MAX, INT64_MIN};
    int only_shifts = 1;
    for (int32_t channel = 0; channel < x->channels; channel++) {
        const int64_t m = bw_multiplier(node, channel), b = bw_offset(node, channel);
        const int64_t ends[2] = {m * x->low + b, m * x->high + b};
        only_shifts &= is_power_of_two((int32_t)(m < 0 ? -m : m));
        for (int k = 0; k < 2; k++) {
            const int64_t reached = clamp(ends[k] >> node->shift, node->low, node->high);
            before[0] = least(before[0], ends[k]);
            before[1] = most(before[1], ends[k]);
            after[0] = least(after[0], reached);
            after[1] = most(after[1], reached);
        }
    }
    if (only_shifts && !fits32(before[0], before[1])) REFUSE("values before the shift reach", before[0], before[1], INT32_MAX);
    *y = (bw_tensor){x->channels, x->height, x->width, (int32_t)after[0], (int32_t)after[1], y->zero};
    return BITWREN_OK;
}

static bitwren_status check_add(const checker *c, const bw_tensor *a, const bw_tensor *b) {
    if (a->channels != b->channels) REFUSE("channels", a->channels, b->channels, a->channels);
    if (a->height != b->height) REFUSE("heights", a->height, b->height, a->height);
    if (a->width != b->width) REFUSE("widths", a->width, b->width, a->width);
    if (!fits16(a->low, a->high)) REFUSE("reads", a->low, a->high, INT16_MAX);
    if (!fits16(b->low, b->high)) REFUSE("reads", b->low, b->high, INT16_MAX);
    c->node->result = *a;
    c->node->result.low = (int32_t)clamp(a->low + b->low, INT16_MIN, INT16_MAX);
    c->node->result.high = (int32_t)clamp(a->high + b->high, INT16_MIN, INT16_MAX);
    c->node->result.zero = BW_NO_ZERO;
    return BITWREN_OK;
}

static bitwren_status check_pool(const checker *c, const bw_tensor *x) {
    bw_tensor *y = &c->node->result;
    if (!fits16(x->low, x->high)) REFUSE("reads", x->low, x->high, INT16_MAX);
    if (y->channels < x->channels) REFUSE("channels of result and input", y->channels, x->channels, x->channels);
    const bitwren_status status = check_window(c, x);
    if (status != BITWREN_OK) return status;
    const int padded = c->node->pool == BW_BINOMIAL || c->node->pool == BW_MEAN || y->channels > x->channels;
    y->low = padded ? (int32_t)least(x->low, 0) : x->low;
    y->high = padded ? (int32_t)most(x->high, 0) : x->high;
    y->zero = BW_NO_ZERO;
    return BITWREN_OK;
}

static bitwren_status check_sum(const checker *c, const bw_tensor *x) {
    const int64_t count = (int64_t)x->height * x->width, low = count * x->low, high = count * x->high;
    if (!fits32(low, high)) REFUSE("sums reach", low, high, INT32_MAX);
    c->node->result = (bw_tensor){x->channels, 1, 1, (int32_t)low, (int32_t)high, BW_NO_ZERO};
    return BITWREN_OK;
}

static bitwren_status check_size(const bw_tensor *t, int32_t node, const char *name, bitwren_error *error) {
    if ((int64_t)t->channels * t->height > BW_MOST || (int64_t)t->channels * t->height * t->width > BW_MOST)
        return bw_fail(error, BITWREN_BAD_FILE, node, "'%s' has %d x %d x %d values, expected at most %d", name, (int)t->channels,
                       (int)t->height, (int)t->width, BW_MOST);
    return BITWREN_OK;
}

static bitwren_status check_node(const checker *c) {
    const bw_tensor *x = bw_input(c->graph, c->node, 0);
    switch (c->node->op) {
    case BW_CONV: return check_conv(c, x);
    case BW_REQUANTISE: return check_requantise(c, x);
    case BW_ADD: return check_add(c, x, bw_input(c->graph, c->node, 1));
    case BW_POOL: return check_pool(c, x);
    case BW_SUM: return check_sum(c, x);
    }
    return BITWREN_OK;
}

bitwren_status bw_check_graph(bw_graph *graph, bitwren_error *error) {
    const int32_t count = graph->node_count;
    bitwren_status status = check_size(&graph->pixels, -1, "pixels", error);
    int pixels_are_read = 0;
    for (int32_t k = 0; k < count && status == BITWREN_OK; k++) {
        const checker c = {graph, error, k, &graph->nodes[k]};
        status = check_node(&c);
        if (status == BITWREN_OK) status = check_size(&graph->nodes[k].result, k, graph->nodes[k].name, error);
        for (int which = 0; which < bw_input_count(c.node); which++) {
            const int32_t input = c.node->inputs[which];
            if (input == BW_PIXELS) pixels_are_read = 1;
            else graph->nodes[input].is_read = 1;
        }
    }
    if (status != BITWREN_OK) return status;
    if (!pixels_are_read) return bw_fail(error, BITWREN_BAD_FILE, -1, "'pixels' is read by no node");
    for (int32_t k = 0; k < count - 1; k++)
        if (!graph->nodes[k].is_read) return bw_fail(error, BITWREN_BAD_FILE, k, "'%s' is read by no node", graph->nodes[k].name);
    const bw_tensor *logits = &graph->nodes[count - 1].result;
    if (logits->channels != graph->class_count || logits->height != 1 || logits->width != 1)
        return bw_fail(error, BITWREN_BAD_FILE, count - 1, "logits '%s' are (%d, %d, %d), expected (%d, 1, 1)",
                       graph->nodes[count - 1].name, (int)logits->channels, (int)logits->height, (int)logits->width,
                       (int)graph->class_count);
    return BITWREN_OK;
}

bitwren_status bw_read_graph(const uint8_t *file, size_t bytes, const bitwren_memory *memory, bw_graph *graph,
                             bitwren_error *error) {
    bw_heap heap; /* what is needed until the graph is read */
    bw_parts parts;
    memset(graph, 0, sizeof *graph);
    bw_heap_open(&heap, memory);
    bw_heap_open(&graph->heap, memory);
    bitwren_status status = bw_read_container(file, bytes, &heap, &parts, error);
    if (status == BITWREN_OK) status = bw_read_description(parts.description, graph, &heap, error);
    if (status == BITWREN_OK) status = bw_read_tensors(&parts, graph, error);
    if (status == BITWREN_OK) status = bw_check_graph(graph, error);
    bw_heap_close(&heap);
    if (status != BITWREN_OK) bw_free_graph(graph);
    return status;
}

void bw_free_graph(bw_graph *graph) { bw_heap_close(&graph->heap); }
