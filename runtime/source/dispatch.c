/* Which kernel sets this processor can run. */
#if !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#include <string.h>
#include <time.h>

#include "kernels.h"

#if defined(BITWREN_HAS_AVX2)
static int bw_processor_has_avx2(void) {
    __builtin_cpu_init(); /* also asks whether the system saves the wide registers */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
#endif

#if defined(BITWREN_HAS_AVX512)
static int bw_processor_has_avx512(void) {
    __builtin_cpu_init();
    return bw_processor_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* On Intel's cores the masks by which the AVX-512 set halves its tables wait for the ports of the additions, and take more
 * time than they save (results/kernel-sets.json). */
static int bw_processor_is_intel(void) {
    __builtin_cpu_init();
    return __builtin_cpu_is("intel") != 0;
}
#endif

static const bw_kernels *kernels_number(size_t index) {
    for (int past = 0; past < 2; past++) {
#define BW_KERNEL_SET(name, condition, late)       \
    if ((condition) && (late) == past) {           \
        if (index == 0) return &bw_kernels_##name; \
        index--;                                   \
    }
#include "kernels.inc"
#undef BW_KERNEL_SET
    }
    return NULL;
}

const char *bitwren_kernels(size_t index) {
    const bw_kernels *kernels = kernels_number(index);
    return kernels != NULL ? kernels->name : NULL;
}

const bw_kernels *bw_find_kernels(const char *name) {
    if (name == NULL || name[0] == 0) return kernels_number(0);
    const bw_kernels *kernels = kernels_number(0);
    for (size_t k = 0; kernels != NULL && strcmp(kernels->name, name) != 0; kernels = kernels_number(++k)) continue;
    return kernels;
}

double bw_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double bw_seconds_of_reading(void) {
    enum { READINGS = 100 };
    const double start = bw_seconds();
    for (int k = 1; k < READINGS; k++) bw_seconds();
    return (bw_seconds() - start) / READINGS;
}
