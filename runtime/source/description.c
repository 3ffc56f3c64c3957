/* What the description of a .bwn file may hold: each key of each object, and its limits. What the values must be to each
 * other, check.c says. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "read.h"

#define VERSION 1
#define MAX_NODES 4096
#define MAX_SIDE 32768 /* channels, height, width, classes, window */
#define MAX_CODE 511
#define MAX_SHIFT 47
#define MAX_CLASS_NAME 200
#define MAX_ABOUT_DEPTH 16

typedef struct {
    bw_graph *graph;
    bw_heap *heap;
    bitwren_error *error;
    const char **names; /* (nodes): the strings of their names, ascending; of equal ones the earlier first */
    int32_t *numbers;   /* (nodes): whose name that is */
} reader;

/* ------------------------------------------------------------------ refusing */

static bitwren_status wrong_key(const reader *r, int32_t node, const char *where, const char *key, const char *value,
                                const char *expected) {
    const bw_shown shown = bw_show(value);
    return bw_fail(r->error, BITWREN_BAD_FILE, node, "%s: %s %s, expected %s", where, key, shown.text, expected);
}

/* Whether an object has exactly these keys; values[k] is that of keys[k]. */
static bitwren_status take_members(const reader *r, int32_t node, const char *where, const char *object,
                                   const char *const *keys, const char **values) {
    if (*object != '{') return wrong_key(r, node, where, "is", object, "an object");
    int32_t count = 0;
    for (; keys[count] != NULL; count++) {
        values[count] = bw_find_member(object, keys[count]);
        if (values[count] == NULL)
            return bw_fail(r->error, BITWREN_BAD_FILE, node, "%s: key '%s' is missing", where, keys[count]);
    }
    if (bw_count_members(object) == count) return BITWREN_OK;
    for (bw_member m = {NULL, NULL}; bw_next_member(object, &m);) {
        int known = 0;
        for (int32_t k = 0; k < count; k++) known |= bw_is_string(m.key, keys[k]);
        if (!known) return wrong_key(r, node, where, "key", m.key, "none beside those of the definition");
    }
    return BITWREN_OK; /* not reached: no key stands twice */
}

/* Whether a value is a list of so many whole numbers. */
static int is_whole_list(const char *value, int32_t count, int64_t low, int64_t high, int32_t *to) {
    int32_t have = 0;
    int64_t number;
    if (*value != '[') return 0;
    for (bw_member m = {NULL, NULL}; bw_next_member(value, &m);) {
        if (have == count || !bw_is_whole(m.value, low, high, &number)) return 0;
        to[have++] = (int32_t)number;
    }
    return have == count;
}

/* ------------------------------------------------------------------ about, classes, input */

static int about_is_shallow(const char *value, int32_t depth) {
    if (depth > MAX_ABOUT_DEPTH) return 0;
    if (*value != '{' && *value != '[') return 1;
    for (bw_member m = {NULL, NULL}; bw_next_member(value, &m);)
        if (!about_is_shallow(m.value, depth + 1)) return 0;
    return 1;
}

static bitwren_status read_classes(const reader *r, const char *classes) {
    const int32_t count = *classes == '[' ? bw_count_members(classes) : 0;
    if (count < 1 || count > MAX_SIDE) return wrong_key(r, -1, "network", "classes", classes, "a list of 1 to 32768");
    size_t room = 0;
    for (bw_member m = {NULL, NULL}; bw_next_member(classes, &m);) {
        const int32_t characters = *m.value == '"' ? bw_count_characters(m.value) : -1;
        if (characters < 1 || characters > MAX_CLASS_NAME)
            return wrong_key(r, -1, "classes", "name", m.value, "1 to 200 characters, none of them a control character");
        room += 4 * (size_t)characters + 1;
    }
    char *to = bw_take(&r->graph->heap, room, 1);
    if (to == NULL) return bw_fail(r->error, BITWREN_NO_MEMORY, -1, "out of memory");
    r->graph->class_names = to;
    r->graph->class_count = count;
    for (bw_member m = {NULL, NULL}; bw_next_member(classes, &m);) {
        to += bw_decode_string(m.value, to);
        *to++ = 0;
    }
    return BITWREN_OK;
}

