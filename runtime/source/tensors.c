/* The tensors of a .bwn file: which there must be, and where. */
#include <string.h>

#include "read.h"

#define MAX_SIDE 32768 /* channels */

typedef struct {
    const bw_parts *parts;
    bw_member member; /* of the header: the entry at hand */
    size_t end;       /* of the tensor before it */
    bitwren_error *error;
} tensors;

/* An entry of the header. */
typedef struct {
    const char *dtype;
    int64_t shape[4];
    int32_t dimensions;
    const uint8_t *content;
} entry;

static bitwren_status refuse(const tensors *t, int32_t node, const char *what) {
    const bw_shown shown = bw_show(t->member.key);
    return bw_fail(t->error, BITWREN_BAD_FILE, node, "tensor %s: %s", shown.text, what);
}

static int read_shape(const char *value, entry *to) {
    to->dimensions = 0;
    if (*value != '[') return 0;
    for (bw_member m = {NULL, NULL}; bw_next_member(value, &m); to->dimensions++)
        if (to->dimensions == 4 || !bw_is_whole(m.value, 1, BW_MOST, &to->shape[to->dimensions])) return 0;
    return to->dimensions > 0;
}

/* Its bytes, or more than a file has. */
static uint64_t bytes_of(const entry *e, uint64_t each) {
    uint64_t bytes = each;
    for (int32_t k = 0; k < e->dimensions; k++) {
        bytes *= (uint64_t)e->shape[k]; /* both below 2^32 */
        if (bytes > BW_MOST) return UINT32_MAX;
    }
    return bytes;
}

static bitwren_status read_entry(tensors *t, entry *to) {
    static const char *const dtypes[] = {"I32", "I16", "I8", "U8"};
    static const uint64_t sizes[] = {4, 2, 1, 1};
    const char *object = t->member.value;
    if (*object != '{') return refuse(t, -1, "expected an object of dtype, shape and data_offsets");
    const char *dtype = bw_find_member(object, "dtype"), *shape = bw_find_member(object, "shape");
    const char *offsets = bw_find_member(object, "data_offsets");
    if (dtype == NULL || shape == NULL || offsets == NULL || bw_count_members(object) != 3)
        return refuse(t, -1, "expected an object of dtype, shape and data_offsets");
    int kind = 0;
    while (kind < 4 && !bw_is_string(dtype, dtypes[kind])) kind++;
    if (kind == 4) return refuse(t, -1, "dtype is none of I32, I16, I8, U8");
    to->dtype = dtypes[kind];
    if (!read_shape(shape, to)) return refuse(t, -1, "shape: expected 1 to 4 sizes of at least 1");
    const uint64_t bytes = bytes_of(to, sizes[kind]);
    int64_t number;
    bw_member m = {NULL, NULL};
    const int told = *offsets == '[' && bw_count_members(offsets) == 2 && bw_next_member(offsets, &m) &&
                     bw_is_whole(m.value, (int64_t)t->end, (int64_t)t->end, &number) && bw_next_member(offsets, &m) &&
                     bw_is_whole(m.value, (int64_t)(t->end + bytes), (int64_t)(t->end + bytes), &number);
    if (!told) {
        const bw_shown key = bw_show(t->member.key), shown = bw_show(offsets);
        return bw_fail(t->error, BITWREN_BAD_FILE, -1, "tensor %s: data_offsets %s, expected [%zu,%llu]", key.text, shown.text,
                       t->end, (unsigned long long)(t->end + bytes));
    }
    if (bytes > t->parts->tensor_bytes - t->end) return refuse(t, -1, "passes the end of the file");
    to->content = t->parts->tensors + t->end;
    t->end += (size_t)bytes;
    return BITWREN_OK;
}

/* The next entry, which must be "<node>.<field>". */
static bitwren_status next_entry(tensors *t, const bw_graph *graph, int32_t node, const char *field, entry *to) {
    char expected[sizeof graph->nodes->name + 16];
    strcpy(expected, graph->nodes[node].name);
    strcat(expected, field);
    if (!bw_next_member(t->parts->header, &t->member))
        return bw_fail(t->error, BITWREN_BAD_FILE, node, "tensor '%s' is missing", expected);
    if (!bw_is_string(t->member.key, expected)) {
        const bw_shown shown = bw_show(t->member.key);
        return bw_fail(t->error, BITWREN_BAD_FILE, node, "tensor %s stands where '%s' is expected", shown.text, expected);
    }
    return read_entry(t, to);
}

