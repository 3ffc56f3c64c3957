/* Kernel set for x86-64 with AVX2 and BMI. */
#define KERNELS avx2
#define HAS_HALVED 0
#define GROUPS_AT_ONCE 2
#include "vectors_avx2.h"

#include "kernel_bodies.h"
