"""What a study costs beside its training and evaluating: `bitwren study` on runs of about a minute.

    python evidence/study_overhead.py --out results/study-overhead.json

Eight runs of `digits`, two at a time, a thread each. The overhead is the study's own count (sessions.jsonl): the
seconds of both processes in which they neither trained nor evaluated, starting, reading and converting included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bitwren.atomic import write_json
from bitwren.study.records import RECORDS, read_records
from bitwren.study.runner import SESSIONS
from bitwren.train.run import provenance

JOBS, RUNS, EPOCHS = 2, 8, 100
BAR = 0.03  # of the study's time
STUDY = f"""name = "overhead"
recipe = "digits"
seeds = {list(range(RUNS))}
[settings]
"train.epochs" = {EPOCHS}
"""


def measure(folder: Path) -> dict:
    """Carry out the study in a folder and return its figures, seconds each."""
    study, out = folder / "overhead.toml", folder / "runs"
    study.write_text(STUDY, encoding="utf-8")
    options = ["--jobs", str(JOBS), "--threads", "1", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "bitwren", "study", str(study), *options], check=True)
    session = json.loads((out / SESSIONS).read_text(encoding="utf-8"))
    runs = sorted(record["seconds"]["all"] for record in read_records(out / RECORDS)[0].values())
    share = session["overhead_seconds"] / (JOBS * session["seconds"])
    return {
        "study": STUDY,
        "jobs": JOBS,
        "seconds": session["seconds"],
        "shortest_run": runs[0],
        "longest_run": runs[-1],
        "overhead_seconds_of_all_processes": session["overhead_seconds"],
        "overhead": round(share, 4),
        "at_most": BAR,
        "met": share < BAR,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/study-overhead.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder))
    write_json(arguments.out, {**figures, "command": "python evidence/study_overhead.py", **provenance()})
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
