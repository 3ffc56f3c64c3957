"""The tables of the page, from the axes that the records have."""

import json
import re
from collections.abc import Sequence
from importlib.resources import files

from bitwren.report.study_page.records import error_of, number
from bitwren.report.study_page.statistics import paired_difference, summarise, verdict

NAMES = {"bn": "batch norm", "srelu": "shifted ReLU"}
BITS = "weight_bits"


def published() -> dict:
    """Return the figures that the authors published, with their sources."""
    return json.loads(files(__package__).joinpath("published.json").read_text(encoding="utf-8"))


def axes_of(records: Sequence[dict]) -> dict[str, list]:
    """Return each axis with its values: numbers in order, texts as they first come, batch norm before all.

    The axis that chooses the data set is none of them: every row names its data set already.
    """
    axes: dict[str, list] = {}
    for record in records:
        for axis, value in record["axes"].items():
            if value not in axes.setdefault(axis, []):
                axes[axis].append(value)
    axes = {axis: values for axis, values in axes.items() if any(r["axes"].get(axis) != r["data"] for r in records)}
    for values in axes.values():
        if all(isinstance(value, int | float) for value in values):
            values.sort()
        values.sort(key=lambda value: value != "bn")
    return axes


def compared_axis(axes: dict[str, list]) -> str | None:
    """Return the axis whose values stand side by side: the activation, else the first with several values."""
    if "activation" in axes:
        return "activation"
    return next((axis for axis, values in axes.items() if len(values) > 1 and axis != BITS), None)


def shown(value: object, axis: str | None = None) -> str:
    """Return an axis value as a reader knows it."""
    return f"{value} bit" if axis == BITS else NAMES.get(value, str(value))


class Grid:
    """Runs by row (data set and all other axes) and column (compared axis and weight bits)."""

    def __init__(self, records: Sequence[dict]):
        self.axes = axes_of(records)
        self.compared = compared_axis(self.axes)
        self.column_axes = [axis for axis in (self.compared, BITS) if axis in self.axes]
        self.row_axes = [axis for axis in self.axes if axis not in self.column_axes]
        self.columns: list[tuple] = [()]
        for axis in self.column_axes:
            self.columns = [(*column, value) for column in self.columns for value in self.axes[axis]]
        self.cells: dict[tuple, dict[tuple, list[dict]]] = {}
        for record in records:
            self.cells.setdefault(self.row(record), {}).setdefault(self.column(record), []).append(record)
        self.rows = sorted(self.cells, key=lambda row: (row[0], [self._place(a, v) for a, v in self._named(row)]))

    def _named(self, row: tuple):
        return zip(self.row_axes, row[1:], strict=True)

    def _place(self, axis: str, value: object) -> int:
        return self.axes[axis].index(value) if value in self.axes[axis] else -1

    def row(self, record: dict) -> tuple:
        """Return the row of a run: its data set, then the values of the row axes."""
        return (record["data"] or "-", *(record["axes"].get(axis, "-") for axis in self.row_axes))

    def column(self, record: dict) -> tuple:
        """Return the column of a run: the values of the column axes."""
        return tuple(record["axes"].get(axis, "-") for axis in self.column_axes)

    def column_name(self, column: tuple) -> str:
        """Return a column's heading."""
        named = zip(self.column_axes, column, strict=True)
        return ", ".join(shown(value, axis) for axis, value in named) or "all runs"

    def errors(self, row: tuple, column: tuple) -> dict[int, float]:
        """Return the test errors of a cell in per cent by seed."""
        runs = ((run["seed"], error_of(run)) for run in self.cells[row].get(column, []))
        return {seed: error for seed, error in runs if error is not None}


def anchors(records: Sequence[dict]) -> dict[str, str]:
    """Return for each run the name of its place in the page: unique, and safe in a link."""
    return {r["run"]: f"run-{k}-{re.sub(r'[^A-Za-z0-9.]+', '-', r['run'])}" for k, r in enumerate(records, 1)}


def _their_error(grid: Grid, row: tuple, column: tuple) -> float | None:
    values = dict(zip(grid.column_axes, column, strict=True))
    name = re.match(r"cifar-?(100|10)(?!\d)", row[0].lower())
    if name is None or "activation" not in values or BITS not in values:
        return None
    for line in published()["networks"]["rows"]:
        if (line["activation"], line["weight_bits"]) == (values["activation"], values[BITS]):
            return round(100 - line[f"cifar{name[1]}"], 2)
    return None


def main_table(grid: Grid) -> list[dict]:
    """Return a line for each row: its labels and a cell for each column."""
    lines = []
    for row in grid.rows:
        cells = []
        for column in grid.columns:
            runs = [run for run in grid.cells[row].get(column, []) if error_of(run) is not None]
            cells.append({
                "summary": summarise([error_of(run) for run in runs]),
                "runs": [(run["run"], run["seed"], error_of(run)) for run in sorted(runs, key=lambda r: r["seed"])],
                "theirs": _their_error(grid, row, column),
            })
        lines.append({"labels": [shown(value) for value in row], "cells": cells})
    return lines


def difference_table(grid: Grid) -> list[dict]:
    """Return the paired differences of the compared axis: each value against the first and against the second."""
    lines = []
    if grid.compared is None:
        return lines
    values = grid.axes[grid.compared]
    pairs = [(a, b) for i, a in enumerate(values[:2]) for b in values[i + 1 :]]
    for row in grid.rows:
        for rest in dict.fromkeys(column[1:] for column in grid.columns):
            for first, second in pairs:
                difference = paired_difference(grid.errors(row, (first, *rest)), grid.errors(row, (second, *rest)))
                names = shown(first), shown(second)
                lines.append({
                    "labels": [shown(value) for value in (*row,)] + [shown(value, BITS) for value in rest],
                    "pair": f"{names[0]} − {names[1]}",
                    "difference": difference,
                    "verdict": verdict(difference, *names) if difference else "No seed that both have finished.",
                })
    return lines


def run_table(grid: Grid, records: Sequence[dict]) -> list[dict]:
    """Return a line for each run that is done: errors in per cent, and what it cost."""
    lines = []
    for record in records:
        if record["status"] != "done":
            continue
        test, train, integer = (error_of(record, part) for part in ("test", "train", "integer_test"))
        lines.append({
            "run": record["run"],
            "row": " ".join(shown(value) for value in grid.row(record)),
            "column": grid.column_name(grid.column(record)),
            "seed": record["seed"],
            "test": test,
            "train": train,
            "gap": None if None in (test, train) else test - train,
            "integer": integer,
            "change": None if None in (test, integer) else integer - test,
            "bits": number(record, "cost", "weight_bits"),
            "bytes": number(record, "cost", "bwn_bytes"),
            "multiplications": number(record, "cost", "multiplications"),
            "memory": number(record, "cost", "saved_activation_bytes"),
            "step": number(record, "seconds", "step"),
        })
    return lines
