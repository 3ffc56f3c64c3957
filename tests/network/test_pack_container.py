"""A .bwn file whose container is wrong gives one ModelError that names the place, fast and without taking memory."""

import re
import resource
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from fuzz.fuzz_bwn import allowed
from network.broken import (
    BUFFER,
    DESCRIPTION,
    GONE,
    GOOD,
    HEADER,
    LENGTH,
    SHORT_NODES,
    assembled,
    header_text,
    put,
    refusal,
)
from network.examples import conv, network, requantise

from bitwren.errors import ModelError
from bitwren.network.container import CRC_AT, checksum
from bitwren.network.description import MAX_NODES
from bitwren.network.graph import PIXELS, Pool, Sum
from bitwren.network.pack import decode, encode, read_bwn


def test_the_base_is_good():
    short = {**DESCRIPTION, "nodes": SHORT_NODES}
    assert assembled(header_text(short)) == assembled(GOOD[8 : 8 + LENGTH].decode())
    assert decode(assembled(header_text(DESCRIPTION)), "").weights == 54 + 135 + 10


# ------------------------------------------------------------------ the container


def with_length(length, data=GOOD):
    return length.to_bytes(8, "little") + data[8:]


LONG = "x" * 70
FLIPPED = GOOD[:-1] + bytes([GOOD[-1] ^ 1])
CRC = GOOD[CRC_AT : CRC_AT + 8].decode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes, expected at least 50: not a .bwn file"),
        (GOOD[:49], "49 bytes, expected at least 50: not a .bwn file"),
        (b"\x89PNG\r\n" * 20, r"the header begins 'NG\r\n\x89PNG\r\n\x89PNG\r\n', expected '{"),
        (GOOD[:-1], "the file is damaged"),
        (GOOD + b"\0", "the file is damaged"),
        (FLIPPED, f"checksum {checksum(FLIPPED)}, the file says '{CRC}': the file is damaged"),
        (GOOD.replace(CRC.encode(), b"ABCDEF01"), "the file says 'ABCDEF01': the file is damaged"),
        (with_length(0), f"header of 0 bytes, expected a multiple of 8, at most 1048576 and the {len(GOOD) - 8} "),
        (with_length(LENGTH + 1), f"header of {LENGTH + 1} bytes, expected a multiple of 8"),
        (with_length(LENGTH + 56), f"header of {LENGTH + 56} bytes, expected a multiple of 8"),  # 4 past the end
        (with_length(2**64 - 8), f"header of {2**64 - 8} bytes, expected a multiple of 8"),
        (with_length(2**20 + 8, GOOD + bytes(2**20 + 8)), f"header of {2**20 + 8} bytes, expected a multiple of 8"),
        (assembled(header_text(DESCRIPTION), BUFFER + b"\0"), f"{len(BUFFER) + 1} bytes of tensors, expected 52"),
        (assembled(header_text(DESCRIPTION), BUFFER[:-1]), "tensor 'bits': 24 bytes from 28, only 51 bytes of"),
        (assembled(GOOD[8:60]), "header: not JSON at character "),
        (assembled(GOOD[8 : 8 + LENGTH] + b"x"), "header: not JSON at character "),
        (assembled(GOOD[8:200] + b"\xff" + GOOD[200 : 8 + LENGTH]), "header: not UTF-8 at byte 192"),
        (assembled(header_text(DESCRIPTION)[:-1] + ',"a":NaN}'), "header: number NaN, expected a finite one"),
        (assembled(header_text(DESCRIPTION)[:-1] + ',"a":-Infinity}'), "header: number -Infinity, expected a finite"),
        (assembled(header_text(DESCRIPTION)[:-1] + ',"a":1e999}'), "header: number '1e999', expected a finite one"),
        (assembled(header_text(DESCRIPTION)[:-1] + f',"a":{"9" * 5000}}}'), "header: number '9999999999"),
        (assembled(header_text(DESCRIPTION)[:-1] + ',"a":' + "[" * 90000), "header: nested too deeply"),
        (assembled(header_text(DESCRIPTION)[:-1] + ',"bits":1}'), "header: key 'bits' stands twice"),
        (assembled(header_text(DESCRIPTION)[:-1] + ',"__metadata__":{}}'), "header: key '__metadata__' stands twice"),
    ],
    ids=range(24),
)
def test_container(data, message):
    assert message in refusal(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("__metadata__/format", "pt", r"metadata an object of 3 keys \(.*\), expected bitwren.crc32 and "),
        ("__metadata__/bitwren.crc32", "00000000 ", "bitwren.crc32 is '........ ', expected its 8 digits alone"),
        ("x", 1, "tensor 'x': 1, expected an object of dtype, shape and data_offsets"),
        ("x\n" + LONG, 1, r"tensor 'x\\nx{38}'\.\.\.: 1, expected an object"),
        ("bits/x", 1, "tensor 'bits': an object of 4 keys .*, expected an object of dtype"),
        ("bits/shape", GONE, "tensor 'bits': an object of 2 keys .*, expected an object of dtype"),
        ("bits/dtype", "F32", "tensor 'bits': dtype 'F32', expected I32, I16, I8, U8"),
        ("bits/dtype", ["U8"], "tensor 'bits': dtype \\['U8'\\], expected I32, I16, I8, U8"),
        ("bits/shape", [], r"tensor 'bits': shape \[\], expected 1 to 4 sizes of at least 1"),
        ("bits/shape", [1, 1, 1, 1, 7], "tensor 'bits': shape a list of 5, expected 1 to 4 sizes"),
        ("bits/shape", [24.0], "tensor 'bits': shape \\[24.0\\], expected 1 to 4 sizes"),
        ("bits/shape", [True], "tensor 'bits': shape \\[true\\], expected 1 to 4 sizes"),
        ("bits/shape", [-24], r"tensor 'bits': shape \[-24\], expected 1 to 4 sizes of at least 1"),
        ("bits/shape", [25], r".* data_offsets \[28,52\], expected \[28,53\]"),
        ("bits/data_offsets", [27, 51], r".* data_offsets \[27,51\], expected \[28,52\]"),  # overlap
        ("bits/data_offsets", [29, 53], r".* data_offsets \[29,53\], expected \[28,52\]"),  # gap
        ("bits/data_offsets", [28.0, 52], r".* data_offsets \[28.0,52\], expected \[28,52\]"),
        ("bits/data_offsets", [28], r".* data_offsets \[28\], expected \[28,52\]"),
        ("bits", GONE, "52 bytes of tensors, expected 28"),
    ],
)
def test_header(path, value, message):
    assert re.match(message, refusal(assembled(header_text(DESCRIPTION, put(HEADER, path, value)))))


