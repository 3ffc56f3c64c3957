"""A .bwn file whose description is wrong gives one ModelError that names the place."""

import json

import pytest
from network.broken import DESCRIPTION, GONE, HEADER, assembled, header_text, put, refusal

NAME_RULE = "expected 1 to 64 of A-Z a-z 0-9 _ . -"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", 2, "format version 2, expected 1"),
        ("version", True, "format version true, expected 1"),
        ("version", 1.0, "format version 1.0, expected 1"),
        ("version", GONE, "format version null, expected 1"),
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
        ("classes", ["a"], "logits 'sum' are (2, 1, 1), expected (1, 1, 1)"),
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
        ("nodes/3", 7, "node 3: 7, expected an object whose op is one of conv, requantise, add, pool, sum"),
        ("nodes/3/op", "relu", "node 3: op 'relu', expected an object whose op is one of conv, requantise, add"),
        ("nodes/3/op", [], "node 3: op [], expected an object whose op is one of conv, requantise, add, pool, sum"),
        ("nodes/3/op", GONE, "node 3: op null, expected an object whose op is one of"),
        ("nodes/3/op", "sum", "sum 'branch': key 'padding' is unknown"),
        ("nodes/stem/x", 1, "conv 'stem': key 'x' is unknown"),
        ("nodes/stem/stride", GONE, "conv 'stem': key 'stride' is missing"),
        ("nodes/stem/name", GONE, "node 0: key 'name' is missing"),
        ("nodes/stem/name", "", f"node 0: name '', {NAME_RULE}"),
        ("nodes/stem/name", "x" * 65, f"node 0: name '{'x' * 40}'..., {NAME_RULE}"),
        ("nodes/stem/name", "a/b", f"node 0: name 'a/b', {NAME_RULE}"),
        ("nodes/stem/name", "a\n", rf"node 0: name 'a\n', {NAME_RULE}"),
        ("nodes/branch/name", "stem", "conv 'stem': the name stands twice"),
        ("nodes/add/name", "pool", "add 'pool': the name stands twice"),
        ("nodes/add/name", "pixels", "add 'pixels': the name stands twice"),
        ("nodes/stem/input", 3, f"conv 'stem': input 3, {NAME_RULE}"),
        ("nodes/stem/input", "nothing", "conv 'stem': reads 'nothing', which does not exist"),
        ("nodes/stem/input", "act", "conv 'stem': reads 'act', which comes later: a cycle, or out of order"),
        ("nodes/stem/input", "stem", "conv 'stem': reads 'stem', which comes later: a cycle, or out of order"),
        ("nodes/stem/padding", [1, 1, 1], "conv 'stem': padding [1,1,1], expected 4 of 0 to 32768"),
        ("nodes/stem/padding", [1, 1, 1, -1], "conv 'stem': padding [1,1,1,-1], expected 4 of 0 to 32768"),
        ("nodes/stem/padding", [1, 1, 1, 3], "conv 'stem': padding (1, 1, 1, 3), expected 4 of 0 to 2"),
        ("nodes/stem/shape", [3, 3, 2], "conv 'stem': shape [3,3,2], expected [out, F, F, in] of 1 to 32768 each"),
        ("nodes/stem/shape", [0, 3, 3, 2], "conv 'stem': shape [0,3,3,2], expected [out, F, F, in]"),
        ("nodes/stem/shape", [3, 3, 3, 2.0], "conv 'stem': shape [3,3,3,2.0], expected [out, F, F, in]"),
        ("nodes/stem/shape", [32768] * 4, "conv 'stem': shape [32768,32768,32768,32768], expected [out, F, F, in]"),
        ("nodes/stem/shape", [4, 3, 3, 2], "conv 'stem': weight tensor U8 [7], expected U8 [9] for 72 weights"),
        ("nodes/stem/shape", [3, 3, 2, 3], "conv 'stem': weights int8 (3, 3, 2, 3), expected int8 (out, F, F, 2)"),
        ("nodes/stem/stride", 3, "conv 'stem': stride 3, expected 1 or 2"),
        ("nodes/stem/stride", True, "conv 'stem': stride true, expected 1 or 2"),
        ("nodes/stem/weight_bits", True, "conv 'stem': weight_bits true, expected 1 or 8"),
        ("nodes/stem/weight_bits", 8.0, "conv 'stem': weight_bits 8.0, expected 1 or 8"),
        ("nodes/stem/weight_bits", 2, "conv 'stem': weight_bits 2, expected 1 or 8"),
        ("nodes/stem/weight_bits", 8, "conv 'stem': weight tensor U8 [7], expected I8 [3, 3, 3, 2] for 54 weights"),
        ("nodes/act/multiplier", 32768, "requantise 'act': multiplier 32768, expected an int16, or null for one"),
        ("nodes/act/multiplier", [1], "requantise 'act': multiplier [1], expected an int16, or null for one per"),
        ("nodes/act/multiplier", None, "tensor 'act.multiplier' is missing"),
        ("nodes/stream/multiplier", 1, "tensor 'stream.multiplier' belongs to no node"),
        ("nodes/act/offset", -(2**31) - 1, "requantise 'act': offset -2147483649, expected an int32, or null"),
        ("nodes/act/offset", 2**31 - 1, "requantise 'act': values reach 2147480206..2147487091 before the shift"),
        ("nodes/act/shift", 48, "requantise 'act': shift 48, expected 0 to 47"),
        ("nodes/act/shift", -1, "requantise 'act': shift -1, expected 0 to 47"),
        ("nodes/act/low", "0", "requantise 'act': low '0', expected an int32"),
        ("nodes/act/high", 2**31, "requantise 'act': high 2147483648, expected an int32"),
        ("nodes/act/high", 512, "requantise 'act': codes 0..512, expected within 0..511"),
        ("nodes/act/zero", 512, "requantise 'act': zero 512, expected 0 to 511, or null"),
        ("nodes/act/zero", 256, "requantise 'act': zero point is 256, expected 0 to 255"),
        ("nodes/act/zero", None, "conv 'branch': reads 'act', which holds no codes"),
        ("nodes/pool/kind", "median", "pool 'pool': kind 'median', expected one of binomial, mean, mean-real, max"),
        ("nodes/pool/kind", ["max"], "pool 'pool': kind ['max'], expected one of binomial"),
        ("nodes/pool/channels", 0, "pool 'pool': channels 0, expected 1 to 32768"),
        ("nodes/pool/channels", 2, "pool 'pool': 2 channels, expected 3 to 32768"),
        ("nodes/pool/padding", [3, 0, 0, 0], "pool 'pool': padding (3, 0, 0, 0), expected 4 of 0 to 2"),
        ("nodes/add/inputs", ["pool"], "add 'add': inputs ['pool'], expected two names"),
        ("nodes/add/inputs", "pool", "add 'add': inputs 'pool', expected two names"),
        ("nodes/add/inputs", ["pool", "stem"], "add 'add': adds (5, 2, 2) and (3, 4, 4), expected equal shapes"),
        ("nodes/add/inputs", ["pool", "pool"], "'back' is read by no node"),
        ("nodes/sum", GONE, "logits 'head' are (2, 2, 2), expected (2, 1, 1)"),
    ],
)
def test_description(path, value, message):
    assert refusal(assembled(header_text(put(DESCRIPTION, path, value)))).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "network: not JSON at character 0: Expecting value"),
        ("[1]", "network: [1], expected an object"),
        ('{"a":1,"b":2,"a":3}', "network: key 'a' stands twice"),
        ('{"a":Infinity}', "network: number Infinity, expected a finite one"),
        ('{"a":1e400}', "network: number '1e400', expected a finite one"),
        ('{"a":' + "[" * 5000 + "]" * 5000 + "}", "network: nested too deeply"),
        ('{"version":' + "[" * 900 + "]" * 900 + "}", "format version a list of 1, expected 1"),
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
