/* The steps of reading a .bwn file, in order: container.c, description.c, tensors.c, check.c. */
#ifndef BW_READ_H
#define BW_READ_H

#include "graph.h"
#include "json.h"

/* What the reader calls can all fail: return what they return, unless it is BITWREN_OK. */
#define TRY(call)                                        \
    do {                                                 \
        const bitwren_status status_ = (call);           \
        if (status_ != BITWREN_OK) return status_;       \
    } while (0)

#define BW_MOST 2147483647 /* bytes of a file, weights of a conv, values of a tensor */

#define BW_START 50 /* bytes up to the end of the checksum: they tell a .bwn file */

/* The parts of a file. */
typedef struct {
    const char *header; /* JSON that has been checked */
    const uint8_t *tensors;
    size_t tensor_bytes;
    char *description; /* JSON that has been checked; from the graph's heap */
} bw_parts;

/* What the beginning and the size tell; `file` holds BW_START bytes, or all where there are fewer. */
bitwren_status bw_check_start(const uint8_t *file, size_t bytes, bitwren_error *error);
/* Layout, checksum, header: docs/file-format.md, sections 1 to 3. `heap` holds what is needed until the graph is read. */
bitwren_status bw_read_container(const uint8_t *file, size_t bytes, bw_heap *heap, bw_parts *parts, bitwren_error *error);
/* The description: sections 4 and 5. Fills the graph but for the tensors and results. */
bitwren_status bw_read_description(const char *description, bw_graph *graph, bw_heap *heap, bitwren_error *error);
/* The tensors: section 2. Fills in the channels of every node's result. */
bitwren_status bw_read_tensors(const bw_parts *parts, bw_graph *graph, bitwren_error *error);
/* Shapes, ranges and readers: docs/integer-network.md. Fills in the rest of every node's result. */
bitwren_status bw_check_graph(bw_graph *graph, bitwren_error *error);

#endif
