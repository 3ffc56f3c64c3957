"""The .bwn file: literal bytes, bit order, equal bytes for equal networks, size, memory, and what other readers see."""

import dataclasses
import errno
import json
import os
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network.examples import conv, network, requantise, wide_resnet
from network.strategies import networks

from bitwren.errors import ModelError, WriteError
from bitwren.network.container import MAX_FILE, MAX_HEADER
from bitwren.network.description import MAX_ABOUT_DEPTH, MAX_NODES, MAX_SIDE, MAX_VALUES, VERSION
from bitwren.network.graph import MAX_CODE, MAX_SHIFT, PIXELS, Add, Conv, Requantise
from bitwren.network.pack import decode, encode, read_bwn, write_bwn

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "file-format.md"

# The tiny file of docs/file-format.md, written by hand: three 2 x 2 filters of one bit, three channels of constants, a
# head of eight bits.
TINY = dataclasses.replace(
    network(
        (1, 2, 2),
        conv("stem", PIXELS, np.reshape([1, -1, -1, 1, 1, 1, 1, -1, -1, -1, 1, -1], (3, 2, 2, 1))),
        requantise("act", "stem", [1, -2, 300], [0, -1, 70000], 2, 0, 255, zero=16),
        conv("head", "act", np.reshape([1, 0, -1, 127, -127, 2], (2, 1, 1, 3)), bits=8),
        zero=[128],
        classes=2,
        scale=0.125,
        about={"made by": "hand"},
    ),
    classes=("no", "yes"),
)
TINY_HEADER = (
    br'{"__metadata__":{"bitwren.crc32":"########","bitwren.network":"{\"about\":{\"made by\":\"hand\"},'
    br"\"classes\":[\"no\",\"yes\"],\"input\":{\"channels\":1,\"height\":2,\"width\":2,\"zero\":[128]},"
    br"\"logit_scale\":0.125,\"nodes\":[[0,0,3,2,1,1,0,0,0,0],[1,1,null,null,2,0,255,16],[0,2,2,1,8]],"
    br'\"version\":3}"},'
    br'"offsets":{"dtype":"I32","shape":[3],"data_offsets":[0,12]},'
    br'"multipliers":{"dtype":"I16","shape":[3],"data_offsets":[12,18]},'
    br'"weights":{"dtype":"I8","shape":[6],"data_offsets":[18,24]},'
    br'"bits":{"dtype":"U8","shape":[2],"data_offsets":[24,26]}}'
)
TINY_TENSORS = {
    "offsets": bytes([0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x70, 0x11, 1, 0]),  # 0, -1, 70000
    "multipliers": bytes([1, 0, 0xFE, 0xFF, 0x2C, 1]),  # 1, -2, 300
    "weights": bytes([1, 0, 0xFF, 127, 0x81, 2]),
    "bits": bytes([0b01111001, 0b0100]),  # + - - + + + + -, - - + -
}


def tiny_bytes():
    header = TINY_HEADER + b" " * (-len(TINY_HEADER) % 8)
    content = len(header).to_bytes(8, "little") + header + b"".join(TINY_TENSORS.values())
    crc = f"{zlib.crc32(content.replace(b'#' * 8, b'0' * 8)):08x}"
    return content.replace(b"#" * 8, crc.encode())


def renamed(net):
    """Return a network whose nodes have the names that the reader gives them."""
    names, nodes = {PIXELS: PIXELS}, []
    for number, node in enumerate(net.nodes, 1):
        names[node.name] = f"{type(node).__name__.lower()}{number}"
        inputs = (
            {"inputs": tuple(names[name] for name in node.inputs)}
            if isinstance(node, Add)
            else {"input": names[node.input]}
        )
        nodes.append(dataclasses.replace(node, name=names[node.name], **inputs))
    return dataclasses.replace(net, nodes=tuple(nodes))


def assert_same(some, other):
    """Every field of two networks is equal, in value and in type, but for the names of nodes: the file has none."""
    some, other = renamed(some), renamed(other)
    assert (some.channels, some.height, some.width) == (other.channels, other.height, other.width)
    assert np.array_equal(some.zero, other.zero)
    assert (some.classes, some.logit_scale, some.about) == (other.classes, other.logit_scale, other.about)
    assert len(some.nodes) == len(other.nodes)
    for a, b in zip(some.nodes, other.nodes, strict=True):
        assert type(a) is type(b)
        for field in dataclasses.fields(a):
            x, y = getattr(a, field.name), getattr(b, field.name)
            assert type(x) is type(y)
            if isinstance(x, np.ndarray):
                assert x.dtype == y.dtype and np.array_equal(x, y)
            else:
                assert x == y


# ------------------------------------------------------------------ literal bytes


def test_writes_the_literal_bytes():
    assert encode(TINY) == tiny_bytes()


def test_reads_the_literal_bytes():
    assert_same(decode(tiny_bytes(), "tiny.bwn"), TINY)


