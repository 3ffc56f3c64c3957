/* Starting, running and stopping: pictures in, logits out. */
#include <string.h>

#include "error.h"
#include "share.h"
#include "team.h"

#define MOST_THREADS 1024
#define MEETING_CYCLES 40000.0 /* of a step on one thread, on average, for threads to gain anything by sharing it */

struct bitwren_runner {
    bw_heap heap;
    const bitwren_network *network;
    bw_team *team;
    int32_t threads;
    int32_t sharing; /* threads that share the steps of `one`: 1 or all */
    bw_plan one;    /* a picture at a time */
    bw_plan many;   /* pictures.many at a time on each thread, no meetings; has no steps where that gains nothing */
    char *arena;    /* of `one`, or of `many` for each thread */
    char *scratch;  /* for each thread */
    size_t arena_each, scratch_each;
    bw_sharing stages; /* of `one` */
    double *seconds;  /* (threads, steps of `one`, BW_PARTS), or NULL */
    double reading;    /* seconds that bw_seconds takes in this run, where `seconds` is not NULL */
    uint64_t pictures;
    uint64_t runs; /* of `one` */
};

/* What one call of run is about: a picture, or lots of plan.pictures. */
typedef struct {
    const bitwren_runner *runner;
    const uint8_t *pixels;
    int32_t *logits;
} job;

static size_t picture_bytes(const bitwren_network *network) {
    const bw_tensor *p = &network->graph.pixels;
    return (size_t)p->channels * (size_t)p->height * (size_t)p->width;
}

/* ------------------------------------------------------------------ steps */

static void read_logits(const bw_plan *plan, const bw_context *context, int32_t classes, int32_t *logits) {
    const bw_plane *plane = plan->logits;
    const char *values = context->arena + plane->offset;
    for (int32_t p = 0; p < context->pictures; p++)
        for (int32_t c = 0; c < classes; c++) {
            const size_t lane = (size_t)(p * (BW_LANES / plane->grid.pictures));
            const size_t at = bw_inner(plane, c) * BW_LANES + lane;
            logits[p * classes + c] = plane->bytes == 4 ? ((const int32_t *)(const void *)values)[at]
                                                        : ((const int16_t *)(const void *)values)[at];
        }
}

static bw_context context_of(const bitwren_runner *runner, int32_t thread, size_t arena) {
    return (bw_context){.arena = runner->arena + arena, .scratch = runner->scratch + (size_t)thread * runner->scratch_each};
}

/* ------------------------------------------------------------------ one picture */

static void do_units(void *about, int32_t thread, int32_t stage, int32_t from, int32_t to) {
    const job *j = about;
    const bitwren_runner *runner = j->runner;
    const int32_t number = runner->stages.stages[stage].step;
    const bw_step_plan *step = &runner->one.steps[number];
    bw_context context = context_of(runner, thread, 0);
    double *seconds = NULL, since = 0;
    context.pixels = j->pixels;
    context.pictures = 1;
    context.reading = runner->reading;
    if (runner->seconds != NULL) {
        seconds = runner->seconds + (size_t)(thread * runner->one.step_count + number) * BW_PARTS;
        since = bw_seconds();
    }
    context.seconds = step->kind == BW_LOOKUP ? seconds : NULL; /* it tells its parts apart itself */
    bw_do_units(&runner->stages, runner->runs, stage, thread, &context, from, to);
    if (seconds != NULL && context.seconds == NULL) seconds[BW_FINISHING] += bw_seconds() - since - runner->reading;
}

static void run_one(bitwren_runner *runner, job *j) {
    const bw_plan *plan = &runner->one;
    const bw_sharing *stages = &runner->stages;
    runner->runs++;
    if (runner->seconds != NULL) runner->reading = bw_seconds_of_reading(); /* others on the machine make it longer */
    if (runner->sharing > 1) bw_team_run(runner->team, stages->units, stages->stage_count, do_units, j);
    else
        for (int32_t s = 0; s < stages->stage_count; s++) do_units(j, 0, s, 0, stages->units[s].items);
    const bw_context context = {.arena = runner->arena, .pictures = 1};
    read_logits(plan, &context, runner->network->graph.class_count, j->logits);
}

/* ------------------------------------------------------------------ lots of pictures, each thread for itself */

