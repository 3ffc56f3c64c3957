"""A short run of fuzz_bwn.py with a new seed, and the proof that it would notice."""

import re
import tracemalloc

import numpy as np
import pytest
from fuzz import fuzz_bwn
from fuzz.fuzz_bwn import Failure, corpus, fuzz, run_accepted, run_one
from fuzz.mutations import mutated

from bitwren.errors import ModelError
from bitwren.network.container import CRC_AT, checksum
from bitwren.network.description import FIELDS
from bitwren.network.pack import decode

FILES = corpus(seed=1, count=15)


def test_two_thousand_broken_files(seed, tmp_path):
    figures = fuzz(2000, seed, FILES, failed=tmp_path / "failed.bwn")
    assert figures["accepted"] + figures["refused"] == figures["executions"] == 2000
    assert figures["refused"] == sum(figures["refused_by_kind"].values())
    assert figures["kinds_of_refusal"] > 40  # not one check stops them all
    assert 800 < figures["checksum_right"] < 1600
    assert figures["accepted_and_run_in_the_reference"] > 0


def test_the_mutations_reach_every_number_of_every_node():
    reached = set()
    for execution in range(6000):
        data = mutated(1, execution, FILES)
        try:
            decode(data[:CRC_AT] + checksum(data).encode() + data[CRC_AT + 8 :], "")
        except ModelError as error:
            reached |= {*re.findall(r"^: (conv|requantise|add|pool|sum)\d+: (\w+) ", str(error))}
    wanted = {(kind.__name__.lower(), field) for kind, fields in FIELDS.items() for field in fields}
    assert reached >= wanted


def test_an_execution_can_be_repeated():
    assert mutated(3, 77, FILES) == mutated(3, 77, FILES) != mutated(3, 78, FILES)


def test_the_corpus_is_valid():
    for data in FILES:
        assert run_accepted(decode(data, "file.bwn"), 0)


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


NETWORK = decode(FILES[0], "")


@pytest.mark.parametrize(
    ("reader", "failure"),
    [
        (lambda *_: {}["x"], "raised KeyError"),
        (lambda *_: (np.zeros(10**6), NETWORK)[1], r"took 8\d+ bytes, allowed"),
        (lambda *_: "not a network", "message is not one short line with the file's name"),
    ],
)
def test_the_fuzzer_notices(reader, failure, monkeypatch, traced):
    monkeypatch.setattr(fuzz_bwn, "decode", reader)
    with pytest.raises(Failure, match=failure):
        run_one(FILES[0])


def test_the_fuzzer_notices_a_hang(monkeypatch, tmp_path):
    def endless(*_):
        while True:
            pass

    monkeypatch.setattr(fuzz_bwn, "decode", endless)
    monkeypatch.setattr(fuzz_bwn, "SECONDS", 0.2)
    with pytest.raises(Failure, match=r"seed 1, execution 0: took more than 0\.2 s"):
        fuzz(1, 1, FILES, failed=tmp_path / "failed.bwn")
    assert (tmp_path / "failed.bwn").read_bytes() == mutated(1, 0, FILES)


def test_the_fuzzer_notices_a_network_that_does_not_run(monkeypatch):
    def overflow(*_):
        raise ModelError("conv: 0..999, promised 0..10")

    monkeypatch.setattr(fuzz_bwn.reference, "run", overflow)
    with pytest.raises(Failure, match="accepted, but then ModelError: conv"):
        run_accepted(decode(FILES[0], ""), 0)
