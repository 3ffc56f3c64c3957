/* Opening and closing networks. */
#include "network.h"
#include "read.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_PATH 64 /* bytes of a path, from its end, that a message holds at least */

static int count_readers(bitwren_network *network) {
    const bw_graph *graph = &network->graph;
    network->readers = bw_take(&network->heap, (size_t)graph->node_count + 1, sizeof *network->readers);
    if (network->readers == NULL) return 0;
    for (int32_t k = 0; k < graph->node_count; k++) {
        const bw_node *node = &graph->nodes[k];
        for (int which = 0; which < bw_input_count(node); which++) {
            const int32_t input = node->inputs[which];
            network->readers[input == BW_PIXELS ? graph->node_count : input]++;
        }
    }
    return 1;
}

static int copy_constants(bitwren_network *network, int32_t number) {
    const bw_node *node = &network->graph.nodes[number];
    const size_t channels = (size_t)node->result.channels;
    int32_t *multiplier = bw_take(&network->heap, channels, sizeof *multiplier);
    int32_t *offset = bw_take(&network->heap, channels, sizeof *offset);
    if (multiplier == NULL || offset == NULL) return 0;
    for (int32_t c = 0; c < node->result.channels; c++) {
        multiplier[c] = bw_multiplier(node, c);
        offset[c] = bw_offset(node, c);
    }
    network->constants[number] = (bw_constants){multiplier, offset};
    return 1;
}

/* What the kernels need of the file. Afterwards the graph no longer points into it. */
static int prepare(bitwren_network *network) {
    bw_graph *graph = &network->graph;
    const size_t count = (size_t)graph->node_count;
    network->packed = bw_take(&network->heap, count, sizeof *network->packed);
    network->constants = bw_take(&network->heap, count, sizeof *network->constants);
    if (network->packed == NULL || network->constants == NULL || !count_readers(network)) return 0;
    for (int32_t k = 0; k < graph->node_count; k++) {
        bw_node *node = &graph->nodes[k];
        if (node->op == BW_CONV) {
            const bw_method method = bw_is_summed(graph, k, network->readers) ? BW_BY_SUM
                                     : node->weight_bits == 1                 ? BW_BY_LOOKUP
                                                                              : BW_BY_PRODUCT;
            if (!bw_pack(&network->heap, graph, k, method, network->kernels, &network->packed[k])) return 0;
        }
        if (node->op == BW_REQUANTISE && !copy_constants(network, k)) return 0;
        node->weights = node->multipliers = node->offsets = NULL;
    }
    return 1;
}

static bitwren_status no_such_kernels(const char *name, bitwren_error *error) {
    char known[128] = "";
    const char *set = bitwren_kernels(0);
    for (size_t k = 0; set != NULL; set = bitwren_kernels(++k)) {
        const size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", k > 0 ? ", " : "", set);
    }
    return bw_fail(error, BITWREN_BAD_ARGUMENT, -1, "kernels: %.40s cannot run here, expected one of: %s", name, known);
}

bitwren_status bitwren_open(const void *file, size_t bytes, const bitwren_open_options *options,
                            bitwren_network **result, bitwren_error *error) {
    static const bitwren_open_options defaults;
    if (options == NULL) options = &defaults;
    if (result == NULL || file == NULL) return bw_fail(error, BITWREN_BAD_ARGUMENT, -1, "a pointer is NULL");
    *result = NULL;
    const char *name = options->kernels != NULL ? options->kernels : getenv("BITWREN_KERNELS");
    const bw_kernels *kernels = bw_find_kernels(name);
    if (kernels == NULL) return no_such_kernels(name, error);
    bw_heap heap;
    bw_heap_open(&heap, options->memory);
    bitwren_network *network = bw_take(&heap, 1, sizeof *network);
    if (network == NULL) return bw_fail(error, BITWREN_NO_MEMORY, -1, "out of memory");
    network->kernels = kernels;
    const bitwren_status status = bw_read_graph(file, bytes, &heap.from, &network->graph, error);
    network->heap = heap; /* from here on the network owns it, itself included */
    if (status == BITWREN_OK && prepare(network)) {
        *result = network;
        return BITWREN_OK;
    }
    if (status == BITWREN_OK) bw_free_graph(&network->graph);
    heap = network->heap; /* the network lies in it */
    bw_heap_close(&heap);
    return status != BITWREN_OK ? status : bw_fail(error, BITWREN_NO_MEMORY, -1, "out of memory");
}

