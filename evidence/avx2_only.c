/* Hides from a process what its processor can do beyond AVX2, so that engines which choose their kernels by CPUID and
 * offer no setting (ONNX Runtime, ncnn) run as on a processor without AVX-512, VNNI and AMX.
 *
 *     cc -shared -fPIC -O2 avx2_only.c -o avx2_only.so && LD_PRELOAD=./avx2_only.so program
 *
 * Linux lets a process fault at CPUID where the processor can (flag cpuid_fault, Intel); the handler answers in its place.
 * A program with a SIGSEGV handler of its own, such as GCC, ends at its first CPUID. Nothing else of the program changes.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (UINT32_C(1) << (n))

typedef struct {
    uint32_t eax, ebx, ecx, edx;
} answer;

static answer ask(uint32_t leaf, uint32_t part) {
    answer a = {leaf, 0, part, 0};
    __asm__ volatile("cpuid" : "+a"(a.eax), "=b"(a.ebx), "+c"(a.ecx), "=d"(a.edx));
    return a;
}

/* Clear the flags of what is newer than AVX2. Intel's manual, volume 2A, CPUID, tables of leaves 07H, 1DH, 1EH and 24H. */
static void hide(answer *a, uint32_t leaf, uint32_t part) {
    if (leaf == 7 && part == 0) {
        /* AVX-512 F, DQ, IFMA, PF, ER, CD, BW, VL */
        a->ebx &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
        a->ecx &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14)); /* AVX-512 VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
        /* AVX-512 4VNNIW, 4FMAPS, VP2INTERSECT, FP16; AMX BF16, TILE, INT8 */
        a->edx &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
    } else if (leaf == 7 && part == 1) {
        a->eax &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23)); /* AVX-VNNI, AVX-512 BF16, AMX FP16, AVX-IFMA */
        a->edx &= ~(BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19)); /* AVX-VNNI-INT8, AVX-NE-CONVERT, AMX-COMPLEX, AVX-VNNI-INT16, AVX10 */
    } else if (leaf == 0x1D || leaf == 0x1E || leaf == 0x24) { /* AMX's tiles and AVX10 */
        *a = (answer){0, 0, 0, 0};
    }
}

static void answer_cpuid(int number, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *at = (const uint8_t *)r[REG_RIP];
    /* A fault of CPUID has no address; any other is the program's own, and ends it when it happens again. */
    if (info->si_code != SI_KERNEL || at[0] != 0x0F || at[1] != 0xA2) {
        signal(number, SIG_DFL);
        return;
    }
    const uint32_t leaf = (uint32_t)r[REG_RAX], part = (uint32_t)r[REG_RCX];
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1UL);
    answer a = ask(leaf, part);
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0UL);
    hide(&a, leaf, part);
    r[REG_RAX] = a.eax;
    r[REG_RBX] = a.ebx;
    r[REG_RCX] = a.ecx;
    r[REG_RDX] = a.edx;
    r[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
    const struct sigaction action = {.sa_sigaction = answer_cpuid, .sa_flags = SA_SIGINFO};
    if (sigaction(SIGSEGV, &action, NULL) != 0 || syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0UL) != 0) {
        fputs("avx2_only: this processor or kernel cannot fault at CPUID\n", stderr);
        exit(1);
    }
}