static bitwren_status read_input(const reader *r, const char *input) {
    static const char *const keys[] = {"channels", "height", "width", "zero", NULL};
    bw_graph *graph = r->graph;
    const char *values[4];
    int64_t sides[3];
    const bitwren_status status = take_members(r, -1, "input", input, keys, values);
    if (status != BITWREN_OK) return status;
    for (int k = 0; k < 3; k++)
        if (!bw_is_whole(values[k], 1, MAX_SIDE, &sides[k])) return wrong_key(r, -1, "input", keys[k], values[k], "1 to 32768");
    graph->pixels = (bw_tensor){(int32_t)sides[0], (int32_t)sides[1], (int32_t)sides[2], 0, UINT8_MAX, BW_NO_ZERO};
    const int32_t channels = graph->pixels.channels;
    const int32_t given = *values[3] == '[' ? bw_count_members(values[3]) : 0;
    if (given != channels) return wrong_key(r, -1, "input", "zero", values[3], "a list of one for each channel");
    int32_t *zeros = bw_take(r->heap, (size_t)channels, sizeof *zeros);
    graph->zeros = bw_take(&graph->heap, (size_t)channels, 1);
    if (zeros == NULL || graph->zeros == NULL) return bw_fail(r->error, BITWREN_NO_MEMORY, -1, "out of memory");
    if (!is_whole_list(values[3], channels, 0, UINT8_MAX, zeros))
        return wrong_key(r, -1, "input", "zero", values[3], "a list of 0 to 255 each");
    int same = 1;
    for (int32_t c = 0; c < channels; c++) {
        graph->zeros[c] = (uint8_t)zeros[c];
        same &= zeros[c] == zeros[0];
    }
    if (same) graph->pixels.zero = zeros[0];
    bw_give_back(r->heap, zeros);
    return BITWREN_OK;
}

/* ------------------------------------------------------------------ names of nodes */

static int is_name(const char *value) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
    if (*value != '"') return 0;
    const int32_t length = bw_count_characters(value);
    if (length < 1 || length > 64) return 0;
    char text[4 * 64];
    const size_t bytes = bw_decode_string(value, text);
    for (size_t k = 0; k < bytes; k++)
        if (text[k] == 0 || strchr(allowed, text[k]) == NULL) return 0;
    return 1;
}

static int order(const reader *r, int32_t a, int32_t b) {
    const int by_name = strcmp(r->graph->nodes[a].name, r->graph->nodes[b].name);
    return by_name != 0 ? by_name : a - b;
}

/* Numbers of the nodes by name: a merge sort, for up to 4,096. */
static int sort_names(reader *r) {
    const int32_t count = r->graph->node_count;
    int32_t *from = bw_take(r->heap, (size_t)count, sizeof *from), *to = bw_take(r->heap, (size_t)count, sizeof *to);
    if (from == NULL || to == NULL) return 0;
    for (int32_t k = 0; k < count; k++) from[k] = k;
    for (int32_t width = 1; width < count; width *= 2) {
        for (int32_t start = 0; start < count; start += 2 * width) {
            const int32_t middle = start + width < count ? start + width : count;
            const int32_t end = start + 2 * width < count ? start + 2 * width : count;
            for (int32_t a = start, b = middle, k = start; k < end; k++)
                to[k] = a < middle && (b == end || order(r, from[a], from[b]) < 0) ? from[a++] : from[b++];
        }
        int32_t *swap = from;
        from = to;
        to = swap;
    }
    r->numbers = from;
    return 1;
}

