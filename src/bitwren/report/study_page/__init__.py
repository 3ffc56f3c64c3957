"""The page of a study: its tables, pictures and statistics in one file of HTML."""

from bitwren.report.study_page.page import write_page

__all__ = ["write_page"]
