"""The oracle against a second implementation of docs/integer-network.md, one number at a time; and against the hand."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from network.examples import conv, int32_limit, network, requantise, wide_resnet
from network.strategies import networks_and_pictures

from bitwren.errors import ModelError
from bitwren.network.graph import INT32, PIXELS, Add, Conv, Network, Pool, Requantise, Sum
from bitwren.network.reference import run, run_all

HALF = Fraction(1, 2)


def number(node, values, zeros, c, i, j):
    """Return one number of a node's result. values: of each tensor, (c, i, j) -> int; outside the picture no key."""
    x = values[node.input] if not isinstance(node, Add) else None
    match node:
        case Conv():
            total = 0
            top, left, _, _ = node.padding
            _, window, _, channels = node.weights.shape
            for u, v, k in product(range(window), range(window), range(channels)):
                place = k, node.stride * i + u - top, node.stride * j + v - left
                if place in x:
                    total += int(node.weights[c, u, v, k]) * (x[place] - int(zeros[node.input][k]))
            return total
        case Requantise():
            m, b = (int(values[c if len(values) > 1 else 0]) for values in (node.multiplier, node.offset))
            return min(max(math.floor(Fraction(m * x[c, i, j] + b, 2**node.shift)), node.low), node.high)
        case Add():
            return min(max(sum(values[name][c, i, j] for name in node.inputs), -32768), 32767)
        case Pool():
            top, left, _, _ = node.padding
            inside = {
                (u, v): x[c, 2 * i + u - top, 2 * j + v - left]
                for u, v in product(range(3), range(3))
                if (c, 2 * i + u - top, 2 * j + v - left) in x
            }
            if not inside:  # an appended channel: every window meets a real pixel
                return 0
            if node.kind == "max":
                return max(inside.values())
            weigh = {(u, v): (2 - abs(u - 1)) * (2 - abs(v - 1)) for u, v in product(range(3), range(3))}
            mean = {
                "binomial": Fraction(sum(weigh[k] * value for k, value in inside.items()), 16),
                "mean": Fraction(sum(inside.values()), 9),
                "mean-real": Fraction(sum(inside.values()), len(inside)),
            }[node.kind]
            return math.floor(mean + HALF)
        case Sum():
            return sum(value for (channel, _, _), value in x.items() if channel == c)


def one_by_one(network: Network, picture: np.ndarray) -> dict[str, np.ndarray]:
    """Return every tensor (C, H, W) of one picture."""
    arrays = {PIXELS: picture.astype(object)}
    values = {PIXELS: {place: int(value) for place, value in np.ndenumerate(picture)}}
    zeros = {name: tensor.zero for name, tensor in network.tensors.items()}
    for node in network.nodes:
        shape = network.tensors[node.name].shape
        values[node.name] = {p: number(node, values, zeros, *p) for p in product(*map(range, shape))}
        arrays[node.name] = np.array(list(values[node.name].values()), object).reshape(shape)
    return arrays


@settings(max_examples=60)
@given(networks_and_pictures())
def test_equals_one_number_at_a_time(given):
    network, pixels = given
    tensors = run_all(network, pixels)
    for k, picture in enumerate(pixels):
        for name, expected in one_by_one(network, picture).items():
            assert np.array_equal(tensors[name][k], expected), name


@pytest.mark.parametrize(
    ("multiplier", "offset", "shift", "x", "expected"),
    [
        (1, 2, 2, 10, 3),  # 2.5: halves go up
        (-1, 2, 2, 10, -2),  # -2.5
        (-1, 2, 2, 9, -2),  # -2.25
        (-1, 2, 2, 11, -3),  # -2.75
        (-1, 0, 1, 1, -1),  # -0.5 without the half: towards minus infinity
        (-1, 0, 47, 255, -1),
        (1, 0, 47, 255, 0),
        (3, -7, 0, 5, 8),
        (32767, 0, 0, 255, 32767),  # saturates
        (-32767, 0, 0, 255, -32768),
        (0, 5, 1, 77, 2),
        (1, -(2**31), 16, 0, -32768),
        (3, 2**31 - 1, 16, 0, 32767),
        (3, 2**31 - 1, 31, 255, 1),  # beyond int32 before the shift
    ],
)
def test_requantise_by_hand(multiplier, offset, shift, x, expected):
    net = network((1, 1, 1), requantise("r", PIXELS, multiplier, offset, shift))
    assert run(net, np.full((1, 1, 1, 1), x, np.uint8)).tolist() == [[expected]]


def test_requantise_per_channel():
    net = network((2, 1, 1), requantise("r", PIXELS, [1, -1], [10, 20], 1), classes=2)
    assert run(net, np.array([[[[4]], [[5]]]], np.uint8)).tolist() == [[7, 7]]


def test_add_saturates_both_ways():
    nodes = [requantise("a", PIXELS, 257, 0, 0), requantise("b", PIXELS, -257, 0, 0)]
    twice = [Add("more", ("a", "a")), Add("less", ("b", "b"))]
    net = network((1, 1, 1), *nodes, *twice, Add("sum", ("more", "less")))
    tensors = run_all(net, np.full((1, 1, 1, 1), 255, np.uint8))
    assert [int(tensors[name].item()) for name in ("more", "less", "sum")] == [32767, -32768, -1]


