"""bitwren report STUDY: the page of a study."""

from pathlib import Path


def report(arguments) -> int:
    """bitwren report STUDY -o report.html."""
    from bitwren.errors import UsageError
    from bitwren.report.study_page import write_page

    study: Path = arguments.study
    out = arguments.out or (study if study.is_dir() else study.parent) / "report.html"
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out}: the name ends in {out.suffix!r}, expected .html")
    for path in write_page(study, out):
        print(path)
    return 0
