"""The pictures of the page as SVG, in colours that read on white and on black."""

import io
import re
from collections.abc import Sequence

from bitwren.report.plots import BLUE, GREEN, RED, new_figure, plain_axes
from bitwren.report.study_page.records import error_of, finite, number
from bitwren.report.study_page.tables import BITS, Grid, shown

COLOURS = (BLUE, RED, GREEN, "#CC79A7", "#E69F00", "#56B4E9")  # of the set that plots.py names
MARKS = "osD^vPX"  # as many as share no factor with the colours: what has the same colour again has another mark
TEXT = "#010203"  # stands for the colour of the page's text, which the browser knows
PANELS = 2  # side by side
NARROW = 6.4  # inches: the width of a picture of one panel
LINEAR = 1000  # up to here an axis that shows 0 beside powers of ten is linear


def draw_figures(grid: Grid, records: Sequence[dict]) -> list[dict]:
    """Return the pictures that the runs have figures for: name, caption, and the SVG as text."""
    done = [record for record in records if record["status"] == "done"]
    bits, products = _cost("weight_bits"), _cost("multiplications")
    test, memory = _error("test"), _cost("saved_activation_bytes", 1e-6)
    wanted = [
        ("curves", "Learning curves: validation error after each epoch, a line for each run (training error dashed).",
         _curves(grid, done)),
        ("gap", "Error gap (test − training error, of the last epoch) against test error.",
         _scatter(grid, done, test, _gap, "test error, %", "gap, points")),
        ("bits", "Test accuracy against bits of weights.",
         _scatter(grid, done, bits, _accuracy, "bits of weights", "accuracy, %", "log")),
        ("multiplications", "Test accuracy against multiplications for a picture.",
         _scatter(grid, done, products, _accuracy, "multiplications", "accuracy, %", "symlog")),
        ("memory", "What training costs: activations saved for the backward pass, and time of a step.",
         _scatter(grid, done, memory, _step, "saved activations, MB", "step, ms")),
        ("integer", "The exact integer network against the float network it was made of; on the line both err alike.",
         _scatter(grid, done, test, _error("integer_test"), "float error, %", "integer error, %", diagonal=True)),
    ]
    return [
        {"name": name, "caption": caption, "svg": _svg(figure, name, caption)}
        for name, caption, figure in wanted
        if figure is not None
    ]


def _cost(key: str, factor: float = 1):
    def value(record):
        found = number(record, "cost", key)
        return None if found is None else found * factor

    return value


def _error(part: str):
    return lambda record: error_of(record, part)


def _accuracy(record: dict) -> float | None:
    error = error_of(record)
    return None if error is None else 100 - error


def _gap(record: dict) -> float | None:
    test, train = error_of(record), error_of(record, "train")
    return None if None in (test, train) else test - train


def _step(record: dict) -> float | None:
    seconds = number(record, "seconds", "step")
    return None if seconds is None else 1000 * seconds


def _style(grid: Grid, column: tuple) -> tuple[str, str]:
    """Return colour and mark of a column: the compared value has the colour, the weight bits the mark."""
    values = dict(zip(grid.column_axes, column, strict=True))
    place = [
        grid.axes[axis].index(values[axis]) if values.get(axis) in grid.axes.get(axis, []) else 0
        for axis in (grid.compared, BITS)
    ]
    # Bits alone do not tell two colours of one mark apart: each compared value has marks of its own.
    return COLOURS[place[0] % len(COLOURS)], MARKS[(2 * place[0] + place[1]) % len(MARKS)]


