/* RISC-V in machine mode: startup, counter of instructions and semihosting; included once, by main.c. */
#ifndef RISCV_H
#define RISCV_H

#include <stdint.h>

extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[];

int main(void);
_Noreturn void leave(uint32_t status);

static uint64_t counter_first;

/* The three instructions are the call's signature: not compressed, and on one page, for which the function is aligned. */
static __attribute__((noinline, aligned(32))) intptr_t semihost(intptr_t operation, const void *parameters)
{
    register intptr_t a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = parameters;
    __asm__ volatile(".option push\n.option norvc\n"
                     "slli x0, x0, 0x1f\n ebreak\n srai x0, x0, 7\n.option pop"
                     : "+r"(a0) : "r"(a1) : "memory");
    return a0;
}

static inline void *stack_pointer(void)
{
    void *pointer;
    __asm__ volatile("mv %0, sp" : "=r"(pointer));
    return pointer;
}

static inline __attribute__((always_inline)) uint64_t retired(void)
{
#if __riscv_xlen == 32
    uint32_t low, high, again;
    do
        __asm__ volatile(".option push\n.option arch, +zicsr\n"
                         "csrr %1, minstreth\n csrr %0, minstret\n csrr %2, minstreth\n.option pop"
                         : "=r"(low), "=r"(high), "=r"(again));
    while (high != again);
    return (uint64_t)high << 32 | low;
#else
    uint64_t all;
    __asm__ volatile(".option push\n.option arch, +zicsr\ncsrr %0, minstret\n.option pop" : "=r"(all));
    return all;
#endif
}

static inline __attribute__((always_inline)) void counter_start(void) { counter_first = retired(); }

/* Instructions since counter_start. */
static inline __attribute__((always_inline)) uint64_t counter_read(void) { return retired() - counter_first; }

/* Exactly 2 * turns instructions, turns > 0. */
static inline void counter_loop(uint32_t turns)
{
    __asm__ volatile("1: addi %0, %0, -1\n bnez %0, 1b" : "+r"(turns));
}

__attribute__((used)) static void initialise(void)
{
    for (uint32_t *from = data_load, *to = data_start; to < data_end;)
        *to++ = *from++;
    for (uint32_t *to = bss_start; to < bss_end;)
        *to++ = 0;
    leave((uint32_t)main());
}

__attribute__((used, aligned(4))) static void fault(void) { leave(FAULT); }

__asm__(".section .vectors, \"ax\"\n.globl start\n.option push\n.option arch, +zicsr\n"
        "start: la sp, stack_top\n la t0, fault\n csrw mtvec, t0\n"
        /* Physical memory protection: the 2^25 bytes from here, which stand for flash, can be read and executed only. */
        "la t0, start\n srli t0, t0, 2\n li t1, 0x3fffff\n or t0, t0, t1\n csrw pmpaddr0, t0\n"
        "li t0, 0x9d\n csrw pmpcfg0, t0\n j initialise\n"
        ".option pop\n.text");

#endif