@pytest.mark.parametrize(("last", "dtype"), [(32767, "I16"), (-32768, "I16"), (32768, "I32"), (-32769, "I32")])
def test_offsets_take_two_bytes_where_all_fit(last, dtype):
    stem, act, head = TINY.nodes
    net = dataclasses.replace(
        TINY, nodes=(stem, dataclasses.replace(act, offset=np.array([0, -1, last], np.int32)), head)
    )
    content = encode(net)
    assert f'"offsets":{{"dtype":"{dtype}",'.encode() in content
    assert_same(decode(content, "net.bwn"), net)


def test_reads_small_offsets_of_four_bytes():
    content = tiny_bytes().replace(TINY_TENSORS["offsets"][-4:], bytes([5, 0, 0, 0]))
    crc = f"{zlib.crc32(content[:42] + b'0' * 8 + content[50:]):08x}".encode()
    assert decode(content[:42] + crc + content[50:], "net.bwn").nodes[1].offset.tolist() == [0, -1, 5]


def annotated(data):
    """Return the dump that docs/file-format.md shows."""
    length = int.from_bytes(data[:8], "little")
    parts, at = [(8, "header's length"), *[(16, None)] * (length // 16), (length % 16, None)], 0
    parts += [(len(content), name) for name, content in TINY_TENSORS.items()]
    lines = []
    for size, note in parts:
        row = data[at : at + size]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in row) if note is None else note
        lines += [f"{at:04x}  {row.hex(' '):<47}  {text}".rstrip()] if size else []
        at += size
    assert at == len(data)
    return "\n".join(lines)


def test_the_document_shows_the_tiny_file():
    dump = annotated(encode(TINY))
    assert dump in DOCUMENT.read_text(encoding="utf-8"), f"docs/file-format.md, expected:\n{dump}"


def test_the_document_shows_the_tiny_description_and_the_limits():
    text = DOCUMENT.read_text(encoding="utf-8")
    block = text[text.index('    {"about":{"made by"') : text.index("(without the white space)")]
    header = json.loads(TINY_HEADER)
    assert json.loads(block) == json.loads(header["__metadata__"]["bitwren.network"])
    assert f"| header | 2^20 = {MAX_HEADER:,} bytes |" in text and "| file | 2^31 - 1 bytes |" in text
    assert (MAX_FILE, MAX_VALUES) == (2**31 - 1, 2**31 - 1)
    assert f"| nodes | 1 to {MAX_NODES:,} |" in text
    assert f"`out`, `window` | 1 to {MAX_SIDE:,} |" in text
    assert f"| `about` | nested at most {MAX_ABOUT_DEPTH} deep" in text
    assert f"| `shift` | 0 to {MAX_SHIFT} |" in text and f"| `zero` of a node | 0 to {MAX_CODE} |" in text
    assert f"| `version` | {VERSION} |" in text


@pytest.mark.parametrize("k", range(54))
def test_one_hot_weights(k):
    """Exactly one bit, in the right place: bit k % 8 of byte k // 8, k = ((o * F + y) * F + x) * C + c."""
    weights = -np.ones((2, 3, 3, 3), np.int8)
    o, y, x, c = np.unravel_index(k, weights.shape)
    weights[o, y, x, c] = 1
    assert k == ((o * 3 + y) * 3 + x) * 3 + c
    one_hot = network((3, 3, 3), conv("conv", PIXELS, weights), classes=2)
    data = encode(one_hot)
    expected = bytearray(7)
    expected[k // 8] = 1 << k % 8
    assert data[-7:] == expected
    assert np.array_equal(decode(data, "").nodes[0].weights, weights)


# ------------------------------------------------------------------ round trips

CLASS_NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=200)
ABOUT = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=5), parts, max_size=3),
    max_leaves=10,
)
SCALES = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@settings(max_examples=150)
@given(networks(), st.data())
def test_round_trip(net, data):
    names = data.draw(st.lists(CLASS_NAMES, min_size=len(net.classes), max_size=len(net.classes)))
    about = data.draw(st.dictionaries(st.text("abc", max_size=3), ABOUT, max_size=3))
    net = dataclasses.replace(net, classes=tuple(names), logit_scale=data.draw(SCALES), about=about)
    content = encode(net)
    again = decode(content, "file")
    assert_same(again, net)
    assert encode(again) == content
    assert decode(memoryview(bytearray(content)), "file").weights == net.weights


def test_equal_networks_give_equal_bytes(tmp_path):
    net = wide_resnet(8, 0.25, seed=1)
    ordered = dataclasses.replace(net, about={"a": 1, "b": {"x": 1, "y": 2}})
    shuffled = dataclasses.replace(net, about={"b": {"y": 2, "x": 1}, "a": 1})
    write_bwn(tmp_path / "a.bwn", ordered)
    write_bwn(str(tmp_path / "b.bwn"), shuffled)
    assert (tmp_path / "a.bwn").read_bytes() == (tmp_path / "b.bwn").read_bytes() == encode(ordered)
    assert_same(read_bwn(tmp_path / "a.bwn"), ordered)


