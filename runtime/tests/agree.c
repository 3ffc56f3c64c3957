/* Agreement: every kernel set of this build, every way of running, against logits that the reference gave.
 *
 *     agree [--threads 1,2,3] [--expect NAME] [--apart] [--starve] [--primitives SEED] [--list] [--sample N] FILE...
 *
 * FILE: cases (case.h), of which every Nth is run. Prints what differs, then one line for each kernel set: run, or skipped and why. Exit status 1
 * where anything differed, memory beside a buffer was touched, or an expected set did not run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apart.h"
#include "guard.h"
#include "primitives.h"

#define MOST_NAMES 16

static struct {
    int threads[MOST_NAMES], thread_count;
    const char *expected[MOST_NAMES];
    int expected_count, apart, starve, list, primitives, sample;
    uint64_t seed;
} wanted = {.threads = {1, 2, 3}, .thread_count = 3, .sample = 1};

static bw_variants variants;

/* ------------------------------------------------------------------ one way of running */

static bw_guard_heap heap; /* not on the stack: it is large */

static int failed(const bw_case *from, const char *kernels, const char *what) {
    printf("FAILED %s: kernels %s: %s\n", from->name, kernels, what);
    return 0;
}

static int differ(const bw_case *from, const char *kernels, const int32_t *logits, int threads, const char *how) {
    for (uint32_t p = 0; p < from->pictures; p++)
        for (uint32_t c = 0; c < from->classes; c++) {
            const size_t at = (size_t)p * from->classes + c;
            if (logits[at] == from->logits[at]) continue;
            printf("FAILED %s: kernels %s, %d threads, %s: picture %u class %u is %d, expected %d\n", from->name, kernels,
                   threads, how, p, c, logits[at], from->logits[at]);
            return 1;
        }
    return 0;
}

static bitwren_status run_in_turn(bitwren_runner *runner, const bw_case *from, const uint8_t *pixels, int32_t *logits) {
    for (uint32_t p = 0; p < from->pictures; p++) {
        const bitwren_status status = bitwren_run(runner, pixels + (size_t)p * from->picture_bytes, 1,
                                                  logits + (size_t)p * from->classes, NULL);
        if (status != BITWREN_OK) return status;
    }
    return BITWREN_OK;
}

/* All pictures in one call, then one by one, between guard pages. */
static int run_both(bitwren_runner *runner, const bw_case *from, const char *kernels, int threads, int batch, bw_side side) {
    const size_t pixel_bytes = (size_t)from->pictures * from->picture_bytes;
    const size_t logit_bytes = (size_t)from->pictures * from->classes * sizeof *from->logits;
    char how[64];
    int good = 1;
    for (int in_turn = 0; in_turn < 2; in_turn++) {
        const bw_guarded pixels = bw_guard(pixel_bytes, side, 0), logits = bw_guard(logit_bytes, side, 0xEE);
        memcpy(pixels.block, from->pixels, pixel_bytes);
        const bitwren_status status = in_turn ? run_in_turn(runner, from, pixels.block, logits.block)
                                              : bitwren_run(runner, pixels.block, from->pictures, logits.block, NULL);
        snprintf(how, sizeof how, "planned for %d, %s", batch, in_turn ? "one by one" : "all at once");
        if (status != BITWREN_OK) good = failed(from, kernels, "run failed");
        else if (differ(from, kernels, logits.block, threads, how)) good = 0;
        if (memcmp(pixels.block, from->pixels, pixel_bytes) != 0) good = failed(from, kernels, "changed the pictures");
        if (!bw_unguard(pixels) || !bw_unguard(logits)) good = failed(from, kernels, "wrote beside pictures or logits");
    }
    return good;
}

static int run_runner(const bitwren_network *network, const bw_case *from, const char *kernels, int threads, int batch,
                      bw_side side) {
    const bitwren_start_options options = {.threads = threads, .batch = batch, .profile = batch == 1 && threads == 2};
    bitwren_error error;
    bitwren_runner *runner;
    if (bitwren_start(network, &options, &runner, &error) != BITWREN_OK) return failed(from, kernels, error.message);
    const int good = run_both(runner, from, kernels, threads, batch, side);
    bitwren_stop(runner);
    return good;
}

