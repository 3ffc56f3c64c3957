/* Bitwren: runs image networks of one bit per weight, bit for bit as docs/integer-network.md defines them.
 *
 * Open a .bwn file, start a runner, run pictures, stop, close:
 *
 *     bitwren_network *network;
 *     bitwren_runner *runner;
 *     bitwren_error error;
 *     if (bitwren_open_file("model.bwn", NULL, &network, &error) != BITWREN_OK) die(error.message);
 *     if (bitwren_start(network, NULL, &runner, &error) != BITWREN_OK) die(error.message);
 *     if (bitwren_run(runner, pixels, count, logits, &error) != BITWREN_OK) die(error.message);
 *     bitwren_stop(runner);
 *     bitwren_close(network);
 *
 * There is no global state. A network is read-only once it is open: any number of threads may share it, each with a
 * runner of its own. A runner belongs to one thread at a time. bitwren_run takes no memory and starts no thread.
 */
#ifndef BITWREN_H
#define BITWREN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BITWREN_VERSION "0.1.0"

#if defined(_WIN32)
#define BITWREN_API
#else
#define BITWREN_API __attribute__((visibility("default")))
#endif

typedef enum {
    BITWREN_OK = 0,
    BITWREN_BAD_FILE,     /* no .bwn file, a damaged one, or a network that the definition does not allow */
    BITWREN_BAD_ARGUMENT, /* the caller's mistake; the message names the argument */
    BITWREN_NO_MEMORY,
    BITWREN_CANNOT_READ, /* the file cannot be opened or read */
    BITWREN_NO_THREADS   /* the system gives no more threads */
} bitwren_status;

/* What went wrong. Filled where a call fails; every call takes NULL where nobody wants to know. */
typedef struct {
    bitwren_status status;
    int32_t node;      /* the layer's index in the file's list of nodes, or -1 where it is no layer's fault */
    char message[256]; /* one line of UTF-8, ends with 0: what, the value got, the value expected */
} bitwren_error;

/* Where memory comes from. allocate returns bytes at a multiple of 64, or NULL; release gets the same number of bytes.
 * Called only by open, start, stop and close, never by run. Both are called from the caller's thread. */
typedef struct {
    void *(*allocate)(void *context, size_t bytes);
    void (*release)(void *context, void *memory, size_t bytes);
    void *context;
} bitwren_memory;

typedef struct {
    const char *kernels;          /* a name of bitwren_kernels, or NULL: $BITWREN_KERNELS, or else the best there is */
    const bitwren_memory *memory; /* or NULL: the C library's */
} bitwren_open_options;

typedef struct {
    int32_t threads; /* 1 or more, the caller's own included; 0: one for each core that this process may use */
    int32_t batch;   /* pictures that a call of bitwren_run usually brings; 0 is 1. Any count runs; this plans for it */
    int32_t profile; /* not 0: measure each step of each run (bitwren_step_of) */
} bitwren_start_options;

typedef struct bitwren_network bitwren_network;
typedef struct bitwren_runner bitwren_runner;

/* The kernel sets of this build that this processor can run, best first: name of number `index`, or NULL past the end. */
BITWREN_API const char *bitwren_kernels(size_t index);

/* Open a network from the bytes of a .bwn file. They may be freed afterwards. options may be NULL.
 * Refuses whatever docs/file-format.md refuses; takes at most twice the file's size while it reads. */
BITWREN_API bitwren_status bitwren_open(const void *file, size_t bytes, const bitwren_open_options *options,
                                        bitwren_network **network, bitwren_error *error);
BITWREN_API bitwren_status bitwren_open_file(const char *path, const bitwren_open_options *options,
                                             bitwren_network **network, bitwren_error *error);
/* All its runners must have been stopped. NULL is allowed. */
BITWREN_API void bitwren_close(bitwren_network *network);

/* What the network reads and answers. */
typedef struct {
    int32_t channels, height, width; /* of a picture: uint8, channel by channel, row by row */
    int32_t classes;                 /* logits: int32, the class of the largest is the answer, the first of equals */
    double logit_scale;              /* real logit = logit * logit_scale; softmax of that gives probabilities */
    const char *kernels;             /* the kernel set in use */
    size_t bytes;                    /* memory that the network holds */
} bitwren_facts;
BITWREN_API bitwren_facts bitwren_facts_of(const bitwren_network *network);

/* Name of a class, UTF-8, or NULL where there is none of that number. */
BITWREN_API const char *bitwren_class_name(const bitwren_network *network, int32_t index);

/* Take the working memory for pictures to come, and start the threads. options may be NULL. */
BITWREN_API bitwren_status bitwren_start(const bitwren_network *network, const bitwren_start_options *options,
                                         bitwren_runner **runner, bitwren_error *error);
/* NULL is allowed. */
BITWREN_API void bitwren_stop(bitwren_runner *runner);

/* pixels: uint8 (count, channels, height, width). logits: int32 (count, classes), written.
 * The same integers for any count, kernel set and number of threads. */
BITWREN_API bitwren_status bitwren_run(bitwren_runner *runner, const uint8_t *pixels, size_t count, int32_t *logits,
                                       bitwren_error *error);

/* One step of the plan that a runner follows: for a reader, a table, a profile. */
typedef struct {
    const char *layers;  /* the nodes that the step computes, "block1.conv1+block1.act2" */
    const char *kernel;  /* "lookup 3x3", "pool", ... */
    const char *choice;  /* how it is laid out, "groups of 5, tile 2x2, 16x1 lanes" */
    int64_t macs;        /* additions and subtractions (or products) of weights for one picture */
    double seconds;      /* spent by all threads together since the start, where options.profile was set */
    double parts[4];     /* of these: tables, lookups, spills, finishing (requantise, add, halo) */
} bitwren_step;

typedef struct {
    size_t steps, bytes; /* of the plan; of working memory */
    int32_t threads, lanes_per_picture;
    uint64_t pictures;   /* run so far */
} bitwren_runner_facts;
BITWREN_API bitwren_runner_facts bitwren_runner_facts_of(const bitwren_runner *runner);
/* index below facts.steps. The strings live as long as the runner. */
BITWREN_API bitwren_step bitwren_step_of(const bitwren_runner *runner, size_t index);

#ifdef __cplusplus
}
#endif
#endif