/* The number of the node of that name, BW_PIXELS, or INT32_MIN where there is none. */
static int32_t find_node(const reader *r, const char *name) {
    if (bw_is_string(name, "pixels")) return BW_PIXELS;
    char text[4 * 64 + 1];
    text[bw_decode_string(name, text)] = 0;
    for (int32_t low = 0, high = r->graph->node_count; low < high;) {
        const int32_t middle = low + (high - low) / 2;
        const int difference = strcmp(text, r->graph->nodes[r->numbers[middle]].name);
        if (difference == 0) return r->numbers[middle];
        if (difference < 0) high = middle;
        else low = middle + 1;
    }
    return INT32_MIN;
}

/* ------------------------------------------------------------------ nodes */

static const char *const op_names[] = {"conv", "requantise", "add", "pool", "sum"};
static const char *const pool_names[] = {"binomial", "mean", "mean-real", "max"};

static const char *where_of(const bw_node *node, char *room, size_t size) {
    snprintf(room, size, "%s '%s'", op_names[node->op], node->name);
    return room;
}

/* A node's op and name, which all others may need. */
static bitwren_status read_name(const reader *r, int32_t number, const char *object) {
    bw_node *node = &r->graph->nodes[number];
    char where[24];
    snprintf(where, sizeof where, "node %d", (int)number);
    if (*object != '{') return wrong_key(r, number, where, "is", object, "an object");
    const char *op = bw_find_member(object, "op"), *name = bw_find_member(object, "name");
    int known = 0;
    for (int k = 0; op != NULL && k < 5; k++)
        if (bw_is_string(op, op_names[k])) {
            node->op = (bw_op)k;
            known = 1;
        }
    if (!known)
        return wrong_key(r, number, where, "op", op != NULL ? op : "null ", "one of conv, requantise, add, pool, sum");
    if (name == NULL || !is_name(name))
        return wrong_key(r, number, where, "name", name != NULL ? name : "null ", "1 to 64 of A-Z a-z 0-9 _ . -");
    node->name[bw_decode_string(name, node->name)] = 0;
    return BITWREN_OK;
}

static bitwren_status read_link(const reader *r, int32_t number, const char *where, const char *name, int32_t *input) {
    if (!is_name(name)) return wrong_key(r, number, where, "input", name, "1 to 64 of A-Z a-z 0-9 _ . -");
    *input = find_node(r, name);
    if (*input == INT32_MIN) return wrong_key(r, number, where, "reads", name, "a node that exists");
    if (*input >= number) return wrong_key(r, number, where, "reads", name, "a node before it");
    return BITWREN_OK;
}

/* A whole number in its key's limits, or null where that is allowed (then `number` stays). */
static bitwren_status read_number(const reader *r, int32_t node, const char *where, const char *key, const char *value,
                                  int64_t low, int64_t high, int may_be_null, int32_t *number, int *is_null) {
    int64_t found;
    if (is_null != NULL) *is_null = *value == 'n';
    if (may_be_null && *value == 'n') return BITWREN_OK;
    if (bw_is_whole(value, low, high, &found)) {
        *number = (int32_t)found;
        return BITWREN_OK;
    }
    char expected[64];
    snprintf(expected, sizeof expected, "%lld to %lld%s", (long long)low, (long long)high, may_be_null ? ", or null" : "");
    return wrong_key(r, node, where, key, value, expected);
}

