/* Cases: a network, pictures, and the logits that the reference gives for them. */
#ifndef BW_CASE_H
#define BW_CASE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A file is any number of cases; each is 48 bytes of name, padded with 0, then four uint32, then three arrays:
 *
 *     network bytes N, pictures P, bytes of a picture B, classes C;  N bytes, P * B bytes, P * C int32
 *
 * All little-endian, as the machines are that run the tests. */
typedef struct {
    char name[48];
    uint32_t network_bytes, pictures, picture_bytes, classes;
    unsigned char *network, *pixels;
    int32_t *logits;
} bw_case;

/* The next case of the file; returns 0 at its end. A broken file ends the program. */
int bw_next_case(FILE *file, const char *path, bw_case *next);
void bw_free_case(bw_case *done);

#endif
