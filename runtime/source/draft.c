/* The draft of a plan: which nodes make a step, in which blocks, and which planes lie between steps.
 *
 * A step begins with a node that moves values between positions or channels (conv, pool, sum), or with one that could
 * not be joined to a step before it. Elementwise nodes that read its result and otherwise only what is there already
 * are joined to it, one after another. A tensor gets a plane for each form in which a later step reads it.
 */
#include "plan.h"

#include <string.h>

bw_sliding bw_sliding_of(const bitwren_network *network, int32_t number) {
    const bw_node *node = &network->graph.nodes[number];
    const bw_tensor *in = bw_input(&network->graph, node, 0);
    bw_sliding s = {0, node->result.channels, 1, 1, in->height, in->width, node->result.height, node->result.width, 0, 1};
    if (node->op == BW_CONV || node->op == BW_POOL) {
        s.window = node->window;
        s.stride = node->stride;
    }
    if (node->op == BW_CONV) {
        s.channels = in->channels;
        if (network->packed[number].method == BW_BY_LOOKUP) {
            s.group = network->packed[number].form.group;
            s.sets = network->packed[number].form.sets;
        }
    }
    return s;
}

static int same_blocks(const bw_blocks *a, const bw_blocks *b) {
    return a->grid.rows == b->grid.rows && a->grid.columns == b->grid.columns && a->block_height == b->block_height &&
           a->block_width == b->block_width;
}

static const bw_tensor *tensor_of(const bitwren_network *network, int32_t tensor) {
    return tensor == BW_PIXELS ? &network->graph.pixels : &network->graph.nodes[tensor].result;
}

/* ------------------------------------------------------------------ steps and planes */

static bw_draft_step *new_step(bw_draft *draft, bw_step_kind kind, int32_t base, int32_t input, bw_blocks blocks) {
    bw_draft_step *step = &draft->steps[draft->step_count++];
    *step = (bw_draft_step){kind, base, BW_NO_TENSOR, input, draft->chain_count, 0, blocks};
    return step;
}

static int32_t new_plane(bw_draft *draft, int32_t tensor, int codes, bw_blocks blocks, int32_t producer, size_t bytes) {
    draft->planes[draft->plane_count] =
        (bw_draft_plane){tensor, codes, blocks, {0, 0, 0, 0}, producer, producer, bytes, 0};
    return draft->plane_count++;
}

/* A plane of the tensor in these blocks; a gather, or a load of the pictures, is put before the step to come if there is
 * none yet. */
static int32_t want_plane(const bitwren_network *network, bw_draft *draft, int32_t tensor, int codes, bw_blocks blocks) {
    for (int32_t k = 0; k < draft->plane_count; k++) {
        const bw_draft_plane *plane = &draft->planes[k];
        if (plane->tensor == tensor && plane->codes == codes && same_blocks(&plane->blocks, &blocks)) return k;
    }
    const bw_tensor *t = tensor_of(network, tensor);
    /* Of pixels each channel has its own zero. A zero point past a byte, though no code gets there, could not be told from
     * another code. */
    const int small = codes && t->zero != BW_NO_ZERO && t->high <= UINT8_MAX && t->zero <= UINT8_MAX;
    const size_t bytes = small ? 1 : codes || (t->low >= INT16_MIN && t->high <= INT16_MAX) ? 2 : 4;
    if (tensor == BW_PIXELS) {
        for (int32_t k = 0; k < draft->step_count; k++) /* another form of the pictures, loaded in these blocks already */
            if (draft->steps[k].base == BW_PIXELS && same_blocks(&draft->steps[k].blocks, &blocks))
                return new_plane(draft, tensor, codes, blocks, k, bytes);
        new_step(draft, BW_GATHER, BW_PIXELS, -1, blocks);
        return new_plane(draft, tensor, codes, blocks, draft->step_count - 1, bytes);
    }
    const int32_t home = draft->home[tensor];
    if (same_blocks(&draft->steps[home].blocks, &blocks)) return new_plane(draft, tensor, codes, blocks, home, bytes);
    const int32_t source = want_plane(network, draft, tensor, codes, draft->steps[home].blocks);
    new_step(draft, BW_GATHER, BW_NO_TENSOR, source, blocks);
    draft->planes[source].last_use = draft->step_count - 1;
    draft->cycles += 25.0 * t->channels * blocks.block_height * blocks.block_width / blocks.grid.pictures;
    return new_plane(draft, tensor, codes, blocks, draft->step_count - 1, bytes);
}

