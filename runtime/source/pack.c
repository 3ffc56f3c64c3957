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

#define BITS_AT_ONCE 57 /* that bits_from gives at the least */

/* Bits from bit number `from` on, lowest first, of so many bytes. */
static uint64_t bits_from(const uint8_t *bits, size_t bytes, size_t from) {
    const uint8_t *at = bits + (from >> 3);
    const size_t left = bytes - (from >> 3);
    uint64_t word = 0;
    if (left >= 8) {
        for (int32_t k = 0; k < 8; k++) word |= (uint64_t)at[k] << (8 * k); /* compilers make it one load */
    } else {
        for (size_t k = 0; k < left; k++) word |= (uint64_t)at[k] << (8 * k);
    }
    return word >> (from & 7);
}

/* One bit for each channel of a group becomes a lookup's index; *owed counts negatives. */
static inline uint32_t index_of(uint32_t bits, int32_t group, int16_t *owed) {
    if (group != BW_HALVED_GROUP) return bits;
    const uint32_t negative = bits >> (BW_HALVED_GROUP - 1) & 1; /* as likely as not: no branch */
    *owed = (int16_t)(*owed + (int16_t)negative);
    return bits ^ ((negative << (BW_HALVED_GROUP - 1)) - negative);
}

/* The indices of all lookups of an output, group by group, (groups, window * window). group: a constant. */
static inline void indices_in_groups(const bw_node *node, size_t output, const bw_index_form *form, const int32_t group,
                                     uint8_t *indices, int16_t *owed) {
    const int32_t area = form->window * form->window, channels = form->channels;
    const int32_t at_once = BITS_AT_ONCE / group * group;
    const size_t filter = (size_t)area * (size_t)channels, bytes = ((size_t)form->outputs * filter + 7) / 8;
    for (int32_t tap = 0; tap < area; tap++) {
        const size_t at = output * filter + (size_t)tap * (size_t)channels;
        size_t number = (size_t)tap;
        for (int32_t first = 0; first < channels; first += at_once) {
            const int32_t left = channels - first < at_once ? channels - first : at_once;
            uint64_t bits = bits_from(node->weights, bytes, at + (size_t)first) & (((uint64_t)1 << left) - 1);
            for (int32_t c = 0; c < left; c += group, bits >>= group, number += (size_t)area)
                indices[number] = (uint8_t)index_of((uint32_t)bits & ((1u << group) - 1), group, owed);
        }
    }
}

static void indices_of(const bw_node *node, size_t output, const bw_index_form *form, uint8_t *indices, int16_t *owed) {
    switch (form->group) {
    case 4: indices_in_groups(node, output, form, 4, indices, owed); break;
    case 5: indices_in_groups(node, output, form, 5, indices, owed); break;
    default: indices_in_groups(node, output, form, BW_HALVED_GROUP, indices, owed); break;
    }
}

/* So many indices as one, the first lowest. group: a constant. */
static inline uint64_t joined_in_groups(const uint8_t *indices, int32_t count, const int32_t group) {
    uint64_t word = 0;
    if (count == 9) { /* the usual window, without a loop */
        for (int32_t k = 0; k < 9; k++) word |= (uint64_t)indices[k] << (k * group);
        return word;
    }
    for (int32_t k = 0; k < count; k++) word |= (uint64_t)indices[k] << (k * group);
    return word;
}

static inline uint64_t joined(const uint8_t *indices, int32_t count, int32_t group) {
    switch (group) {
    case 4: return joined_in_groups(indices, count, 4);
    case 5: return joined_in_groups(indices, count, 5);
    default: return joined_in_groups(indices, count, BW_HALVED_GROUP);
    }
}

/* Little-endian. room: bytes from `to` on that are yet to be stored. Where these are 8 or more, all 8 at once are quicker. */
static inline void store_index(uint8_t *to, uint64_t index, int32_t bytes, size_t room) {
    if (room >= 8) {
        for (int32_t k = 0; k < 8; k++) to[k] = (uint8_t)(index >> (8 * k));
    } else {
        for (int32_t k = 0; k < bytes; k++) to[k] = (uint8_t)(index >> (8 * k));
    }
}

static int pack_indices(bw_heap *heap, const bw_node *node, int32_t channels, const bw_kernels *kernels,
                        bw_packed *packed) {
    const bw_index_form form = packed->form = choose_form(node, channels, kernels);
    const size_t rows = (size_t)form.sets * (size_t)form.chunks, outputs = (size_t)form.outputs;
    if (rows * outputs > (SIZE_MAX - BW_INDEX_SLACK) / (size_t)form.index_bytes) return 0;
    const int32_t area = form.window * form.window, lookups = form.set_groups * area;
    const int32_t all = (channels + form.group - 1) / form.group * area;
    uint8_t *to = bw_take(heap, rows * outputs * (size_t)form.index_bytes + BW_INDEX_SLACK, 1);
    int16_t *owed = bw_take(heap, outputs, sizeof *owed);
    uint8_t *indices = bw_take(heap, (size_t)all, 1);
    if (to == NULL || owed == NULL || indices == NULL) return 0;
    packed->indices = to;
    packed->owed = owed;
    for (size_t o = 0; o < outputs; o++) {
        size_t at = o * (size_t)form.index_bytes;
        indices_of(node, o, &form, indices, &owed[o]);
        for (int32_t set = 0; set < form.sets; set++)
            for (int32_t chunk = 0; chunk < form.chunks; chunk++, at += outputs * (size_t)form.index_bytes) {
                const int32_t start = chunk * form.chunk_taps, rest = lookups - start, left = all - set * lookups - start;
                int32_t taps = rest < form.chunk_taps ? rest : form.chunk_taps;
                if (left < taps) taps = left;
                const uint64_t index = taps > 0 ? joined(indices + set * lookups + start, taps, form.group) : 0;
                store_index(to + at, index, form.index_bytes, (outputs - o) * (size_t)form.index_bytes);
            }
        if (owed[o] > packed->most_owed) packed->most_owed = owed[o];
    }
    bw_give_back(heap, indices);
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