static bitwren_status read_conv(const reader *r, int32_t number, const char *where, const char *object, int32_t *shape) {
    static const char *const keys[] = {"op", "name", "input", "padding", "shape", "stride", "weight_bits", NULL};
    bw_node *node = &r->graph->nodes[number];
    const char *v[7];
    TRY(take_members(r, number, where, object, keys, v));
    TRY(read_link(r, number, where, v[2], &node->inputs[0]));
    if (!is_whole_list(v[3], 4, 0, MAX_SIDE, node->padding)) return wrong_key(r, number, where, keys[3], v[3], "4 of 0 to 32768");
    if (!is_whole_list(v[4], 4, 1, MAX_SIDE, shape) ||
        (int64_t)shape[0] * shape[1] > BW_MOST || (int64_t)shape[0] * shape[1] * shape[2] > BW_MOST ||
        (int64_t)shape[0] * shape[1] * shape[2] * shape[3] > BW_MOST)
        return wrong_key(r, number, where, keys[4], v[4], "[out, F, F, in] of 1 to 32768 each, at most 2147483647 weights");
    TRY(read_number(r, number, where, keys[5], v[5], 1, 2, 0, &node->stride, NULL));
    TRY(read_number(r, number, where, keys[6], v[6], 1, 8, 0, &node->weight_bits, NULL));
    if (node->weight_bits != 1 && node->weight_bits != 8) return wrong_key(r, number, where, keys[6], v[6], "1 or 8");
    node->window = shape[1];
    node->result.channels = shape[0];
    return BITWREN_OK;
}

static bitwren_status read_requantise(const reader *r, int32_t number, const char *where, const char *object) {
    static const char *const keys[] = {"op",         "name",   "input", "high", "low",
                                       "multiplier", "offset", "shift", "zero", NULL};
    bw_node *node = &r->graph->nodes[number];
    const char *v[9];
    int is_null;
    TRY(take_members(r, number, where, object, keys, v));
    TRY(read_link(r, number, where, v[2], &node->inputs[0]));
    TRY(read_number(r, number, where, keys[3], v[3], INT32_MIN, INT32_MAX, 0, &node->high, NULL));
    TRY(read_number(r, number, where, keys[4], v[4], INT32_MIN, INT32_MAX, 0, &node->low, NULL));
    TRY(read_number(r, number, where, keys[5], v[5], INT16_MIN, INT16_MAX, 1, &node->multiplier, &is_null));
    node->multiplier_count = !is_null;
    TRY(read_number(r, number, where, keys[6], v[6], INT32_MIN, INT32_MAX, 1, &node->offset, &is_null));
    node->offset_count = !is_null;
    TRY(read_number(r, number, where, keys[7], v[7], 0, MAX_SHIFT, 0, &node->shift, NULL));
    node->result.zero = BW_NO_ZERO;
    return read_number(r, number, where, keys[8], v[8], 0, MAX_CODE, 1, &node->result.zero, NULL);
}

static bitwren_status read_add(const reader *r, int32_t number, const char *where, const char *object) {
    static const char *const keys[] = {"op", "name", "inputs", NULL};
    bw_node *node = &r->graph->nodes[number];
    const char *v[3];
    TRY(take_members(r, number, where, object, keys, v));
    if (*v[2] != '[' || bw_count_members(v[2]) != 2) return wrong_key(r, number, where, keys[2], v[2], "two names");
    bw_member m = {NULL, NULL};
    for (int k = 0; k < 2; k++) {
        bw_next_member(v[2], &m);
        TRY(read_link(r, number, where, m.value, &node->inputs[k]));
    }
    return BITWREN_OK;
}

static bitwren_status read_pool(const reader *r, int32_t number, const char *where, const char *object) {
    static const char *const keys[] = {"op", "name", "input", "channels", "kind", "padding", NULL};
    bw_node *node = &r->graph->nodes[number];
    const char *v[6];
    int known = 0;
    TRY(take_members(r, number, where, object, keys, v));
    TRY(read_link(r, number, where, v[2], &node->inputs[0]));
    TRY(read_number(r, number, where, keys[3], v[3], 1, MAX_SIDE, 0, &node->result.channels, NULL));
    for (int k = 0; k < 4; k++)
        if (bw_is_string(v[4], pool_names[k])) {
            node->pool = (bw_pool_kind)k;
            known = 1;
        }
    if (!known) return wrong_key(r, number, where, keys[4], v[4], "one of binomial, mean, mean-real, max");
    if (!is_whole_list(v[5], 4, 0, MAX_SIDE, node->padding)) return wrong_key(r, number, where, keys[5], v[5], "4 of 0 to 32768");
    node->window = 3;
    node->stride = 2;
    return BITWREN_OK;
}

