"""Short runs of fuzz_runtime.py and libfuzzer.py with a new seed, and the proof that the first would notice."""

import shutil

import pytest
from fuzz import fuzz_runtime, libfuzzer
from fuzz.fuzz_bwn import corpus
from fuzz.fuzz_runtime import Disagreement, answers, build, compare, expected

FILES = corpus(seed=2, count=15)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if fuzz_runtime.compiler() is None:
        pytest.skip("needs a C compiler")
    return build(tmp_path_factory.mktemp("reader"))


def test_the_readers_agree_on_broken_files(seed, program):
    figures = compare(program, 3000, seed, FILES)
    assert figures["accepted"] > 0
    assert figures["refused"] > 1000


def test_the_readers_agree_on_good_files(program):
    assert answers(program, FILES) == [expected(data) for data in FILES]


@pytest.mark.parametrize("change", [("refused", "ok"), (" 255", " 254")])
def test_a_disagreement_is_noticed(change, seed, program, monkeypatch):
    monkeypatch.setattr(fuzz_runtime, "expected", lambda data: expected(data).replace(*change))
    with pytest.raises(Disagreement, match="execution"):
        compare(program, 500, seed, FILES)


def test_a_reader_that_dies_is_noticed(tmp_path):
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\nexit 3\n")
    dying.chmod(0o755)
    with pytest.raises(Disagreement, match="exit status 3"):
        answers(dying, FILES[:2])


def test_libfuzzer_for_some_seconds(seed, tmp_path):
    if shutil.which("clang") is None:
        pytest.skip("needs clang with libFuzzer")
    figures = libfuzzer.fuzz(libfuzzer.build(tmp_path), 5, seed, FILES, tmp_path)
    assert figures["executions"] > len(FILES)
    assert figures["edges"] >= figures["edges_at_the_start"] > 500
