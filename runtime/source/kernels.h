/* What a kernel set computes: the steps of a plan, each cut into items that may run in any order on any thread.
 *
 * Each step makes vectors of sums and hands them to a program: the elementwise nodes that follow (requantise, add), and
 * where results are stored. So a convolution's sums never leave the cache before they are codes again.
 */
#ifndef BW_KERNELS_H
#define BW_KERNELS_H

#include "layout.h"

/* ------------------------------------------------------------------ programs */

/* What an instruction does to the values x of a tile. The first four are ways of computing the same requantise,
 * x = clamp((multiplier * x + offset) >> shift, low, high), where x is wide: finish.h says which one keeps within int32. */
typedef enum {
    BW_SHIFT,
    BW_MULTIPLY,
    BW_SPLIT,
    BW_WIDE,
    BW_KEEP,      /* kept[slot] = x, */
    BW_AGAIN,     /* x = kept[slot]: a tensor once more, for its second reader */
    BW_ADD_PLANE, /* x = clamp(x + plane, int16) */
    BW_STORE      /* plane = x - zero, with its halo, where the plane has int16; plane = x where it has int32 */
} bw_action;

/* How a requantise is computed where x is narrow (finish.h). */
typedef enum { BW_NEVER, BW_AS_PRODUCT, BW_AS_SUM, BW_AS_FRACTION } bw_narrow;

/* The factor f by which (multiplier * x + 2^(shift - 1)) >> shift is (f * x + 2^14) >> 15, if there is one; else something
 * else. shift: 1 to 31; multiplier: int16. */
static inline int32_t bw_fraction(int32_t multiplier, int32_t shift) {
    return shift > 15 ? multiplier / (1 << (shift - 15)) : multiplier * (1 << (15 - shift));
}

/* How a plane is fetched ahead. */
typedef enum { BW_NOT_AHEAD, BW_TO_READ, BW_TO_STORE } bw_ahead;

#define BW_MAX_KEPT 4

typedef struct {
    bw_action action;
    int32_t shift, low, high;
    int32_t split;                      /* BW_SPLIT: bits of the lower half */
    bw_ahead prefetch;                  /* where the plane is more than the nearer caches hold */
    int32_t slot;                       /* BW_KEEP, BW_AGAIN: below BW_MAX_KEPT */
    int32_t stays;                      /* BW_KEEP, BW_AGAIN: x if it is narrow, for what comes between leaves it so */
    bw_narrow narrow;                   /* requantise: what does for every x that is int16 */
    int32_t to_codes;                   /* requantise: to 0..255, what follows stores them as bytes, no lane of them is */
                                        /* outside the picture, and nothing else needs them */
    const int32_t *multiplier, *offset; /* (channels) */
    const int32_t *zero;                /* (channels) for the codes that a convolution reads; NULL for 0 */
    const bw_plane *plane;
} bw_instruction;

typedef struct {
    const bw_instruction *instructions;
    int32_t count;
} bw_program;

/* ------------------------------------------------------------------ steps */

#define BW_MAX_TILE 4    /* vectors of a tile */
#define BW_MAX_GROUP 5   /* channels that share a table: 2^5 sums */
#define BW_HALVED_GROUP 6 /* channels that share half a table: 2^5 of 2^6 sums, the others are their negatives */
#define BW_MAX_HALVED 2048 /* channels: beyond it, what negatives owe (bw_index_form) could crowd int16 sums */
#define BW_MAX_TAPS 12   /* lookups for one index: 12 * 5 bits in a 64-bit word */
#define BW_INDEX_SLACK 8 /* bytes that may be read past the last index */

/* How 1-bit weights become indices. For a group of channels and each of their positions there is a table of all sums of
 * +-x; a weight's sign is a bit of the index. A set of groups is looked up together: one group under a window of
 * several taps, several groups under a window of one. Its lookups, (groups * window * window), are cut into chunks;
 * index (set, chunk, output) holds the chunk's lookups, `group` bits each, the first lowest.
 *
 * A group of BW_HALVED_GROUP (only under a window of 3, on kernel sets that have it) keeps the entries whose highest bit
 * is 0. Where it is 1, the other bits are inverted, and the sum is the entry's negative; kernels take its complement,
 * which is 1 less, and start the sums of an output at the number of its negatives (`owed`). */
typedef struct {
    int32_t channels, outputs, window;
    int32_t group;       /* channels of a group: 4, 5 or BW_HALVED_GROUP; the last group may have fewer */
    int32_t set_groups;  /* groups of a set; the last set may have fewer */
    int32_t sets;
    int32_t chunks;      /* of a set */
    int32_t chunk_taps;  /* lookups of a chunk; the last may have fewer */
    int32_t index_bytes; /* of one index, little-endian, at most 8 */
} bw_index_form;

/* Bits of an index into a table. */
static inline int32_t bw_index_bits(const bw_index_form *form) {
    return form->group == BW_HALVED_GROUP ? form->group - 1 : form->group;
}

/* Bytes from a table to the next: one vector of int16 more than it has, for lookups in both halves of cache lines by turns
 * (lookup.h). */
static inline size_t bw_table_step(const bw_index_form *form) {
    const size_t vector = 2 * BW_LANES;
    return (vector << bw_index_bits(form)) + vector;
}

typedef enum { BW_TILE_1X1, BW_TILE_2X2, BW_TILE_4X1 } bw_tile;

static inline int32_t bw_tile_rows(bw_tile tile) { return tile == BW_TILE_1X1 ? 1 : tile == BW_TILE_2X2 ? 2 : 4; }
static inline int32_t bw_tile_columns(bw_tile tile) { return tile == BW_TILE_2X2 ? 2 : 1; }