def _panels(groups: list[str]):
    rows = -(-len(groups) // PANELS)
    columns = min(PANELS, len(groups))
    figure = new_figure(8.4 if columns > 1 else NARROW, 3.1 * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[len(groups) :]:
        unused.set_axis_off()
    for one, name in zip(axes, groups, strict=False):
        plain_axes(one, name)
        one.grid(color="#808080", alpha=0.25)
        one.set_axisbelow(True)
    return figure, axes


def _legend(figure, grid: Grid, columns: list[tuple], lines: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=mark, linestyle="-" if lines else "", markersize=6)
        for colour, mark in (_style(grid, column) for column in columns)
    ]
    names = [grid.column_name(column) for column in columns]
    columns = min(4 if figure.get_figwidth() > NARROW else 2, len(names))  # wider, the ends would be cut off
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def _curves(grid: Grid, done: Sequence[dict]):
    with_curve = [record for record in done if record["curve"]]
    if not with_curve:
        return None
    groups: dict[str, list[dict]] = {}
    for record in with_curve:
        groups.setdefault(" ".join(shown(value) for value in grid.row(record)), []).append(record)
    figure, axes = _panels(list(groups))
    for one, runs in zip(axes, groups.values(), strict=False):
        for record in runs:
            colour, mark = _style(grid, grid.column(record))
            for key, style, width in (("train_accuracy", "--", 0.7), ("validation_accuracy", "-", 1.4)):
                points = [(finite(e.get("epoch")), finite(e.get(key))) for e in record["curve"]]
                points = [(x, 100 - 100 * y) for x, y in points if None not in (x, y)]
                if points:
                    every = max(1, len(points) // 6)
                    one.plot(*zip(*points, strict=True), style, color=colour, linewidth=width, markersize=4,
                             marker=mark if style == "-" or len(points) == 1 else None, markevery=every)
        one.set_xlabel("epoch")
        one.set_ylabel("error, %")
        one.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    _legend(figure, grid, [c for c in grid.columns if any(grid.column(r) == c for r in with_curve)], True)
    return figure


def _scatter(grid: Grid, done, across, up, xlabel: str, ylabel: str, scale: str = "linear", diagonal: bool = False):
    points = [(record, across(record), up(record)) for record in done]
    points = [(record, x, y) for record, x, y in points if None not in (x, y) and (scale != "log" or x > 0)]
    if not points:
        return None
    groups = sorted({grid.row(record)[0] for record, *_ in points})
    figure, axes = _panels(groups)
    for one, group in zip(axes, groups, strict=False):
        for record, x, y in points:
            if grid.row(record)[0] == group:
                colour, mark = _style(grid, grid.column(record))
                one.plot(x, y, mark, color=colour, markersize=6, alpha=0.85)
        if scale == "symlog":
            one.set_xscale("symlog", linthresh=LINEAR)
            one.set_xlim(left=-0.1 * LINEAR)
            end = one.get_xlim()[1]
            one.set_xticks([x for x in one.get_xticks() if x == 0 or LINEAR <= x <= end])  # others would overlap 0
        else:
            one.set_xscale(scale)
        if scale != "linear":
            from matplotlib.ticker import FuncFormatter, NullFormatter

            one.xaxis.set_major_formatter(FuncFormatter(_amount))
            one.xaxis.set_minor_formatter(FuncFormatter(_amount) if _narrow(one) else NullFormatter())
        if diagonal:
            low, high = min(one.get_xlim()[0], one.get_ylim()[0]), max(one.get_xlim()[1], one.get_ylim()[1])
            one.plot([low, high], [low, high], color="#808080", linewidth=0.8, zorder=0)
        one.set_xlabel(xlabel)
        one.set_ylabel(ylabel)
    _legend(figure, grid, [c for c in grid.columns if any(grid.column(r) == c for r, *_ in points)], False)
    return figure


def _narrow(axes) -> bool:
    low, high = axes.get_xlim()
    return low > 0 and high / low < 10


def _amount(value: float, _position=None) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _svg(figure, name: str, caption: str) -> str:
    """Return the figure as SVG: the same bytes each time, its ids its own, its text in the page's colour."""
    import matplotlib
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_color(TEXT)
    for axes in figure.axes:
        axes.patch.set_visible(False)
        axes.tick_params(which="both", color=TEXT, labelcolor=TEXT)
        for spine in axes.spines.values():
            spine.set_color(TEXT)
    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(content, format="svg", transparent=True, metadata=none)
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :].replace(TEXT, "currentColor")
    # Several pictures share a page, so every id and every use of one has the picture's name before it.
    svg = re.sub(r'(<[^<>]*?\sid=")', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{caption}" ', 1)