static bitwren_status read_sum(const reader *r, int32_t number, const char *where, const char *object) {
    static const char *const keys[] = {"op", "name", "input", NULL};
    const char *v[3];
    TRY(take_members(r, number, where, object, keys, v));
    return read_link(r, number, where, v[2], &r->graph->nodes[number].inputs[0]);
}

static bitwren_status read_nodes(reader *r, const char *nodes, int32_t (*shapes)[4]) {
    bw_graph *graph = r->graph;
    int32_t number = 0;
    for (bw_member m = {NULL, NULL}; bw_next_member(nodes, &m);) TRY(read_name(r, number++, m.value));
    if (!sort_names(r)) return bw_fail(r->error, BITWREN_NO_MEMORY, -1, "out of memory");
    for (int32_t k = 0; k < graph->node_count; k++) {
        const bw_node *node = &graph->nodes[r->numbers[k]];
        const int twin = k > 0 && strcmp(node->name, graph->nodes[r->numbers[k - 1]].name) == 0;
        if (twin || strcmp(node->name, "pixels") == 0)
            return bw_fail(r->error, BITWREN_BAD_FILE, r->numbers[k], "%s '%s': the name stands twice", op_names[node->op], node->name);
    }
    number = 0;
    for (bw_member m = {NULL, NULL}; bw_next_member(nodes, &m); number++) {
        char room[96];
        const char *where = where_of(&graph->nodes[number], room, sizeof room);
        switch (graph->nodes[number].op) {
        case BW_CONV: TRY(read_conv(r, number, where, m.value, shapes[number])); break;
        case BW_REQUANTISE: TRY(read_requantise(r, number, where, m.value)); break;
        case BW_ADD: TRY(read_add(r, number, where, m.value)); break;
        case BW_POOL: TRY(read_pool(r, number, where, m.value)); break;
        case BW_SUM: TRY(read_sum(r, number, where, m.value)); break;
        }
    }
    return BITWREN_OK;
}

bitwren_status bw_read_description(const char *description, bw_graph *graph, bw_heap *heap, int32_t (**shapes)[4],
                                   bitwren_error *error) {
    static const char *const keys[] = {"version", "about", "classes", "input", "logit_scale", "nodes", NULL};
    reader r = {.graph = graph, .heap = heap, .error = error};
    const char *v[6], *object = bw_json_start(description);
    int64_t version;
    const char *told = bw_find_member(object, keys[0]);
    if (told != NULL && !bw_is_whole(told, VERSION, VERSION, &version)) return wrong_key(&r, -1, "format", keys[0], told, "1");
    TRY(take_members(&r, -1, "network", object, keys, v));
    if (*v[1] != '{' || !about_is_shallow(v[1], 1))
        return wrong_key(&r, -1, "network", keys[1], v[1], "an object, nested at most 16 deep");
    TRY(read_classes(&r, v[2]));
    if (!bw_is_real(v[4], heap, &graph->logit_scale) || !isfinite(graph->logit_scale) || graph->logit_scale <= 0)
        return wrong_key(&r, -1, "network", keys[4], v[4], "a number above 0 with a decimal point or an exponent");
    TRY(read_input(&r, v[3]));
    graph->node_count = *v[5] == '[' ? bw_count_members(v[5]) : 0;
    if (graph->node_count < 1 || graph->node_count > MAX_NODES)
        return wrong_key(&r, -1, "network", keys[5], v[5], "a list of 1 to 4096");
    graph->nodes = bw_take(&graph->heap, (size_t)graph->node_count, sizeof *graph->nodes);
    *shapes = bw_take(heap, (size_t)graph->node_count, sizeof **shapes);
    if (graph->nodes == NULL || *shapes == NULL) return bw_fail(error, BITWREN_NO_MEMORY, -1, "out of memory");
    return read_nodes(&r, v[5], *shapes);
}
