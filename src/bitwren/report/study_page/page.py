"""The page itself: one HTML file that needs nothing beside it, and its pictures as files."""

import json
from pathlib import Path

from bitwren.atomic import write_atomic
from bitwren.errors import DataError, UsageError, WriteError
from bitwren.report.study_page.figures import draw_figures
from bitwren.report.study_page.records import checked_records
from bitwren.report.study_page.tables import (
    Grid,
    anchors,
    difference_table,
    main_table,
    published,
    run_table,
    shown,
)
from bitwren.study.grid import read_study
from bitwren.study.records import RECORDS
from bitwren.study.runner import STUDY

# A picture on its own has no page that gives it a colour.
ALONE = "<style>svg{color:#222}@media(prefers-color-scheme:dark){svg{color:#ddd;background:#16181c}}</style>"


def records_file(study: Path) -> Path:
    """Return the runs.jsonl of a study's folder, or the file itself. Raises DataError where there is none."""
    path = study / RECORDS if study.is_dir() else study
    if not path.is_file():
        raise DataError(f"{path}: is not there, expected the runs of a study")
    return path


def runs_to_come(study: Path, records: list[dict]) -> int:
    """Return how many runs of a study's folder have no record yet; 0 where no study file says what its runs are."""
    try:
        planned = {run.id for run in read_study(study / STUDY).runs}
    except UsageError:  # none is there, or a recipe file that it names is not
        return 0
    return len(planned - {record["run"] for record in records})


def render(records: list[dict], figures: list[dict], grid: Grid, to_come: int) -> str:
    """Return the page as HTML; the same records make the same bytes. Raises UsageError where Jinja is missing.

    to_come: runs of the study that have no record yet.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise UsageError("a report needs Jinja2, which is not installed: pip install 'bitwren[study]'") from None
    environment = Environment(
        loader=PackageLoader("bitwren.report.study_page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    environment.filters["amount"] = lambda value: "–" if value is None else f"{value:,.0f}"
    environment.filters["points"] = lambda value: "–" if value is None else f"{value:.2f}"
    environment.filters["signed"] = lambda value: "–" if value is None else f"{value:+.2f}".replace("-", "−")
    environment.filters["axis"] = shown
    return environment.get_template("page.html.j2").render(
        study=str(records[0].get("study") or "study"),
        grid=grid,
        table=main_table(grid),
        differences=difference_table(grid),
        runs=run_table(grid, records),
        figures=figures,
        records=records,
        to_come=to_come,
        failed=[record for record in records if record["status"] == "failed"],
        anchors=anchors(records),
        published=published(),
    )


def write_page(study: Path, out: Path) -> list[Path]:
    """Write the page of a study and its pictures (NAME.html, NAME-files/*.svg), and return the files.

    study: its folder, or its runs.jsonl. Raises DataError for records that are missing or broken, UsageError where a
    package is missing, WriteError where a file cannot be written.
    """
    records = checked_records(records_file(study))
    grid = Grid(records)
    figures = draw_figures(grid, records)
    html = render(records, figures, grid, runs_to_come(study, records))
    folder = out.with_name(f"{out.stem}-files")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder}: cannot be made: {error.strerror or error}") from None
    files = [out]
    for figure in figures:
        files.append(folder / f"{figure['name']}.svg")
        start = figure["svg"].index(">") + 1
        write_atomic(files[-1], (figure["svg"][:start] + ALONE + figure["svg"][start:]).encode())
    write_atomic(out, html.encode())
    return files