static int run_case(const bw_case *from, const char *kernels) {
    int good = 1;
    for (int side = BW_AT_END; side <= BW_AT_START; side++) {
        const bitwren_memory memory = bw_guard_memory(&heap, (bw_side)side);
        const bitwren_open_options options = {.kernels = kernels, .memory = &memory};
        bitwren_network *network;
        bitwren_error error;
        const bw_guarded file = bw_guard(from->network_bytes, (bw_side)side, 0);
        memcpy(file.block, from->network, from->network_bytes);
        const bitwren_status status = bitwren_open(file.block, from->network_bytes, &options, &network, &error);
        bw_unguard(file); /* no longer needed, so no longer there */
        if (status != BITWREN_OK) return failed(from, kernels, error.message);
        const bitwren_facts facts = bitwren_facts_of(network);
        if (strcmp(facts.kernels, kernels) != 0) good = failed(from, kernels, "another set was opened");
        if ((uint32_t)facts.classes != from->classes ||
            (int64_t)facts.channels * facts.height * facts.width != from->picture_bytes)
            return failed(from, kernels, "shapes differ from the case's");
        for (int k = 0; k < wanted.thread_count; k++) {
            good &= run_runner(network, from, kernels, wanted.threads[k], 1, (bw_side)side);
            if (from->pictures > 1)
                good &= run_runner(network, from, kernels, wanted.threads[k], (int)from->pictures, (bw_side)side);
        }
        if (wanted.apart && side == BW_AT_END) good &= bw_run_apart(network, from, &variants);
        bitwren_close(network);
        if (heap.count != 0) good = failed(from, kernels, "memory was not given back");
        if (heap.harmed) good = failed(from, kernels, "wrote beside its memory");
    }
    return good;
}

/* ------------------------------------------------------------------ want of memory */

/* Whether opening and starting fail cleanly wherever the memory ends. */
static int run_starved(const bw_case *from, const char *kernels) {
    for (long allowed = 0;; allowed++) {
        const bitwren_memory memory = bw_guard_memory(&heap, BW_AT_END);
        const bitwren_open_options options = {.kernels = kernels, .memory = &memory};
        const bitwren_start_options start = {.threads = 2, .batch = 16};
        bitwren_network *network;
        bitwren_runner *runner = NULL;
        heap.allowed = allowed;
        bitwren_status status = bitwren_open(from->network, from->network_bytes, &options, &network, NULL);
        if (status == BITWREN_OK) status = bitwren_start(network, &start, &runner, NULL);
        else if (network != NULL) return failed(from, kernels, "opening failed but left a network");
        if (status != BITWREN_OK && runner != NULL) return failed(from, kernels, "starting failed but left a runner");
        bitwren_stop(runner);
        bitwren_close(network);
        if (heap.count != 0 || heap.harmed) return failed(from, kernels, "want of memory left a block, or wrote beside one");
        if (status == BITWREN_OK) return 1;
        if (status != BITWREN_NO_MEMORY) {
            printf("after %ld allocations the status was %d: ", allowed, (int)status);
            return failed(from, kernels, "expected BITWREN_NO_MEMORY");
        }
    }
}

/* ------------------------------------------------------------------ kernel sets */

static const char *const built[] = {
#define BW_KERNEL_SET(name, condition, late) #name,
#include "kernels.inc"
#undef BW_KERNEL_SET
};
static const bw_primitives *const primitives[] = {
#define BW_KERNEL_SET(name, condition, late) &bw_primitives_##name,
#include "kernels.inc"
#undef BW_KERNEL_SET
};
#define SETS (sizeof built / sizeof *built)

static int runs_here(const char *name) {
    const char *one;
    for (size_t k = 0; (one = bitwren_kernels(k)) != NULL; k++)
        if (strcmp(one, name) == 0) return 1;
    return 0;
}

