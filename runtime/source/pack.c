/* Weights as the kernels want them. */
#include "network.h"

#include <string.h>

#define LARGEST_WINDOW_TABLES (1 << 18) /* bytes; beyond it the tables of a window leave the second-level cache */
#define SET_GROUPS 6                    /* under a window of one: 6 groups x 4 vectors x 1 KiB of tables */

/* Fitted to measurements of the AVX2 kernels; only ratios matter. */
double bw_lookup_cycles(int32_t channels, int32_t outputs, int32_t window, int32_t group, int32_t vectors,
                        double new_positions) {
    double cycles = 0;
    for (int32_t c = 0; c < channels; c += group) {
        const int32_t n = channels - c < group ? channels - c : group;
        const int32_t entries = 1 << (n < BW_HALVED_GROUP ? n : n - 1);
        const double lookup = group < BW_HALVED_GROUP ? 0.4 + 0.55 * vectors : 0.6 + 0.58 * vectors;
        cycles += new_positions * (8 + 1.1 * entries) + outputs * (2 + window * window * lookup);
    }
    return cycles;
}

static bw_index_form choose_form(const bw_node *node, int32_t channels, const bw_kernels *kernels) {
    const int32_t window = node->window, outputs = node->result.channels;
    const double positions = window == 1 ? 4 : (window + 3 * node->stride) * window * 0.5;
    const double four = bw_lookup_cycles(channels, outputs, window, 4, 4, positions);
    const double five = bw_lookup_cycles(channels, outputs, window, 5, 4, positions);
    bw_index_form form = {.channels = channels, .outputs = outputs, .window = window};
    form.group = channels > 4 && five < four ? 5 : 4;
    if (kernels->has_halved && window == 3 && channels > BW_MAX_GROUP && channels <= BW_MAX_HALVED) {
        const double six = bw_lookup_cycles(channels, outputs, window, BW_HALVED_GROUP, 4, positions);
        if (six < five && six < four) form.group = BW_HALVED_GROUP;
    }
    const int32_t groups = (channels + form.group - 1) / form.group;
    form.set_groups = window == 1 ? (groups < SET_GROUPS ? groups : SET_GROUPS) : 1;
    form.sets = (groups + form.set_groups - 1) / form.set_groups;
    const int32_t lookups = form.set_groups * window * window;
    form.chunks = (lookups + BW_MAX_TAPS - 1) / BW_MAX_TAPS;
    form.chunk_taps = (lookups + form.chunks - 1) / form.chunks;
    form.index_bytes = (form.chunk_taps * form.group + 7) / 8;
    return form;
}

/* `count` <= 8 bits from bit number `from` on, lowest first. */
static uint32_t bits_at(const uint8_t *bits, size_t from, int32_t count) {
    const size_t byte = from >> 3;
    const int32_t shift = (int32_t)(from & 7);
    uint32_t word = bits[byte];
    if (shift + count > 8) word |= (uint32_t)bits[byte + 1] << 8; /* no further than the last bit's byte */
    return word >> shift & ((1u << count) - 1);
}

/* One bit for each channel of a group becomes a lookup's index; *owed counts negatives. */
static uint32_t index_of(uint32_t bits, const bw_index_form *form, int16_t *owed) {
    if (form->group != BW_HALVED_GROUP) return bits;
    const uint32_t negative = bits >> (BW_HALVED_GROUP - 1) & 1; /* as likely as not: no branch */
    *owed = (int16_t)(*owed + (int16_t)negative);
    return bits ^ ((negative << (BW_HALVED_GROUP - 1)) - negative);
}

