"""runs.jsonl comes back as it was written, whatever a power cut did to its last line."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitwren.errors import DataError, WriteError
from bitwren.study.records import append_record, read_records

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.tuples(st.sampled_from("abc"), VALUES), min_size=1, max_size=5), st.data())
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_and_a_torn_line(tmp_path, rows, data):
    path = tmp_path / "runs.jsonl"
    path.unlink(missing_ok=True)
    for run, value in rows:
        append_record(path, {"run": run, "value": value})
    assert read_records(path) == ({run: {"run": run, "value": value} for run, value in rows}, None)
    lines = path.read_bytes().splitlines(keepends=True)
    cut = data.draw(st.integers(1, len(lines[-1]) - 1))
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:cut])
    kept = {run: {"run": run, "value": value} for run, value in rows[:-1]}
    assert read_records(path) == (kept, f"{path}: line {len(rows)} is torn ({cut} bytes) and passed over")
    append_record(path, {"run": "d"})
    assert read_records(path) == (kept | {"d": {"run": "d"}}, None)


def test_no_file_no_records(tmp_path):
    assert read_records(tmp_path / "runs.jsonl") == ({}, None)


@pytest.mark.parametrize(("line", "said"), [("{", "line 2 is not JSON"), ("[1]", "line 2 is b'[1]', expected")])
def test_a_broken_line_before_the_last(tmp_path, line, said):
    path = tmp_path / "runs.jsonl"
    good = json.dumps({"run": "a"})
    path.write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(DataError) as error:
        read_records(path)
    assert said in str(error.value)


def test_a_disk_that_refuses(tmp_path):
    with pytest.raises(WriteError, match="cannot be written"):
        append_record(tmp_path / "none" / "runs.jsonl", {"run": "a"})