static void want_halo(bw_draft_plane *plane, const bw_node *node, const bw_blocks *result) {
    const int32_t reach[4] = {
        node->padding[0], node->padding[1],
        (result->block_height - 1) * node->stride - node->padding[0] + node->window - plane->blocks.block_height,
        (result->block_width - 1) * node->stride - node->padding[1] + node->window - plane->blocks.block_width};
    for (int side = 0; side < 4; side++)
        if (reach[side] > plane->halo[side]) plane->halo[side] = reach[side];
}

/* ------------------------------------------------------------------ programs */

static int is_there(const bw_draft *draft, int32_t tensor) { return tensor == BW_PIXELS || draft->home[tensor] >= 0; }

/* The node to join after tensor `value`, which the step in the making computes; or BW_NO_TENSOR. */
static int32_t next_in_chain(const bitwren_network *network, const bw_draft *draft, int32_t value) {
    const bw_graph *graph = &network->graph;
    for (int32_t k = value + 1; k < graph->node_count; k++) { /* BW_PIXELS + 1 is 0 */
        const bw_node *node = &graph->nodes[k];
        if (draft->home[k] >= 0) continue;
        if (node->op == BW_REQUANTISE && node->inputs[0] == value) return k;
        if (node->op != BW_ADD) continue;
        const int32_t *in = node->inputs;
        if ((in[0] == value && is_there(draft, in[1])) || (in[1] == value && is_there(draft, in[0]))) return k;
    }
    return BW_NO_TENSOR;
}

/* A tensor of the step in the making that has a second reader to join, and that reader in *node. */
static int32_t second_reader(const bitwren_network *network, const bw_draft *draft, int32_t base, int32_t count, int32_t *node) {
    for (int32_t k = -1; k < count; k++) {
        const int32_t tensor = k < 0 ? base : draft->chain[draft->chain_count + k];
        if (tensor == BW_PIXELS || draft->home[tensor] != INT32_MAX) continue;
        *node = next_in_chain(network, draft, tensor);
        if (*node != BW_NO_TENSOR) return tensor;
    }
    return BW_NO_TENSOR;
}

/* Planes that the step itself makes have no number before it has: until then they are noted as OWN(tensor). */
#define OWN(tensor) (-2 - (tensor))

/* Collect the chain of a step that is about to be made, and the planes that its adds read. */
static void collect_chain(const bitwren_network *network, bw_draft *draft, int32_t base, bw_blocks blocks, int32_t *count) {
    bw_joined *joined = draft->joined + draft->chain_count; /* grows only when the step is made */
    int32_t *chain = draft->chain + draft->chain_count, value = base, again_count = 0;
    for (*count = 0;; ++*count) {
        int32_t node = next_in_chain(network, draft, value), again = BW_NO_TENSOR;
        if (node == BW_NO_TENSOR) {
            again = again_count < BW_MAX_KEPT ? second_reader(network, draft, base, *count, &node) : BW_NO_TENSOR;
            if (again == BW_NO_TENSOR) return;
            value = again;
            again_count++;
        }
        chain[*count] = node;
        joined[*count] = (bw_joined){.added = -1, .again = again};
        draft->home[node] = INT32_MAX; /* until the step's number is known */
        const bw_node *n = &network->graph.nodes[node];
        if (n->op == BW_ADD) {
            const int32_t other = n->inputs[0] == value ? n->inputs[1] : n->inputs[0];
            const int own = other != BW_PIXELS && draft->home[other] == INT32_MAX;
            joined[*count].added = own ? OWN(other) : want_plane(network, draft, other, 0, blocks);
        }
        value = node;
    }
}

