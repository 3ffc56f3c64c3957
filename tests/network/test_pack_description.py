"""A .bwn file whose description is wrong gives one ModelError that names the place."""

import json

import pytest
from network.broken import (
    DESCRIPTION,
    GONE,
    GOOD,
    HEADER,
    SHORT_NODES,
    assembled,
    header_text,
    partly_shortened,
    put,
    refusal,
)

from bitwren.network.pack import decode, encode


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", 4, "format version 4, expected 3"),
        ("version", 2, "format version 2, expected 3"),
        ("version", True, "format version true, expected 3"),
        ("version", 3.0, "format version 3.0, expected 3"),
        ("version", GONE, "format version null, expected 3"),
        ("x", 1, "network: key 'x' is unknown"),
        ("about", GONE, "network: key 'about' is missing"),
        ("about", [], "about: [], expected an object"),
        ("about/x", [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]], "about: nested deeper than 16"),
        ("about/x", "\ud800", r"about: '\ud800' holds half a character, which is no UTF-8"),
        ("about/\udfff", "", r"about: '\udfff' holds half a character, which is no UTF-8"),
        ("classes", [], "classes: [], expected a list of 1 to 32768"),
        ("classes", {"a": 1}, "classes: an object of 1 keys ('a'), expected a list of 1 to 32768"),
        ("classes", ["a"] * 32769, "classes: a list of 32769, expected a list of 1 to 32768"),
        ("classes/1", None, "classes: null, expected 1 to 200 characters, none of them a control character"),
        ("classes/1", "", "classes: '', expected 1 to 200 characters"),
        ("classes/1", "x" * 201, f"classes: '{'x' * 40}'..., expected 1 to 200 characters"),
        ("classes/1", "a\x7f", r"classes: 'a\x7f', expected 1 to 200 characters"),
        ("classes/1", "\ud800", r"classes: '\ud800', expected 1 to 200 characters"),
        ("classes", ["a"], "logits 'sum10' are (2, 1, 1), expected (1, 1, 1)"),
        ("logit_scale", 1, "logit_scale: 1, expected a number with a decimal point or an exponent"),
        ("logit_scale", "1.0", "logit_scale: '1.0', expected a number with a decimal point or an exponent"),
        ("logit_scale", 0.0, "logit scale is 0.0, expected a positive number"),
        ("logit_scale", -1.5, "logit scale is -1.5, expected a positive number"),
        ("input", [], "input: [], expected an object"),
        ("input/x", 1, "input: key 'x' is unknown"),
        ("input/width", GONE, "input: key 'width' is missing"),
        ("input/width", 0, "input: width 0, expected 1 to 32768"),
        ("input/height", 32769, "input: height 32769, expected 1 to 32768"),
        ("input/height", 4.0, "input: height 4.0, expected 1 to 32768"),
        ("input/channels", "2", "input: channels '2', expected 1 to 32768"),
        ("input/zero", [0], "input: zero [0], expected 2 of 0 to 255"),
        ("input/zero", [0, 256], "input: zero [0,256], expected 2 of 0 to 255"),
        ("input/zero", [0, False], "input: zero [0,false], expected 2 of 0 to 255"),
        ("nodes", [], "nodes: [], expected a list of 1 to 4096"),
        ("nodes", DESCRIPTION["nodes"] * 500, "nodes: a list of 5000, expected a list of 1 to 4096"),
        ("nodes/3", 7, "node 4: 7, expected a list whose first number, the op, is 0 to 4"),
        ("nodes/3", [], "node 4: [], expected a list whose first number, the op, is 0 to 4"),
        ("nodes/3", {"op": 0}, "node 4: an object of 1 keys ('op'), expected a list whose first number"),
        ("nodes/3/0", 5, "node 4: op 5, expected a list whose first number, the op, is 0 to 4"),
        ("nodes/3/0", -1, "node 4: op -1, expected a list whose first number"),
        ("nodes/3/0", "conv", "node 4: op 'conv', expected a list whose first number"),
        ("nodes/3/0", False, "node 4: op false, expected a list whose first number"),
        ("nodes/3/0", 0.0, "node 4: op 0.0, expected a list whose first number"),
        ("nodes/3/0", [], "node 4: op [], expected a list whose first number"),
        ("nodes/3/0", 4, "sum4: 10 numbers, expected 2: op, input"),
        ("nodes/stem", [0, 0, 3], "conv1: 3 numbers, expected 4 to 10: op, input, out, window, weight_bits, stride, "),
        ("nodes/3", [0, 3, 5, 3, 1, 2, 1, 1, 1, 1, 1], "conv4: 11 numbers, expected 4 to 10"),
        ("nodes/stream", [1, 1, 2, 3], "requantise2: 4 numbers, expected 5 to 8: op, input, multiplier, offset, "),
        ("nodes/pool", [3, 2, 0], "pool6: 3 numbers, expected 4 to 8: op, input, kind, channels, top, "),
        ("nodes/add", [2, 6], "add7: 2 numbers, expected 3: op, input, other"),
        ("nodes/9", [4], "sum10: 1 numbers, expected 2: op, input"),
        ("nodes/stem/input", "pixels", "conv1: input 'pixels', expected 0 to 0: the pixels or a node before it"),
        ("nodes/stem/input", 1, "conv1: input 1, expected 0 to 0: the pixels or a node before it"),
        ("nodes/branch/input", 4, "conv4: input 4, expected 0 to 3: the pixels or a node before it"),
        ("nodes/branch/input", -1, "conv4: input -1, expected 0 to 3"),
        ("nodes/branch/input", None, "conv4: input null, expected 0 to 3"),
        ("nodes/branch/input", True, "conv4: input true, expected 0 to 3"),
        ("nodes/add/other", 7, "add7: other 7, expected 0 to 6"),
        ("nodes/add/other", 4096, "add7: other 4096, expected 0 to 6"),
        ("nodes/stem/top", -1, "conv1: top -1, expected 0 to 32768"),
        ("nodes/stem/left", 32769, "conv1: left 32769, expected 0 to 32768"),
        ("nodes/stem/bottom", [1], "conv1: bottom [1], expected 0 to 32768"),
        ("nodes/stem/right", 3, "conv 'conv1': padding (1, 1, 1, 3), expected 4 of 0 to 2"),
        ("nodes/stem/out", 0, "conv1: out 0, expected 1 to 32768"),
        ("nodes/stem/out", 32769, "conv1: out 32769, expected 1 to 32768"),
        ("nodes/stem/out", 4, "tensor 'offsets': I32 [3], expected I16 or I32 [4] for the nodes"),
        ("nodes/branch/out", 6, "tensor 'bits': U8 [24], expected U8 [28] for the nodes"),
        ("nodes/stem/window", 3.0, "conv1: window 3.0, expected 1 to 32768"),
        ("nodes/stem/window", 0, "conv1: window 0, expected 1 to 32768"),
        ("nodes/stem/window", 32768, "conv1: 6442450944 weights, expected at most 2147483647"),
        ("nodes/stem/stride", 3, "conv1: stride 3, expected 1 or 2"),
        ("nodes/stem/stride", True, "conv1: stride true, expected 1 or 2"),
        ("nodes/stem/weight_bits", True, "conv1: weight_bits true, expected 1 or 8"),
        ("nodes/stem/weight_bits", 8.0, "conv1: weight_bits 8.0, expected 1 or 8"),
        ("nodes/stem/weight_bits", 2, "conv1: weight_bits 2, expected 1 or 8"),
        ("nodes/stem/weight_bits", None, "conv1: weight_bits null, expected 1 or 8"),
        ("nodes/stem/weight_bits", 8, "tensor 'weights': I8 [10], expected I8 [64] for the nodes"),
        ("nodes/act/multiplier", 32768, "requantise3: multiplier 32768, expected an int16, or null for one"),
        ("nodes/act/multiplier", [1], "requantise3: multiplier [1], expected an int16, or null for one per"),
        ("nodes/act/multiplier", None, "tensor 'multipliers': I16 [3], expected I16 [6] for the nodes"),
        ("nodes/stream/multiplier", 1, "tensors 'offsets', 'multipliers', 'weights', 'bits', expected offsets, weigh"),
        ("nodes/act/offset", -(2**31) - 1, "requantise3: offset -2147483649, expected an int32, or null"),
        ("nodes/act/offset", 2**31 - 1, "requantise 'requantise3': values reach 2147481353..2147504589 before the"),
        ("nodes/act/shift", 48, "requantise3: shift 48, expected 0 to 47"),
        ("nodes/act/shift", -1, "requantise3: shift -1, expected 0 to 47"),
        ("nodes/act/shift", None, "requantise3: shift null, expected 0 to 47"),
        ("nodes/act/low", "0", "requantise3: low '0', expected an int32"),
        ("nodes/act/high", 2**31, "requantise3: high 2147483648, expected an int32"),
        ("nodes/act/high", 512, "requantise 'requantise3': codes 0..512, expected within 0..511"),
        ("nodes/act/zero", 512, "requantise3: zero 512, expected 0 to 511, or null"),
        ("nodes/act/zero", 256, "requantise 'requantise3': zero point is 256, expected 0 to 255"),
        ("nodes/act/zero", None, "conv 'conv4': reads 'requantise3', which holds no codes"),
        ("nodes/pool/kind", 4, "pool6: kind 4, expected 0 to 3"),
        ("nodes/pool/kind", "max", "pool6: kind 'max', expected 0 to 3"),
        ("nodes/pool/channels", 0, "pool6: channels 0, expected 1 to 32768"),
        ("nodes/pool/channels", 2, "tensor 'weights': I8 [10], expected I8 [4] for the nodes"),
        ("nodes/pool/top", 3, "pool 'pool6': padding (3, 1, 1, 1), expected 4 of 0 to 2"),
        ("nodes/add/other", 1, "add 'add7': adds (5, 2, 2) and (3, 4, 4), expected equal shapes"),
        ("nodes/add/other", 6, "'requantise5' is read by no node"),
        ("nodes/sum", GONE, "logits 'conv9' are (2, 2, 2), expected (2, 1, 1)"),
    ],
)
def test_description(path, value, message):
    assert refusal(assembled(header_text(put(DESCRIPTION, path, value)))).startswith(message)


