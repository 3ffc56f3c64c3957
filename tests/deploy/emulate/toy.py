"""Firmware small enough to be written by hand: two logits, the sum of 16 pixels less 100 and its negative."""

import os
import shutil

import numpy as np
import pytest
from network.examples import conv, network

from bitwren.deploy.emulate.cores import CORES, PACKAGES
from bitwren.network.graph import PIXELS, Sum

NETWORK = network(
    (1, 4, 4), conv("c", PIXELS, np.array([1, -1]).reshape(2, 1, 1, 1)), Sum("s", "c"), zero=100, classes=2
)

HEADER = """
#include <stdint.h>
#define NETWORK_CHANNELS 1
#define NETWORK_HEIGHT 4
#define NETWORK_WIDTH 4
#define NETWORK_CLASSES 2
#define NETWORK_ARENA_BYTES 18
#define NETWORK_ARENA_ALIGN 4
#define NETWORK_STACK_BYTES 64
void network_classify(void *arena, const uint8_t *pixels, int32_t *scores);
void network_begin(void *arena);
void network_row(void *arena, const uint8_t *row);
void network_end(void *arena, int32_t *scores);
int network_selftest(void *arena);
"""

SOURCE = """
#include "network.h"

void network_begin(void *arena)
{
    *(int32_t *)arena = 0;
}

void network_row(void *arena, const uint8_t *row)
{
    int32_t *sum = arena;
    for (int x = 0; x < NETWORK_WIDTH; ++x)
        *sum += row[x] - 100;
}

void network_end(void *arena, int32_t *scores)
{
    scores[0] = *(int32_t *)arena;
    scores[1] = -scores[0];
}

void network_classify(void *arena, const uint8_t *pixels, int32_t *scores)
{
    network_begin(arena);
    for (int y = 0; y < NETWORK_HEIGHT; ++y)
        network_row(arena, pixels + 4 * y);
    network_end(arena, scores);
}

#ifdef NETWORK_SELFTEST
int network_selftest(void *arena)
{
    static const uint8_t black[16];
    int32_t scores[2];
    network_classify(arena, black, scores);
    return scores[0] != -1600;
}
#endif
"""


def sources(source=SOURCE, header=HEADER, **changes):
    """Return network.h and network.c; changes: what to put in the place of a piece of either, by what=(old, new)."""
    for old, new in changes.values():
        assert old in source or old in header, old
        source, header = source.replace(old, new), header.replace(old, new)
    return {"network.h": header.encode(), "network.c": source.encode()}


def need(core):
    """Skip, saying so, where the compiler or the emulator of a core is missing; on a CI machine fail."""
    core = CORES[core]
    programs = [f"{core.tools}gcc", f"{core.tools}objdump", *(machine.emulator for machine in core.machines)]
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        message = f"{missing[0]} is not installed (package {PACKAGES[missing[0]]})"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    return core


def pixels(count, seed):
    """Return random pictures for the toy, uint8 (count, 1, 4, 4)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
