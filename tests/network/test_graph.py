"""Every refusal of a graph that is not well formed, one test each; and what is computed from the graph alone."""

import dataclasses

import numpy as np
import pytest
from network.examples import conv, int32_limit, network, requantise, wide_resnet

from bitwren.errors import ModelError
from bitwren.network.graph import INT32, MAX_SHIFT, PIXELS, Add, Conv, Pool, Requantise, Sum

STEM = conv("c", PIXELS, 1)
CODES = requantise("q", "c", low=0, high=255, zero=0)
STREAM = requantise("s", PIXELS)


def with_weights(weights, bits=1, **how):
    return Conv(**{"name": "c", "input": PIXELS, "weights": weights, "weight_bits": bits, "stride": 1,
                   "padding": (0, 0, 0, 0)} | how)


ONE = np.ones((1, 1, 1, 1), np.int8)
NODES = {
    "no nodes": ([], "the network has no nodes"),
    "a name twice": ([STEM, CODES, conv("c", "q", 1)], "conv 'c': the name stands twice"),
    "the input's name": ([dataclasses.replace(STEM, name=PIXELS)], "conv 'pixels': the name stands twice"),
    "a dangling name": ([conv("c", "nought", 1)], "conv 'c': reads 'nought', which does not exist"),
    "itself": ([requantise("r", "r")], "requantise 'r': reads 'r', which comes later: a cycle, or out of order"),
    "a later one": ([conv("c", "q", 1), CODES], "conv 'c': reads 'q', which comes later: a cycle, or out of order"),
    "a node that nobody reads": ([STEM, requantise("t", PIXELS)], "'c' is read by no node"),
    "an input that nobody reads": ([Add("a", ("a", "a"))], "add 'a': reads 'a', which comes later"),
    "logits of another shape": ([STREAM, Pool("p", "s", "max", (1, 1, 1, 1), 2)],
                                "logits 'p' are (2, 1, 1), expected (1, 1, 1)"),
    "a conv of sums": ([STEM, conv("d", "c", 1)], "conv 'd': reads 'c', which holds no codes"),
    "weights of another type": ([with_weights(ONE.astype(np.int16))],
                                "conv 'c': weights int16 (1, 1, 1, 1), expected int8 (out, F, F, 1)"),
    "weights of three axes": ([with_weights(ONE[0])], "conv 'c': weights int8 (1, 1, 1), expected int8 (out, F, F, 1)"),
    "a window that is not square": ([with_weights(np.ones((1, 1, 2, 1), np.int8))], "weights int8 (1, 1, 2, 1)"),
    "weights of no window": ([with_weights(np.ones((1, 0, 0, 1), np.int8))], "weights int8 (1, 0, 0, 1)"),
    "weights of other channels": ([with_weights(np.ones((1, 1, 1, 2), np.int8))], "weights int8 (1, 1, 1, 2)"),
    "two bits": ([with_weights(ONE, 2)], "conv 'c': 2 bits per weight, expected 1 or 8"),
    "a weight of 0": ([with_weights(0 * ONE)], "conv 'c': weights outside -1, +1"),
    "a weight of 2": ([with_weights(2 * ONE)], "conv 'c': weights outside -1, +1"),
    "a weight of -128": ([with_weights(-128 * ONE, 8)], "conv 'c': weights outside -127..127"),
    "a stride of 3": ([with_weights(ONE, stride=3)], "conv 'c': stride is 3, expected 1 or 2"),
    "padding as wide as the window": ([with_weights(ONE, padding=(0, 1, 0, 0))],
                                      "conv 'c': padding (0, 1, 0, 0), expected 4 of 0 to 0"),
    "negative padding": ([with_weights(ONE, padding=(0, 0, -1, 0))], "padding (0, 0, -1, 0), expected 4 of 0 to 0"),
    "padding on three sides": ([with_weights(ONE, padding=(0, 0, 0))], "padding (0, 0, 0), expected 4 of 0 to 0"),
    "a window too large": ([with_weights(np.ones((1, 3, 3, 1), np.int8), padding=(2, 1, 0, 0))],
                           "conv 'c': a 3 x 3 window does not fit 1 x 1 pixels"),
    "a multiplier of another type": (
        [Requantise("r", PIXELS, np.ones(1, np.int32), np.zeros(1, np.int32), 0, 0, 1, None)],
        "requantise 'r': multiplier int32 (1,), expected int16 of 1 or 1"),
    "two multipliers": ([requantise("r", PIXELS, [1, 2])], "multiplier int16 (2,), expected int16 of 1 or 1"),
    "an offset of another type": (
        [Requantise("r", PIXELS, np.ones(1, np.int16), np.zeros(1, np.int64), 0, 0, 1, None)],
        "requantise 'r': offset int64 (1,), expected int32 of 1 or 1"),
    "two offsets": ([requantise("r", PIXELS, 1, [1, 2])], "offset int32 (2,), expected int32 of 1 or 1"),
    "a shift of 48": ([requantise("r", PIXELS, shift=48)], "requantise 'r': shift is 48, expected 0 to 47"),
    "a negative shift": ([requantise("r", PIXELS, shift=-1)], "requantise 'r': shift is -1, expected 0 to 47"),
    "low over high": ([requantise("r", PIXELS, low=1, high=0)],
                      "requantise 'r': range 1..0, expected low <= high within int32"),
    "a range beyond int32": ([requantise("r", PIXELS, high=2**31)], "range -32768..2147483648, expected low <= high"),
    "a range of fractions": ([requantise("r", PIXELS, high=1.5)], "range -32768..1.5, expected low <= high"),
    "codes of 512": ([requantise("r", PIXELS, low=0, high=512, zero=0)],
                     "requantise 'r': codes 0..512, expected within 0..511"),
    "codes below 0": ([requantise("r", PIXELS, low=-1, high=5, zero=0)], "codes -1..5, expected within 0..511"),
    "a zero point below": ([requantise("r", PIXELS, low=1, high=5, zero=0)],
                           "requantise 'r': zero point is 0, expected 1 to 5"),
    "a zero point above": ([requantise("r", PIXELS, low=1, high=5, zero=6)], "zero point is 6, expected 1 to 5"),
    "a shift past int32": ([requantise("r", PIXELS, 1, 2**31 - 255)],
                           "requantise 'r': values reach 2147483393..2147483648 before the shift, expected int32"),
    "a shift past int32 downwards": ([requantise("r", PIXELS, -1, -(2**31) + 254)], "values reach -2147483649.."),
    "a sum of one": ([STREAM, Add("a", ("s",))], "add 'a': adds 1 tensors, expected 2"),
    "a sum of three": ([STREAM, Add("a", ("s", "s", "s"))], "add 'a': adds 3 tensors, expected 2"),
    "a sum of two shapes": ([STREAM, Pool("p", "s", "max", (1, 1, 1, 1), 2), Add("a", ("s", "p"))],
                            "add 'a': adds (1, 1, 1) and (2, 1, 1), expected equal shapes"),
    "a sum beyond int16": ([STREAM, requantise("t", PIXELS, 1, 32513, high=32768), Add("a", ("s", "t"))],
                           "add 'a': reads 0..255 and 32513..32768, expected int16"),
    "an unknown pooling": ([STREAM, Pool("p", "s", "maximum", (1, 1, 1, 1), 1)],
                           "pool 'p': unknown pooling 'maximum'; did you mean 'max'?"),
    "a pool beyond int16": ([requantise("t", PIXELS, -1, -32514, low=-32769), Pool("p", "t", "max", (1, 1, 1, 1), 1)],
                            "pool 'p': reads -32769..-32514, expected int16"),
    "a pool to no channels": ([STREAM, Pool("p", "s", "max", (1, 1, 1, 1), 0)],
                              "pool 'p': 0 channels, expected 1 to 32768"),
    "a pool to too many": ([STREAM, Pool("p", "s", "max", (1, 1, 1, 1), 2**15 + 1)], "32769 channels, expected 1 to"),
    "pool padding of 3": ([STREAM, Pool("p", "s", "max", (3, 0, 0, 0), 1)],
                          "pool 'p': padding (3, 0, 0, 0), expected 4 of 0 to 2"),
    "a pool too large": ([STREAM, Pool("p", "s", "max", (1, 1, 1, 0), 1)],
                         "pool 'p': a 3 x 3 window does not fit 1 x 1 pixels"),
}