/* A regular file's size, or -1. Leaves the file at its beginning. */
static long size_of(FILE *file) {
    if (fseek(file, 0, SEEK_END) != 0) return -1;
    const long size = ftell(file);
    if (size == LONG_MAX || fseek(file, 0, SEEK_SET) != 0) return -1; /* LONG_MAX: of a folder, on Linux */
    return size;
}

/* Memory for the whole file is taken only where its beginning is that of a .bwn file. */
static bitwren_status open_stream(FILE *file, const bitwren_open_options *options, bitwren_network **network,
                                  bitwren_error *error) {
    const long size = size_of(file);
    if (size < 0) return bw_fail(error, BITWREN_CANNOT_READ, -1, "not a regular file");
    uint8_t beginning[BW_START];
    const size_t bytes = (size_t)size, first = bytes < BW_START ? bytes : BW_START;
    if (fread(beginning, 1, first, file) != first) return bw_fail(error, BITWREN_CANNOT_READ, -1, "cannot be read");
    TRY(bw_check_start(beginning, bytes, error));
    bw_heap heap;
    bw_heap_open(&heap, options != NULL ? options->memory : NULL);
    bitwren_status status;
    char *content = bw_take(&heap, bytes, 1);
    if (content == NULL) status = bw_fail(error, BITWREN_NO_MEMORY, -1, "out of memory");
    else if (fseek(file, 0, SEEK_SET) != 0 || fread(content, 1, bytes, file) != bytes)
        status = bw_fail(error, BITWREN_CANNOT_READ, -1, "cannot be read");
    else status = bitwren_open(content, bytes, options, network, error);
    bw_heap_close(&heap);
    return status;
}

/* "path: message"; of a path that is too long for the rest of a message, the end. */
static bitwren_status fail_at(bitwren_error *error, const char *path, const bitwren_error *inner) {
    const size_t room = sizeof inner->message, needed = strlen(inner->message) + sizeof ": ...";
    const size_t most = needed + LEAST_PATH < room ? room - needed : LEAST_PATH;
    size_t length = strlen(path);
    const char *dots = length > most ? "..." : "";
    for (; length > most || (*dots != 0 && (*path & 0xC0) == 0x80); length--) path++; /* never from within a character */
    return bw_fail(error, inner->status, inner->node, "%s%s: %s", dots, path, inner->message);
}

bitwren_status bitwren_open_file(const char *path, const bitwren_open_options *options, bitwren_network **network,
                                 bitwren_error *error) {
    if (path == NULL || network == NULL) return bw_fail(error, BITWREN_BAD_ARGUMENT, -1, "a pointer is NULL");
    *network = NULL;
    bitwren_error inner;
    FILE *file = fopen(path, "rb");
    const bitwren_status status =
        file != NULL ? open_stream(file, options, network, &inner)
                     : bw_fail(&inner, BITWREN_CANNOT_READ, -1, "cannot be opened: %s", strerror(errno));
    if (file != NULL) fclose(file);
    if (status == BITWREN_OK) return status;
    if (status == BITWREN_BAD_ARGUMENT) return bw_fail(error, status, -1, "%s", inner.message);
    return fail_at(error, path, &inner);
}

void bitwren_close(bitwren_network *network) {
    if (network == NULL) return;
    bw_free_graph(&network->graph);
    bw_heap heap = network->heap; /* the network lies in it */
    bw_heap_close(&heap);
}

bitwren_facts bitwren_facts_of(const bitwren_network *network) {
    const bw_graph *graph = &network->graph;
    return (bitwren_facts){graph->pixels.channels, graph->pixels.height,   graph->pixels.width, graph->class_count,
                           graph->logit_scale,     network->kernels->name, network->heap.bytes + graph->heap.bytes};
}

const char *bitwren_class_name(const bitwren_network *network, int32_t index) {
    if (index < 0 || index >= network->graph.class_count) return NULL;
    const char *name = network->graph.class_names;
    for (; index > 0; index--) name += strlen(name) + 1;
    return name;
}
