#include "case.h"

#include <stdlib.h>

static void *read_array(FILE *file, const char *path, size_t bytes) {
    void *array = malloc(bytes > 0 ? bytes : 1);
    if (array == NULL || fread(array, 1, bytes, file) != bytes) {
        fprintf(stderr, "%s: a case of %zu more bytes is cut short\n", path, bytes);
        exit(2);
    }
    return array;
}

int bw_next_case(FILE *file, const char *path, bw_case *next) {
    uint32_t sizes[5];
    const size_t found = fread(next->name, 1, sizeof next->name, file);
    if (found == 0) return 0;
    if (found != sizeof next->name || next->name[sizeof next->name - 1] != 0 || fread(sizes, sizeof sizes, 1, file) != 1) {
        fprintf(stderr, "%s: not a file of cases\n", path);
        exit(2);
    }
    next->network_bytes = sizes[0];
    next->pictures = sizes[1];
    next->picture_bytes = sizes[2];
    next->classes = sizes[3];
    next->values = sizes[4];
    next->network = read_array(file, path, next->network_bytes);
    next->pixels = read_array(file, path, (size_t)next->pictures * next->picture_bytes);
    next->logits = read_array(file, path, (size_t)next->pictures * next->classes * sizeof *next->logits);
    next->results = read_array(file, path, (size_t)next->pictures * next->values * sizeof *next->results);
    return 1;
}

void bw_free_case(bw_case *done) {
    free(done->network);
    free(done->pixels);
    free(done->logits);
    free(done->results);
}
