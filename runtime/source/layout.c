#include "layout.h"

#include <string.h>

static int32_t floor_div(int32_t a, int32_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

int bw_locate(const bw_plane *plane, int32_t y, int32_t x, int32_t lane, int32_t *picture, int32_t *row,
              int32_t *column) {
    const bw_grid *grid = &plane->grid;
    *picture = lane / (grid->rows * grid->columns);
    *row = lane / grid->columns % grid->rows * plane->block_height + y;
    *column = lane % grid->columns * plane->block_width + x;
    return *row < plane->height && *column < plane->width;
}

/* The shuffle that brings every block the values of the block `down` rows and `across` columns away. */
static void make_shuffle(bw_shuffle *shuffle, const bw_grid *grid, int32_t down, int32_t across) {
    for (int32_t lane = 0; lane < BW_LANES; lane++) {
        const int32_t row = lane / grid->columns % grid->rows + down, column = lane % grid->columns + across;
        const int inside = row >= 0 && row < grid->rows && column >= 0 && column < grid->columns;
        const int32_t source = lane + down * grid->columns + across;
        shuffle->source[lane] = (uint8_t)(inside ? source : BW_OUTSIDE);
        for (int32_t half = 0; half < 2; half++) {
            const int32_t byte = 2 * source + half, to = 2 * lane + half;
            const int same = byte / BW_LANES == to / BW_LANES;
            shuffle->own[to] = (uint8_t)(inside && same ? byte % BW_LANES : 0x80);
            shuffle->other[to] = (uint8_t)(inside && !same ? byte % BW_LANES : 0x80);
        }
    }
}

static int make_masks(bw_heap *heap, bw_plane *plane) {
    const bw_grid *grid = &plane->grid;
    if (grid->rows * plane->block_height == plane->height && grid->columns * plane->block_width == plane->width) return 1;
    int16_t *rows = bw_take(heap, (size_t)plane->block_height * BW_LANES, sizeof *rows);
    int16_t *columns = bw_take(heap, (size_t)plane->block_width * BW_LANES, sizeof *columns);
    if (rows == NULL || columns == NULL) return 0;
    for (int32_t lane = 0; lane < BW_LANES; lane++) {
        const int32_t row = lane / grid->columns % grid->rows, column = lane % grid->columns;
        for (int32_t y = 0; y < plane->block_height; y++)
            rows[y * BW_LANES + lane] = row * plane->block_height + y < plane->height ? -1 : 0;
        for (int32_t x = 0; x < plane->block_width; x++)
            columns[x * BW_LANES + lane] = column * plane->block_width + x < plane->width ? -1 : 0;
    }
    plane->row_mask = rows;
    plane->column_mask = columns;
    return 1;
}

static int make_halo(bw_heap *heap, bw_plane *plane) {
    const int32_t height = plane->block_height, width = plane->block_width;
    /* How many blocks away the halo reaches, on each side. */
    const int32_t up = floor_div(-plane->top, height), down = floor_div(height + plane->bottom - 1, height);
    const int32_t west = floor_div(-plane->left, width), east = floor_div(width + plane->right - 1, width);
    const int32_t across = east - west + 1;
    const size_t all = (size_t)(plane->top + height + plane->bottom) * plane->channel_stride;
    bw_shuffle *shuffles = bw_take(heap, (size_t)(down - up + 1) * (size_t)across, sizeof *shuffles);
    bw_halo *halos = bw_take(heap, all - (size_t)height * (size_t)width, sizeof *halos);
    int32_t *first = bw_take(heap, (size_t)height * (size_t)width + 1, sizeof *first);
    if (shuffles == NULL || halos == NULL || first == NULL) return 0;
    for (int32_t y = up; y <= down; y++)
        for (int32_t x = west; x <= east; x++) make_shuffle(&shuffles[(y - up) * across + x - west], &plane->grid, y, x);
    const ptrdiff_t vector = (ptrdiff_t)(BW_LANES * plane->bytes);
    int32_t count = 0;
    for (int32_t y = 0; y < height; y++)
        for (int32_t x = 0; x < width; x++) {
            first[y * width + x] = count;
            for (int32_t v = up; v <= down; v++)
                for (int32_t u = west; u <= east; u++) {
                    const int32_t row = v * height + y, column = u * width + x;
                    if ((v == 0 && u == 0) || row < -plane->top || row >= height + plane->bottom) continue;
                    if (column < -plane->left || column >= width + plane->right) continue;
                    halos[count].target = bw_step(plane, row, column) * vector;
                    halos[count].source = bw_step(plane, y, x) * vector;
                    halos[count++].shuffle = &shuffles[(v - up) * across + u - west];
                }
        }
    first[height * width] = count;
    plane->halos = halos;
    plane->first_halo = first;
    return 1;
}

int bw_lay_out(bw_heap *heap, bw_plane *plane) {
    plane->channel_stride = (size_t)(plane->left + plane->block_width + plane->right);
    plane->row_stride = (size_t)plane->channels * plane->channel_stride;
    plane->row_mask = plane->column_mask = NULL;
    return make_masks(heap, plane) && make_halo(heap, plane);
}
