/* Name what is in a picture: classify MODEL.bwn PICTURE, a binary PPM (colour) or PGM (grey) of the network's size.
 *
 *     cc classify.c $(pkg-config --cflags --libs bitwren) -lm -o classify
 */
#include <bitwren.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void fail(const char *what, const char *why) {
    fprintf(stderr, "classify: %s%s%s\n", what, why[0] != 0 ? ": " : "", why);
    exit(1);
}

/* Pixels, uint8 (channels, height, width), of a PPM or PGM; such files hold the channels of a pixel together. */
static uint8_t *read_picture(const char *path, bitwren_facts network) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail(path, "cannot be opened");
    char kind = 0;
    int width = 0, height = 0, most = 0;
    if (fscanf(file, "P%c %d %d %d", &kind, &width, &height, &most) != 4 || (kind != '5' && kind != '6') || most != 255)
        fail(path, "no binary PPM or PGM of 8 bits");
    const int channels = kind == '6' ? 3 : 1;
    if (channels != network.channels || height != network.height || width != network.width) fail(path, "of another size");
    fgetc(file); /* the one blank before the pixels */
    const size_t plane = (size_t)height * (size_t)width, bytes = plane * (size_t)channels;
    uint8_t *pixels = malloc(bytes);
    if (pixels == NULL) fail(path, "out of memory");
    for (size_t k = 0; k < bytes; k++) {
        const int value = fgetc(file);
        if (value == EOF) fail(path, "ends too early");
        pixels[k % (size_t)channels * plane + k / (size_t)channels] = (uint8_t)value;
    }
    fclose(file);
    return pixels;
}

int main(int count, char **words) {
    if (count != 3) fail("usage", "classify MODEL.bwn PICTURE.ppm");
    bitwren_network *network;
    bitwren_runner *runner;
    bitwren_error error;
    if (bitwren_open_file(words[1], NULL, &network, &error) != BITWREN_OK) fail(error.message, "");
    if (bitwren_start(network, NULL, &runner, &error) != BITWREN_OK) fail(error.message, "");
    const bitwren_facts facts = bitwren_facts_of(network);
    uint8_t *pixels = read_picture(words[2], facts);
    int32_t *logits = calloc((size_t)facts.classes, sizeof *logits), best = INT32_MIN;
    if (logits == NULL) fail("logits", "out of memory");
    if (bitwren_run(runner, pixels, 1, logits, &error) != BITWREN_OK) fail(error.message, "");
    double sum = 0;
    for (int32_t c = 0; c < facts.classes; c++) best = logits[c] > best ? logits[c] : best;
    for (int32_t c = 0; c < facts.classes; c++) sum += exp(((double)logits[c] - best) * facts.logit_scale);
    for (int32_t c = 0; c < facts.classes; c++)
        printf("%s %.4f\n", bitwren_class_name(network, c), exp(((double)logits[c] - best) * facts.logit_scale) / sum);
    bitwren_stop(runner);
    bitwren_close(network);
    free(pixels);
    free(logits);
}