static bitwren_status read_constants(tensors *t, bw_graph *graph, int32_t number, const char *field, const char *dtype,
                                     const uint8_t **to, int32_t *count) {
    entry e;
    TRY(next_entry(t, graph, number, field, &e));
    if (strcmp(e.dtype, dtype) != 0 || e.dimensions != 1 || e.shape[0] < 2 || e.shape[0] > MAX_SIDE)
        return bw_fail(t->error, BITWREN_BAD_FILE, number, "requantise '%s': tensor%s is %s of %d sizes, the first %lld, expected %s of 2 to %d channels",
                       graph->nodes[number].name, field, e.dtype, (int)e.dimensions, (long long)e.shape[0], dtype, MAX_SIDE);
    *to = e.content;
    *count = (int32_t)e.shape[0];
    return BITWREN_OK;
}

static bitwren_status read_weights(tensors *t, bw_graph *graph, int32_t number, const int32_t *shape) {
    bw_node *node = &graph->nodes[number];
    entry e;
    TRY(next_entry(t, graph, number, ".weight", &e));
    int64_t count = 1, different = 0;
    for (int k = 0; k < 4; k++) count *= shape[k];
    node->weights = e.content;
    if (node->weight_bits == 8) {
        for (int k = 0; k < 4; k++) different |= e.dimensions != 4 || e.shape[k] != shape[k];
        if (different || strcmp(e.dtype, "I8") != 0)
            return bw_fail(t->error, BITWREN_BAD_FILE, number, "conv '%s': weight tensor %s, expected I8 of the conv's shape", node->name, e.dtype);
        return BITWREN_OK;
    }
    const int64_t bytes = (count + 7) / 8;
    if (strcmp(e.dtype, "U8") != 0 || e.dimensions != 1 || e.shape[0] != bytes)
        return bw_fail(t->error, BITWREN_BAD_FILE, number, "conv '%s': weight tensor %s of %lld, expected U8 of %lld bytes for %lld weights of 1 bit",
                       node->name, e.dtype, (long long)e.shape[0], (long long)bytes, (long long)count);
    if (count % 8 != 0 && e.content[bytes - 1] >> (count % 8) != 0)
        return bw_fail(t->error, BITWREN_BAD_FILE, number, "conv '%s': last weight byte is 0x%02x, expected 0 in all but %d bits", node->name,
                       e.content[bytes - 1], (int)(count % 8));
    return BITWREN_OK;
}

static int needs(const bw_node *node, int32_t count) { return node->op == BW_REQUANTISE && count == 0; }

bitwren_status bw_read_tensors(const bw_parts *parts, bw_graph *graph, int32_t (*shapes)[4], bitwren_error *error) {
    tensors t = {.parts = parts, .error = error};
    bw_next_member(parts->header, &t.member); /* the metadata */
    for (int32_t k = 0; k < graph->node_count; k++)
        if (needs(&graph->nodes[k], graph->nodes[k].offset_count))
            TRY(read_constants(&t, graph, k, ".offset", "I32", &graph->nodes[k].offsets, &graph->nodes[k].offset_count));
    for (int32_t k = 0; k < graph->node_count; k++)
        if (needs(&graph->nodes[k], graph->nodes[k].multiplier_count))
            TRY(read_constants(&t, graph, k, ".multiplier", "I16", &graph->nodes[k].multipliers, &graph->nodes[k].multiplier_count));
    for (int32_t k = 0; k < graph->node_count; k++)
        if (graph->nodes[k].op == BW_CONV) TRY(read_weights(&t, graph, k, shapes[k]));
    if (bw_next_member(parts->header, &t.member)) return refuse(&t, -1, "belongs to no node");
    if (t.end != parts->tensor_bytes)
        return bw_fail(error, BITWREN_BAD_FILE, -1, "%zu bytes of tensors, expected %zu", parts->tensor_bytes, t.end);
    return BITWREN_OK;
}
