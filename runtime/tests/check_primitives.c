/* Every vector operation of a kernel set against the portable one. */
#include <stdio.h>
#include <string.h>

#include "primitives.h"
#include "random.h"

#define ROUNDS 400

static const char *const names[] = {
#define BW_PRIMITIVE(name, domain, number, expression) #name,
#include "primitives.inc"
#undef BW_PRIMITIVE
};
static const bw_domain domains[] = {
#define BW_PRIMITIVE(name, domain, number, expression) domain,
#include "primitives.inc"
#undef BW_PRIMITIVE
};
static const bw_domain numbers[] = {
#define BW_PRIMITIVE(name, domain, number, expression) number,
#include "primitives.inc"
#undef BW_PRIMITIVE
};

/* Half of the values are ends of some range, or lie beside one. */
static int32_t value(uint64_t *random) {
    static const int32_t ends[] = {0, 1, 255, 511, 32767, 32768, 65535, 65536, INT32_MAX, INT32_MAX};
    const uint64_t bits = bw_random(random);
    if (bits & 1) return (int32_t)(uint32_t)(bits >> 32);
    const int32_t end = ends[(bits >> 1) % 10], sign = bits & 64 ? -1 : 1, beside = bits & 128 ? -1 : 0;
    return sign * end + (end == 0 && sign > 0 ? 0 : beside); /* -INT32_MAX - 1 is INT32_MIN */
}

static int32_t value_of(bw_domain domain, uint64_t *random) {
    const int32_t any = value(random);
    switch (domain) {
    case BW_MASK: return any & 1 ? -1 : 0;
    case BW_INT16: return (int16_t)(uint16_t)(uint32_t)any;
    case BW_COUNT: return any & 31;
    case BW_CODES: return any % 512;
    default: return any;
    }
}

static void fill(bw_operands *in, bw_domain domain, bw_domain number, uint64_t *random) {
    for (int k = 0; k < 3; k++) /* a mask is the first operand's, the rest are any */
        for (int lane = 0; lane < BW_LANES; lane++)
            in->v[k][lane] = (int16_t)(uint16_t)(uint32_t)value_of(domain == BW_MASK && k > 0 ? BW_ANY : domain, random);
    for (int k = 0; k < 2; k++)
        for (int lane = 0; lane < BW_LANES; lane++)
            in->w[k][lane] = domain == BW_CODES ? value(random) / 2 : value_of(domain, random);
    for (int k = 0; k < 2; k++) in->weights[k] = (int16_t)(value(random) % 128);
    for (int lane = 0; lane < BW_LANES; lane++) in->b[lane] = (uint8_t)(uint32_t)value(random);
    in->number = value_of(number, random);
    if (domain == BW_ANY && bw_random(random) % 4 == 0) in->v[0][bw_random(random) % BW_LANES] = INT16_MAX;
}

static int check(const bw_primitives *set, int number, const bw_operands *in) {
    bw_operands mine, expected;
    memset(&mine, 0, sizeof mine);
    memset(&expected, 0, sizeof expected);
    set->run[number](in, &mine);
    bw_primitives_portable.run[number](in, &expected);
    if (memcmp(mine.v, expected.v, sizeof mine.v) == 0 && memcmp(mine.w[0], expected.w[0], sizeof mine.w[0]) == 0 &&
        memcmp(mine.b, expected.b, sizeof mine.b) == 0 && mine.number == expected.number)
        return 1;
    for (int lane = 0; lane < BW_LANES; lane++) {
        const int32_t got[] = {mine.v[0][lane], mine.w[0][lane], mine.b[lane], mine.number};
        const int32_t due[] = {expected.v[0][lane], expected.w[0][lane], expected.b[lane], expected.number};
        if (memcmp(got, due, sizeof got) == 0) continue;
        printf("FAILED %s %s: lane %d of (%d, %d, %d; %d, %d; byte %d; n %d; weights %d, %d) gives %d, %d, %d, %d, "
               "expected %d, %d, %d, %d\n", set->name, names[number], lane, in->v[0][lane], in->v[1][lane], in->v[2][lane],
               in->w[0][lane], in->w[1][lane], in->b[lane], in->number, in->weights[0], in->weights[1], got[0], got[1],
               got[2], got[3], due[0], due[1], due[2], due[3]);
        return 0;
    }
    return 0;
}

/* All shuffles of planes with these blocks, however far their halo reaches. */
static int check_shuffles(const bw_primitives *set, bw_grid grid, uint64_t *random) {
    bw_heap heap;
    bw_heap_open(&heap, NULL);
    bw_plane plane = {.channels = 1, .height = grid.rows, .width = grid.columns, .grid = grid, .block_height = 1,
                      .block_width = 1, .top = 3, .left = 3, .bottom = 4, .right = 4};
    int equal = bw_lay_out(&heap, &plane);
    for (int32_t k = 0; equal && k < plane.first_halo[1]; k++) {
        bw_operands in;
        memset(&in, 0, sizeof in);
        fill(&in, BW_ANY, BW_ANY, random);
        in.shuffle = *plane.halos[k].shuffle;
        equal = check(set, BW_PRIMITIVE_v_shuffle, &in) && check(set, BW_PRIMITIVE_b_shuffle, &in);
    }
    bw_heap_close(&heap);
    return equal;
}

int bw_check_primitives(const bw_primitives *set, uint64_t seed) {
    uint64_t random = seed;
    int equal = 1;
    for (int number = 0; number < BW_PRIMITIVES; number++)
        for (int round = 0, good = number != BW_PRIMITIVE_v_shuffle && number != BW_PRIMITIVE_b_shuffle; round < ROUNDS && good; round++) {
            bw_operands in;
            memset(&in, 0, sizeof in);
            fill(&in, domains[number], numbers[number], &random);
            good = check(set, number, &in);
            equal &= good;
        }
    for (int32_t pictures = 1; pictures <= BW_LANES; pictures *= 2)
        for (int32_t rows = 1; rows <= BW_LANES / pictures; rows *= 2)
            equal &= check_shuffles(set, (bw_grid){pictures, rows, BW_LANES / pictures / rows}, &random);
    return equal;
}