def test_padding_is_the_zero_point():
    weights = np.ones((1, 3, 3, 2))
    net = network((2, 1, 1), conv("c", PIXELS, weights, padding=(1, 1, 1, 1)), zero=[100, 7])
    assert run(net, np.array([[[[90]], [[9]]]], np.uint8)).item() == -10 + 2
    assert run(net, np.array([[[[100]], [[7]]]], np.uint8)).item() == 0


def test_one_sided_padding_and_stride():
    weights = np.array([[1, -1], [1, 1]]).reshape(1, 2, 2, 1)  # rows: top, bottom
    nodes = [conv("c", PIXELS, weights, stride=2, padding=(1, 0, 0, 0)), Sum("s", "c")]
    picture = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.uint8)[None, None]
    tensors = run_all(network((1, 3, 3), *nodes), picture)
    assert tensors["c"].tolist() == [[[[1 + 2], [4 - 5 + 7 + 8]]]]


def test_one_hot_weights_pick_one_pixel():
    picture = np.arange(18, dtype=np.uint8).reshape(1, 2, 3, 3)
    for c, u, v in product(range(2), range(3), range(3)):
        weights = np.zeros((1, 3, 3, 2))
        weights[0, u, v, c] = 127
        net = network((2, 3, 3), conv("c", PIXELS, weights, bits=8))
        assert run(net, picture).item() == 127 * int(picture[0, c, u, v])


@pytest.mark.parametrize(
    ("kind", "padding", "expected"),
    [
        ("binomial", (0, 0, 0, 0), [[(1 * 1 + 2 * 2 + 3 + 2 * 4 + 4 * 5 + 2 * 6 + 7 + 2 * 8 + 9 + 8) // 16]]),  # 5
        ("binomial", (1, 1, 0, 0), [[(4 * 1 + 2 * 2 + 2 * 4 + 5 + 8) // 16]]),  # 21/16
        ("mean", (0, 0, 0, 0), [[5]]),
        ("mean", (1, 1, 0, 0), [[1]]),  # 12/9
        ("mean-real", (1, 1, 0, 0), [[3]]),  # 12/4
        ("mean-real", (1, 1, 1, 1), [[3, 4], [6, 7]]),
        ("max", (1, 1, 1, 1), [[5, 6], [8, 9]]),
    ],
)
def test_pool_by_hand(kind, padding, expected):
    nodes = [Pool("p", PIXELS, kind, padding, 2), requantise("q", "p", low=0, high=255, zero=0), conv("c", "q", 2)]
    net = network((1, 3, 3), *nodes, Sum("s", "c"), classes=2)
    tensors = run_all(net, np.arange(1, 10, dtype=np.uint8).reshape(1, 1, 3, 3))
    assert tensors["p"][0].tolist() == [expected, np.zeros_like(expected).tolist()]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [("binomial", -24, -1), ("binomial", -25, -2), ("binomial", -8, 0), ("mean", -27, -3), ("mean-real", -3, -1)],
)
def test_pool_rounds_half_up_below_nought(kind, value, expected):
    """A value in the corner, which weighs 1/16; or as the sum of nine pixels, or of two."""
    window = {"binomial": np.array([[value, 0, 0], [0, 0, 0], [0, 0, 0]]), "mean": np.full((3, 3), value / 9)}
    if kind == "mean-real":  # -3 over two real pixels: -1.5
        shape, padding, values = (1, 1, 2), (1, 0, 1, 1), np.array([[-1, -2]])
    else:
        shape, padding, values = (1, 3, 3), (0, 0, 0, 0), window[kind]
    net = network(shape, requantise("r", PIXELS, -1), Pool("p", "r", kind, padding, 1))
    assert run(net, (-values).astype(np.uint8)[None, None]).item() == expected


def test_max_ignores_padding():
    net = network((1, 1, 1), requantise("r", PIXELS, 1, -32768), Pool("p", "r", "max", (1, 1, 1, 1), 1))
    assert run(net, np.zeros((1, 1, 1, 1), np.uint8)).item() == -32768


@pytest.mark.parametrize("sign", [1, -1])
def test_int32_limit_is_reached(sign):
    net = int32_limit(sign)
    assert run(net, np.full((1, 2, 258, 258), 255, np.uint8)).item() == sign * INT32[1]


def test_no_pictures():
    net = wide_resnet(8, 0.25, size=4)
    assert run(net, np.zeros((0, 3, 4, 4), np.uint8)).shape == (0, 10)


def test_a_tensor_out_of_its_range_is_an_error():
    net = network((1, 1, 1), requantise("r", PIXELS))
    object.__setattr__(net.tensors["r"], "high", 100)
    with pytest.raises(ModelError, match=r"^r: 200\.\.200, promised 0\.\.100$"):
        run(net, np.full((1, 1, 1, 1), 200, np.uint8))


@pytest.mark.parametrize(
    "pixels", [np.zeros((1, 3, 4, 5), np.uint8), np.zeros((3, 4, 4), np.uint8), np.zeros((1, 3, 4, 4), np.int64)]
)
def test_wrong_pixels(pixels):
    with pytest.raises(ModelError, match=r"expected uint8 \(N, 3, 4, 4\)"):
        run(wide_resnet(8, 0.25, size=4), pixels)
