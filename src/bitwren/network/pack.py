"""The .bwn file: an integer network at one bit per weight, read as if its author were an enemy (docs/file-format.md).

A safetensors container (container.py) holds a description of the graph, JSON, and its arrays:

    <node>.offset       int32 (C,)           of a requantise that has one per channel
    <node>.multiplier   int16 (C,)           of a requantise that has one per channel
    <node>.weight       uint8 (ceil(n/8),)   of a conv with one-bit weights, n = O * F * F * C
                        int8 (O, F, F, C)    of a conv with eight-bit weights

in this order, each sort in the order of the nodes. Bit k of a conv's weights is bit k % 8 (least significant first) of
byte k // 8, with k = ((o * F + y) * F + x) * C + c; 1 is +1 and 0 is -1; the last byte's unused bits are 0.

Equal networks give equal bytes. The writer hands its bytes to the reader before it lets them out, so there is one list
of rules: the reader's.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from bitwren.atomic import write_atomic
from bitwren.errors import ModelError
from bitwren.network.container import CRC_AT, MAX_FILE, START, Entry, decode_container, encode_container
from bitwren.network.description import KEYS, MAX_SIDE, MAX_VALUES, OPS, VERSION, check_description
from bitwren.network.graph import Add, Conv, Network, Node, Pool, Requantise, Sum
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

    Raises ModelError for what read_bwn would refuse: odd names, `about` that is no JSON, a limit passed.
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
        "nodes": [_described(node) for node in network.nodes],
        "version": VERSION,
    }
    try:
        text = json.dumps(description, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        content = encode_container(text, dict(_tensors(network.nodes)))
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"the description cannot be written as JSON: {str(error).splitlines()[0]}") from None
    _decoded(memoryview(content))
    return content


def _described(node: Node) -> dict:
    """Return a node's object: its fields by name, the weights' shape for the weights, null for what is a tensor."""
    values = {"op": type(node).__name__.lower()}
    for key in KEYS[type(node)]:
        value = node.weights.shape if key == "shape" else getattr(node, key)
        if isinstance(value, np.ndarray):
            value = int(value[0]) if value.size == 1 else None
        values[key] = value
    return values


def _tensors(nodes: Iterable[Node]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and array of every tensor in the order of the file."""
    for field in ("offset", "multiplier"):
        for node in nodes:
            if isinstance(node, Requantise) and getattr(node, field).size > 1:
                yield f"{node.name}.{field}", getattr(node, field)
    for node in nodes:
        if isinstance(node, Conv):
            packed = np.packbits(node.weights.ravel() > 0, bitorder="little") if node.weight_bits == 1 else node.weights
            yield f"{node.name}.weight", packed


# ------------------------------------------------------------------ reading


def read_bwn(path: str | PathLike) -> Network:
    """Return the network of a file. Raises ModelError, naming the file, for whatever is wrong with it."""
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
    return decode(start, str(path))


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
    pixels, nodes = description["input"], description["nodes"]
    _check_names(entries, list(_tensor_names(nodes)))
    network = Network(
        channels=pixels["channels"],
        height=pixels["height"],
        width=pixels["width"],
        zero=np.array(pixels["zero"], np.int64),
        nodes=tuple(_BUILDERS[OPS[node["op"]]](node, entries) for node in nodes),
        classes=tuple(description["classes"]),
        logit_scale=description["logit_scale"],
        about=description["about"],
    )
    for name, tensor in network.tensors.items():
        if math.prod(tensor.shape) > MAX_VALUES:
            raise ModelError(f"{name!r} has {math.prod(tensor.shape)} values, expected at most {MAX_VALUES}")
    return network


def _tensor_names(nodes: list[dict]) -> Iterator[str]:
    """Yield the names of the tensors that the nodes' objects call for, in the order of the file."""
    for field in ("offset", "multiplier"):
        yield from (f"{n['name']}.{field}" for n in nodes if n["op"] == "requantise" and n[field] is None)
    yield from (f"{n['name']}.weight" for n in nodes if n["op"] == "conv")


def _check_names(entries: Mapping[str, Entry], expected: list[str]) -> None:
    if list(entries) == expected:
        return
    known = set(expected)
    for name in expected:
        if name not in entries:
            raise ModelError(f"tensor {name!r} is missing")
    for name in entries:
        if name not in known:
            raise ModelError(f"tensor {shown(name)} belongs to no node")
    got, wanted = next(pair for pair in zip(entries, expected, strict=True) if pair[0] != pair[1])
    raise ModelError(f"tensor {got!r} stands where {wanted!r} is expected")


def _conv(node: dict, entries: Mapping[str, Entry]) -> Conv:
    """The only place where memory is taken for more than the file holds: eight times a conv's packed weights."""
    where, entry, shape = f"conv {node['name']!r}", entries[f"{node['name']}.weight"], tuple(node["shape"])
    count, one_bit = math.prod(shape), node["weight_bits"] == 1
    expected = ("U8", (-(-count // 8),)) if one_bit else ("I8", shape)
    if (entry.dtype, entry.shape) != expected:
        raise ModelError(
            f"{where}: weight tensor {entry.dtype} {list(entry.shape)}, expected {expected[0]} {list(expected[1])} "
            f"for {count} weights of {node['weight_bits']} bit"
        )
    if one_bit:
        packed = np.frombuffer(entry.content, np.uint8)
        if count % 8 and packed[-1] >> count % 8:
            raise ModelError(f"{where}: last weight byte is {packed[-1]:#04x}, expected 0 in all but {count % 8} bits")
        weights = np.unpackbits(packed, count=count, bitorder="little").view(np.int8)
        weights *= 2  # in place: 0 and 1 to -1 and +1
        weights -= 1
    else:
        weights = np.frombuffer(entry.content, np.int8).copy()
    return Conv(
        node["name"], node["input"], weights.reshape(shape), node["weight_bits"], node["stride"], tuple(node["padding"])
    )


def _requantise(node: dict, entries: Mapping[str, Entry]) -> Requantise:
    constants = {}
    for field, kind, dtype in (("multiplier", "I16", np.int16), ("offset", "I32", np.int32)):
        if node[field] is not None:
            constants[field] = np.array([node[field]], dtype)
            continue
        entry = entries[f"{node['name']}.{field}"]
        if entry.dtype != kind or len(entry.shape) != 1 or not 2 <= entry.shape[0] <= MAX_SIDE:
            raise ModelError(
                f"requantise {node['name']!r}: {field} tensor {entry.dtype} {list(entry.shape)}, expected {kind} of 2 "
                f"to {MAX_SIDE} channels (a single value stands in the description)"
            )
        constants[field] = np.frombuffer(entry.content, np.dtype(dtype).newbyteorder("<")).astype(dtype)
    rest = {key: node[key] for key in KEYS[Requantise] if key not in constants}
    return Requantise(**rest, **constants)


_BUILDERS: dict[type[Node], Callable[[dict, Mapping[str, Entry]], Node]] = {
    Conv: _conv,
    Requantise: _requantise,
    Add: lambda node, _: Add(node["name"], tuple(node["inputs"])),
    Pool: lambda node, _: Pool(node["name"], node["input"], node["kind"], tuple(node["padding"]), node["channels"]),
    Sum: lambda node, _: Sum(node["name"], node["input"]),
}
