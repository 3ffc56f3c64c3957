"""Where the agreement programs are built, once for a run of the tests."""

import pytest


@pytest.fixture(scope="session")
def builds(tmp_path_factory):
    return tmp_path_factory.mktemp("agree")
