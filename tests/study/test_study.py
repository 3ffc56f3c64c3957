"""A study on digits: a record a run, a failed run that ends no other, and --resume, through the command."""

import json

import pytest

from bitwren.cli import main
from bitwren.errors import DataError
from bitwren.study.records import append_record, read_records

STUDY = """
name = "small"
recipe = "digits"
seeds = [0]
[settings]
"train.epochs" = 1
"network.depth" = 8
"network.weight_bits" = 32
"network.width" = 0.25
[axes]
"network.activation" = ["bn", "srelu"]
"train.learning_rate" = [0.1, 1000.0]
"""


def test_a_study_records_each_run_and_goes_on(tmp_path, capsys):
    pytest.importorskip("torch")
    file, out = tmp_path / "small.toml", tmp_path / "out"
    file.write_text(STUDY)
    words = ["study", str(file), "--out", str(out), "--threads", "1"]
    assert main(words) == 1  # a rate of 1000 is too much for shifted ReLU: that run fails, and is told of
    assert "1 failed" in capsys.readouterr().out
    records, torn = read_records(out / "runs.jsonl")
    assert torn is None and len(records) == 4
    by_status = {status: [r for r in records.values() if r["status"] == status] for status in ("done", "failed")}
    assert len(by_status["done"]) == 3 and [r["run"] for r in by_status["failed"]] == ["srelu-1000-seed0"]
    for record in by_status["done"]:
        assert len(record["curve"]) == 1
        assert 0 <= record["accuracy"]["integer_test"] <= 1 and record["pictures"]["test"] > 0
    multiplications = {r["axes"]["activation"]: r["cost"]["multiplications"] for r in by_status["done"]}
    assert 0 < multiplications["srelu"] < multiplications["bn"]  # 32-bit weights
    assert "the loss is nan" in by_status["failed"][0]["error"]
    done = [record["run"] for record in by_status["done"]]

    main([*words, "--resume"])  # what is done stays as it is
    again, _ = read_records(out / "runs.jsonl")
    assert [again[name] for name in done] == [records[name] for name in done]

    file.write_text(STUDY.replace("1000.0", "0.2"))
    capsys.readouterr()
    assert main([*words, "--resume"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("study", "told"),
    [
        ("name = 3", "name"),
        (STUDY.replace("network.depth", "network.dept"), "network.dept"),
        (STUDY.replace("digits", "digit"), "digits"),
    ],
)
def test_a_wrong_study_is_one_line(tmp_path, capsys, study, told):
    file = tmp_path / "wrong.toml"
    file.write_text(study)
    assert main(["study", str(file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and told in error


def test_a_torn_line_is_passed_over_and_cut_off(tmp_path):
    path = tmp_path / "runs.jsonl"
    append_record(path, {"run": "a", "accuracy": 1})
    path.write_bytes(path.read_bytes() + b'{"run": "b"')
    records, torn = read_records(path)
    assert list(records) == ["a"] and "line 2 is torn" in torn
    append_record(path, {"run": "a", "accuracy": 2})
    assert [json.loads(line)["accuracy"] for line in path.read_text().splitlines()] == [1, 2]
    for broken in ("{", "[" * 100_000):
        path.write_text(broken + "\n{}\n")
        with pytest.raises(DataError, match="line 1 is not JSON"):
            read_records(path)
