"""ONNX Runtime's integers are the oracle's, every one: tolerance zero."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from network.examples import (
    REQUANTISE_ENDS,
    conv,
    int32_limit,
    network,
    pictures,
    requantise,
    requantise_ends,
    wide_resnet,
)
from network.strategies import networks_and_pictures

from bitwren.deploy.export_onnx import OPSET, export_onnx, onnx_bytes
from bitwren.deploy.onnx_operators import tensor_names
from bitwren.errors import UsageError, WriteError
from bitwren.network import reference
from bitwren.network.graph import INT32, PIXELS, Sum


def session(content):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def logits(net, pixels, compact=True):
    return session(onnx_bytes(net, compact)).run(["logits"], {"pixels": pixels})[0]


def tensors(net, pixels, compact=True):
    """Return every tensor of the file, by the network's names."""
    model = onnx.load_from_string(onnx_bytes(net, compact))
    model.graph.output.extend(model.graph.value_info)
    names = {name: onnx_name for name, onnx_name in tensor_names(net).items() if name != PIXELS}
    values = session(model.SerializeToString()).run(list(names.values()), {"pixels": pixels})
    return dict(zip(names, values, strict=True))


def assert_equal(net, pixels, compact=True):
    expected, got = reference.run_all(net, pixels), tensors(net, pixels, compact)
    for node in net.nodes:
        assert np.array_equal(got[node.name], expected[node.name]), node.name
    assert np.array_equal(logits(net, pixels, compact), reference.run(net, pixels))


@settings(max_examples=80)
@given(networks_and_pictures())
def test_equals_the_reference(given):
    assert_equal(*given)


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize(
    ("pool", "shift_only"), [("binomial", True), ("mean", False), ("mean-real", True), ("max", True)]
)
def test_a_whole_network(pool, shift_only, compact, seed):
    net = wide_resnet(8, 1, size=16, pool=pool, shift_only=shift_only, seed=seed)
    assert_equal(net, pictures(net, 3, seed), compact)


@pytest.mark.parametrize("sign", [1, -1])
def test_at_the_int32_limit(sign):
    """Inner sums pass 2**31 and come back: the zero points differ by channel."""
    net = int32_limit(sign)
    assert logits(net, np.full((1, 2, 258, 258), 255, np.uint8)).item() == sign * INT32[1]
    assert_equal(net, pictures(net, 1, 0))


@pytest.mark.parametrize("extreme", [127, -127])
def test_eight_bit_weights_do_not_saturate(extreme):
    """Two products of 255 * 127 pass int16, where kernels for signed weights saturate."""
    weights = np.full((16, 3, 3, 16), extreme)
    nodes = [conv("c", PIXELS, weights, 1, (1, 1, 1, 1), bits=8), requantise("r", "c", 1, 0, 8), Sum("s", "r")]
    net = network((16, 8, 8), *nodes, classes=16)
    assert_equal(net, np.full((2, 16, 8, 8), 255, np.uint8))


@pytest.mark.parametrize("multiplier", [513, 256])  # codes up to 510; up to 255, with a zero point that may be beyond
@pytest.mark.parametrize("zero", [0, 255, 256, 300, 511])
def test_codes_of_nine_bits(zero, multiplier, seed):
    weights = np.random.default_rng(seed).choice([-1, 1], (3, 3, 3, 2))
    codes = requantise("q", PIXELS, multiplier, 0, 8, 0, 511, zero)
    net = network((2, 5, 6), codes, conv("c", "q", weights, 2, (2, 0, 1, 2)), Sum("s", "c"), classes=3)
    assert net.tensors["q"].high == 255 * multiplier >> 8
    assert_equal(net, pictures(net, 3, seed))


