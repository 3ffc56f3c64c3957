"""Cases for the agreement program (runtime/tests/case.h): a network, pictures, and what the reference makes of them."""

import struct

import numpy as np

from bitwren.network import reference
from bitwren.network.graph import PIXELS
from bitwren.network.pack import encode

MOST_VALUES = 400_000  # of all results and pictures that a case holds; beyond it only the logits


def case(name, network, pictures):
    """Return the bytes of a case."""
    values = reference.run_all(network, pictures)
    logits = values[network.logits][:, :, 0, 0]
    each = sum(value[0].size for key, value in values.items() if key != PIXELS)
    if each * len(pictures) > MOST_VALUES:
        each = 0
    content, picture = encode(network), pictures[0].size if len(pictures) else 0
    head = struct.pack("<64s5I", name.encode()[:63], len(content), len(pictures), picture, logits.shape[1], each)
    arrays = [values[node.name] for node in network.nodes] if each else []
    return b"".join([head, content, pictures.tobytes(), *(a.astype("<i4").tobytes() for a in [logits, *arrays])])


def pictures_for(network, count, seed):
    """Return `count` pictures, uint8 (count, C, H, W): all 0, all 255, then random ones, dark, bright and any."""
    rng = np.random.default_rng(seed)
    shape = network.tensors[PIXELS].shape
    made = rng.integers(0, 256, (count, *shape))
    for k in range(count):
        made[k] = [0, 255, made[k], made[k] % 8, 255 - made[k] % 8, made[k]][k % 6]
    return made.astype(np.uint8)


def write_cases(path, cases):
    """Write (name, network, pictures) to a file of cases."""
    path.write_bytes(b"".join(case(*one) for one in cases))
    return path