/* Say which sets ran; returns 0 where an expected one did not. */
static int report(const int *ran) {
    int good = 1;
    for (size_t k = 0; k < SETS; k++)
        printf("kernels %s: %s\n", built[k], ran[k] ? "run" : "skipped, this processor lacks the instructions");
    for (int e = 0; e < wanted.expected_count; e++) {
        int found = 0;
        for (size_t k = 0; k < SETS; k++) found |= ran[k] && strcmp(built[k], wanted.expected[e]) == 0;
        if (!found) printf("FAILED expected kernels %s: not run\n", wanted.expected[e]);
        good &= found;
    }
    return good;
}

static void report_variants(void) {
    if (!wanted.apart) return;
    for (int three = 0; three < 2; three++)
        for (int stride = 1; stride <= 2; stride++)
            for (int tile = 0; tile < 3; tile++)
                for (int group = 4; group <= BW_HALVED_GROUP; group++)
                    for (int groups = 1; groups <= (three && stride == 1 && tile > 0 ? 2 : 1); groups++)
                        printf("lookup %s, stride %d, tile %s, groups of %d, %d at once: %s\n", three ? "3x3" : "any window",
                               stride, tile == 0 ? "1x1" : tile == 1 ? "2x2" : "4x1", group, groups,
                               variants.seen[three][stride - 1][tile][group - 4][groups - 1] ? "run" : "not run");
}

/* ------------------------------------------------------------------ the program */

static int usage(void) {
    fprintf(stderr, "usage: agree [--threads 1,2,3] [--expect NAME] [--apart] [--starve] [--primitives SEED] [--list] [--sample N] FILE...\n");
    return 2;
}

static int parse_threads(const char *list) {
    wanted.thread_count = 0;
    for (char *end; *list != 0 && wanted.thread_count < MOST_NAMES; list = *end == ',' ? end + 1 : end) {
        const long threads = strtol(list, &end, 10);
        if (end == list || threads < 1 || threads > 1024) return 0;
        wanted.threads[wanted.thread_count++] = (int)threads;
    }
    return wanted.thread_count > 0 && *list == 0;
}

/* An option that takes a value; returns 0 where name or value is wrong. */
static int parse_value(const char *name, const char *value) {
    if (strcmp(name, "threads") == 0) return parse_threads(value);
    if (strcmp(name, "sample") == 0) return (wanted.sample = atoi(value)) >= 1;
    if (strcmp(name, "expect") == 0 && wanted.expected_count < MOST_NAMES) {
        wanted.expected[wanted.expected_count++] = value;
        return 1;
    }
    if (strcmp(name, "primitives") != 0) return 0;
    wanted.primitives = 1;
    wanted.seed = strtoull(value, NULL, 10);
    return 1;
}

/* Returns the number of the first file, or 0 for wrong usage. */
static int parse(int count, char **arguments) {
    int k = 1;
    for (; k < count && strncmp(arguments[k], "--", 2) == 0; k++) {
        const char *name = arguments[k] + 2;
        if (strcmp(name, "apart") == 0) wanted.apart = 1;
        else if (strcmp(name, "starve") == 0) wanted.starve = 1;
        else if (strcmp(name, "list") == 0) wanted.list = 1;
        else if (k + 1 == count || !parse_value(name, arguments[++k])) return 0;
    }
    return k;
}

static int run_file(const char *path, const int *run) {
    int good = 1;
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    int number = 0;
    for (bw_case next; bw_next_case(file, path, &next); bw_free_case(&next), number++)
        for (size_t k = 0; k < SETS; k++) {
            if (!run[k] || number % wanted.sample != 0) continue;
            good &= wanted.starve ? run_starved(&next, built[k]) : run_case(&next, built[k]);
            fflush(stdout);
        }
    fclose(file);
    return good;
}

int main(int count, char **arguments) {
    const int first = parse(count, arguments);
    if (first == 0) return usage();
    int run[SETS], good = 1;
    for (size_t k = 0; k < SETS; k++) run[k] = runs_here(built[k]);
    if (!wanted.list) {
        for (size_t k = 0; k < SETS; k++)
            if (wanted.primitives && run[k]) good &= bw_check_primitives(primitives[k], wanted.seed);
        for (int k = first; k < count; k++) good &= run_file(arguments[k], run);
    }
    good &= report(run);
    report_variants();
    return good ? 0 : 1;
}
