"""What the tests of the runtime share: programs and cases, each made once for a run of the tests."""

import functools

import pytest
from runtime.cases import write_cases
from runtime.directed import GROUPS


@pytest.fixture(scope="session")
def builds(tmp_path_factory):
    return tmp_path_factory.mktemp("agree")


@pytest.fixture(scope="session")
def case_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")

    @functools.cache
    def written(group, scale=1):
        return write_cases(folder / f"{group} {scale}", GROUPS[group](scale))

    return written
