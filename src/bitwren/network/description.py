"""What the JSON of a .bwn file may hold: each key of each object, and its limits (docs/file-format.md).

Types, ranges and lengths are checked here, so that every number can be used as it is; what the numbers must be to each
other - names that exist, shapes that fit, sums within int32 - is graph.py's to say.
"""

import math
import re
from collections.abc import Callable

from bitwren.errors import ModelError
from bitwren.network.graph import INT16, INT32, MAX_CODE, MAX_SHIFT, POOLS, Add, Conv, Pool, Requantise, Sum
from bitwren.network.strict_json import are_whole, check_keys, is_whole, shown

VERSION = 1
MAX_NODES = 4096
MAX_SIDE = 2**15  # channels, height, width, classes, window
MAX_VALUES = 2**31 - 1  # of one tensor or one conv's weights: an index fits int32
MAX_ABOUT_DEPTH = 16
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_CLASS_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,200}")  # no control characters, no half characters
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")

_DESCRIPTION = ("about", "classes", "input", "logit_scale", "nodes", "version")
_INPUT = ("channels", "height", "width", "zero")
KEYS = {  # of a node's object, beside "op"; those of a node's class, but "shape" for the weights
    Conv: ("input", "name", "padding", "shape", "stride", "weight_bits"),
    Requantise: ("high", "input", "low", "multiplier", "name", "offset", "shift", "zero"),
    Add: ("inputs", "name"),
    Pool: ("channels", "input", "kind", "name", "padding"),
    Sum: ("input", "name"),
}
OPS = {kind.__name__.lower(): kind for kind in KEYS}


def check_description(description: dict) -> None:
    """Raise ModelError, naming the place, for a description that is not exactly one of this version's."""
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
    names: set[str] = set()
    for index, node in enumerate(nodes):
        _check_node(index, node)
        if node["name"] in names:  # before any weights are unpacked: else a small file could have them unpacked often
            raise ModelError(f"{node['op']} {node['name']!r}: the name stands twice")
        names.add(node["name"])


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


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


# What each key of a node may hold; graph.py checks what it must hold there.
_RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "channels": (lambda v: is_whole(v, 1, MAX_SIDE), f"1 to {MAX_SIDE}"),
    "high": (lambda v: is_whole(v, *INT32), "an int32"),
    "input": (_is_name, "1 to 64 of A-Z a-z 0-9 _ . -"),
    "inputs": (lambda v: isinstance(v, list) and len(v) == 2 and all(map(_is_name, v)), "two names"),
    "kind": (lambda v: isinstance(v, str) and v in POOLS, f"one of {', '.join(POOLS)}"),
    "low": (lambda v: is_whole(v, *INT32), "an int32"),
    "multiplier": (lambda v: v is None or is_whole(v, *INT16), "an int16, or null for one per channel"),
    "name": (_is_name, "1 to 64 of A-Z a-z 0-9 _ . -"),
    "offset": (lambda v: v is None or is_whole(v, *INT32), "an int32, or null for one per channel"),
    "padding": (lambda v: are_whole(v, 4, 0, MAX_SIDE), f"4 of 0 to {MAX_SIDE}"),
    "shape": (
        lambda v: are_whole(v, 4, 1, MAX_SIDE) and math.prod(v) <= MAX_VALUES,
        f"[out, F, F, in] of 1 to {MAX_SIDE} each, at most {MAX_VALUES} weights",
    ),
    "shift": (lambda v: is_whole(v, 0, MAX_SHIFT), f"0 to {MAX_SHIFT}"),
    "stride": (lambda v: is_whole(v, 1, 2), "1 or 2"),
    "weight_bits": (lambda v: is_whole(v, 1, 1) or is_whole(v, 8, 8), "1 or 8"),
    "zero": (lambda v: v is None or is_whole(v, 0, MAX_CODE), f"0 to {MAX_CODE}, or null"),
}


def _check_node(index: int, node: object) -> None:
    where = f"node {index}"
    op = node.get("op") if isinstance(node, dict) else None
    if not (isinstance(op, str) and op in OPS):
        got = f"op {shown(op)}" if isinstance(node, dict) else shown(node)
        raise ModelError(f"{where}: {got}, expected an object whose op is one of {', '.join(OPS)}")
    if _is_name(node.get("name")):
        where = f"{op} {node['name']!r}"
    keys = KEYS[OPS[op]]
    check_keys(where, node, ("op", *keys))
    for key in keys:
        holds, expected = _RULES[key]
        if not holds(node[key]):
            raise ModelError(f"{where}: {key} {shown(node[key])}, expected {expected}")
