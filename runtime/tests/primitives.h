/* The vector operations that a kernel set defines (kernel_bodies.h), one function for each entry of primitives.inc. */
#ifndef BW_PRIMITIVES_H
#define BW_PRIMITIVES_H

#include "layout.h"

/* What an operation reads, and where its result goes: v[0], w[0], b or number. */
typedef struct {
    _Alignas(64) int16_t v[3][BW_LANES];
    _Alignas(64) int32_t w[2][BW_LANES];
    _Alignas(64) uint8_t b[BW_LANES];
    int16_t weights[2];
    int32_t number;
    bw_shuffle shuffle;
} bw_operands;

/* Values that an operation must take. Beyond them sets may differ. */
typedef enum { BW_ANY, BW_MASK, BW_INT16, BW_COUNT, BW_CODES } bw_domain;

enum {
#define BW_PRIMITIVE(name, domain, number, expression) BW_PRIMITIVE_##name,
#include "primitives.inc"
#undef BW_PRIMITIVE
    BW_PRIMITIVES
};

typedef struct {
    const char *name; /* of the set */
    void (*run[BW_PRIMITIVES])(const bw_operands *in, bw_operands *out);
} bw_primitives;

#define BW_KERNEL_SET(name, condition, late) extern const bw_primitives bw_primitives_##name;
#include "kernels.inc"
#undef BW_KERNEL_SET

/* Whether each operation of the set gives what the portable one does, on extreme and random lanes; says where not. */
int bw_check_primitives(const bw_primitives *set, uint64_t seed);

#endif
