"""What the JSON of a .bwn file may hold: each key, each number of a node, and its limits (docs/file-format.md).

Types, ranges and lengths are checked here, so that every number can be used as it is; what the numbers must be to each
other - shapes that fit, sums within int32 - is graph.py's to say.
"""

import re
from collections.abc import Callable, Sequence

from bitwren.errors import ModelError
from bitwren.network.graph import INT16, INT32, MAX_CODE, MAX_SHIFT, POOLS, Add, Conv, Pool, Requantise, Sum
from bitwren.network.strict_json import are_whole, check_keys, is_whole, shown

VERSION = 3
MAX_NODES = 4096
MAX_SIDE = 2**15  # channels, height, width, classes, window
MAX_VALUES = 2**31 - 1  # of one tensor or one conv's weights: an index fits int32
MAX_ABOUT_DEPTH = 16
_CLASS_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,200}")  # no control characters, no half characters
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")

_DESCRIPTION = ("about", "classes", "input", "logit_scale", "nodes", "version")
_INPUT = ("channels", "height", "width", "zero")
OPS = (Conv, Requantise, Add, Pool, Sum)  # a node's first number is its place here
_PADDING = ("top", "left", "bottom", "right")
FIELDS = {  # the numbers after it
    Conv: ("input", "out", "window", "weight_bits", "stride", *_PADDING),
    Requantise: ("input", "multiplier", "offset", "shift", "low", "high", "zero"),
    Add: ("input", "other"),
    Pool: ("input", "kind", "channels", *_PADDING),
    Sum: ("input",),
}
_NEEDED = {Conv: 3, Requantise: 4, Add: 2, Pool: 3, Sum: 1}  # of them; the rest may be left out, from the end


def usual(kind: type, row: Sequence) -> tuple:
    """Return what the fields that may be left out have where they are: of a node's row, its op and needed numbers."""
    if kind is Conv:
        return (1, 1, *[row[3] // 2] * 4)  # one bit, stride 1, the picture's size kept
    return {Requantise: (*INT16, None), Pool: (1,) * 4}.get(kind, ())


def shortened(row: list) -> list:
    """Return a node's row without the numbers at its end that are the usual ones."""
    kind = OPS[row[0]]
    least = 1 + _NEEDED[kind]
    row, left_out = list(row), usual(kind, row)
    while len(row) > least and row[-1] == left_out[len(row) - 1 - least]:
        row.pop()
    return row


def name_of(kind: type, number: int) -> str:
    """Return the name of the number-th node of a file, from 1 on: "conv1", "requantise2"."""
    return f"{kind.__name__.lower()}{number}"


def check_description(description: dict) -> None:
    """Put into each node what was left out of it.

    Raises ModelError, naming the place, for a description that is not exactly one of this version's.
    """
    if not is_whole(version := description.get("version"), VERSION, VERSION):
        raise ModelError(f"format version {shown(version)}, expected {VERSION}")
    check_keys("network", description, _DESCRIPTION)
    about, classes, scale = description["about"], description["classes"], description["logit_scale"]
    if not isinstance(about, dict):
        raise ModelError(f"about: {shown(about)}, expected an object")
    _check_about(about, 1)
    _check_list("classes", classes, MAX_SIDE)
    for name in classes:
        if not (isinstance(name, str) and _CLASS_NAME.fullmatch(name)):
            raise ModelError(f"classes: {shown(name)}, expected 1 to 200 characters, none of them a control character")
    if type(scale) is not float:
        raise ModelError(f"logit_scale: {shown(scale)}, expected a number with a decimal point or an exponent")
    pixels, nodes = description["input"], description["nodes"]
    check_keys("input", pixels, _INPUT)
    for key in ("channels", "height", "width"):
        if not is_whole(pixels[key], 1, MAX_SIDE):
            raise ModelError(f"input: {key} {shown(pixels[key])}, expected 1 to {MAX_SIDE}")
    if not are_whole(pixels["zero"], pixels["channels"], 0, 255):
        raise ModelError(f"input: zero {shown(pixels['zero'])}, expected {pixels['channels']} of 0 to 255")
    _check_list("nodes", nodes, MAX_NODES)
    for number, node in enumerate(nodes, 1):
        _complete(number, node)


def _check_list(where: str, value: object, most: int) -> None:
    if not (isinstance(value, list) and 1 <= len(value) <= most):
        raise ModelError(f"{where}: {shown(value)}, expected a list of 1 to {most}")


def _check_about(value: object, depth: int) -> None:
    """Refuse nesting that other readers need not follow, and text that is no UTF-8."""
    if depth > MAX_ABOUT_DEPTH:
        raise ModelError(f"about: nested deeper than {MAX_ABOUT_DEPTH}")
    if isinstance(value, dict):
        for part in (*value, *value.values()):
            _check_about(part, depth + 1)
    elif isinstance(value, list):
        for part in value:
            _check_about(part, depth + 1)
    elif isinstance(value, str) and _HALF_CHARACTER.search(value):
        raise ModelError(f"about: {shown(value)} holds half a character, which is no UTF-8")


# What each number of a node may be; graph.py checks what it must be there. A node's links are checked beside these.
_SIDE = (lambda v: is_whole(v, 1, MAX_SIDE), f"1 to {MAX_SIDE}")
_BORDER = (lambda v: is_whole(v, 0, MAX_SIDE), f"0 to {MAX_SIDE}")
_RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "channels": _SIDE,
    "high": (lambda v: is_whole(v, *INT32), "an int32"),
    "kind": (lambda v: is_whole(v, 0, len(POOLS) - 1), f"0 to {len(POOLS) - 1}"),
    "low": (lambda v: is_whole(v, *INT32), "an int32"),
    "multiplier": (lambda v: v is None or is_whole(v, *INT16), "an int16, or null for one per channel"),
    "offset": (lambda v: v is None or is_whole(v, *INT32), "an int32, or null for one per channel"),
    "out": _SIDE,
    "shift": (lambda v: is_whole(v, 0, MAX_SHIFT), f"0 to {MAX_SHIFT}"),
    "stride": (lambda v: is_whole(v, 1, 2), "1 or 2"),
    "weight_bits": (lambda v: is_whole(v, 1, 1) or is_whole(v, 8, 8), "1 or 8"),
    "window": _SIDE,
    "zero": (lambda v: v is None or is_whole(v, 0, MAX_CODE), f"0 to {MAX_CODE}, or null"),
    **dict.fromkeys(_PADDING, _BORDER),
}


def _complete(number: int, node: object) -> None:
    if not (isinstance(node, list) and node and is_whole(node[0], 0, len(OPS) - 1)):
        got = f"op {shown(node[0])}" if isinstance(node, list) and node else shown(node)
        raise ModelError(f"node {number}: {got}, expected a list whose first number, the op, is 0 to {len(OPS) - 1}")
    kind = OPS[node[0]]
    where, fields = name_of(kind, number), FIELDS[kind]
    least, most = 1 + _NEEDED[kind], 1 + len(fields)
    if not least <= len(node) <= most:
        count = f"{least} to {most}" if least < most else most
        raise ModelError(f"{where}: {len(node)} numbers, expected {count}: op, {', '.join(fields)}")
    for field, value in zip(fields, node[1:], strict=False):
        if field in ("input", "other"):
            holds, expected = is_whole(value, 0, number - 1), f"0 to {number - 1}: the pixels or a node before it"
        else:
            holds, expected = _RULES[field][0](value), _RULES[field][1]
        if not holds:
            raise ModelError(f"{where}: {field} {shown(value)}, expected {expected}")
    node += usual(kind, node)[len(node) - least :]
