/* What the description of a .bwn file may hold: each key, each number of a node, and its limits. What the values must be to each
 * other, check.c says. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "read.h"

#define VERSION 3
#define MAX_NODES 4096
#define MAX_SIDE 32768 /* channels, height, width, classes, window */
#define MAX_CODE 511
#define MAX_SHIFT 47
#define MAX_CLASS_NAME 200
#define MAX_ABOUT_DEPTH 16
#define LEFT_OUT (-1) /* a padding that the file does not give */

typedef struct {
    bw_graph *graph;
    bw_heap *heap;
    bitwren_error *error;
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

/* ------------------------------------------------------------------ nodes */

/* A number of a node after its op: where it goes, from what to what. */
typedef struct {
    const char *name;
    int32_t *to;
    int64_t low, high;
    int *is_null; /* NULL where null is wrong */
} field;

/* Of `count` fields the first `needed` must be there; those left out stay as they are. */
static bitwren_status read_fields(const reader *r, int32_t number, const char *node, const field *fields, int32_t needed,
                                  int32_t count) {
    const char *where = r->graph->nodes[number].name;
    const int32_t given = bw_count_members(node) - 1;
    if (given < needed || given > count) {
        char to_most[16] = "";
        if (needed < count) snprintf(to_most, sizeof to_most, " to %d", (int)(1 + count));
        return bw_fail(r->error, BITWREN_BAD_FILE, number, "%s: %d numbers, expected %d%s", where, (int)(1 + given),
                       (int)(1 + needed), to_most);
    }
    bw_member m = {NULL, NULL};
    bw_next_member(node, &m); /* the op */
    for (int32_t k = 0; k < given; k++) {
        const field *f = &fields[k];
        int64_t found;
        bw_next_member(node, &m);
        if (f->is_null != NULL) *f->is_null = *m.value == 'n';
        if (f->is_null != NULL && *f->is_null) continue;
        if (!bw_is_whole(m.value, f->low, f->high, &found)) {
            char expected[64];
            const char *or_null = f->is_null != NULL ? ", or null" : "";
            snprintf(expected, sizeof expected, "%lld to %lld%s", (long long)f->low, (long long)f->high, or_null);
            return wrong_key(r, number, where, f->name, m.value, expected);
        }
        *f->to = (int32_t)found;
    }
    return BITWREN_OK;
}

static bitwren_status read_conv(const reader *r, int32_t number, const char *numbers) {
    bw_node *node = &r->graph->nodes[number];
    int32_t *padding = node->padding;
    node->weight_bits = node->stride = 1;
    for (int side = 0; side < 4; side++) padding[side] = LEFT_OUT;
    const field fields[] = {{"input", &node->inputs[0], 0, number, NULL},
                            {"out", &node->result.channels, 1, MAX_SIDE, NULL},
                            {"window", &node->window, 1, MAX_SIDE, NULL},
                            {"weight_bits", &node->weight_bits, 1, 8, NULL},
                            {"stride", &node->stride, 1, 2, NULL},
                            {"top", &padding[0], 0, MAX_SIDE, NULL},
                            {"left", &padding[1], 0, MAX_SIDE, NULL},
                            {"bottom", &padding[2], 0, MAX_SIDE, NULL},
                            {"right", &padding[3], 0, MAX_SIDE, NULL}};
    TRY(read_fields(r, number, numbers, fields, 3, 9));
    for (int side = 0; side < 4; side++)
        if (padding[side] == LEFT_OUT) padding[side] = node->window / 2; /* the picture's size is kept */
    if (node->weight_bits == 1 || node->weight_bits == 8) return BITWREN_OK;
    return bw_fail(r->error, BITWREN_BAD_FILE, number, "%s: weight_bits %d, expected 1 or 8", node->name, (int)node->weight_bits);
}

static bitwren_status read_requantise(const reader *r, int32_t number, const char *numbers) {
    bw_node *node = &r->graph->nodes[number];
    int no_multiplier, no_offset, no_zero = 1;
    node->low = INT16_MIN;
    node->high = INT16_MAX;
    const field fields[] = {{"input", &node->inputs[0], 0, number, NULL},
                            {"multiplier", &node->multiplier, INT16_MIN, INT16_MAX, &no_multiplier},
                            {"offset", &node->offset, INT32_MIN, INT32_MAX, &no_offset},
                            {"shift", &node->shift, 0, MAX_SHIFT, NULL},
                            {"low", &node->low, INT32_MIN, INT32_MAX, NULL},
                            {"high", &node->high, INT32_MIN, INT32_MAX, NULL},
                            {"zero", &node->result.zero, 0, MAX_CODE, &no_zero}};
    TRY(read_fields(r, number, numbers, fields, 4, 7));
    node->multiplier_count = !no_multiplier;
    node->offset_count = !no_offset;
    if (no_zero) node->result.zero = BW_NO_ZERO;
    return BITWREN_OK;
}

static bitwren_status read_add(const reader *r, int32_t number, const char *numbers) {
    bw_node *node = &r->graph->nodes[number];
    const field fields[] = {{"input", &node->inputs[0], 0, number, NULL}, {"other", &node->inputs[1], 0, number, NULL}};
    return read_fields(r, number, numbers, fields, 2, 2);
}

static bitwren_status read_pool(const reader *r, int32_t number, const char *numbers) {
    bw_node *node = &r->graph->nodes[number];
    int32_t *padding = node->padding, kind = 0;
    for (int side = 0; side < 4; side++) padding[side] = 1;
    const field fields[] = {{"input", &node->inputs[0], 0, number, NULL},
                            {"kind", &kind, BW_BINOMIAL, BW_MAX, NULL},
                            {"channels", &node->result.channels, 1, MAX_SIDE, NULL},
                            {"top", &padding[0], 0, MAX_SIDE, NULL},
                            {"left", &padding[1], 0, MAX_SIDE, NULL},
                            {"bottom", &padding[2], 0, MAX_SIDE, NULL},
                            {"right", &padding[3], 0, MAX_SIDE, NULL}};
    TRY(read_fields(r, number, numbers, fields, 3, 7));
    node->pool = (bw_pool_kind)kind;
    node->window = 3;
    node->stride = 2;
    return BITWREN_OK;
}

static bitwren_status read_sum(const reader *r, int32_t number, const char *numbers) {
    const field fields[] = {{"input", &r->graph->nodes[number].inputs[0], 0, number, NULL}};
    return read_fields(r, number, numbers, fields, 1, 1);
}

static bitwren_status read_node(const reader *r, int32_t number, const char *numbers) {
    static const char *const op_names[] = {"conv", "requantise", "add", "pool", "sum"};
    bw_node *node = &r->graph->nodes[number];
    char where[24];
    bw_member m = {NULL, NULL};
    int64_t op;
    snprintf(where, sizeof where, "node %d", (int)number + 1);
    if (*numbers != '[' || !bw_next_member(numbers, &m)) return wrong_key(r, number, where, "is", numbers, "a list of numbers");
    if (!bw_is_whole(m.value, BW_CONV, BW_SUM, &op)) return wrong_key(r, number, where, "op", m.value, "0 to 4");
    node->op = (bw_op)op;
    snprintf(node->name, sizeof node->name, "%s%d", op_names[op], (int)number + 1);
    bitwren_status status = BITWREN_OK;
    switch (node->op) {
    case BW_CONV: status = read_conv(r, number, numbers); break;
    case BW_REQUANTISE: status = read_requantise(r, number, numbers); break;
    case BW_ADD: status = read_add(r, number, numbers); break;
    case BW_POOL: status = read_pool(r, number, numbers); break;
    case BW_SUM: status = read_sum(r, number, numbers); break;
    }
    for (int k = 0; k < bw_input_count(node); k++) node->inputs[k]--; /* the file's 0 is the pixels, its 1 nodes[0] */
    return status;
}

bitwren_status bw_read_description(const char *description, bw_graph *graph, bw_heap *heap, bitwren_error *error) {
    static const char *const keys[] = {"version", "about", "classes", "input", "logit_scale", "nodes", NULL};
    reader r = {.graph = graph, .heap = heap, .error = error};
    const char *v[6], *object = bw_json_start(description);
    int64_t version;
    const char *told = bw_find_member(object, keys[0]);
    if (told != NULL && !bw_is_whole(told, VERSION, VERSION, &version)) {
        const bw_shown shown = bw_show(told);
        return bw_fail(error, BITWREN_BAD_FILE, -1, "format version %s, expected %d", shown.text, VERSION);
    }
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
    if (graph->nodes == NULL) return bw_fail(error, BITWREN_NO_MEMORY, -1, "out of memory");
    int32_t number = 0;
    for (bw_member m = {NULL, NULL}; bw_next_member(v[5], &m);) TRY(read_node(&r, number++, m.value));
    return BITWREN_OK;
}