@pytest.mark.parametrize("size", [1, 7, 8, 9, 63, 65])
def test_one_bit_is_one_weight(size):
    """One-hot weights: exactly one bit set, in the right place, whatever is left of the last byte."""
    pixels = np.random.default_rng(size).integers(0, 256, (1, size, 1, 1), dtype=np.uint8)
    for k in {0, size // 2, size - 1}:
        weights = np.full((1, 1, 1, size), -1)
        weights[..., k] = 1
        net = network((size, 1, 1), conv("c", PIXELS, weights))
        model = onnx.load_from_string(onnx_bytes(net))
        packed = [onnx.numpy_helper.to_array(c) for c in model.graph.initializer if len(c.dims) == 2]
        expected = np.zeros((-(-size // 8), 1), np.uint8)
        expected[k // 8] = 1 << k % 8
        assert any(np.array_equal(array, expected) for array in packed)
        assert logits(net, pixels).item() == 2 * int(pixels[0, k, 0, 0]) - int(pixels.sum())


@pytest.mark.parametrize("constants", REQUANTISE_ENDS)
def test_requantise_at_its_ends(constants):
    assert_equal(*requantise_ends(*constants))


def test_the_output_keeps_its_name():
    nodes = [requantise("logits", PIXELS), requantise("logits.2", "logits"), requantise("constant", "logits.2"),
             Sum("cast", "constant")]
    net = network((1, 2, 2), *nodes)
    assert tensor_names(net)["logits"] not in {node.name for node in nodes}
    assert_equal(net, pictures(net, 2, 0))
    last = network((1, 1, 1), requantise("logits", PIXELS))
    assert_equal(last, pictures(last, 2, 0))


def test_nodes_that_change_nothing():
    codes = {"low": 0, "high": 255}
    nodes = [requantise("q", PIXELS, **codes, zero=0), requantise("r", "q", **codes, zero=7)]
    net = network((1, 2, 2), *nodes, requantise("a", "r"), requantise("b", "a"), Sum("s", "b"))
    assert_equal(net, pictures(net, 2, 0))


def test_any_number_of_pictures(seed):
    net = wide_resnet(8, 0.25, size=8, seed=seed)
    run = session(onnx_bytes(net))
    for count in (1, 2, 5):
        pixels = pictures(net, count, seed)
        assert np.array_equal(run.run(None, {"pixels": pixels})[0], reference.run(net, pixels))


def test_what_the_file_says():
    net = wide_resnet(8, 0.25, size=8)
    model = onnx.load_from_string(onnx_bytes(net))
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    properties = {p.key: p.value for p in model.metadata_props}
    assert json.loads(properties["classes"]) == list(net.classes)
    assert float(properties["logit_scale"]) == net.logit_scale
    described = {v.name: v for v in model.graph.value_info}
    assert [*described] == [node.name for node in net.nodes]
    (pixels,), (out,) = model.graph.input, model.graph.output
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (pixels, out)]
    assert shapes == [["N", 3, 8, 8], ["N", 10]]
    kinds = [onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in (pixels, out)]
    assert kinds == [np.uint8, np.int32]


def test_nothing_in_it_is_a_fraction():
    for shift_only in (True, False):
        model = onnx.load_from_string(onnx_bytes(wide_resnet(8, 0.25, size=8, pool="mean", shift_only=shift_only)))
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        types = {v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input, *inferred.output)}
        types |= {c.data_type for c in inferred.initializer}
        assert all(np.issubdtype(onnx.helper.tensor_dtype_to_np_dtype(t), np.integer) for t in types)


def test_one_bit_a_weight():
    net = wide_resnet(20, 4, size=8)  # 4.3 million
    assert 1 <= 8 * len(onnx_bytes(net)) / net.weights < 1.05
    assert 8 <= 8 * len(onnx_bytes(net, compact=False)) / net.weights < 8.05


def test_the_same_network_the_same_file(tmp_path):
    net = wide_resnet(8, 0.25, size=8)
    size = export_onnx(net, tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == onnx_bytes(wide_resnet(8, 0.25, size=8))
    assert (tmp_path / "a.onnx").stat().st_size == size
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(WriteError, match=r"a\.onnx: cannot be written: No such file or directory"):
        export_onnx(wide_resnet(8, 0.25, size=8), tmp_path / "none" / "a.onnx")


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"^this needs the package onnx: pip install 'bitwren\[onnx\]'$"):
        export_onnx(wide_resnet(8, 0.25, size=8), tmp_path / "a.onnx")
    assert not any(tmp_path.iterdir())
