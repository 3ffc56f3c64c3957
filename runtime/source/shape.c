/* How a step is laid out in lanes, tiled and cut. All by estimates; whatever is chosen, the integers are the same. */
#include "plan.h"

#define SUMS_BYTES (192 * 1024) /* int16 sums that an item keeps at hand: they should stay in the second-level cache */

#define FEW_ITEMS 4     /* for each thread: with more of them, to wait for the last one costs little */
#define MANY_SETS 4     /* for each thread: with fewer of them, to wait for the last one costs much */
#define OTHERS_SUMS 6.0 /* cycles to add a vector of sums that another thread has made */
#define SHARED_LINE 60.0 /* cycles a vector of results, where two threads write to the same cache lines */

static int32_t ceil_div(int32_t a, int32_t b) { return (a + b - 1) / b; }

int bw_blocks_cover(const bw_blocks *blocks, const bw_sliding *sliding) {
    const int32_t rows = blocks->grid.rows * blocks->block_height, columns = blocks->grid.columns * blocks->block_width;
    return rows >= sliding->height && columns >= sliding->width && rows * sliding->stride >= sliding->input_height &&
           columns * sliding->stride >= sliding->input_width;
}

static int tile_fits(const bw_blocks *blocks, bw_tile tile) {
    return blocks->block_height % bw_tile_rows(tile) == 0 && blocks->block_width % bw_tile_columns(tile) == 0;
}

/* Cycles of an item of `tiles` tiles in a row, for `outputs` channels. */
static double item_cycles(const bw_sliding *s, bw_tile tile, int32_t tiles, int32_t outputs) {
    const int32_t rows = bw_tile_rows(tile), columns = bw_tile_columns(tile), vectors = rows * columns;
    if (s->group == 0) /* products: 16 of a pair of channels for each output vector, or nothing but loads and stores */
        return tiles * (double)vectors * outputs * (4 + s->window * s->window * (s->channels + 1) / 2 * 3.0);
    const int32_t high = (rows - 1) * s->stride + s->window, wide = (columns - 1) * s->stride + s->window;
    const int32_t next = s->window == 3 ? columns * s->stride : s->window == 1 ? columns : wide; /* new columns a tile */
    const double positions = s->window == 1 ? vectors : high * (double)(wide + (tiles - 1) * next) / tiles;
    return tiles * (bw_lookup_cycles(s->channels, outputs, s->window, s->group, vectors, positions) +
                    outputs * (10 + 12.0 * vectors));
}

static double tile_cycles(const bw_blocks *blocks, const bw_sliding *sliding, bw_tile tile) {
    const int32_t rows = blocks->block_height / bw_tile_rows(tile), tiles = blocks->block_width / bw_tile_columns(tile);
    return rows * item_cycles(sliding, tile, tiles, sliding->outputs);
}

static bw_tile best_tile(const bw_blocks *blocks, const bw_sliding *sliding) {
    bw_tile best = BW_TILE_1X1;
    for (bw_tile tile = BW_TILE_2X2; tile <= BW_TILE_4X1; tile++)
        if (tile_fits(blocks, tile) && tile_cycles(blocks, sliding, tile) < tile_cycles(blocks, sliding, best)) best = tile;
    return best;
}

double bw_blocks_cycles(const bw_blocks *blocks, const bw_sliding *sliding) {
    return tile_cycles(blocks, sliding, best_tile(blocks, sliding)) / blocks->grid.pictures;
}

/* Blocks of a grid that cover the picture and are whole tiles. */
static bw_blocks blocks_for(const bw_sliding *s, bw_grid grid, bw_tile tile) {
    const int32_t height = s->height > ceil_div(s->input_height, s->stride) ? s->height : ceil_div(s->input_height, s->stride);
    const int32_t width = s->width > ceil_div(s->input_width, s->stride) ? s->width : ceil_div(s->input_width, s->stride);
    const int32_t rows = bw_tile_rows(tile), columns = bw_tile_columns(tile);
    return (bw_blocks){grid, ceil_div(ceil_div(height, grid.rows), rows) * rows,
                       ceil_div(ceil_div(width, grid.columns), columns) * columns};
}

bw_blocks bw_best_blocks(const bw_sliding *sliding, int32_t pictures) {
    bw_blocks best = {{0, 0, 0}, 0, 0};
    double least = 0;
    const int32_t lanes = BW_LANES / pictures;
    for (int32_t rows = 1; rows <= lanes; rows *= 2)
        for (bw_tile tile = BW_TILE_1X1; tile <= BW_TILE_4X1; tile++) {
            const bw_grid grid = {pictures, rows, lanes / rows};
            const bw_blocks blocks = blocks_for(sliding, grid, tile);
            /* Of equals the squarest has the smallest halo. */
            const double uneven = (double)(blocks.block_height > blocks.block_width ? blocks.block_height : blocks.block_width);
            const double cycles = bw_blocks_cycles(&blocks, sliding) * (1 + 0.002 * uneven);
            if (best.block_height == 0 || cycles < least) {
                best = blocks;
                least = cycles;
            }
        }
    return best;
}

