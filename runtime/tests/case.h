/* Cases: a network, pictures, and what the reference makes of them. */
#ifndef BW_CASE_H
#define BW_CASE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A file is any number of cases; each is 64 bytes of name, padded with 0, then five uint32, then arrays:
 *
 *     network bytes N, pictures P, bytes of a picture B, classes C, values of all nodes' results for one picture V
 *     N bytes; P * B bytes; P * C int32: logits; V * P int32: the results, node by node, each (P, channels, height, width)
 *
 * V is 0 where only the logits are given. All little-endian, as the machines are that run the tests. */
typedef struct {
    char name[64];
    uint32_t network_bytes, pictures, picture_bytes, classes, values;
    unsigned char *network, *pixels;
    int32_t *logits, *results;
} bw_case;

/* The next case of the file; returns 0 at its end. A broken file ends the program. */
int bw_next_case(FILE *file, const char *path, bw_case *next);
void bw_free_case(bw_case *done);

#endif
