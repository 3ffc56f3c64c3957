/* How a tensor lies in memory: pixels in the lanes of a vector.
 *
 * A vector holds BW_LANES values of one channel, uint8, int16 or int32, one from each block of the picture. The blocks form a
 * grid (several pictures, where pictures are so small that one would not fill the lanes):
 *
 *     lane = (picture * grid_rows + block row) * grid_columns + block column
 *
 * and vector (y, x) of a channel holds position (y, x) of every block. So a step of one pixel is a step to another
 * vector, never an unaligned load. Around the block's vectors lie those that a window reads beyond it, the halo: each is
 * an inner vector with its lanes moved to the neighbouring block, and 0 where that is outside the picture.
 *
 * Vectors follow each other row by row, and within a row channel by channel. So threads that share a picture by its rows
 * share few lines of memory, and what a processor fetches ahead of a thread is mostly that thread's own.
 */
#ifndef BW_LAYOUT_H
#define BW_LAYOUT_H

#include "memory.h"

#define BW_LANES 16

typedef struct {
    int32_t pictures, rows, columns; /* product BW_LANES */
} bw_grid;

/* Moves the lanes of a vector: lane l of the result is lane source[l], or 0 where that is BW_OUTSIDE. */
#define BW_OUTSIDE 0xFF
typedef struct {
    uint8_t source[BW_LANES];
    /* The same for the bytes of int16: where byte b of the result comes from within its own 16 bytes, and within the other
     * 16, as byte shuffles want it: 0x80 makes a 0. */
    uint8_t own[2 * BW_LANES], other[2 * BW_LANES];
} bw_shuffle;

typedef struct {
    ptrdiff_t target, source; /* halo vector, and the inner one that it is made of: in bytes from the first inner one */
    const bw_shuffle *shuffle;
} bw_halo;

/* A tensor's place. Vector (y, x) of channel c is number (y + top) * row_stride + c * channel_stride + x + left. */
typedef struct {
    int32_t channels, height, width; /* of the tensor */
    bw_grid grid;
    int32_t block_height, block_width;   /* vectors; grid.rows * block_height >= height, columns likewise */
    int32_t top, left, bottom, right;    /* halo, vectors */
    size_t row_stride, channel_stride;   /* vectors */
    size_t bytes;                        /* of a value: 1, 2 or 4 */
    int32_t zero;                        /* bytes 1: codes of 0..255, stored as code - zero modulo 256, so that 0 is real zero */
    size_t offset;                       /* of the first vector in the arena, bytes */
    const bw_halo *halos;                /* of all inner vectors, grouped by vector, row after row */
    const int32_t *first_halo;           /* (block_height * block_width + 1): where each group starts */
    const int16_t *row_mask, *column_mask; /* (block_height, BW_LANES), (block_width, BW_LANES): -1 inside the picture, */
                                           /* else 0; NULL where every lane of every vector is inside */
} bw_plane;

static inline size_t bw_plane_bytes(const bw_plane *plane) {
    return (size_t)(plane->top + plane->block_height + plane->bottom) * plane->row_stride * BW_LANES * plane->bytes;
}

/* Number of the first inner vector of a channel, and of inner vector (y, x) from there. */
static inline size_t bw_inner(const bw_plane *plane, int32_t channel) {
    return (size_t)channel * plane->channel_stride + (size_t)plane->top * plane->row_stride + (size_t)plane->left;
}

static inline ptrdiff_t bw_step(const bw_plane *plane, int32_t y, int32_t x) {
    return (ptrdiff_t)y * (ptrdiff_t)plane->row_stride + x;
}

/* Fill in strides, halo, shuffles and masks of a plane whose other fields are set. Returns 0 for want of memory. */
int bw_lay_out(bw_heap *heap, bw_plane *plane);

/* Where lane `lane` of inner vector (y, x) lies in a tensor (pictures, channels, height, width), for channel 0: picture,
 * row and column; returns 0 where that is outside the picture. */
int bw_locate(const bw_plane *plane, int32_t y, int32_t x, int32_t lane, int32_t *picture, int32_t *row,
              int32_t *column);

#endif
