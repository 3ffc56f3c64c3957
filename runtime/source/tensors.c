/* The tensors of a .bwn file: which there must be, and where. */
#include <string.h>

#include "read.h"

typedef struct {
    const bw_parts *parts;
    bw_member member; /* of the header: the entry at hand */
    size_t end;       /* of the tensor before it */
    bitwren_error *error;
} tensors;

/* An entry of the header. */
typedef struct {
    const char *dtype;
    uint64_t value_bytes;
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
static uint64_t bytes_of(const entry *e) {
    uint64_t bytes = e->value_bytes;
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
    to->value_bytes = sizes[kind];
    if (!read_shape(shape, to)) return refuse(t, -1, "shape: expected 1 to 4 sizes of at least 1");
    const uint64_t bytes = bytes_of(to);
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

enum { OFFSETS, MULTIPLIERS, WEIGHTS, BITS, PARTS };
static const char *const part_names[PARTS] = {"offsets", "multipliers", "weights", "bits"}; /* in the order of the file */
static const char *const part_dtypes[PARTS] = {"I16", "I16", "I8", "U8"}; /* offsets may be I32 too */

/* How many values of a part a node has. */
static int64_t values_of(const bw_graph *graph, const bw_node *node, int part) {
    const int64_t channels = bw_input(graph, node, 0)->channels;
    if (node->op == BW_REQUANTISE)
        return (part == OFFSETS && node->offset_count == 0) || (part == MULTIPLIERS && node->multiplier_count == 0) ? channels : 0;
    if (node->op != BW_CONV || part != (node->weight_bits == 8 ? WEIGHTS : BITS)) return 0;
    const int64_t weights = (int64_t)node->result.channels * node->window * node->window * channels;
    return part == BITS ? (weights + 7) / 8 : weights;
}

/* The channels of each result, which say how many constants and weights a node has. */
static bitwren_status find_channels(bw_graph *graph, bitwren_error *error) {
    for (int32_t k = 0; k < graph->node_count; k++) {
        bw_node *node = &graph->nodes[k];
        const int64_t channels = bw_input(graph, node, 0)->channels;
        /* Each factor is at most 2^15: three are below 2^45, four below 2^60. */
        const int64_t weights = node->op == BW_CONV ? (int64_t)node->result.channels * node->window * node->window * channels : 0;
        if (weights > BW_MOST)
            return bw_fail(error, BITWREN_BAD_FILE, k, "%s: %lld weights, expected at most %d", node->name,
                           (long long)weights, BW_MOST);
        if (node->op == BW_REQUANTISE && channels == 1 && (node->multiplier_count == 0 || node->offset_count == 0))
            return bw_fail(error, BITWREN_BAD_FILE, k, "%s: null for one channel, expected its number", node->name);
        if (node->op != BW_CONV && node->op != BW_POOL) node->result.channels = (int32_t)channels;
    }
    return BITWREN_OK;
}

/* The entry of a part: one that is named so, with as many values as the nodes need; none where they need none. */
static bitwren_status read_part(tensors *t, const bw_graph *graph, int part, entry *e) {
    int64_t count = 0;
    for (int32_t k = 0; k < graph->node_count; k++) count += values_of(graph, &graph->nodes[k], part);
    if (count == 0) return BITWREN_OK;
    if (!bw_next_member(t->parts->header, &t->member))
        return bw_fail(t->error, BITWREN_BAD_FILE, -1, "tensor '%s' is missing", part_names[part]);
    if (!bw_is_string(t->member.key, part_names[part])) {
        const bw_shown shown = bw_show(t->member.key);
        return bw_fail(t->error, BITWREN_BAD_FILE, -1, "tensor %s stands where '%s' is expected", shown.text, part_names[part]);
    }
    TRY(read_entry(t, e));
    const int wide = part == OFFSETS && strcmp(e->dtype, "I32") == 0;
    if ((wide || strcmp(e->dtype, part_dtypes[part]) == 0) && e->dimensions == 1 && e->shape[0] == count) return BITWREN_OK;
    return bw_fail(t->error, BITWREN_BAD_FILE, -1,
                   "tensor '%s': %s of %d sizes, the first %lld, expected %s%s of %lld for the nodes", part_names[part],
                   e->dtype, (int)e->dimensions, (long long)e->shape[0], part_dtypes[part],
                   part == OFFSETS ? " or I32" : "", (long long)count);
}

static bitwren_status check_last_byte(const bw_graph *graph, int32_t number, int64_t bytes, bitwren_error *error) {
    const bw_node *node = &graph->nodes[number];
    const int64_t weights = (int64_t)node->result.channels * node->window * node->window * bw_input(graph, node, 0)->channels;
    if (weights % 8 == 0 || node->weights[bytes - 1] >> (weights % 8) == 0) return BITWREN_OK;
    return bw_fail(error, BITWREN_BAD_FILE, number, "%s: last weight byte is 0x%02x, expected 0 in all but %d bits", node->name,
                   node->weights[bytes - 1], (int)(weights % 8));
}

/* Cuts the parts up among the nodes. */
static bitwren_status share_out(bw_graph *graph, const entry *parts, bitwren_error *error) {
    const uint8_t *at[PARTS];
    for (int part = 0; part < PARTS; part++) at[part] = parts[part].content;
    for (int32_t k = 0; k < graph->node_count; k++) {
        bw_node *node = &graph->nodes[k];
        int64_t counts[PARTS];
        for (int part = 0; part < PARTS; part++) counts[part] = values_of(graph, node, part);
        for (int part = 0; part < PARTS; part++) {
            if (counts[part] == 0) continue;
            const uint8_t *content = at[part];
            at[part] += (uint64_t)counts[part] * parts[part].value_bytes;
            if (part == OFFSETS) {
                node->offsets = content;
                node->offset_bytes = (int32_t)parts[OFFSETS].value_bytes;
                node->offset_count = (int32_t)counts[part];
            } else if (part == MULTIPLIERS) {
                node->multipliers = content;
                node->multiplier_count = (int32_t)counts[part];
            } else {
                node->weights = content;
                if (part == BITS) TRY(check_last_byte(graph, k, counts[part], error));
            }
        }
    }
    return BITWREN_OK;
}

bitwren_status bw_read_tensors(const bw_parts *parts, bw_graph *graph, bitwren_error *error) {
    tensors t = {.parts = parts, .error = error};
    entry entries[PARTS] = {0};
    TRY(find_channels(graph, error));
    bw_next_member(parts->header, &t.member); /* the metadata */
    for (int part = 0; part < PARTS; part++) TRY(read_part(&t, graph, part, &entries[part]));
    if (bw_next_member(parts->header, &t.member)) return refuse(&t, -1, "is none of the nodes'");
    if (t.end != parts->tensor_bytes)
        return bw_fail(error, BITWREN_BAD_FILE, -1, "%zu bytes of tensors, expected %zu", parts->tensor_bytes, t.end);
    return share_out(graph, entries, error);
}
