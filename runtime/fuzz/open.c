/* libFuzzer's target: any bytes are opened, and what opens and is small runs a picture (tests/fuzz/libfuzzer.py builds it).
 *
 * The checksum is made right first, unless the input's last byte says not to: else almost nothing would get past it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "network.h"

#define CHECKSUM_AT 42
#define RUNNABLE 2000000 /* values of all tensors, and multiply-accumulates */

static uint32_t crc32(uint32_t crc, const uint8_t *from, size_t bytes) {
    for (; bytes > 0; bytes--) {
        crc ^= *from++;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return crc;
}

static void repair(uint8_t *file, size_t bytes) {
    char digits[9];
    memset(file + CHECKSUM_AT, '0', 8);
    snprintf(digits, sizeof digits, "%08x", (unsigned)(crc32(0xFFFFFFFFu, file, bytes) ^ 0xFFFFFFFFu));
    memcpy(file + CHECKSUM_AT, digits, 8);
}

static int64_t values_of(const bw_tensor *t) { return (int64_t)t->channels * t->height * t->width; }

static int is_small(const bw_graph *graph) {
    int64_t work = values_of(&graph->pixels);
    for (int32_t k = 0; k < graph->node_count && work < RUNNABLE; k++) {
        const bw_node *node = &graph->nodes[k];
        int64_t each = 1;
        if (node->op == BW_CONV) each = (int64_t)node->window * node->window * bw_input(graph, node, 0)->channels;
        if (each > RUNNABLE || values_of(&node->result) > RUNNABLE) return 0;
        work += each * values_of(&node->result);
    }
    return work < RUNNABLE;
}

static void run(const bitwren_network *network, uint8_t seed) {
    const bitwren_facts facts = bitwren_facts_of(network);
    const bitwren_start_options options = {.threads = 1, .batch = 1 + seed % 5};
    const size_t count = 1 + seed % 3, bytes = (size_t)facts.channels * (size_t)facts.height * (size_t)facts.width;
    uint8_t *pixels = malloc(count * bytes);
    int32_t *logits = malloc(count * (size_t)facts.classes * sizeof *logits);
    bitwren_runner *runner = NULL;
    if (pixels == NULL || logits == NULL) abort();
    for (size_t k = 0; k < count * bytes; k++) pixels[k] = (uint8_t)(seed < 32 ? 255 * (seed & 1) : k * seed + k / 7);
    if (bitwren_start(network, &options, &runner, NULL) == BITWREN_OK) {
        if (bitwren_run(runner, pixels, count, logits, NULL) != BITWREN_OK) abort();
        bitwren_stop(runner);
    }
    free(pixels);
    free(logits);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *file = malloc(size > 0 ? size : 1);
    if (file == NULL) abort();
    if (size > 0) memcpy(file, data, size);
    if (size >= CHECKSUM_AT + 8 && data[size - 1] % 8 != 7) repair(file, size);
    bitwren_network *network = NULL;
    bitwren_error error = {.status = BITWREN_OK};
    const bitwren_status status = bitwren_open(file, size, NULL, &network, &error);
    if (status != BITWREN_OK && (error.status != status || strlen(error.message) == 0)) abort();
    free(file); /* an open network needs it no more */
    if (status == BITWREN_OK) {
        if (is_small(&network->graph)) run(network, (uint8_t)size);
        bitwren_close(network);
    }
    return 0;
}