/* The plane for a note of collect_chain, now that the step has its number. */
static int32_t settle(const bitwren_network *network, bw_draft *draft, int32_t note, bw_blocks blocks) {
    const int32_t plane = note <= OWN(0) ? want_plane(network, draft, OWN(note), 0, blocks) : note;
    if (plane >= 0) draft->planes[plane].last_use = draft->step_count - 1;
    return plane;
}

/* Make the step of base tensor `base`, with everything that can be joined to it. */
static void make_step(const bitwren_network *network, bw_draft *draft, bw_step_kind kind, int32_t base, int32_t conv,
                      int32_t input, bw_blocks blocks) {
    int32_t count;
    if (kind != BW_MAP && base != BW_PIXELS) draft->home[base] = INT32_MAX;
    collect_chain(network, draft, base, blocks, &count);
    bw_draft_step *step = new_step(draft, kind, base, input, blocks);
    const int32_t number = draft->step_count - 1;
    step->conv = conv;
    step->chain_count = count;
    if (kind != BW_MAP && base != BW_PIXELS) draft->home[base] = number;
    if (input >= 0) draft->planes[input].last_use = number;
    for (int32_t k = 0; k < count; k++) draft->home[draft->chain[step->first_chain + k]] = number;
    for (int32_t k = 0; k < count; k++) {
        int32_t *added = &draft->joined[step->first_chain + k].added;
        *added = settle(network, draft, *added, blocks);
    }
    draft->chain_count += count;
}

/* ------------------------------------------------------------------ blocks */

/* Convolutions from this node on whose results have its size: how often the choice of blocks counts. */
static int32_t alike(const bw_graph *graph, int32_t number) {
    int32_t count = 0;
    for (int32_t k = number; k < graph->node_count; k++) {
        const bw_tensor *r = &graph->nodes[k].result, *mine = &graph->nodes[number].result;
        count += graph->nodes[k].op == BW_CONV && r->height == mine->height && r->width == mine->width;
    }
    return count;
}

/* The blocks of a conv's or pool's result: those of its input, divided by the stride, or better ones at the price of a
 * gather. */
static bw_blocks choose_blocks(const bitwren_network *network, bw_draft *draft, int32_t number) {
    const bw_node *node = &network->graph.nodes[number];
    const bw_sliding sliding = bw_sliding_of(network, number);
    const bw_blocks best = bw_best_blocks(&sliding, draft->pictures);
    bw_blocks chosen = best;
    if (node->inputs[0] != BW_PIXELS) {
        const bw_blocks home = draft->steps[draft->home[node->inputs[0]]].blocks;
        const bw_blocks follow = {home.grid, home.block_height / node->stride, home.block_width / node->stride};
        const int whole = home.block_height % node->stride == 0 && home.block_width % node->stride == 0;
        if (whole && bw_blocks_cover(&follow, &sliding)) {
            const double gather = 60.0 * tensor_of(network, node->inputs[0])->channels * home.block_height *
                                  home.block_width / draft->pictures;
            const double gain = bw_blocks_cycles(&follow, &sliding) - bw_blocks_cycles(&best, &sliding);
            if (node->op == BW_POOL || gain * alike(&network->graph, number) <= gather) chosen = follow;
        }
    }
    draft->cycles += bw_blocks_cycles(&chosen, &sliding);
    return chosen;
}

/* Blocks for elementwise nodes on the pictures themselves: those of the first convolution to come. */
static bw_blocks picture_blocks(const bitwren_network *network, bw_draft *draft) {
    const bw_tensor *pixels = &network->graph.pixels;
    bw_sliding s = {pixels->channels, 16, 3, 1, pixels->height, pixels->width, pixels->height, pixels->width, 4, 1};
    for (int32_t k = 0; k < network->graph.node_count; k++) {
        if (network->graph.nodes[k].op != BW_CONV) continue;
        const bw_sliding first = bw_sliding_of(network, k);
        if (first.input_height != s.input_height || first.input_width != s.input_width) continue;
        bw_blocks blocks = bw_best_blocks(&first, draft->pictures);
        blocks.block_height *= first.stride;
        blocks.block_width *= first.stride;
        return blocks;
    }
    return bw_best_blocks(&s, draft->pictures);
}