@pytest.mark.parametrize("name", NODES)
def test_a_node_is_refused(name):
    nodes, message = NODES[name]
    with pytest.raises(ModelError) as caught:
        network((1, 1, 1), *nodes)
    assert message in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 1, 1), (1, 2**15 + 1, 1), (1, 1, 1.0), (1, True, 1)])
def test_input_shape_is_refused(shape):
    with pytest.raises(ModelError, match=r"^input is .*, expected \(channels, height, width\) of 1 to 32768 each$"):
        network((1, 1, 1), STREAM).__class__(*shape, np.zeros(1, np.int64), (STREAM,), ("a",), 1.0)


@pytest.mark.parametrize("zero", [[256], [-1], [0, 0], [0.5]])
def test_zero_points_are_refused(zero):
    with pytest.raises(ModelError, match=r"^input: zero points .*, expected 1 of 0 to 255$"):
        dataclasses.replace(network((1, 1, 1), STREAM), zero=np.array(zero))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan"), 1, "1"])
def test_logit_scale_is_refused(scale):
    with pytest.raises(ModelError, match=r"^logit scale is .*, expected a positive number$"):
        network((1, 1, 1), STREAM, scale=scale)


def test_int32_is_reached_by_a_conv_and_not_passed():
    assert int32_limit().tensors["conv"].high == INT32[1]
    with pytest.raises(ModelError, match=r"^conv 'conv': sums reach 2147483648, expected at most 2147483647 "):
        int32_limit(over=True)


