/* The vector operations of one kernel set, behind functions that every set has alike. Compiled once for each set, in
 * place of the set's own file: -DKERNEL_FILE='"kernels_avx2.c"'. */
#include KERNEL_FILE

#include "primitives.h"

#define TO_V(value) v_store(out->v[0], value)
#define TO_W(value) w_store(out->w[0], value)
#define BW_PRIMITIVE(name, domain, number_domain, expression)                         \
    static void run_##name(const bw_operands *in, bw_operands *out) {                 \
        const V a = v_load(in->v[0]), b = v_load(in->v[1]), c = v_load(in->v[2]);     \
        const W x = w_load(in->w[0]), y = w_load(in->w[1]);                           \
        const int32_t n = in->number;                                                 \
        (void)a, (void)b, (void)c, (void)x, (void)y, (void)n;                         \
        expression;                                                                   \
    }
#include "primitives.inc"
#undef BW_PRIMITIVE

const bw_primitives JOIN(bw_primitives_, KERNELS) = {
    QUOTE(KERNELS),
    {
#define BW_PRIMITIVE(name, domain, number_domain, expression) run_##name,
#include "primitives.inc"
#undef BW_PRIMITIVE
    },
};
