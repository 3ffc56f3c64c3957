"""The .bwn file: an integer network at one bit per weight, read as if its author were an enemy (docs/file-format.md).

A safetensors container (container.py) holds a description of the graph, JSON, and at most four arrays:

    offsets       int16   of each requantise that has one per channel; int32 where any is too large for int16
    multipliers   int16   of each requantise that has one per channel
    weights       int8    of each conv with eight-bit weights, each (O, F, F, C)
    bits          uint8   of each conv with one-bit weights, ceil(O * F * F * C / 8) bytes

in this order, each in the order of the nodes, absent where it would be empty. Bit k of a conv's weights is bit k % 8
(least significant first) of byte k // 8, with k = ((o * F + y) * F + x) * C + c; 1 is +1 and 0 is -1; the last byte's
unused bits are 0. Nodes have no names in the file: the reader calls them conv1, requantise2, ...

Equal networks give equal bytes. The writer hands its bytes to the reader before it lets them out, so there is one list
of rules: the reader's.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from bitwren.atomic import write_atomic
from bitwren.errors import ModelError
from bitwren.network.container import CRC_AT, MAX_FILE, START, Entry, decode_container, encode_container
from bitwren.network.description import MAX_VALUES, OPS, VERSION, check_description, name_of, shortened
from bitwren.network.graph import PIXELS, POOLS, Add, Conv, Network, Node, Pool, Requantise, Sum
from bitwren.network.strict_json import parse_object, shown

# ------------------------------------------------------------------ writing


def write_bwn(path: str | PathLike, network: Network) -> None:
    """Write a network as one step: the old file or the new one is there, never half.

    Raises ModelError for a network that the format cannot hold (encode), WriteError where the disk refuses.
    """
    try:
        content = encode(network)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    write_atomic(Path(path), content)


def encode(network: Network) -> bytes:
    """Return the file's bytes, the same for equal networks.

    Raises ModelError for what read_bwn would refuse: odd class names, `about` that is no JSON, a limit passed.
    """
    description = {
        "about": dict(network.about),
        "classes": list(network.classes),
        "input": {
            "channels": network.channels,
            "height": network.height,
            "width": network.width,
            "zero": network.zero.tolist(),
        },
        "logit_scale": network.logit_scale,
        "nodes": _described(network.nodes),
        "version": VERSION,
    }
    try:
        text = json.dumps(description, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        content = encode_container(text, dict(_tensors(network.nodes)))
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"the description cannot be written as JSON: {str(error).splitlines()[0]}") from None
    _decoded(memoryview(content))
    return content


def _described(nodes: tuple[Node, ...]) -> list[list[int | None]]:
    """Return the numbers of each node: its op, what it reads, its fields, null for what is a tensor, no usual end."""
    numbers = {PIXELS: 0, **{node.name: number for number, node in enumerate(nodes, 1)}}
    rows: list[list[int | None]] = []
    for node in nodes:
        match node:
            case Conv():
                out, window = node.weights.shape[:2]
                row = [numbers[node.input], out, window, node.weight_bits, node.stride, *node.padding]
            case Requantise():
                constants = [int(a[0]) if a.size == 1 else None for a in (node.multiplier, node.offset)]
                row = [numbers[node.input], *constants, node.shift, node.low, node.high, node.zero]
            case Add():
                row = [numbers[name] for name in node.inputs]
            case Pool():
                row = [numbers[node.input], POOLS.index(node.kind), node.channels, *node.padding]
            case Sum():
                row = [numbers[node.input]]
        rows.append(shortened([OPS.index(type(node)), *row]))
    return rows


def _tensors(nodes: tuple[Node, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and array of every tensor in the order of the file."""
    scales, convs = [n for n in nodes if isinstance(n, Requantise)], [n for n in nodes if isinstance(n, Conv)]
    parts = {
        "offsets": [n.offset for n in scales if n.offset.size > 1],
        "multipliers": [n.multiplier for n in scales if n.multiplier.size > 1],
        "weights": [n.weights.ravel() for n in convs if n.weight_bits == 8],
        "bits": [np.packbits(n.weights.ravel() > 0, bitorder="little") for n in convs if n.weight_bits == 1],
    }
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items() if arrays}
    if "offsets" in joined and np.array_equal(joined["offsets"].astype(np.int16), joined["offsets"]):
        joined["offsets"] = joined["offsets"].astype(np.int16)
    yield from joined.items()


# ------------------------------------------------------------------ reading


def read_bwn(path: str | PathLike) -> Network:
    """Return the network of a file. Raises ModelError, naming the file, for whatever is wrong with it."""
    return decode(read_content(path), str(path))


def read_content(path: str | PathLike) -> bytes:
    """Return the bytes of a file for `decode`: no more than its start where that is not a .bwn file's.

    Raises ModelError, naming the file, where it cannot be read or is too large.
    """
    try:
        with open(path, "rb") as file:
            start, size = file.read(CRC_AT + 8), os.fstat(file.fileno()).st_size
            if start[8:CRC_AT] == START:  # nothing else is read to its end, if it has one
                if size > MAX_FILE:
                    raise ModelError(f"{path}: {size} bytes, expected at most {MAX_FILE}")
                file.seek(0)
                start = file.read()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    return start


def decode(data: bytes | memoryview, where: str) -> Network:
    """Return the network of a file's bytes; where: its name, for the messages.

    Memory: the network's arrays (a byte per weight), and what JSON takes as Python objects. Nothing is allocated on the
    word of a number that the bytes present do not bear out. Raises ModelError, nothing else, whatever the bytes.
    """
    try:
        return _decoded(memoryview(data).cast("B"))
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None