def test_int32_is_reached_by_a_sum_and_not_passed():
    # 2**31 - 1 is prime: one position. -2**31 is 2**16 positions of -2**15.
    least = requantise("r", PIXELS, -1, -(2**31) + 255, low=-(2**31))
    assert network((1, 1, 1), least, Sum("s", "r")).tensors["s"].low == INT32[0]
    stream = requantise("r", PIXELS, -1, -(2**15) + 255)
    assert network((1, 2**8, 2**8), stream, Sum("s", "r")).tensors["s"].low == INT32[0]
    with pytest.raises(ModelError, match=r"^sum 's': sums reach -2155872256"):
        network((1, 2**16 // 257 + 1, 257), stream, Sum("s", "r"))


def test_a_shift_reaches_int32():
    assert network((1, 1, 1), requantise("r", PIXELS, 1, 2**31 - 256, 16)).tensors["r"].high == 32767
    beyond = requantise("r", PIXELS, 3, 2**31 - 1, MAX_SHIFT)  # no power of two: 48 bits
    assert network((1, 1, 1), beyond).tensors["r"].high == 0


def test_bounds_of_a_conv():
    weights = np.array([[1, -1], [1, 1]])[:, None, None, :]  # (2, 1, 1, 2)
    net = network((2, 1, 1), conv("c", PIXELS, weights), zero=[100, 0], classes=2)
    assert (net.tensors["c"].low, net.tensors["c"].high) == (-155 - 255, 155 + 255)


@pytest.mark.parametrize(
    ("offset", "low", "high"), [(0, 0, 510), (-32768, -32768, -32768), (32700, 32767, 32767), (-200, -400, 110)]
)
def test_bounds_of_an_add_lie_within_int16(offset, low, high):
    net = network((1, 1, 1), requantise("r", PIXELS, 1, offset), Add("a", ("r", "r")))
    assert (net.tensors["a"].low, net.tensors["a"].high) == (low, high)


@pytest.mark.parametrize(
    ("kind", "channels", "low"),
    [("max", 1, 100), ("max", 2, 0), ("mean", 1, 0), ("mean-real", 1, 100), ("mean-real", 2, 0), ("binomial", 1, 0)],
)
def test_bounds_of_a_pool(kind, channels, low):
    nodes = [requantise("r", PIXELS, 1, 100), Pool("p", "r", kind, (1, 1, 1, 1), channels)]
    net = network((1, 1, 1), *nodes, classes=channels)
    assert (net.tensors["p"].low, net.tensors["p"].high) == (low, 355)


def test_shapes():
    weights = np.ones((4, 3, 3, 2))
    nodes = [conv("c", PIXELS, weights, 2, (1, 0, 2, 1)), requantise("r", "c"), Pool("p", "r", "max", (0, 2, 1, 0), 7),
             Sum("s", "p")]
    net = network((2, 9, 6), *nodes, classes=7)
    assert [net.tensors[n].shape for n in "crps"] == [(4, 5, 3), (4, 5, 3), (7, 2, 2), (7, 1, 1)]
    assert net.weights == 4 * 9 * 2 and net.logits == "s"


def test_multiplications_are_counted_from_the_constants():
    eight = conv("c", PIXELS, np.full((4, 3, 3, 2), 2), 1, (1, 1, 1, 1), bits=8)
    nodes = [
        eight,
        requantise("r", "c", [1, -4, 0, 3], shift=2),
        Pool("mean", "r", "mean", (1, 1, 1, 1), 6),
        Pool("real", "r", "mean-real", (1, 1, 1, 1), 6),
        Pool("max", "r", "max", (1, 1, 1, 1), 6),
        Pool("binomial", "r", "binomial", (1, 1, 1, 1), 6),
        Add("a", ("mean", "real")),
        Add("b", ("max", "binomial")),
        Add("d", ("a", "b")),
        requantise("t", "d", 5),
        Sum("s", "t"),
    ]
    net = network((2, 6, 4), *nodes, classes=6)
    counted = {node.name: net.multiplications(node) for node in nodes if net.multiplications(node)}
    positions = 3 * 2
    assert counted == {
        "c": 4 * 9 * 2 * 24, "r": 24, "mean": 4 * positions, "real": 4 * positions, "t": 6 * positions
    }
    assert net.total_multiplications == sum(counted.values())


@pytest.mark.parametrize("multiplier", [0, 1, -1, 2, -2, 2**14, -(2**14), -(2**15)])
def test_a_power_of_two_shifts(multiplier):
    net = network((1, 1, 1), requantise("r", PIXELS, multiplier))
    assert net.total_multiplications == 0


@pytest.mark.parametrize("multiplier", [3, -3, 5, 6, 2**15 - 1, -(2**15) + 1])
def test_another_number_multiplies(multiplier):
    assert network((1, 1, 1), requantise("r", PIXELS, multiplier)).total_multiplications == 1


def test_the_shift_only_form_has_none():
    assert wide_resnet(pool="binomial").total_multiplications == 0
    assert wide_resnet(pool="max").total_multiplications == 0
    assert wide_resnet(pool="mean").total_multiplications == 16 * 16 * 16 + 32 * 8 * 8
    assert wide_resnet(shift_only=False).total_multiplications > 0