def test_tensors_of_other_names():
    def renamed(**names):
        text = header_text(DESCRIPTION)
        for old, new in names.items():
            text = text.replace(f'"{old}":{{"dtype', f'"@{new}":{{"dtype')
        return assembled(text.replace('"@', '"'))

    wanted = "expected offsets, multipliers, weights, bits in this order"
    assert refusal(renamed(bits="bit")) == f"tensors 'offsets', 'multipliers', 'weights', 'bit', {wanted}"
    swapped = renamed(weights="bits", bits="weights")
    assert refusal(swapped) == f"tensors 'offsets', 'multipliers', 'bits', 'weights', {wanted}"
    extra = put(HEADER, "x", {"dtype": "U8", "shape": [1], "data_offsets": [52, 53]})
    message = refusal(assembled(header_text(DESCRIPTION, extra), BUFFER + b"\0"))
    assert message == f"tensors 'offsets', 'multipliers', 'weights', 'bits', 'x', {wanted}"
    gone = put(HEADER, "bits", GONE)
    assert refusal(assembled(header_text(DESCRIPTION, gone), BUFFER[:28])).startswith("tensors 'offsets', 'mul")


def test_many_tensors_are_refused_in_one_short_line():
    header = put(HEADER, "x" * 90, {"dtype": "U8", "shape": [1], "data_offsets": [52, 53]})
    for k in range(1, 100):
        header = put(header, f"{k}" + "x" * 90, {"dtype": "U8", "shape": [1], "data_offsets": [52 + k, 53 + k]})
    assert "expected offsets, multipliers" in refusal(assembled(header_text(DESCRIPTION, header), BUFFER + bytes(100)))


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "message"),
    [
        ("bits", "I8", [24], "tensor 'bits': I8 [24], expected U8 [24] for the nodes"),
        ("bits", "U8", [24, 1], "tensor 'bits': U8 [24, 1], expected U8 [24] for the nodes"),
        ("weights", "U8", [10], "tensor 'weights': U8 [10], expected I8 [10] for the nodes"),
        ("weights", "I8", [2, 1, 1, 5], "tensor 'weights': I8 [2, 1, 1, 5], expected I8 [10] for the nodes"),
        ("offsets", "I16", [6], "tensor 'offsets': I16 [6], expected I16 or I32 [3] for the nodes"),
        ("offsets", "I8", [12], "tensor 'offsets': I8 [12], expected I16 or I32 [3] for the nodes"),
        ("offsets", "I32", [3, 1], "tensor 'offsets': I32 [3, 1], expected I16 or I32 [3] for the nodes"),
        ("multipliers", "U8", [6], "tensor 'multipliers': U8 [6], expected I16 [3] for the nodes"),
    ],
)
def test_tensors_of_other_types(name, dtype, shape, message):
    header = put(put(HEADER, f"{name}/dtype", dtype), f"{name}/shape", shape)
    assert refusal(assembled(header_text(DESCRIPTION, header))) == message


def test_tensors_of_other_content():
    for at, message in (
        (28 + 7 - 1, "conv1: last weight byte is 0xff, expected 0 in all but 6 bits"),  # 54 weights
        (28 + 7 + 17 - 1, "conv4: last weight byte is 0xff, expected 0 in all but 7 bits"),  # 135
    ):
        buffer = bytearray(BUFFER)
        buffer[at] = 0xFF
        assert refusal(assembled(header_text(DESCRIPTION), bytes(buffer))) == message
    buffer = bytearray(BUFFER)
    buffer[18] = 0x80
    assert refusal(assembled(header_text(DESCRIPTION), bytes(buffer))) == "conv 'conv9': weights outside -127..127"