/* A convolution's work: item number = (tile row * strips + strip) * parts + part. Of a lookup's item, threads may share the
 * sets: each adds up those that it takes in sums of its own (bw_sets), and the program gets the total (bw_totals). */
typedef struct {
    int32_t tile_rows, strips, parts;
    int32_t strip_tiles;  /* tiles along x of a strip; the last may have fewer */
    int32_t part_outputs; /* output channels of a part; the last may have fewer */
} bw_cut;

typedef struct {
    const bw_plane *input;
    int32_t output_height, output_width; /* vectors of a block of the result */
    int32_t stride, top, left;
    bw_tile tile;
    bw_cut cut;
    bw_index_form form;
    const uint8_t *indices;
    const int16_t *owed;                /* (outputs): where an output's sums start; NULL for 0 */
    int16_t most_owed;                  /* of them */
    int32_t groups_at_once;             /* 1 or 2; 1 where bw_most_groups says so */
    int32_t table_positions;            /* tables that a tile needs at once */
    bw_program program;
} bw_lookup;

typedef struct {
    const bw_plane *input;
    int32_t output_height, output_width, stride, top, left, window, channels, outputs;
    bw_cut cut;             /* tiles of 1x1 */
    const int16_t *weights; /* (outputs, window * window, channels rounded up to 2) */
    bw_program program;
} bw_direct;

typedef struct {
    const bw_plane *input; /* int16 */
    int32_t kind;          /* bw_pool_kind */
    int32_t top, left, channels, output_height, output_width;
    const int16_t *row_inside, *column_inside; /* (3, output_height, BW_LANES), (3, output_width, BW_LANES): -1 where the */
                                               /* window's row or column lies in the picture, else 0 */
    const float *reciprocal; /* means: (output_height, output_width, BW_LANES) 1 / how many values, of 1 to 9 */
    bw_program program;
} bw_pool;

typedef struct {
    const bw_plane *input;
    const int32_t *zero; /* (channels) to add to what the plane holds, or NULL */
    bw_program program;
} bw_map;

/* Any values in any order: from pictures as they come, or from a plane of another layout. */
typedef struct {
    const bw_plane *input; /* NULL: the pictures */
    int32_t channels;
    size_t channel_stride; /* values */
    int32_t vectors, columns; /* of a block of the result, and in a row of it */
    const int32_t *from;   /* (vectors, BW_LANES): where in the first channel's values, or -1 for 0 */
    const uint8_t *picture; /* (BW_LANES): which of the pictures run together */
    size_t picture_stride;  /* values, where the input is the pictures */
    bw_program program;
} bw_gather;

/* Sums over all positions: of sums, or of codes and then a 1x1 convolution, which commutes with the sum. */
typedef struct {
    const bw_plane *input;
    const uint8_t *bits;    /* 1-bit weights (outputs, channels rounded up to 4) in nibbles, 1 is +1; or NULL */
    const int8_t *weights;  /* 8-bit weights (outputs, channels); or NULL: no convolution */
    int32_t outputs;
    bw_program program;
} bw_sum;

/* Sets from <= k < to of a lookup's item, added to what stands at `sums`, or, where they start it, in its place. */
typedef struct {
    int32_t item, from, to;
    char *sums; /* bw_sums_bytes, at a multiple of BW_ALIGNMENT */
    int starts;
    int shared; /* whether other threads do other sets, or the same of other items */
} bw_sets;

/* Output channels from <= k < to of an item's part: the program gets the total of their sums, of all sets. What stands at
 * `sums` is worked in: these outputs are done once. */
typedef struct {
    int32_t item, from, to;
    char *const *sums; /* (count) */
    int32_t count;
} bw_totals;

/* ------------------------------------------------------------------ running */

typedef enum { BW_TABLES, BW_LOOKUPS, BW_SPILLS, BW_FINISHING, BW_PARTS } bw_part;

/* What a thread works with. */
typedef struct {
    char *arena;     /* the planes */
    char *scratch;   /* of this thread: a lookup's tables, a sum's totals */
    const uint8_t *pixels;
    int32_t pictures; /* run together, at most grid.pictures */
    double *seconds; /* (BW_PARTS) to add to, or NULL */
    double reading;  /* seconds that bw_seconds itself takes: not to be added */
} bw_context;

typedef struct {
    const char *name;
    int32_t has_halved; /* lookups of groups of BW_HALVED_GROUP */
    int32_t groups_at_once; /* at most, where they may be two (bw_most_groups) */
    void (*lookup)(const bw_lookup *step, const bw_context *context, const bw_sets *sets);
    void (*finish)(const bw_lookup *step, const bw_context *context, const bw_totals *totals);
    void (*direct)(const bw_direct *step, const bw_context *context, int32_t item);
    void (*pool)(const bw_pool *step, const bw_context *context, int32_t channel);
    void (*map)(const bw_map *step, const bw_context *context, int32_t channel);
    void (*gather)(const bw_gather *step, const bw_context *context, int32_t channel);
    void (*sum)(const bw_sum *step, const bw_context *context);
} bw_kernels;

/* Bytes of the tables that looking up takes, of an item's sums, and of the totals of a sum: multiples of BW_ALIGNMENT. */
size_t bw_tables_bytes(const bw_lookup *step);
size_t bw_sums_bytes(const bw_lookup *step);
size_t bw_totals_bytes(const bw_sum *step);

#define BW_KERNEL_SET(name, condition, late) extern const bw_kernels bw_kernels_##name;
#include "kernels.inc"
#undef BW_KERNEL_SET

/* The kernel set of that name, or the best where it is NULL; NULL where there is none that this processor can run. */
const bw_kernels *bw_find_kernels(const char *name);

double bw_seconds(void); /* of a clock that only moves forward */
double bw_seconds_of_reading(void); /* that bw_seconds takes now, the mean of many times */

#endif