/* ------------------------------------------------------------------ the whole */

static void draft_node(const bitwren_network *network, bw_draft *draft, int32_t number) {
    const bw_node *node = &network->graph.nodes[number];
    const int32_t from = node->inputs[0];
    switch (node->op) {
    case BW_CONV:
    case BW_POOL: {
        if (node->op == BW_CONV && network->packed[number].method == BW_BY_SUM) return; /* with the sum */
        const bw_blocks blocks = choose_blocks(network, draft, number);
        bw_blocks needed = blocks;
        needed.block_height *= node->stride;
        needed.block_width *= node->stride;
        const int32_t input = want_plane(network, draft, from, node->op == BW_CONV, needed);
        want_halo(&draft->planes[input], node, &blocks);
        if (node->op == BW_POOL) make_step(network, draft, BW_POOLING, number, BW_NO_TENSOR, input, blocks);
        else
            make_step(network, draft, network->packed[number].method == BW_BY_LOOKUP ? BW_LOOKUP : BW_DIRECT, number,
                      number, input, blocks);
        return;
    }
    case BW_SUM: {
        const int with_conv = from != BW_PIXELS && network->graph.nodes[from].op == BW_CONV &&
                              network->packed[from].method == BW_BY_SUM;
        const int32_t tensor = with_conv ? network->graph.nodes[from].inputs[0] : from;
        const bw_blocks where = tensor == BW_PIXELS ? picture_blocks(network, draft) : draft->steps[draft->home[tensor]].blocks;
        const int32_t input = want_plane(network, draft, tensor, with_conv, where);
        const bw_blocks one = {{draft->pictures, BW_LANES / draft->pictures, 1}, 1, 1};
        make_step(network, draft, BW_SUMMING, number, with_conv ? from : BW_NO_TENSOR, input, one);
        return;
    }
    case BW_REQUANTISE:
    case BW_ADD: {
        /* Not joined to a step before: it starts one of its own from a plane, or from the pictures. */
        if (from == BW_PIXELS) {
            make_step(network, draft, BW_GATHER, BW_PIXELS, BW_NO_TENSOR, -1, picture_blocks(network, draft));
            return;
        }
        const bw_blocks blocks = draft->steps[draft->home[from]].blocks;
        make_step(network, draft, BW_MAP, from, BW_NO_TENSOR, want_plane(network, draft, from, 0, blocks), blocks);
        return;
    }
    }
}

int bw_make_draft(const bitwren_network *network, const bitwren_memory *memory, int32_t pictures, bw_draft *draft) {
    const int32_t nodes = network->graph.node_count;
    memset(draft, 0, sizeof *draft);
    bw_heap_open(&draft->heap, memory);
    draft->pictures = pictures;
    /* A node makes at most one step, and at most two planes for it with two gathers and their sources. */
    draft->step_room = 4 * nodes + 4;
    draft->plane_room = 8 * nodes + 8;
    draft->steps = bw_take(&draft->heap, (size_t)draft->step_room, sizeof *draft->steps);
    draft->planes = bw_take(&draft->heap, (size_t)draft->plane_room, sizeof *draft->planes);
    draft->chain = bw_take(&draft->heap, (size_t)nodes + 1, sizeof *draft->chain);
    draft->joined = bw_take(&draft->heap, (size_t)nodes + 1, sizeof *draft->joined);
    draft->home = bw_take(&draft->heap, (size_t)nodes, sizeof *draft->home);
    if (!draft->steps || !draft->planes || !draft->chain || !draft->joined || !draft->home) {
        bw_heap_close(&draft->heap);
        return 0;
    }
    for (int32_t k = 0; k < nodes; k++) draft->home[k] = -1;
    for (int32_t k = 0; k < nodes; k++)
        if (draft->home[k] < 0) draft_node(network, draft, k);
    const int32_t last = nodes - 1;
    draft->logits = want_plane(network, draft, last, 0, draft->steps[draft->home[last]].blocks);
    draft->planes[draft->logits].last_use = draft->step_count;
    return 1;
}
