#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "team.h"

#include "kernels.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#define MOST_LOOKS 4000 /* some 40 microseconds */
#define FEWEST_LOOKS 8
#define SHORT_SLEEP 200e-6 /* seconds, of which waking up takes 50 */

struct bw_team {
    int32_t threads;
    pthread_t *thread; /* (threads - 1) */
    bw_task *task;
    void *about;
    int stop;
    _Alignas(64) atomic_uint round;    /* changes when there is a new task */
    _Alignas(64) atomic_uint meetings; /* changes when all have met */
    _Alignas(64) atomic_int absent;    /* that have not come to this meeting */
    _Alignas(64) atomic_int sleepers;
    atomic_int looks; /* at a meeting, before going to sleep */
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

static void sleep_until_changed(bw_team *team, atomic_uint *word, unsigned old) {
    pthread_mutex_lock(&team->mutex);
    atomic_fetch_add(&team->sleepers, 1); /* before the look below: whoever changes the word looks at it afterwards */
    while (atomic_load(word) == old) pthread_cond_wait(&team->changed, &team->mutex);
    atomic_fetch_sub(&team->sleepers, 1);
    pthread_mutex_unlock(&team->mutex);
}

/* Whether *word is no longer `old`, within so many looks. */
static int look_for_change(atomic_uint *word, unsigned old, int looks) {
    for (int k = 0; k < looks; k++) {
        if (atomic_load_explicit(word, memory_order_acquire) != old) return 1;
        relax();
    }
    return 0;
}

/* Wait for the others in the middle of a task. A sleep that turns out short was a mistake: look longer the next time. A long
 * one means that the processor is busy with somebody else, who needs the time that looking takes. */
static void wait_for_meeting(bw_team *team, unsigned meeting) {
    const int looks = atomic_load_explicit(&team->looks, memory_order_relaxed);
    if (look_for_change(&team->meetings, meeting, looks)) return;
    const double start = bw_seconds();
    sleep_until_changed(team, &team->meetings, meeting);
    int next = bw_seconds() - start < SHORT_SLEEP ? 4 * looks : looks / 2;
    next = next > MOST_LOOKS ? MOST_LOOKS : next < FEWEST_LOOKS ? FEWEST_LOOKS : next;
    atomic_store_explicit(&team->looks, next, memory_order_relaxed);
}

static void change(bw_team *team, atomic_uint *word) {
    atomic_fetch_add(word, 1);
    if (atomic_load(&team->sleepers) == 0) return;
    pthread_mutex_lock(&team->mutex);
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->mutex);
}

void bw_team_meet(bw_team *team) {
    if (team->threads == 1) return;
    const unsigned meeting = atomic_load(&team->meetings);
    if (atomic_fetch_sub(&team->absent, 1) > 1) {
        wait_for_meeting(team, meeting);
        return;
    }
    atomic_store(&team->absent, team->threads);
    change(team, &team->meetings);
}

static void *work(void *argument) {
    bw_team *team = argument;
    const int32_t number = atomic_fetch_add(&team->numbers, 1);
    for (unsigned round = 0;; round++) {
        /* Between tasks, where one often follows the other at once. */
        if (!look_for_change(&team->round, round, MOST_LOOKS)) sleep_until_changed(team, &team->round, round);
        if (team->stop) return NULL;
        team->task(team->about, number);
        bw_team_meet(team);
    }
}

void bw_team_run(bw_team *team, bw_task *task, void *about) {
    team->task = task;
    team->about = about;
    if (team->threads > 1) change(team, &team->round);
    task(about, 0);
    bw_team_meet(team);
}

bitwren_status bw_team_start(bw_heap *heap, int32_t threads, bw_team **result) {
    bw_team *team = bw_take(heap, 1, sizeof *team);
    if (team == NULL) return BITWREN_NO_MEMORY;
    team->thread = bw_take(heap, (size_t)threads, sizeof *team->thread);
    if (team->thread == NULL) return BITWREN_NO_MEMORY;
    team->threads = 1;
    atomic_store(&team->numbers, 1);
    atomic_store(&team->looks, MOST_LOOKS);
    if (pthread_mutex_init(&team->mutex, NULL) != 0) return BITWREN_NO_THREADS;
    if (pthread_cond_init(&team->changed, NULL) != 0) {
        pthread_mutex_destroy(&team->mutex);
        return BITWREN_NO_THREADS;
    }
    for (; team->threads < threads; team->threads++)
        if (pthread_create(&team->thread[team->threads - 1], NULL, work, team) != 0) {
            bw_team_stop(team);
            return BITWREN_NO_THREADS;
        }
    atomic_store(&team->absent, threads);
    *result = team;
    return BITWREN_OK;
}

void bw_team_stop(bw_team *team) {
    if (team == NULL) return;
    team->stop = 1;
    if (team->threads > 1) change(team, &team->round);
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