static void do_lots(void *about, int32_t thread, int32_t only_step, int32_t from, int32_t to) {
    const job *j = about;
    const bitwren_runner *runner = j->runner;
    const bw_plan *plan = &runner->many;
    const int32_t classes = runner->network->graph.class_count;
    bw_context context = context_of(runner, thread, (size_t)thread * runner->arena_each);
    (void)only_step;
    context.pictures = plan->pictures;
    for (int32_t lot = from; lot < to; lot++) {
        const size_t first = (size_t)lot * (size_t)plan->pictures;
        context.pixels = j->pixels + first * picture_bytes(runner->network);
        for (int32_t s = 0; s < plan->step_count; s++)
            for (int32_t item = 0; item < plan->steps[s].items; item++)
                bw_do_item(runner->network->kernels, &plan->steps[s], &context, item);
        read_logits(plan, &context, classes, j->logits + first * (size_t)classes);
    }
}

bitwren_status bitwren_run(bitwren_runner *runner, const uint8_t *pixels, size_t count, int32_t *logits,
                           bitwren_error *error) {
    if (runner == NULL || (count > 0 && (pixels == NULL || logits == NULL)))
        return bw_fail(error, BITWREN_BAD_ARGUMENT, -1, "a pointer is NULL");
    const size_t bytes = picture_bytes(runner->network), classes = (size_t)runner->network->graph.class_count;
    runner->pictures += count;
    while (count > 0) {
        job j = {runner, pixels, logits};
        size_t done = 1;
        const size_t each = runner->many.step_count > 0 ? (size_t)runner->many.pictures : 0;
        if (each > 0 && count >= each * (size_t)runner->threads) {
            const size_t lots = count / each < INT32_MAX / 2 ? count / each : INT32_MAX / 2;
            const bw_team_step step = {(int32_t)lots, 1};
            done = lots * each;
            bw_team_run(runner->team, &step, 1, do_lots, &j);
        } else {
            run_one(runner, &j);
        }
        pixels += done * bytes;
        logits += done * classes;
        count -= done;
    }
    return BITWREN_OK;
}

/* ------------------------------------------------------------------ start and stop */

/* The plan for one picture: shared by the threads, unless its steps are so short that to meet after each takes longer. */
static int plan_one(bitwren_runner *runner, const bitwren_memory *memory) {
    runner->sharing = 1;
    if (!bw_make_plan(runner->network, memory, 1, 1, &runner->one)) return 0;
    if (runner->threads == 1 || runner->one.cycles < MEETING_CYCLES * runner->one.step_count) return 1;
    bw_free_plan(&runner->one);
    runner->sharing = runner->threads;
    return bw_make_plan(runner->network, memory, 1, runner->threads, &runner->one);
}

/* The plan for lots: as many pictures in the lanes as cost least. Leaves no steps where `one` is as good. */
static int plan_many(bitwren_runner *runner, const bitwren_memory *memory, int32_t batch) {
    double least = runner->threads > 1 ? 1e300 : runner->one.cycles * 0.97;
    int32_t best = 0;
    for (int32_t pictures = 1; pictures <= BW_LANES && pictures <= batch; pictures *= 2) {
        bw_draft draft;
        if (!bw_make_draft(runner->network, memory, pictures, &draft)) return 0;
        if (draft.cycles < least && (pictures > 1 || runner->threads > 1)) {
            least = draft.cycles * 0.97; /* more pictures at once take more memory: they must gain something */
            best = pictures;
        }
        bw_heap_close(&draft.heap);
    }
    return best == 0 || bw_make_plan(runner->network, memory, best, 1, &runner->many);
}

static size_t aligned(size_t bytes) { return (bytes + BW_ALIGNMENT - 1) / BW_ALIGNMENT * BW_ALIGNMENT; }

