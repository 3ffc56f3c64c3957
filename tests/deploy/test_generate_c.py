"""Generated C gives the reference's logits, whatever the network, the picture, the compiler."""

import numpy as np
import pytest
from deploy.generated import Generated, compilers
from hypothesis import given, settings
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