def test_a_network_does_not_share_memory_with_the_bytes_it_came_from():
    data = bytearray(encode(TINY))
    net = decode(memoryview(data), "tiny")
    data[-6:] = bytes(6)
    assert_same(net, TINY)


def test_the_safetensors_library_reads_the_same_tensors(tmp_path):
    pytest.importorskip("safetensors")
    from safetensors import safe_open

    net = wide_resnet(8, 0.5, seed=2)
    for path, source in ((tmp_path / "tiny.bwn", TINY), (tmp_path / "net.bwn", net)):
        write_bwn(path, source)
        scales = [n for n in source.nodes if isinstance(n, Requantise) and n.offset.size > 1]
        convs = [n for n in source.nodes if isinstance(n, Conv)]
        with safe_open(path, framework="numpy") as file:
            assert set(file.metadata()) == {"bitwren.crc32", "bitwren.network"}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        assert set(tensors) == ({"bits", "weights", "offsets", "multipliers"} if source is TINY else {"bits"})
        at = 0
        for node in (n for n in convs if n.weight_bits == 1):
            size = -(-node.weights.size // 8)
            bits = np.unpackbits(tensors["bits"][at : at + size], bitorder="little")
            signs = 2 * bits[: node.weights.size].astype(np.int8) - 1
            assert np.array_equal(signs.reshape(node.weights.shape), node.weights)
            assert not bits[node.weights.size :].any()
            at += size
        assert at == tensors["bits"].size
        if source is TINY:
            assert tensors["weights"].dtype == np.int8
            assert np.array_equal(tensors["weights"], convs[1].weights.ravel())
            assert np.array_equal(tensors["offsets"], scales[0].offset)
            assert np.array_equal(tensors["multipliers"], scales[0].multiplier)


# ------------------------------------------------------------------ size and memory


@pytest.fixture(scope="module")
def large():
    """The authors' largest CIFAR-10 network, batch norm's constants for every channel: 26,737,120 weights."""
    net = wide_resnet(20, 10)
    rng, nodes = np.random.default_rng(0), []
    for node in net.nodes:
        if isinstance(node, Requantise) and node.zero is not None:
            channels = net.tensors[node.name].shape[0]
            multiplier = rng.integers(-(2**15), 2**15, channels, dtype=np.int16)
            offset = rng.integers(-(2**20), 2**20, channels, dtype=np.int32)
            node = dataclasses.replace(node, multiplier=multiplier, offset=offset, shift=20)
        nodes.append(node)
    about = {"recipe": "x" * 1500, "commit": "0" * 40}
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    return dataclasses.replace(net, nodes=tuple(nodes), classes=names, about=about)


def test_at_most_1_02_bits_for_each_weight(large):
    assert large.weights == 26_737_120
    assert sum(n.offset.size for n in large.nodes if isinstance(n, Requantise) and n.offset.size > 1) > 6000
    assert 8 * len(encode(large)) / large.weights <= 1.02


def test_reading_takes_the_file_and_a_byte_for_each_weight(large, tmp_path):
    write_bwn(tmp_path / "large.bwn", large)
    size = (tmp_path / "large.bwn").stat().st_size
    tracemalloc.start()
    net = read_bwn(tmp_path / "large.bwn")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert net.weights == large.weights
    assert peak <= 2 * size + net.weights


# ------------------------------------------------------------------ writing


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file(step, tmp_path, monkeypatch):
    path = tmp_path / "net.bwn"
    write_bwn(path, TINY)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    other = dataclasses.replace(TINY, logit_scale=2.0)
    with pytest.raises(WriteError, match=r"net\.bwn: cannot be written: No space left on device"):
        write_bwn(path, other)
    assert path.read_bytes() == tiny_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["net.bwn"]


def test_a_missing_folder(tmp_path):
    with pytest.raises(WriteError, match="cannot be written: No such file or directory"):
        write_bwn(tmp_path / "none" / "net.bwn", TINY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"about": {"x": float("nan")}}, "the description cannot be written as JSON: Out of range float values"),
        ({"about": {"x": {1, 2}}}, "the description cannot be written as JSON: Object of type set is not"),
        ({"about": {"x": "\ud800"}}, "the description cannot be written as JSON: 'utf-8' codec can't encode"),
        ({"about": {"x": 10**19}}, "number '10000000000000000000', expected at most 19 digits"),
        ({"about": {"x": "y" * 2**20}}, "header of 10491.. bytes, expected a multiple of 8, at most 1048576"),
        ({"classes": ("no", "")}, "classes: '', expected 1 to 200 characters"),
        ({"classes": ("no", "a\nb")}, r"classes: 'a\\nb', expected 1 to 200 characters"),
        ({"classes": ("no", 3)}, "classes: 3, expected 1 to 200 characters"),
    ],
)
def test_the_writer_refuses_what_the_reader_would(changes, message, tmp_path):
    net = dataclasses.replace(TINY, **changes)
    with pytest.raises(ModelError, match=r"net\.bwn: .*" + message):
        write_bwn(tmp_path / "net.bwn", net)
    assert list(tmp_path.iterdir()) == []
