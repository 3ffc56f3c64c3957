/* Cortex-M: startup, counter of instructions and semihosting; included once, by main.c. */
#ifndef ARM_H
#define ARM_H

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define SYSTICK_CONTROL REGISTER(0xE000E010u)
#define SYSTICK_RELOAD REGISTER(0xE000E014u)
#define SYSTICK_VALUE REGISTER(0xE000E018u)
#define CONFIGURATION_CONTROL REGISTER(0xE000ED14u)
#define PROTECTION_TYPE REGISTER(0xE000ED90u) /* of the memory protection unit: bits 8 to 15, its regions */
#define PROTECTION_CONTROL REGISTER(0xE000ED94u)
#define PROTECTION_BASE REGISTER(0xE000ED9Cu)
#define PROTECTION_SIZE REGISTER(0xE000EDA0u)
#define TICKS 0x1000000u     /* SysTick counts down from TICKS - 1 to 0 */
#define TRAP_UNALIGNED 0x8u  /* an access that is not aligned is a fault, as it always is on Cortex-M0 */

extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[], stack_top[];

int main(void);
_Noreturn void leave(uint32_t status);

static volatile uint32_t counter_wraps;

static inline intptr_t semihost(intptr_t operation, const void *parameters)
{
    register intptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = parameters;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static inline void *stack_pointer(void)
{
    void *pointer;
    __asm__ volatile("mov %0, sp" : "=r"(pointer));
    return pointer;
}

static inline __attribute__((always_inline)) void counter_start(void)
{
    SYSTICK_RELOAD = TICKS - 1;
    SYSTICK_VALUE = 0; /* the next tick makes it TICKS - 1 */
    counter_wraps = 0;
    SYSTICK_CONTROL = 7; /* processor clock, interrupt, on */
}

/* Ticks since counter_start; how many instructions a tick is, the calibration tells. */
static inline __attribute__((always_inline)) uint64_t counter_read(void)
{
    uint32_t wraps, value;
    do {
        wraps = counter_wraps;
        value = SYSTICK_VALUE;
    } while (wraps != counter_wraps);
    return (uint64_t)wraps * TICKS + (-value & (TICKS - 1));
}

/* Exactly 2 * turns instructions, turns > 0. */
static inline void counter_loop(uint32_t turns)
{
    __asm__ volatile(".syntax unified\n1: subs %0, %0, #1\n bne 1b" : "+l"(turns) : : "cc");
}

/* A write to what stands for flash is a fault, where the processor can see to it. */
static void protect_flash(void)
{
    if (PROTECTION_TYPE >> 8 & 0xFF) {
        PROTECTION_BASE = 0x10u;                       /* region 0, from address 0 */
        PROTECTION_SIZE = 6u << 24 | 21u << 1 | 1u;    /* read only, 2^22 bytes, on */
        PROTECTION_CONTROL = 5;                        /* on; elsewhere everything is allowed */
    }
}

void start(void);
void start(void)
{
    CONFIGURATION_CONTROL |= TRAP_UNALIGNED;
    protect_flash();
    for (uint32_t *from = data_load, *to = data_start; to < data_end;)
        *to++ = *from++;
    for (uint32_t *to = bss_start; to < bss_end;)
        *to++ = 0;
    leave((uint32_t)main());
}

static void fault(void) { leave(FAULT); }

static void count_wrap(void) { ++counter_wraps; }

/* The vector table: the stack, reset, and 14 exceptions of which SysTick alone is no fault. */
__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (void *)start, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
    (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
    (void *)count_wrap};

#endif