def test_null_for_the_only_channel():
    """A constant of the only channel stands in the description; a tensor for it would be a second way."""
    act = requantise("act", PIXELS, high=255, low=0, zero=8)
    data = encode(network((1, 2, 2), act, conv("head", "act", np.ones((1, 2, 2, 1)))))
    length = int.from_bytes(data[:8], "little")
    header, buffer = data[8 : 8 + length].rstrip(b" "), data[8 + length :]
    header = header.replace(b"[1,0,1,0,0,", b"[1,0,1,null,0,").replace(
        b'"bits":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}',
        b'"offsets":{"dtype":"I32","shape":[1],"data_offsets":[0,4]},'
        b'"bits":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}',
    )
    assert refusal(assembled(header, bytes(4) + buffer)) == "requantise1: null for one channel, expected its number"


# ------------------------------------------------------------------ files, time, memory


def test_files(tmp_path):
    missing, folder, other = tmp_path / "none.bwn", tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.write_bytes(b"hello")
    for path, message in [
        (missing, f"{missing}: cannot be read: No such file or directory"),
        (folder, f"{folder}: cannot be read: Is a directory"),
        (other, f"{other}: 5 bytes, expected at least 50: not a .bwn file"),
    ]:
        with pytest.raises(ModelError) as caught:
            read_bwn(path)
        assert str(caught.value).startswith(message)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_file_without_an_end():
    """/dev/zero. The process may have a gigabyte more than now: a reader that goes on must not fill the machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, before[1]))
    try:
        with pytest.raises(ModelError, match="/dev/zero: the header begins '"):
            read_bwn("/dev/zero")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_file_over_the_limit(tmp_path):
    path = tmp_path / "huge.bwn"
    path.write_bytes(GOOD)
    with open(path, "r+b") as file:
        file.truncate(2**31)  # sparse: nothing is read of it
    tracemalloc.start()
    with pytest.raises(ModelError, match=r"huge\.bwn: 2147483648 bytes, expected at most 2147483647"):
        read_bwn(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def claims():
    """Yield small files that claim much: ten gigabytes of weights, and others."""
    header = put(put(HEADER, "bits/shape", [10**10]), "bits/data_offsets", [28, 28 + 10**10])
    yield "tensor", assembled(header_text(DESCRIPTION, header))
    yield "nodes", assembled(header_text(put(put(DESCRIPTION, "nodes/head/out", 30000), "nodes/head/window", 100)))
    yield "shape", assembled(header_text(put(put(DESCRIPTION, "nodes/stem/window", 32768), "nodes/stem/out", 32768)))
    yield "pixels", assembled(header_text(put(put(DESCRIPTION, "input/width", 32768), "input/height", 32768)))
    yield "keys", assembled(header_text(DESCRIPTION)[:-1] + "".join(f',"{k}":0' for k in range(40000)) + ',"39999":1}')
    yield "quotes", assembled(header_text('"' * 200_000))


@pytest.mark.parametrize("data", [pytest.param(data, id=what) for what, data in claims()])
def test_claims_cost_little(data):
    tracemalloc.start()
    began = time.process_time()
    refusal(data)
    seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 2
    assert peak < 64 * len(data) + 2**17


def test_a_tensor_of_the_graph_over_the_limit():
    """2 x 32,768 x 32,768 pixels, halved 15 times."""
    pools = [Pool(f"p{k}", f"p{k - 1}" if k else PIXELS, "max", (1, 1, 1, 1), 2) for k in range(15)]
    codes = requantise("codes", "p14", high=255, low=0, zero=8)
    huge = network((2, 2**15, 2**15), *pools, codes, conv("head", "codes", np.ones((1, 1, 1, 2))))
    with pytest.raises(ModelError, match="'pixels' has 2147483648 values, expected at most 2147483647"):
        encode(huge)


def widest():
    """500 nodes of 32,768 channels each, all of one constant, in 15 kB: 131 MB if each channel took 8 bytes."""
    yield Pool("r", PIXELS, "max", (1, 1, 1, 1), 32768)
    for k in range(500):
        yield requantise(f"r{k}", f"r{k - 1}" if k else "r", high=255, low=0, zero=8)
    yield conv("head", "r499", np.ones((1, 1, 1, 32768)))


def longest():
    """4,096 nodes of a few characters each."""
    yield requantise("r", PIXELS)
    for k in range(MAX_NODES - 1):
        yield Sum(f"r{k}", f"r{k - 1}" if k else "r")


@pytest.mark.parametrize("nodes", [widest, longest])
def test_many_nodes_cost_what_the_document_says(nodes):
    data = encode(network((1, 1, 1), *nodes()))
    tracemalloc.start()
    net = decode(data, "")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(net.nodes) > 500
    assert peak < allowed(data, net)
