"""Generated C gives the reference's logits, whatever the network, the picture, the compiler."""

import re

import numpy as np
import pytest
from deploy.generated import Generated, compilers
from hypothesis import given, settings
from network.examples import conv, pictures, requantise, wide_resnet
from network.examples import network as network_of
from network.strategies import networks_and_pictures

from bitwren.deploy.generate_c import generate
from bitwren.deploy.generate_c.lookup import sums_of
from bitwren.deploy.generate_c.plan import OBJECTIVES, plan
from bitwren.network import reference
from bitwren.network.graph import PIXELS, Sum

pytestmark = pytest.mark.skipif(not compilers(), reason="needs a C compiler")


@pytest.mark.parametrize("optimise", OBJECTIVES)
@settings(max_examples=60)
@given(given=networks_and_pictures())
def test_any_network(tmp_path_factory, optimise, given):
    network, pixels = given
    generated = Generated(generate(network, optimise=optimise), tmp_path_factory.mktemp("c"), "gcc", ("-O1",))
    assert np.array_equal(generated.run(pixels), reference.run(network, pixels))


@pytest.mark.parametrize("optimise", OBJECTIVES)
def test_a_pool_appends_to_one_channel(tmp_path, optimise):
    network = wide_resnet(8, 1 / 16, size=8, classes=3)
    pixels = pictures(network, 3, 1)
    generated = Generated(generate(network, optimise=optimise), tmp_path, "gcc", ("-O1",))
    assert np.array_equal(generated.run(pixels), reference.run(network, pixels))


@pytest.mark.parametrize("optimise", OBJECTIVES)
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("zero", [2, 255])
def test_split_sums_at_their_ends(tmp_path, optimise, zero, joined):
    """Both pixels of a word at either end of what a filter's sums over rows, and over its last row, can reach."""
    pluses = [(0, 50), (58, 20), (96, 48), (134, 60), (192, 60), (192, 0), (64, 96), (0, 96)]  # of 192, of 96 weights
    if zero == 255:
        pluses = [(192 - first, 96 - last) for first, last in pluses]
    flat = [np.repeat([1, -1, 1, -1], [first, 192 - first, last, 96 - last]) for first, last in pluses]
    weights = np.stack(flat).reshape(-1, 3, 3, 32)
    nodes = [conv("copy", PIXELS, np.eye(32)[:, None, None, :], bits=8)]  # so that the first step is another
    nodes += [requantise("copied", "copy", 1, 0, 0, 0, 255, zero)]
    nodes.append(conv("conv", "copied", weights, padding=(1, 1, 1, 1)))
    if joined:
        nodes.append(requantise("codes", "conv", 1, 32768, 8, 0, 255, 128))
        nodes.append(conv("next", "codes", np.sign(np.arange(576) % 5 - 1.5).reshape(8, 3, 3, 8), padding=(1, 1, 1, 1)))
    nodes += [requantise("stream", nodes[-1].name, 1, 0, 2), Sum("scores", "stream")]
    network = network_of((32, 24, 6), *nodes, classes=8)
    assert sums_of(nodes[2], network.tensors["copied"]) == "split"
    halves = [np.where(sign * w > 0, 255, 0).transpose(2, 0, 1) for w in weights for sign in (1, -1)]
    pairs = [(a, b) for k, a in enumerate(halves) for b in (a, halves[k - 1], halves[-k])]
    pixels = np.tile([np.concatenate(pair, 2) for pair in pairs], (1, 1, 8, 1)).astype(np.uint8)
    assert any(len(form.step.convs) == 2 for form in plan(network, optimise).forms) == joined
    generated = Generated(generate(network, optimise=optimise), tmp_path, "gcc", ("-O1",))
    assert np.array_equal(generated.run(pixels), reference.run(network, pixels))


@pytest.mark.parametrize(("optimise", "count"), [("speed", "about"), ("memory", "about"), ("size", "more than")])
def test_an_estimate_says_where_it_leaves_something_out(optimise, count):
    """The planner counts instructions of functions made for one shape each; shared ones take more."""
    files = generate(wide_resnet(8, 0.5, size=8), optimise=optimise)
    lines = b"\n".join(files.values()).decode().splitlines()
    told = [line for line in lines if "(Cortex-M4, estimated)" in line]
    assert len(told) > 3 and all(f" {count} " in line for line in told)


@pytest.mark.parametrize(("size", "ctype"), [(16, "uint16_t"), (96, "uint32_t")])
def test_places_are_as_narrow_as_the_arena_allows(size, ctype):
    net = wide_resnet(8, 1, size=size)
    assert (plan(net).arena < 1 << 16) == (ctype == "uint16_t")
    source = generate(net)["network.c"].decode()
    assert set(re.findall(r"(\w+) \w+_at;", source)) == {ctype}


@pytest.mark.parametrize(("last", "ctype"), [(32767, "int16_t"), (32768, "int32_t")])
def test_offsets_are_as_narrow_as_they_all_fit(tmp_path, last, ctype):
    """One type for all steps, or two functions would differ in it alone."""
    offsets, weights = np.array([-32768, -3, last]), np.sign(np.arange(81) % 7 - 2.5).reshape(3, 3, 3, 3)
    nodes = [conv("first", PIXELS, weights, padding=(1, 1, 1, 1))]
    nodes.append(requantise("codes", "first", 1, offsets, 4, 0, 255, 9))
    nodes.append(conv("next", "codes", -weights, padding=(1, 1, 1, 1)))
    nodes.append(requantise("stream", "next", 1, offsets // 16, 1))
    net = network_of((3, 8, 8), *nodes, Sum("scores", "stream"), classes=3)
    files, pixels = generate(net), pictures(net, 5, 1)
    assert set(re.findall(r"const (\w+) \*\w+_offset;", files["network.c"].decode())) == {ctype}
    assert np.array_equal(Generated(files, tmp_path, "gcc", ("-O1",)).run(pixels), reference.run(net, pixels))
