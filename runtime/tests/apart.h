/* Plans run with every plane between guard pages, in forms that the planner would not choose by itself. */
#ifndef BW_APART_H
#define BW_APART_H

#include "case.h"
#include "network.h"

/* Lookup kernels that have run: [window is 3][stride - 1][tile][group - 4][groups at once - 1]. */
typedef struct {
    int seen[2][2][3][3][2];
} bw_variants;

/* Run the pictures of a case in every number of pictures together, in every tile that fits, under several cuts, shared by
 * one to three threads in any way, with planes and scratch full of rubbish. Returns whether the logits were always those expected and
 * nothing beside the planes was touched; says where not. */
int bw_run_apart(const bitwren_network *network, const bw_case *from, bw_variants *variants);

#endif
