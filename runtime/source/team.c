#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "kernels.h"

#define MOST_LOOKS 4000 /* some 40 microseconds */
#define FEWEST_LOOKS 8
#define MOST_GRAINS 0xFFFF /* of a step */
#define FEW_GRAINS 3 /* that are left to the thread that has begun their block */
#define SHORT_SLEEP 200e-6 /* seconds, of which waking up takes 50 */

/* How far a step has come. The upper halves of `left` and `done` hold the number of the run that they belong to: a thread
 * that is late, and still thinks of an earlier run, takes nothing of this one by mistake. */
typedef struct {
    _Alignas(64) _Atomic uint64_t left; /* grains from the upper 16 bits of the lower half up to the lower 16 */
    atomic_int items, grain, block; /* block: 1 where a grain is more than an item */
    _Alignas(64) _Atomic uint64_t done; /* items done; those who wait look at it and leave `left` to the others' caches */
} progress;

struct bw_team {
    int32_t threads;
    pthread_t *thread; /* (threads - 1) */
    progress *steps;   /* (most steps) */
    /* Of the run: valid for who has taken one of its items, or seen its number. */
    atomic_int step_count;
    _Atomic(bw_work *) work;
    _Atomic(void *) about;
    atomic_int stop;
    _Alignas(64) atomic_uint run; /* its number */
    _Alignas(64) atomic_int sleepers;
    atomic_int looks; /* for the end of a step, before going to sleep */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    _Alignas(64) atomic_int numbers; /* given to threads as they start */
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static uint64_t range(unsigned run, int32_t low, int32_t high) {
    return (uint64_t)run << 32 | (uint64_t)low << 16 | (uint64_t)high;
}

/* ------------------------------------------------------------------ waiting */

typedef int condition(const bw_team *team, const progress *step, unsigned run);

static int another_run(const bw_team *team, const progress *step, unsigned run) {
    (void)step;
    return atomic_load(&team->run) != run;
}

/* Over, or no longer of this run, which then is over too. */
static int step_is_over(const bw_team *team, const progress *step, unsigned run) {
    (void)team;
    const uint64_t done = atomic_load(&step->done);
    return done >> 32 != run || (int32_t)(uint32_t)done == atomic_load_explicit(&step->items, memory_order_relaxed);
}

static int look(const bw_team *team, condition *is, const progress *step, unsigned run, int looks) {
    for (int k = 0; k < looks; k++) {
        if (is(team, step, run)) return 1;
        relax();
    }
    return 0;
}

static void sleep_until(bw_team *team, condition *is, const progress *step, unsigned run) {
    pthread_mutex_lock(&team->mutex);
    atomic_fetch_add(&team->sleepers, 1); /* before the look: who makes the condition true asks for sleepers afterwards */
    while (!is(team, step, run)) pthread_cond_wait(&team->changed, &team->mutex);
    atomic_fetch_sub(&team->sleepers, 1);
    pthread_mutex_unlock(&team->mutex);
}

static void wake_sleepers(bw_team *team) {
    if (atomic_load(&team->sleepers) == 0) return;
    pthread_mutex_lock(&team->mutex);
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->mutex);
}

/* A sleep that turns out short was a mistake: look longer the next time. A long one means that the processor is busy with
 * somebody else, who needs the time that looking takes. */
static void wait_for_end(bw_team *team, const progress *step, unsigned run) {
    const int looks = atomic_load_explicit(&team->looks, memory_order_relaxed);
    if (look(team, step_is_over, step, run, looks)) return;
    const double start = bw_seconds();
    sleep_until(team, step_is_over, step, run);
    int next = bw_seconds() - start < SHORT_SLEEP ? 4 * looks : looks / 2;
    next = next > MOST_LOOKS ? MOST_LOOKS : next < FEWEST_LOOKS ? FEWEST_LOOKS : next;
    atomic_store_explicit(&team->looks, next, memory_order_relaxed);
}

/* ------------------------------------------------------------------ working */

/* Whether what is left, low <= grain < high, are the last few of a block that another thread has begun from the other end. */
static int are_anothers(int32_t low, int32_t high, int32_t block, int upwards) {
    return high - low <= FEW_GRAINS && (upwards ? low : high) % block == 0 && (upwards ? high : low) % block != 0;
}

/* Of a step of this run, take the next items that nobody has. Large shares first, for each costs a moment, of an even
 * number, for sets are quickest looked up two at once; single ones in the end, for then nobody waits long. Returns 1:
 * from <= k < to are this thread's; 0: there are none; -1: the run is over. */
