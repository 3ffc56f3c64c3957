"""Ways to break a .bwn file: (random.Random, bytes, other files) -> bytes. See fuzz_bwn.py."""

import contextlib
import copy
import json
import random
import re

from bitwren.network.container import CRC_AT, MAX_HEADER, checksum

INTEGERS = [
    *(0, 1, -1, 2, 3, 7, 8, 9, 47, 48, 127, 128, 200, 201, 255, 256, 511, 512, 4095, 4096, 4097),
    *(sign * 2**k + d for k in (15, 16, 20, 31, 32, 33, 62, 63, 64, 100) for d in (-1, 0, 1) for sign in (-1, 1)),
    10**10,
    10**19,
    10**4000,
]
LITERALS = [
    *("true", "false", "null", "1.0", "0.5", "-0", "1e400", "1e5", "NaN", "-Infinity", '""', "[]", "{}", '"bits"'),
    *(r'"\ud800"', r'"\u0000"', '"' + "x" * 300 + '"', "[" * 100_000, '{"a":' * 50 + "1" + "}" * 50, '{"a":1,"a":2}'),
]
VALUES = [None, True, False, 0.0, 1.0, -1.5, 1e-320, "", "bits", "x" * 70, "é\n", [], {}, [1], [4, 1], {"version": 3}]
TOKEN = re.compile(rb'\\*"[^"\\]*\\*"|-?[0-9.]+|true|false|null|[\[\]{}:,]')
NUMBER = re.compile(rb"-?\d+")


def somewhere(rng, pattern, data):
    """Return a match of the pattern after a random place, or None."""
    return pattern.search(data, rng.randrange(CRC_AT + 8, max(len(data), CRC_AT + 9)))


def flip(rng, data, _):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def set_byte(rng, data, _):
    at = rng.randrange(len(data))
    return data[:at] + bytes([rng.choice([0, 32, 34, 44, 92, 125, 127, 128, 255, rng.randrange(256)])]) + data[at + 1 :]


def truncate(rng, data, _):
    return data[: rng.randrange(len(data))]


def extend(rng, data, _):
    return data + rng.randbytes(rng.choice([1, 2, 8, 100]))


def cut(rng, data, _):
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 40) :]


def repeat(rng, data, _):
    at, length = rng.randrange(len(data)), rng.randint(1, 200)
    return data[: at + length] + data[at:]


def splice(rng, data, files):
    other = rng.choice(files)
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def header_length(rng, data, _):
    length = int.from_bytes(data[:8], "little")
    near = [length + d for d in (-8, -1, 1, 8)]
    new = rng.choice([*near, 0, len(data) - 8, len(data), MAX_HEADER, MAX_HEADER + 8, 2**32, 2**63, 2**64 - 8])
    return (new % 2**64).to_bytes(8, "little") + data[8:]


def number(rng, data, _):
    at = somewhere(rng, NUMBER, data)
    if at is None:
        return data
    value = int(at[0]) if len(at[0]) < 20 else 0
    new = rng.choice([value + 1, value - 1, value * 2, -value, rng.choice(INTEGERS), rng.choice(INTEGERS)])
    new = rng.choice(LITERALS) if rng.random() < 0.15 else str(new)
    return relength(data[: at.start()] + new.encode() + data[at.end() :], data)


def token(rng, data, files):
    at, other = somewhere(rng, TOKEN, data), somewhere(rng, TOKEN, rng.choice(files))
    if at is None or other is None:
        return data
    new = b"" if rng.random() < 0.2 else other[0]
    return relength(data[: at.start()] + new + data[at.end() :], data)


def tree(rng, data, _):
    """Change the parsed JSON: delete, copy, swap or replace a part, of the header or of the description."""

    def changed(header, description):
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            change(rng, description if rng.random() < 0.75 else header)

    return parsed(data, changed)


def node(rng, data, _):
    """Change a number of a node, or make a whole node another's."""

    def changed(_, description):
        nodes = description["nodes"]
        op = rng.choice(sorted({numbers[0] for numbers in nodes}))  # the rare ones as often as the others
        at = rng.choice([k for k, numbers in enumerate(nodes) if numbers[0] == op])
        if rng.random() < 0.1:
            nodes[at] = rng.choice(nodes)
            return
        place = rng.randrange(len(nodes[at]))
        value = nodes[at][place] if type(nodes[at][place]) is int else 0
        nodes[at][place] = rng.choice([value + 1, value - 1, None, rng.randrange(12), rng.choice(INTEGERS[:-2])])

    return parsed(data, changed)


def parsed(data, change):
    """Return a file after change(header, description) of its JSON; the same file where that is not possible."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        description = json.loads(header["__metadata__"]["bitwren.network"])
        change(header, description)
    except (ValueError, LookupError, TypeError, RecursionError):
        return data
    with contextlib.suppress(KeyError, TypeError):
        header["__metadata__"]["bitwren.network"] = json.dumps(description, separators=(",", ":"))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def change(rng, root):
    """Change one part somewhere in a tree of JSON, in place."""
    places = []
    stack = [root]
    while stack and len(places) < 2000:
        parent = stack.pop()
        for key in parent if isinstance(parent, dict) else range(len(parent)):
            places.append((parent, key))
            if isinstance(parent[key], dict | list):
                stack.append(parent[key])
    if not places:
        return
    parent, key = rng.choice(places)
    _, (other, other_key) = rng.choice(places), rng.choice(places)
    match rng.randrange(6):
        case 0:
            del parent[key]
        case 1:
            parent[key] = json.loads(json.dumps(other[other_key]))
        case 2:
            parent[key], other[other_key] = other[other_key], parent[key]
            with contextlib.suppress(ValueError, RecursionError):  # a part swapped into itself is a circle: undo
                json.dumps(root)
                return
            parent[key] = other[other_key] = 0
        case 3:
            parent[key] = copy.deepcopy(rng.choice(VALUES))
        case 4:
            value = parent[key] if type(parent[key]) is int else 0
            parent[key] = rng.choice([value + 1, value - 1, value * 2, rng.choice(INTEGERS[:-2])])
        case 5:
            new = json.loads(json.dumps(parent[key]))
            if isinstance(parent, list):
                parent.insert(rng.randint(0, len(parent)), new)
            else:
                parent[rng.choice(["x", "about", "bits", "version", "zero"])] = new


MUTATIONS = [flip, set_byte, truncate, extend, cut, repeat, splice, header_length]
MUTATIONS += [number, token, tree, node] * 3  # these get furthest


def relength(new: bytes, old: bytes) -> bytes:
    """Return a file whose header grew or shrank, padded and with its length made right."""
    length = int.from_bytes(old[:8], "little") + len(new) - len(old)
    pad = -length % 8
    if not 0 <= length <= len(new) - 8:
        return new
    return (length + pad).to_bytes(8, "little") + new[8 : 8 + length] + b" " * pad + new[8 + length :]


def mutated(seed: int, execution: int, files: list[bytes]) -> bytes:
    """Return the broken file of an execution."""
    rng = random.Random(f"{seed} {execution}")
    data = rng.choice(files)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        with contextlib.suppress(RecursionError):  # JSON nested as deep as Python can just still read
            data = rng.choice(MUTATIONS)(rng, data, files) or b"\0"
    if rng.random() < 0.5 and len(data) >= CRC_AT + 8:
        data = data[:CRC_AT] + checksum(data).encode() + data[CRC_AT + 8 :]
    return data