def test_the_usual_numbers_at_a_rows_end_may_stand_or_be_left_out():
    assert [(len(row), len(short)) for row, short in zip(DESCRIPTION["nodes"], SHORT_NODES, strict=True)] == [
        (10, 4), (8, 5), (8, 8), (10, 6), (8, 5), (8, 4), (3, 3), (8, 8), (10, 5), (2, 2)
    ]  # fmt: skip
    for data in partly_shortened():
        assert encode(decode(data, "net.bwn")) == GOOD


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "network: not JSON at character 0: Expecting value"),
        ("[1]", "network: [1], expected an object"),
        ('{"a":1,"b":2,"a":3}', "network: key 'a' stands twice"),
        ('{"a":Infinity}', "network: number Infinity, expected a finite one"),
        ('{"a":1e400}', "network: number '1e400', expected a finite one"),
        ('{"a":' + "[" * 5000 + "]" * 5000 + "}", "network: nested too deeply"),
        ('{"version":' + "[" * 900 + "]" * 900 + "}", "format version a list of 1, expected 3"),
        ('{"version":10000000000000000000}', "network: number '10000000000000000000', expected at most 19 digits"),
        ('{"a":"\n"}', "network: not JSON at character 6: Invalid control character at"),
    ],
)
def test_description_text(text, message):
    assert refusal(assembled(header_text(text))) == message


def test_metadata_that_is_no_text():
    header = put(HEADER, "__metadata__/bitwren.network", 5)
    message = refusal(assembled(json.dumps(header, separators=(",", ":"))))
    assert message.endswith("expected bitwren.crc32 and bitwren.network, both strings")
