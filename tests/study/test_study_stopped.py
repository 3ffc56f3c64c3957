"""A study ends the same whatever died on the way: a run, a process, the command itself, a worker of a cluster."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bitwren
from bitwren.cli import main

pytest.importorskip("torch")

EPOCHS = 8
# 9 convolutions make no network: that run fails.
STUDY = f"""
name = "small"
recipe = "digits"
[settings]
"network.width" = 0.25
"train.epochs" = {EPOCHS}
[axes]
"network.depth" = [9, 8]
"""
LONGEST = 120.0  # seconds to wait for anything


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of depth 8, never stopped, trained by itself; what it came to."""
    out = tmp_path_factory.mktemp("alone") / "run"
    words = [w for key in ("depth=8", "width=0.25") for w in ("--set", f"network.{key}")]
    words += ["--set", f"train.epochs={EPOCHS}", "--threads", "1", "--quiet", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bitwren.commands.training._draw_curve", lambda run: None)  # half of the time
        assert main(["train", "digits", *words]) == 0
    return outcome(out)


def outcome(run):
    """Return what a run's folder says that it came to, times left out."""
    curve = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in curve]
    return (run / "best.safetensors").read_bytes(), json.loads((run / "result.json").read_text()), curve


def records(out):
    return [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]


def start(*words):
    """Start the command in a process group of its own, as a shell does."""
    environment = os.environ | {"PYTHONPATH": str(Path(bitwren.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-m", "bitwren", "study", *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(condition):
    """Wait for something to be true, and return it."""
    end = time.monotonic() + LONGEST
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return value


def epochs(run):
    with contextlib.suppress(FileNotFoundError):
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    return 0


def processes(said):
    """Return the processes whose command line has these words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if said in (folder / "cmdline").read_bytes().decode(errors="replace"):
                found.append(int(folder.name))
    return found


def children(process):
    """Return the processes that carry out runs for this one."""
    there = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in there if int(child) in processes("spawn_main")]


def left(folder):
    """Return whether no process is at a run's folder."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(held)
    return True


def test_killed_again_and_again_it_ends_the_same(study, tmp_path, alone, capsys):
    out = tmp_path / "out"
    run, words = out / "8-seed0", [study, "--out", out, "--threads", "1"]

    first = start(*words)
    until(lambda: epochs(run) >= 1)
    os.kill(children(first)[0], signal.SIGKILL)  # the command goes on with the run in another process
    stood = epochs(run)
    until(lambda: epochs(run) > stood + 1)
    os.killpg(first.pid, signal.SIGINT)  # Ctrl-C
    said, errors = first.communicate(timeout=LONGEST)
    assert (first.returncode, said) == (1, "")
    line = "bitwren: stopped with 0 of 2 runs done; everything is saved, go on with --resume"
    assert errors.splitlines()[-1] == line, errors
    assert "Traceback" not in errors
    assert left(run)

    again = start(*words, "--resume")
    stood = epochs(run)
    until(lambda: epochs(run) > stood)
    again.kill()  # its process for the run notices, saves and leaves
    again.communicate(timeout=LONGEST)
    until(lambda: left(run))
    assert epochs(run) < EPOCHS

    assert main(["study", *map(str, words), "--resume"]) == 1
    said = capsys.readouterr().out
    assert "failed     9-seed0: depth is 9, expected 6n + 2: 8, 14, 20, 26, ..." in said
    assert "runs       1 of 2 done, 1 failed" in said
    assert outcome(run) == alone

    record = records(out)[-1]
    assert (record["run"], record["status"], record["error"]) == ("8-seed0", "done", None)
    assert (record["axes"], record["seed"], record["data"]) == ({"depth": 8}, 0, "digits")
    result = alone[1]
    assert record["accuracy"]["test"] == result["test_accuracy"]
    assert record["accuracy"]["validation"] == result["validation_accuracy"]
    assert [epoch["epoch"] for epoch in record["curve"]] == list(range(1, EPOCHS + 1))
    assert record["pictures"] == {"training": 1222, "validation": 216, "test": 359}
    assert record["cost"]["weights"] == record["cost"]["weight_bits"] == 4804
    assert record["cost"]["multiplications"] == 0
    assert record["cost"]["bwn_bytes"] == (run / "model.bwn").stat().st_size
    assert record["recipe"]["network"]["depth"] == 8
    pictures = bitwren.load(run / "model.bwn"), *digits()
    assert record["accuracy"]["integer_test"] == (pictures[0].predict(pictures[1]) == pictures[2]).mean()
    assert {"study", "seconds", "made"} < set(record)

    # What is done is not done again; another study is refused.
    before = (run / "best.safetensors").stat().st_mtime_ns
    assert main(["study", *map(str, words), "--resume", "--dry-run"]) == 0
    assert "1 of 2 runs left" in capsys.readouterr().out
    assert (run / "best.safetensors").stat().st_mtime_ns == before
    assert main(["study", *map(str, words)]) == 2
    assert "a study is there already; go on with it by --resume" in capsys.readouterr().err
    study.write_text(STUDY.replace("0.25", "0.5"))
    assert main(["study", *map(str, words), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "settings.network.width is 0.5, expected 0.25 as when the study was started" in error, error


def digits():
    from bitwren.pictures import load_dataset

    test = load_dataset("digits").test
    return test.images, test.labels


def test_two_commands_at_one_study(study, tmp_path, capsys):
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert main(["study", str(study), "--out", str(tmp_path), "--resume"]) == 2
    assert "another process is at this study" in capsys.readouterr().err
    os.close(held)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--jobs", "0"], "--jobs is 0, expected at least 1"),
        (["--threads", "0"], "--threads is 0, expected at least 1"),
        (["--on", "slurm"], "--on is 'slurm', expected local, ray or ray://HOST:PORT"),
        (["--data-dir", "digit=x"], "--data-dir digit=x: unknown data 'digit'; did you mean 'digits'?"),
    ],
)
def test_wrong_usage(study, capsys, words, line):
    assert main(["study", str(study), "--out", str(study.parent / "out"), *words]) == 2
    assert capsys.readouterr().err == f"bitwren: {line}\n"
    assert not (study.parent / "out").exists()


def test_a_dry_run_says_what_it_measured(study, tmp_path, capsys):
    assert main(["study", str(study), "--out", str(tmp_path / "out"), "--dry-run", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in said.splitlines() if "seed0" in line}
    assert rows["8-seed0"][-1] == "measured"
    assert rows["9-seed0"][2:3] == ["?"]
    assert "2 of 2 runs left" in said and "1 runs of unknown length" in said
    assert not (tmp_path / "out").exists()


def test_a_cluster_s_worker_is_killed(study, tmp_path, alone):
    pytest.importorskip("ray", reason="needs Ray: pip install 'bitwren[ray]'")
    study.write_text(STUDY.replace("[9, 8]", "[8]") + '"network.activation" = ["srelu", "bn"]\n')
    out = tmp_path / "out"
    run = out / "8-srelu-seed0"
    ended = start(study, "--out", out, "--threads", "1", "--on", "ray", "--jobs", "2")
    until(lambda: epochs(run) >= 2)
    for worker in processes("ray::8-srelu-seed0"):
        os.kill(worker, signal.SIGKILL)
    said, errors = ended.communicate(timeout=LONGEST)
    assert ended.returncode == 0, errors
    assert "runs       2 of 2 done, 0 failed" in said
    assert outcome(run) == alone
    assert {record["run"] for record in records(out)} == {"8-srelu-seed0", "8-bn-seed0"}