static int pack_indices(bw_heap *heap, const bw_node *node, int32_t channels, const bw_kernels *kernels,
                        bw_packed *packed) {
    const bw_index_form form = packed->form = choose_form(node, channels, kernels);
    const size_t indices = (size_t)form.sets * (size_t)form.chunks * (size_t)form.outputs;
    if (indices > (SIZE_MAX - BW_INDEX_SLACK) / (size_t)form.index_bytes) return 0;
    uint8_t *to = bw_take(heap, indices * (size_t)form.index_bytes + BW_INDEX_SLACK, 1);
    int16_t *owed = bw_take(heap, (size_t)form.outputs, sizeof *owed);
    if (to == NULL || owed == NULL) return 0;
    packed->indices = to;
    packed->owed = owed;
    const int32_t area = form.window * form.window, lookups = form.set_groups * area;
    const size_t filter = (size_t)area * (size_t)channels;
    for (int32_t set = 0; set < form.sets; set++)
        for (int32_t chunk = 0; chunk < form.chunks; chunk++) {
            const int32_t start = chunk * form.chunk_taps, left = lookups - start; /* of the set's lookups */
            const int32_t taps = left < form.chunk_taps ? left : form.chunk_taps;
            for (int32_t o = 0; o < form.outputs; o++, to += form.index_bytes) {
                uint64_t word = 0;
                int32_t tap = start % area, first = (set * form.set_groups + start / area) * form.group;
                for (int32_t k = 0; k < taps && first < channels; first += form.group, tap = 0) {
                    const int32_t count = channels - first < form.group ? channels - first : form.group;
                    size_t at = (size_t)o * filter + (size_t)tap * (size_t)channels + (size_t)first;
                    for (; k < taps && tap < area; k++, tap++, at += (size_t)channels)
                        word |= (uint64_t)index_of(bits_at(node->weights, at, count), &form, &owed[o]) << (k * form.group);
                }
                for (int32_t byte = 0; byte < form.index_bytes; byte++) to[byte] = (uint8_t)(word >> (8 * byte));
            }
        }
    for (int32_t o = 0; o < form.outputs; o++)
        if (owed[o] > packed->most_owed) packed->most_owed = owed[o];
    return 1;
}

static int32_t weight(const bw_node *node, size_t number) {
    if (node->weight_bits == 1) return bw_weight_bit(node, number) ? 1 : -1;
    return node->weights[number] < 128 ? node->weights[number] : node->weights[number] - 256;
}

static int pack_pairs(bw_heap *heap, const bw_node *node, int32_t channels, bw_packed *packed) {
    const size_t rows = (size_t)node->result.channels * (size_t)node->window * (size_t)node->window;
    const size_t even = ((size_t)channels + 1) / 2 * 2;
    int16_t *to = rows > SIZE_MAX / sizeof *to / even ? NULL : bw_take(heap, rows * even, sizeof *to);
    if (to == NULL) return 0;
    packed->pairs = to;
    for (size_t row = 0; row < rows; row++, to += even)
        for (size_t c = 0; c < (size_t)channels; c++) to[c] = (int16_t)weight(node, row * (size_t)channels + c);
    return 1;
}

static int pack_for_sum(bw_heap *heap, const bw_node *node, int32_t channels, bw_packed *packed) {
    const size_t outputs = (size_t)node->result.channels;
    if (node->weight_bits == 8) {
        int8_t *to = bw_take(heap, outputs, (size_t)channels);
        if (to == NULL) return 0;
        for (size_t k = 0; k < outputs * (size_t)channels; k++) to[k] = (int8_t)weight(node, k);
        packed->weights = to;
        return 1;
    }
    const size_t row = ((size_t)channels + 7) / 8; /* bytes: two nibbles of 4 channels each */
    uint8_t *to = bw_take(heap, outputs, row);
    if (to == NULL) return 0;
    for (size_t o = 0; o < outputs; o++)
        for (size_t c = 0; c < (size_t)channels; c++)
            if (bw_weight_bit(node, o * (size_t)channels + c)) to[o * row + c / 8] |= (uint8_t)(1u << (c % 8));
    packed->bits = to;
    return 1;
}

int bw_is_summed(const bw_graph *graph, int32_t node, const int32_t *readers) {
    const bw_node *conv = &graph->nodes[node];
    if (conv->op != BW_CONV || conv->window != 1 || conv->stride != 1 || readers[node] != 1) return 0;
    for (int32_t k = node + 1; k < graph->node_count; k++)
        if (graph->nodes[k].op == BW_SUM && graph->nodes[k].inputs[0] == node) return 1;
    return 0;
}

int bw_pack(bw_heap *heap, const bw_graph *graph, int32_t number, bw_method method, const bw_kernels *kernels,
            bw_packed *packed) {
    const bw_node *node = &graph->nodes[number];
    const int32_t channels = bw_input(graph, node, 0)->channels;
    const int64_t tables = (int64_t)node->window * node->window * (32 << BW_MAX_GROUP);
    memset(packed, 0, sizeof *packed);
    packed->method = method;
    if (method == BW_BY_LOOKUP && tables > LARGEST_WINDOW_TABLES) packed->method = BW_BY_PRODUCT;
    switch (packed->method) {
    case BW_BY_LOOKUP: return pack_indices(heap, node, channels, kernels, packed);
    case BW_BY_PRODUCT: return pack_pairs(heap, node, channels, packed);
    case BW_BY_SUM: return pack_for_sum(heap, node, channels, packed);
    }
    return 0;
}
