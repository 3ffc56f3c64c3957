"""A good .bwn file taken apart, to be put together wrong."""

import copy
import json

import numpy as np
import pytest
from network.examples import conv, network, requantise

from bitwren.errors import ModelError
from bitwren.network.container import CRC_AT, checksum
from bitwren.network.description import FIELDS, check_description
from bitwren.network.graph import PIXELS, Add, Pool, Sum
from bitwren.network.pack import decode, encode

ONES = np.ones((3, 3, 3, 2))
BASE = network(
    (2, 4, 4),
    conv("stem", PIXELS, ONES, padding=(1, 1, 1, 1)),  # 54 weights: 7 bytes
    requantise("stream", "stem", [1, 2, 3], [4, 5, 70000], 2),  # one offset of more than 16 bits
    requantise("act", "stream", high=255, low=0, zero=8),
    conv("branch", "act", np.ones((5, 3, 3, 3)), 2, (1, 1, 1, 1)),  # 135 weights: 17 bytes
    requantise("back", "branch"),
    Pool("pool", "stream", "binomial", (1, 1, 1, 1), 5),
    Add("add", ("pool", "back")),
    requantise("codes", "add", high=255, low=0, zero=8),
    conv("head", "codes", np.full((2, 1, 1, 5), -127), bits=8),
    Sum("sum", "head"),
    classes=2,
)
NODES = {node.name: index for index, node in enumerate(BASE.nodes)}
PLACES = {
    node.name: {"op": 0, **{field: k for k, field in enumerate(FIELDS[type(node)], 1)}} for node in BASE.nodes
}  # of a node's numbers
GOOD = encode(BASE)
LENGTH = int.from_bytes(GOOD[:8], "little")
HEADER = json.loads(GOOD[8 : 8 + LENGTH])
DESCRIPTION = json.loads(HEADER["__metadata__"].pop("bitwren.network"))
SHORT_NODES = copy.deepcopy(DESCRIPTION["nodes"])
check_description(DESCRIPTION)  # writes out what the nodes leave out
BUFFER = GOOD[8 + LENGTH :]
GONE = object()


def assembled(header: str | bytes, buffer=BUFFER):
    """Return a file of this header with its length and its checksum right."""
    text = header.encode() if isinstance(header, str) else header
    text += b" " * (-len(text) % 8)
    data = len(text).to_bytes(8, "little") + text + buffer
    return data[:CRC_AT] + checksum(data).encode() + data[CRC_AT + 8 :]


def header_text(description: object, header=HEADER):
    """Return the header as JSON, with this description: text, or what becomes JSON."""
    header = copy.deepcopy(header)
    header["__metadata__"]["bitwren.network"] = (
        description if isinstance(description, str) else json.dumps(description, separators=(",", ":"))
    )
    return json.dumps(header, separators=(",", ":"))


def put(tree, path, value):
    """Return the tree with one place changed. path: keys; "nodes/act/shift": a node of BASE and its number; "a/3/c"."""

    def place(parent, key, before):
        if not isinstance(parent, list):
            return key
        return int(key) if key.isdigit() else NODES[key] if before == "nodes" else PLACES[before][key]

    tree = parent = copy.deepcopy(tree)
    *way, last = path.split("/")
    before = ""
    for key in way:
        parent, before = parent[place(parent, key, before)], key
    last = place(parent, last, before)
    if value is GONE:
        del parent[last]
    else:
        parent[last] = value
    return tree


def refusal(data):
    """Return the message that decode refuses with, without the file's name. Fails where it is no message of ours."""
    with pytest.raises(ModelError) as caught:
        decode(data, "net.bwn")
    message = str(caught.value)
    assert message.startswith("net.bwn: ") and "\n" not in message and len(message) < 400
    return message.removeprefix("net.bwn: ")


def partly_shortened():
    """Yield files of BASE whose nodes but one are written out; that one is of each length down to the writer's."""
    for number, (row, short) in enumerate(zip(DESCRIPTION["nodes"], SHORT_NODES, strict=True)):
        for length in range(len(short), len(row) + 1):
            yield assembled(header_text(put(DESCRIPTION, f"nodes/{number}", row[:length])))
