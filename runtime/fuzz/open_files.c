/* Opens .bwn files one after another, for the test that holds the two readers to each other (tests/fuzz/fuzz_runtime.py).
 *
 * Standard input: for each file its size, 4 bytes little-endian, and its bytes. Standard output: for each file a line,
 * "refused STATUS MESSAGE", or "ok" and for the pixels and each node " CxHxW low high zero" (zero -1: none, or several).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph.h"

static void print_tensor(const bw_tensor *t) {
    printf(" %dx%dx%d %d %d %d", (int)t->channels, (int)t->height, (int)t->width, (int)t->low, (int)t->high, (int)t->zero);
}

int main(void) {
    unsigned char size[4];
    while (fread(size, 1, 4, stdin) == 4) {
        const size_t bytes = (size_t)size[0] | (size_t)size[1] << 8 | (size_t)size[2] << 16 | (size_t)size[3] << 24;
        uint8_t *file = malloc(bytes > 0 ? bytes : 1); /* of just that size, so that the sanitizer sees one byte too far */
        if (file == NULL || fread(file, 1, bytes, stdin) != bytes) return 2;
        bw_graph graph;
        bitwren_error error;
        memset(&error, 0, sizeof error);
        const bitwren_status status = bw_read_graph(file, bytes, NULL, &graph, &error);
        if (status != BITWREN_OK) {
            printf("refused %d %s\n", (int)status, error.message);
        } else {
            printf("ok");
            print_tensor(&graph.pixels);
            for (int32_t k = 0; k < graph.node_count; k++) print_tensor(&graph.nodes[k].result);
            printf("\n");
            bw_free_graph(&graph);
        }
        fflush(stdout);
        free(file);
    }
    return 0;
}
