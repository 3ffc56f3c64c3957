"""Generated C gives the reference's logits, whatever the network, the picture, the compiler."""

import numpy as np
import pytest
from deploy.generated import Generated, compilers
from hypothesis import given, settings
from network.examples import pictures, wide_resnet
from network.strategies import networks_and_pictures

from bitwren.deploy.generate_c import generate
from bitwren.deploy.generate_c.plan import OBJECTIVES
from bitwren.network import reference

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
