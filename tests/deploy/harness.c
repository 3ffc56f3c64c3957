/* Classifies pictures from standard input, by rows and whole, in an arena of exactly the bytes that the header states. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "network.h"

int main(void)
{
    const size_t row = NETWORK_WIDTH * NETWORK_CHANNELS;
    uint8_t *const picture = malloc(NETWORK_HEIGHT * row);
    void *const arena = malloc(NETWORK_ARENA_BYTES);

    if (picture == NULL || arena == NULL) {
        return 1;
    }
    while (fread(picture, 1, NETWORK_HEIGHT * row, stdin) == NETWORK_HEIGHT * row) {
        int32_t whole[NETWORK_CLASSES];
        int32_t scores[NETWORK_CLASSES];
        unsigned y;

        memset(arena, 0x5A, NETWORK_ARENA_BYTES);
        network_classify(arena, picture, whole);
        memset(arena, 0xFF, NETWORK_ARENA_BYTES);
        network_begin(arena);
        for (y = 0; y != NETWORK_HEIGHT; y++) {
            uint8_t *const one = malloc(row); /* a row and no byte more */

            if (one == NULL) {
                return 1;
            }
            memcpy(one, picture + y * row, row);
            network_row(arena, one);
            free(one);
        }
        network_end(arena, scores);
        if (memcmp(whole, scores, sizeof scores) != 0) {
            return 2;
        }
        if (fwrite(scores, sizeof scores, 1, stdout) != 1) {
            return 1;
        }
    }
    free(picture);
    free(arena);
    return 0;
}