def _decoded(data: memoryview) -> Network:
    text, entries = decode_container(data)
    description = parse_object(text, "network")
    check_description(description)
    pixels = description["input"]
    wanted = _wanted(pixels["channels"], description["nodes"])
    _check_entries(entries, wanted)
    network = Network(
        channels=pixels["channels"],
        height=pixels["height"],
        width=pixels["width"],
        zero=np.array(pixels["zero"], np.int64),
        nodes=tuple(_built(description["nodes"], wanted, entries)),
        classes=tuple(description["classes"]),
        logit_scale=description["logit_scale"],
        about=description["about"],
    )
    for name, tensor in network.tensors.items():
        if math.prod(tensor.shape) > MAX_VALUES:
            raise ModelError(f"{name!r} has {math.prod(tensor.shape)} values, expected at most {MAX_VALUES}")
    return network


_DTYPES = {"offsets": ("I16", "I32"), "multipliers": ("I16",), "weights": ("I8",), "bits": ("U8",)}  # in file order
_LITTLE_ENDIAN = {"I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}


def _wanted(channels: int, rows: list[list]) -> list[dict[str, tuple[int, ...]]]:
    """Return the shape of each array of each node, by the tensor that holds it.

    channels: of the pixels; those of a node follow from the nodes before it. Raises ModelError for too many weights,
    and for a tensor that would hold the constant of the only channel.
    """
    known, wanted = [channels], []
    for number, (op, first, *row) in enumerate(rows, 1):
        kind, given, parts = OPS[op], known[first], {}
        if kind is Conv:
            shape = (row[0], row[1], row[1], given)
            if math.prod(shape) > MAX_VALUES:
                raise ModelError(f"{name_of(kind, number)}: {math.prod(shape)} weights, expected at most {MAX_VALUES}")
            parts["weights" if row[2] == 8 else "bits"] = shape
        elif kind is Requantise:
            constants = {"multipliers": row[0], "offsets": row[1]}
            parts = {part: (given,) for part, constant in constants.items() if constant is None}
            if parts and given == 1:
                raise ModelError(f"{name_of(kind, number)}: null for one channel, expected its number")
        known.append(row[0] if kind is Conv else row[1] if kind is Pool else given)
        wanted.append(parts)
    return wanted


def _stored(part: str, shape: tuple[int, ...]) -> int:
    """Return how many values of a tensor an array of this shape takes."""
    return -(-math.prod(shape) // 8) if part == "bits" else math.prod(shape)


def _check_entries(entries: Mapping[str, Entry], wanted: list[dict[str, tuple[int, ...]]]) -> None:
    sizes = {part: sum(_stored(part, parts[part]) for parts in wanted if part in parts) for part in _DTYPES}
    expected = {part: (_DTYPES[part], (size,)) for part, size in sizes.items() if size}
    if list(entries) != list(expected):
        first = ", ".join(map(shown, list(entries)[:5])) + (", ..." if len(entries) > 5 else "")
        raise ModelError(f"tensors {first or 'missing'}, expected {', '.join(expected) or 'none'} in this order")
    for part, (dtypes, shape) in expected.items():
        if entries[part].dtype not in dtypes or entries[part].shape != shape:
            got = f"{entries[part].dtype} {list(entries[part].shape)}"
            raise ModelError(f"tensor {part!r}: {got}, expected {' or '.join(dtypes)} {list(shape)} for the nodes")


def _built(rows: list[list], wanted: list[dict[str, tuple[int, ...]]], entries: Mapping[str, Entry]) -> Iterator[Node]:
    """Yield the nodes; weights are unpacked one conv at a time."""
    content = {part: np.frombuffer(entry.content, _LITTLE_ENDIAN[entry.dtype]) for part, entry in entries.items()}
    names, at = [PIXELS], dict.fromkeys(content, 0)
    for number, ((op, first, *row), shapes) in enumerate(zip(rows, wanted, strict=True), 1):
        arrays, kind = {}, OPS[op]
        name, x = name_of(kind, number), names[first]
        for part, shape in shapes.items():
            start, at[part] = at[part], at[part] + _stored(part, shape)
            arrays[part] = content[part][start : at[part]]
        if kind is Conv:
            ((part, shape),) = shapes.items()
            one_bit = part == "bits"
            weights = _unpacked(name, arrays[part], math.prod(shape)) if one_bit else arrays[part].copy()
            yield Conv(name, x, weights.reshape(shape), row[2], row[3], tuple(row[4:]))
        elif kind is Requantise:
            multiplier = arrays["multipliers"] if row[0] is None else np.array([row[0]])
            offset = arrays["offsets"] if row[1] is None else np.array([row[1]])
            yield Requantise(name, x, multiplier.astype(np.int16), offset.astype(np.int32), *row[2:])
        elif kind is Add:
            yield Add(name, (x, names[row[0]]))
        elif kind is Pool:
            yield Pool(name, x, POOLS[row[0]], tuple(row[2:]), row[1])
        else:
            yield Sum(name, x)
        names.append(name)


def _unpacked(name: str, packed: np.ndarray, count: int) -> np.ndarray:
    """The only place where memory is taken for more than the file holds: eight times a conv's packed weights."""
    if count % 8 and packed[-1] >> count % 8:
        raise ModelError(f"{name}: last weight byte is {packed[-1]:#04x}, expected 0 in all but {count % 8} bits")
    weights = np.unpackbits(packed, count=count, bitorder="little").view(np.int8)
    weights *= 2  # in place: 0 and 1 to -1 and +1
    weights -= 1
    return weights
