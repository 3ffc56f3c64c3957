/* clock: tells as JSON how many cycles a second this core runs at, the best of some blocks of rotations that wait for each
 * other, a cycle each on every processor of the last decades. */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#define BLOCKS 50
#define ROUNDS 100000 /* of a block */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#define ROTATE                \
    x = x << 1 | x >> 63;     \
    __asm__ volatile("" : "+r"(x)); /* compilers would make one rotation of many */

int main(void)
{
    uint64_t x = 1;
    double best = 0;
    for (int block = 0; block < BLOCKS; block++) {
        const double begin = now();
        for (int k = 0; k < ROUNDS; k++) {
            ROTATE ROTATE ROTATE ROTATE ROTATE ROTATE ROTATE ROTATE
            ROTATE ROTATE ROTATE ROTATE ROTATE ROTATE ROTATE ROTATE
        }
        const double hertz = 16.0 * ROUNDS / (now() - begin);
        if (hertz > best) best = hertz;
    }
    printf("{\"hertz\": %.0f}\n", best);
    return 0;
}