static int take_items(const bw_team *team, progress *step, int32_t thread, unsigned run, int32_t *from, int32_t *to) {
    for (;;) {
        uint64_t left = atomic_load(&step->left);
        if (left >> 32 != run) return -1;
        const int32_t low = (int32_t)(left >> 16 & MOST_GRAINS), high = (int32_t)(left & MOST_GRAINS);
        const int upwards = bw_takes_upwards(thread);
        const int32_t block = atomic_load_explicit(&step->block, memory_order_relaxed);
        if (low >= high || are_anothers(low, high, block, upwards)) return 0;
        const int32_t share = 1 + (high - low) / (2 * team->threads), take = share > 1 ? share / 2 * 2 : 1;
        const uint64_t rest = upwards ? range(run, low + take, high) : range(run, low, high - take);
        const int32_t items = atomic_load_explicit(&step->items, memory_order_relaxed);
        const int32_t grain = atomic_load_explicit(&step->grain, memory_order_relaxed);
        if (!atomic_compare_exchange_weak(&step->left, &left, rest)) continue;
        *from = (upwards ? low : high - take) * grain;
        *to = items - *from < take * grain ? items : *from + take * grain;
        return 1;
    }
}

/* Take part in a run, until its last step is over or another run has begun. */
static void take_part(bw_team *team, int32_t thread, unsigned run) {
    const int32_t count = atomic_load(&team->step_count);
    for (int32_t s = 0; s < count; s++) {
        progress *step = &team->steps[s];
        int32_t from, to;
        uint64_t mine = 0;
        int taken;
        while ((taken = take_items(team, step, thread, run, &from, &to)) > 0) {
            atomic_load(&team->work)(atomic_load(&team->about), thread, s, from, to);
            mine += (uint64_t)(to - from);
        }
        if (taken < 0) return;
        if (mine > 0) {
            const uint64_t done = atomic_fetch_add(&step->done, mine) + mine;
            if ((int32_t)(uint32_t)done == atomic_load_explicit(&step->items, memory_order_relaxed)) wake_sleepers(team);
        }
        wait_for_end(team, step, run);
    }
}

static void *work_in_team(void *argument) {
    bw_team *team = argument;
    const int32_t number = atomic_fetch_add(&team->numbers, 1);
    for (unsigned run = 0;;) {
        /* Between runs, where one often follows the other at once. */
        if (!look(team, another_run, NULL, run, MOST_LOOKS)) sleep_until(team, another_run, NULL, run);
        run = atomic_load(&team->run);
        if (atomic_load(&team->stop)) return NULL;
        take_part(team, number, run);
    }
}

void bw_team_run(bw_team *team, const bw_team_step *steps, int32_t count, bw_work *work, void *about) {
    if (team->threads == 1) {
        for (int32_t s = 0; s < count; s++) work(about, 0, s, 0, steps[s].items);
        return;
    }
    const unsigned run = atomic_load(&team->run) + 1;
    atomic_store(&team->step_count, count);
    atomic_store(&team->work, work);
    atomic_store(&team->about, about);
    for (int32_t s = 0; s < count; s++) {
        progress *step = &team->steps[s];
        const int32_t items = steps[s].items, grain = (items - 1) / MOST_GRAINS + 1;
        /* Nothing to take while the rest changes. Each store after the one before, but none waits for another thread's cache. */
        atomic_store_explicit(&step->left, range(run, 0, 0), memory_order_release);
        atomic_store_explicit(&step->items, items, memory_order_release);
        atomic_store_explicit(&step->grain, grain, memory_order_release);
        atomic_store_explicit(&step->block, grain == 1 ? steps[s].block : 1, memory_order_release);
        atomic_store_explicit(&step->done, (uint64_t)run << 32, memory_order_release);
        atomic_store_explicit(&step->left, range(run, 0, (items - 1) / grain + 1), memory_order_release);
    }
    atomic_store(&team->run, run);
    wake_sleepers(team);
    take_part(team, 0, run);
}

/* ------------------------------------------------------------------ start and stop */

bitwren_status bw_team_start(bw_heap *heap, int32_t threads, int32_t most_steps, bw_team **result) {
    bw_team *team = bw_take(heap, 1, sizeof *team);
    if (team == NULL) return BITWREN_NO_MEMORY;
    team->thread = bw_take(heap, (size_t)threads, sizeof *team->thread);
    team->steps = bw_take(heap, (size_t)most_steps, sizeof *team->steps);
    if (team->thread == NULL || team->steps == NULL) return BITWREN_NO_MEMORY;
    team->threads = 1;
    atomic_store(&team->numbers, 1);
    atomic_store(&team->looks, MOST_LOOKS);
    if (pthread_mutex_init(&team->mutex, NULL) != 0) return BITWREN_NO_THREADS;
    if (pthread_cond_init(&team->changed, NULL) != 0) {
        pthread_mutex_destroy(&team->mutex);
        return BITWREN_NO_THREADS;
    }
    for (; team->threads < threads; team->threads++)
        if (pthread_create(&team->thread[team->threads - 1], NULL, work_in_team, team) != 0) {
            bw_team_stop(team);
            return BITWREN_NO_THREADS;
        }
    *result = team;
    return BITWREN_OK;
}

void bw_team_stop(bw_team *team) {
    if (team == NULL) return;
    atomic_store(&team->stop, 1);
    atomic_fetch_add(&team->run, 1);
    wake_sleepers(team);
    for (int32_t k = 0; k + 1 < team->threads; k++) pthread_join(team->thread[k], NULL);
    pthread_cond_destroy(&team->changed);
    pthread_mutex_destroy(&team->mutex);
}

int32_t bw_cores(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
    const long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int32_t)count : 1;
}