bitwren_status bitwren_start(const bitwren_network *network, const bitwren_start_options *options,
                             bitwren_runner **result, bitwren_error *error) {
    static const bitwren_start_options defaults;
    if (options == NULL) options = &defaults;
    if (network == NULL || result == NULL) return bw_fail(error, BITWREN_BAD_ARGUMENT, -1, "a pointer is NULL");
    *result = NULL;
    if (options->threads < 0 || options->threads > MOST_THREADS)
        return bw_fail(error, BITWREN_BAD_ARGUMENT, -1, "threads: %d, expected 0 to %d", (int)options->threads, MOST_THREADS);
    if (options->batch < 0) return bw_fail(error, BITWREN_BAD_ARGUMENT, -1, "batch: %d, expected at least 0", (int)options->batch);
    const bitwren_memory *memory = &network->heap.from;
    bw_heap heap;
    bw_heap_open(&heap, memory);
    bitwren_runner *runner = bw_take(&heap, 1, sizeof *runner);
    if (runner == NULL) return bw_fail(error, BITWREN_NO_MEMORY, -1, "out of memory");
    runner->network = network;
    runner->threads = options->threads > 0 ? options->threads : bw_cores();
    bitwren_status status = BITWREN_NO_MEMORY;
    if (plan_one(runner, memory) &&
        (options->batch < 2 || plan_many(runner, memory, options->batch))) {
        const size_t threads = (size_t)runner->threads, many = aligned(runner->many.arena_bytes);
        const size_t one = aligned(runner->one.arena_bytes);
        const size_t scratch = runner->one.scratch_bytes > runner->many.scratch_bytes ? runner->one.scratch_bytes
                                                                                      : runner->many.scratch_bytes;
        runner->arena_each = many;
        runner->scratch_each = aligned(scratch);
        runner->arena = many <= SIZE_MAX / threads ? bw_take(&heap, 1, one > many * threads ? one : many * threads) : NULL;
        runner->scratch = bw_take(&heap, threads, runner->scratch_each);
        const size_t parts = (size_t)runner->one.step_count * BW_PARTS;
        if (options->profile) runner->seconds = bw_take(&heap, threads * parts, sizeof *runner->seconds);
        if (runner->arena && runner->scratch && (!options->profile || runner->seconds) &&
            bw_open_sharing(&heap, network->kernels, &runner->one, runner->sharing, &runner->stages))
            status = bw_team_start(&heap, runner->threads, runner->stages.stage_count, &runner->team);
    }
    if (status == BITWREN_OK) {
        runner->heap = heap; /* the runner lies in it */
        *result = runner;
        return BITWREN_OK;
    }
    if (runner->one.step_count > 0) bw_free_plan(&runner->one);
    if (runner->many.step_count > 0) bw_free_plan(&runner->many);
    const int threads = runner->threads;
    bw_heap_close(&heap);
    if (status == BITWREN_NO_THREADS) return bw_fail(error, status, -1, "threads: the system gives no %d", threads);
    return bw_fail(error, status, -1, "out of memory");
}

void bitwren_stop(bitwren_runner *runner) {
    if (runner == NULL) return;
    bw_team_stop(runner->team);
    bw_free_plan(&runner->one);
    if (runner->many.step_count > 0) bw_free_plan(&runner->many);
    bw_heap heap = runner->heap;
    bw_heap_close(&heap);
}

/* ------------------------------------------------------------------ what it does */

bitwren_runner_facts bitwren_runner_facts_of(const bitwren_runner *runner) {
    const size_t bytes = runner->heap.bytes + runner->one.heap.bytes +
                         (runner->many.step_count > 0 ? runner->many.heap.bytes : 0);
    return (bitwren_runner_facts){(size_t)runner->one.step_count, bytes, runner->threads,
                                  runner->many.step_count > 0 ? BW_LANES / runner->many.pictures : BW_LANES,
                                  runner->pictures};
}

bitwren_step bitwren_step_of(const bitwren_runner *runner, size_t index) {
    static const char *const names[] = {"gather", "lookup", "products", "pool", "elementwise", "sum"};
    const bw_step_plan *from = &runner->one.steps[index];
    bitwren_step step = {.layers = from->layers, .kernel = names[from->kind], .choice = from->choice, .macs = from->macs};
    if (runner->seconds == NULL) return step;
    for (int32_t thread = 0; thread < runner->threads; thread++)
        for (int part = 0; part < BW_PARTS; part++) {
            const double more =
                runner->seconds[((size_t)thread * (size_t)runner->one.step_count + index) * BW_PARTS + (size_t)part];
            step.parts[part] += more;
            step.seconds += more;
        }
    return step;
}