int bw_is_shared(int32_t items, int32_t sets, int32_t threads) {
    return threads > 1 && threads <= BW_MOST_SHARING && items < FEW_ITEMS * threads &&
           (sets >= MANY_SETS * threads || items < threads);
}

/* The best cut for a tile, and its cycles from start to end. */
static bw_cut cut_for_tile(const bw_blocks *blocks, const bw_sliding *sliding, bw_tile tile, int32_t threads, double *cycles_of) {
    const int32_t rows = bw_tile_rows(tile), columns = bw_tile_columns(tile);
    const int32_t tiles = blocks->block_width / columns;
    bw_cut best = {blocks->block_height / rows, tiles, sliding->outputs, 1, 1};
    double least = -1;
    for (int32_t strip_tiles = tiles; strip_tiles >= 1; strip_tiles = strip_tiles > 1 ? ceil_div(strip_tiles, 2) : 0) {
        const int32_t strips = ceil_div(tiles, strip_tiles);
        for (int32_t parts = 1; parts <= 4 * threads && parts <= sliding->outputs; parts++) {
            const int32_t outputs = ceil_div(sliding->outputs, parts);
            const double bytes = 2.0 * BW_LANES * rows * columns * strip_tiles * outputs;
            const int32_t items = best.tile_rows * strips * parts;
            const int shared = sliding->group > 0 && bw_is_shared(items, sliding->sets, threads);
            const double waves = shared ? (double)ceil_div(sliding->sets, threads) / sliding->sets * items : ceil_div(items, threads);
            double cycles = waves * (item_cycles(sliding, tile, strip_tiles, outputs) + 200);
            if (shared) cycles += waves * (threads - 1) * OTHERS_SUMS * strip_tiles * rows * columns * outputs;
            else if (threads > 1 && strips > 1) cycles += waves * SHARED_LINE * strip_tiles * rows * columns * outputs;
            if (bytes > SUMS_BYTES) cycles *= bytes > 8.0 * SUMS_BYTES ? 2 : 1.05;
            if (least < 0 || cycles < least) {
                least = cycles;
                best.strips = strips;
                best.strip_tiles = strip_tiles;
                best.part_outputs = outputs;
                best.parts = ceil_div(sliding->outputs, outputs);
            }
        }
    }
    *cycles_of = least;
    return best;
}

bw_cut bw_best_cut(const bw_blocks *blocks, const bw_sliding *sliding, bw_tile *tile, int32_t threads) {
    double least, cycles;
    *tile = BW_TILE_1X1;
    bw_cut best = cut_for_tile(blocks, sliding, *tile, threads, &least);
    for (bw_tile other = BW_TILE_2X2; sliding->group > 0 && other <= BW_TILE_4X1; other++) {
        if (!tile_fits(blocks, other)) continue;
        const bw_cut cut = cut_for_tile(blocks, sliding, other, threads, &cycles);
        if (cycles >= least) continue;
        least = cycles;
        best = cut;
        *tile = other;
    }
    return best;
}

/* Sums of two groups, and what complements owe, fit int16 where codes are within 255 of their zero point, as in bytes:
 * 2 * 9 * 6 * 255 + 9 * ceil(2048 / 6) = 30618. Under strides of 2 their tables would leave the first-level cache. */
int32_t bw_most_groups(const bw_lookup *step, const bw_kernels *kernels) {
    const int fit = step->form.window == 3 && step->stride == 1 && step->tile != BW_TILE_1X1 && step->input->bytes == 1;
    return fit ? kernels->groups_at_once : 1;
}

int32_t bw_table_positions(const bw_lookup *step) {
    const int32_t rows = bw_tile_rows(step->tile), columns = bw_tile_columns(step->tile), window = step->form.window;
    if (window == 1) return step->form.set_groups * rows * columns;
    return step->groups_at_once * ((rows - 1) * step->stride + window) * ((columns - 1) * step->stride + window);
}

static size_t aligned(size_t bytes) { return (bytes + BW_ALIGNMENT - 1) / BW_ALIGNMENT * BW_ALIGNMENT; }

size_t bw_tables_bytes(const bw_lookup *step) {
    const size_t reach = 2 * BW_LANES;
    return aligned((size_t)step->table_positions * (bw_table_step(&step->form) + reach));
}

size_t bw_sums_bytes(const bw_lookup *step) {
    const size_t vector = 2 * BW_LANES, tiles = (size_t)step->cut.strip_tiles;
    const size_t vectors = tiles * (size_t)(bw_tile_rows(step->tile) * bw_tile_columns(step->tile));
    return aligned(vectors * vector * (1 + 3 * (size_t)step->cut.part_outputs) + tiles);
}

size_t bw_totals_bytes(const bw_sum *step) {
    const size_t channels = (size_t)step->input->channels;
    return aligned(((size_t)step->input->grid.pictures * channels + (size_t)step->outputs * BW_LANES + (channels + 3) / 4 * 16) *
                   sizeof(int32_t));
}
