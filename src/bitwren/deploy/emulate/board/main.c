/* Classifies the pictures in the host's file "pictures" one by one and writes what it measured to "records".

   Both files go through semihosting: the emulator, as a debugger would, reads and writes them in its own folder.
   "records" holds 32-bit words: a header, then one record for each picture; boot.py reads them. With NETWORK_SELFTEST
   the self-test is run first, and pictures are handed over row by row. */
#include <stddef.h>
#include <stdint.h>

#include "network.h"

enum { FAULT = 70, NO_FILE = 71, DISK = 72 }; /* exit statuses of an image that could not do its work */

#if defined(__riscv)
#include "riscv.h"
#else
#include "arm.h"
#endif

#define PIXELS (NETWORK_CHANNELS * NETWORK_HEIGHT * NETWORK_WIDTH)
#define PAINT 0xA5C3965Au
#define GUARD 64            /* bytes on each side of the arena */
#define PAINTED 0x10000u    /* bytes of stack that are painted, if there are as many */
#define SHORT_LOOP 100000u  /* turns of the calibration */
#define LONG_LOOP 1100000u

enum { OPEN = 0x01, WRITE = 0x05, READ = 0x06, EXIT_EXTENDED = 0x20 }; /* operations of semihosting */
enum { READ_BINARY = 1, WRITE_BINARY = 5 };
enum { DAMAGED_BEFORE = 1, DAMAGED_AFTER = 2, STACK_OVERFLOW = 4 };

typedef void classify_function(void *arena, const uint8_t *pixels, int32_t *scores);

struct header {
    uint32_t short_turns, short_ticks, long_turns, long_ticks; /* of counter_loop, two instructions a turn */
    uint32_t empty_ticks;                                      /* of a function that does nothing */
    uint32_t selftest;                                         /* what network_selftest returned, 0 without it */
    uint32_t arena_bytes, stack_bytes, pixels, classes;        /* as network.h says */
};

struct record {
    uint32_t ticks_low, ticks_high, stack_bytes, damage;
    int32_t scores[NETWORK_CLASSES];
};

extern uint32_t stack_low[];
/* The least room for the stack: the network's, and what this file and an interrupt take. It gets all that is left. */
__attribute__((section(".stack"), used)) static uint32_t least_stack[(NETWORK_STACK_BYTES + 256u) / 4u];

static struct {
    uint8_t before[GUARD];
    _Alignas(NETWORK_ARENA_ALIGN) uint8_t arena[NETWORK_ARENA_BYTES];
    uint8_t after[GUARD];
} memory;
static uint8_t pixels[PIXELS];
static struct record record;

_Noreturn void leave(uint32_t status)
{
    const uintptr_t parameters[2] = {0x20026u, status}; /* the application has ended, with this status */
    for (;;)
        semihost(EXIT_EXTENDED, parameters);
}

static intptr_t open_file(const char *name, size_t length, uintptr_t mode)
{
    const uintptr_t parameters[3] = {(uintptr_t)name, mode, length};
    const intptr_t file = semihost(OPEN, parameters);
    if (file < 0)
        leave(NO_FILE);
    return file;
}

/* Both give the number of bytes that were not read or written. */
static uint32_t read_file(intptr_t file, void *to, size_t bytes)
{
    const uintptr_t parameters[3] = {(uintptr_t)file, (uintptr_t)to, bytes};
    return (uint32_t)semihost(READ, parameters);
}

static void write_file(intptr_t file, const void *from, size_t bytes)
{
    const uintptr_t parameters[3] = {(uintptr_t)file, (uintptr_t)from, bytes};
    if (semihost(WRITE, parameters))
        leave(DISK);
}

#ifdef NETWORK_SELFTEST
#define CLASSIFY classify_by_rows

static void classify_by_rows(void *arena, const uint8_t *picture, int32_t *scores)
{
    network_begin(arena);
    for (uint32_t y = 0; y < NETWORK_HEIGHT; ++y)
        network_row(arena, picture + y * NETWORK_WIDTH * NETWORK_CHANNELS);
    network_end(arena, scores);
}
#else
#define CLASSIFY network_classify
#endif

static void do_nothing(void *arena, const uint8_t *picture, int32_t *scores)
{
    (void)arena, (void)picture, (void)scores;
}

/* One call, its ticks and its stack: the words below this function's own stack are painted before, and those that kept
   their paint are looked for afterwards. Nothing else is called between. */
static __attribute__((noinline)) void measure(classify_function *classify)
{
    volatile uint32_t *top = stack_pointer(), *low = stack_low, *word;
    if ((uintptr_t)top - (uintptr_t)low > PAINTED)
        low = top - PAINTED / sizeof *top;
    for (word = low; word < top; ++word)
        *word = PAINT;
    counter_start();
    classify(memory.arena, pixels, record.scores);
    const uint64_t ticks = counter_read();
    for (word = low; word < top && *word == PAINT;)
        ++word;
    record.ticks_low = (uint32_t)ticks;
    record.ticks_high = (uint32_t)(ticks >> 32);
    record.stack_bytes = (uint32_t)((uintptr_t)top - (uintptr_t)word);
    if (word == low)
        record.damage |= STACK_OVERFLOW;
}

static uint32_t loop_ticks(uint32_t turns)
{
    counter_start();
    counter_loop(turns);
    return (uint32_t)counter_read();
}

/* Rubbish in the arena and in the scores, other for each picture: nothing may depend on what was there. */
static void spoil(uint32_t seed)
{
    for (uint32_t i = 0; i < NETWORK_ARENA_BYTES; ++i) {
        seed ^= seed << 13, seed ^= seed >> 17, seed ^= seed << 5; /* xorshift; the seed is not 0 */
        memory.arena[i] = (uint8_t)seed;
    }
    for (uint32_t i = 0; i < NETWORK_CLASSES; ++i)
        record.scores[i] = (int32_t)seed;
    for (int i = 0; i < GUARD; ++i)
        memory.before[i] = memory.after[i] = (uint8_t)PAINT;
}

static uint32_t damage(void)
{
    uint32_t found = 0;
    for (int i = 0; i < GUARD; ++i) {
        if (memory.before[i] != (uint8_t)PAINT)
            found |= DAMAGED_BEFORE;
        if (memory.after[i] != (uint8_t)PAINT)
            found |= DAMAGED_AFTER;
    }
    return found;
}

int main(void)
{
    static struct header header = {.arena_bytes = NETWORK_ARENA_BYTES,
                                   .stack_bytes = NETWORK_STACK_BYTES,
                                   .pixels = PIXELS,
                                   .classes = NETWORK_CLASSES};
    const intptr_t pictures = open_file("pictures", sizeof "pictures" - 1, READ_BINARY);
    const intptr_t records = open_file("records", sizeof "records" - 1, WRITE_BINARY);
    header.short_turns = SHORT_LOOP, header.short_ticks = loop_ticks(SHORT_LOOP);
    header.long_turns = LONG_LOOP, header.long_ticks = loop_ticks(LONG_LOOP);
    measure(do_nothing);
    header.empty_ticks = record.ticks_low;
#ifdef NETWORK_SELFTEST
    spoil(1);
    header.selftest = (uint32_t)network_selftest(memory.arena);
#endif
    write_file(records, &header, sizeof header);
    for (uint32_t number = 1; read_file(pictures, pixels, sizeof pixels) == 0; ++number) {
        spoil(number);
        record.damage = 0;
        measure(CLASSIFY);
        record.damage |= damage();
        write_file(records, &record, sizeof record);
    }
    return 0;
}
