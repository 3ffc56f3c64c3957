"""The outer layer of a .bwn file: a safetensors container with a checksum at a fixed place (docs/file-format.md).

    8 bytes     N, the header's length, little-endian
    N bytes     the header, JSON: {"__metadata__": {"bitwren.crc32": ..., "bitwren.network": ...}, tensors ...}, spaces
    the rest    the tensors, one after another, in the header's order

Every length is compared with the bytes that are there before it is used. What the tensors mean is pack.py's business.
"""

import json
import math
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from bitwren.errors import ModelError
from bitwren.network.strict_json import is_whole, parse_object, shown

MAX_HEADER = 2**20
MAX_FILE = 2**31 - 1
START = b'{"__metadata__":{"bitwren.crc32":"'  # how every header begins; the checksum's 8 hexadecimal digits follow
CRC_AT = 8 + len(START)
CRC, NETWORK = "bitwren.crc32", "bitwren.network"
DTYPES = {"I32": 4, "I16": 2, "I8": 1, "U8": 1}  # bytes of one value
_NUMPY_NAMES = {"int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8"}


class Entry(NamedTuple):
    """A tensor of the file: its type ("I32", "I16", "I8" or "U8"), its shape and its bytes, a view into the file."""

    dtype: str
    shape: tuple[int, ...]
    content: memoryview


def encode_container(network: str, tensors: Mapping[str, np.ndarray]) -> bytes:
    """Return the file's bytes for a description and tensors of int32, int16, int8 or uint8, laid out in their order.

    Types of four bytes must come before types of two, and those before types of one, so that each value is aligned.
    """
    header: dict[str, object] = {"__metadata__": {CRC: "0" * 8, NETWORK: network}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        dtype = _NUMPY_NAMES[tensor.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    content = [tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes() for tensor in tensors.values()]
    data = bytearray(b"".join([len(text).to_bytes(8, "little"), text, *content]))
    data[CRC_AT : CRC_AT + 8] = checksum(data).encode()
    return bytes(data)


def checksum(data: bytes | bytearray | memoryview) -> str:
    """Return the CRC-32 of a file whose own 8 digits count as "00000000": 8 lower-case hexadecimal digits."""
    view = memoryview(data)
    crc = zlib.crc32(b"0" * 8, zlib.crc32(view[:CRC_AT]))
    return format(zlib.crc32(view[CRC_AT + 8 :], crc), "08x")


def decode_container(data: memoryview) -> tuple[str, dict[str, Entry]]:
    """Return the description and the tensors, by name in the order of the bytes, as views. Raises ModelError."""
    if len(data) < CRC_AT + 8:
        raise ModelError(f"{len(data)} bytes, expected at least {CRC_AT + 8}: not a .bwn file")
    if data[8:CRC_AT] != START:
        raise ModelError(f"the header begins {shown(bytes(data[8:24]))}, expected {shown(START)}: not a .bwn file")
    if len(data) > MAX_FILE:
        raise ModelError(f"{len(data)} bytes, expected at most {MAX_FILE}")
    length = int.from_bytes(data[:8], "little")
    if length % 8 or not len(START) < length <= min(MAX_HEADER, len(data) - 8):
        raise ModelError(
            f"header of {length} bytes, expected a multiple of 8, at most {MAX_HEADER} and the {len(data) - 8} present"
        )
    told, computed = bytes(data[CRC_AT : CRC_AT + 8]), checksum(data)
    if told != computed.encode():
        raise ModelError(f"checksum {computed}, the file says {shown(told)}: the file is damaged")
    header = parse_object(data[8 : 8 + length], "header")
    metadata = header.pop("__metadata__")
    if not (isinstance(metadata, dict) and set(metadata) == {CRC, NETWORK} and isinstance(metadata[NETWORK], str)):
        raise ModelError(f"metadata {shown(metadata)}, expected {CRC} and {NETWORK}, both strings")
    if metadata[CRC] != computed:
        raise ModelError(f"{CRC} is {shown(metadata[CRC])}, expected its 8 digits alone")
    return metadata[NETWORK], _entries(header, data[8 + length :])


def _entries(header: dict, buffer: memoryview) -> dict[str, Entry]:
    """Return the tensors; each must begin where the one before ends, and the last end where the file does."""
    entries, end = {}, 0
    for name, value in header.items():
        where = f"tensor {shown(name)}"
        if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
            raise ModelError(f"{where}: {shown(value)}, expected an object of dtype, shape and data_offsets")
        dtype, shape = value["dtype"], value["shape"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise ModelError(f"{where}: dtype {shown(dtype)}, expected {', '.join(DTYPES)}")
        if not (isinstance(shape, list) and 1 <= len(shape) <= 4 and all(is_whole(n, 1, MAX_FILE) for n in shape)):
            raise ModelError(f"{where}: shape {shown(shape)}, expected 1 to 4 sizes of at least 1")
        start, size = end, math.prod(shape) * DTYPES[dtype]
        end = start + size
        if value["data_offsets"] != [start, end] or not all(type(n) is int for n in value["data_offsets"]):
            raise ModelError(f"{where}: data_offsets {shown(value['data_offsets'])}, expected [{start},{end}]")
        if end > len(buffer):
            raise ModelError(f"{where}: {size} bytes from {start}, only {len(buffer)} bytes of tensors are present")
        entries[name] = Entry(dtype, tuple(shape), buffer[start:end])
    if end != len(buffer):
        raise ModelError(f"{len(buffer)} bytes of tensors, expected {end}")
    return entries
