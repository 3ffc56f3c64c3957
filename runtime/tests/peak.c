/* peak MODEL: opens a network, runs one picture, and tells as JSON the seconds that opening took and the most resident
 * memory that this process ever had (Linux: VmHWM). */
#define _POSIX_C_SOURCE 200809L
#include <bitwren.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static long peak_kib(void)
{
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    long kib = -1;
    if (status == NULL) return -1;
    while (kib < 0 && fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "VmHWM: %ld", &kib) != 1) kib = -1;
    fclose(status);
    return kib;
}

int main(int count, char **words)
{
    bitwren_network *network;
    bitwren_runner *runner;
    bitwren_error error;
    if (count != 2) {
        fprintf(stderr, "usage: peak MODEL\n");
        return 2;
    }
    const double begin = now();
    if (bitwren_open_file(words[1], NULL, &network, &error) != BITWREN_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    const double opened = now();
    const bitwren_start_options options = {1, 1, 0};
    const bitwren_facts facts = bitwren_facts_of(network);
    uint8_t *pixels = calloc((size_t)facts.channels * (size_t)facts.height, (size_t)facts.width);
    int32_t *logits = calloc((size_t)facts.classes, sizeof *logits);
    int failed = 1;
    if (pixels == NULL || logits == NULL) {
        fprintf(stderr, "out of memory\n");
    } else if (bitwren_start(network, &options, &runner, &error) != BITWREN_OK) {
        fprintf(stderr, "%s\n", error.message);
    } else {
        failed = bitwren_run(runner, pixels, 1, logits, &error) != BITWREN_OK;
        bitwren_stop(runner);
        if (failed) fprintf(stderr, "%s\n", error.message);
    }
    bitwren_close(network);
    free(pixels);
    free(logits);
    if (!failed) printf("{\"open_s\": %.6f, \"peak_bytes\": %ld}\n", opened - begin, peak_kib() * 1024);
    return failed;
}
