"""The latencies of a benchmark (benchmark.py) as a picture: a bar for each engine and number of threads."""

from pathlib import Path

from bitwren.report.plots import BLUE, GREEN, RED, new_figure, plain_axes, save_figure
from bitwren.report.worker import OURS

GREY = "#999999"


def plot_latency(figures: dict, path: Path | str) -> None:
    """Draw the latencies to a file (.png, .svg, ...), fastest on top; whiskers are the quartiles.

    Raises UsageError where Matplotlib is missing, WriteError where the file cannot be written.
    """
    rows = figures["engines"]
    threads = sorted({told["threads"] for row in rows for told in row["latency"]})
    figure = new_figure(5.2 * len(threads), 1.3 + 0.36 * len(rows))
    model = figures["model"]
    figure.suptitle(f"{model['file']}, batch 1, {figures['made_by']['processor']['name']}", fontsize=11, x=0.01,
                    ha="left", parse_math=False)
    for axes, count in zip(figure.subplots(1, len(threads), squeeze=False)[0], threads, strict=True):
        plain_axes(axes, f"{count} thread{'s' if count > 1 else ''}: milliseconds for a picture")
        told = sorted(
            (
                (1e3 * one["median_s"], [1e3 * q for q in one["quartiles_s"]], row)
                for row in rows
                for one in row["latency"]
                if one["threads"] == count
            ),
            key=lambda bar: -bar[0],
        )
        medians = [bar[0] for bar in told]
        errors = [[m - q[0] for m, q, _ in told], [q[1] - m for m, q, _ in told]]
        colours = [_colour(row) for *_, row in told]
        axes.barh(range(len(told)), medians, xerr=errors, color=colours, height=0.7, ecolor="#444444", capsize=2)
        axes.set_yticks(range(len(told)), [row["label"] for *_, row in told], fontsize=9, parse_math=False)
        for place, (median, (_, third), _) in enumerate(told):
            axes.annotate(f"{median:.3g}", (third, place), (5, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_xlim(0, 1.15 * max(q[1] for _, q, _ in told))
        axes.grid(axis="x", color="#E5E5E5")
        axes.set_axisbelow(True)
    save_figure(figure, path)


def _colour(row: dict) -> str:
    if row["engine"] == OURS:
        return RED
    return BLUE if "int8" in row["kind"] else GREEN if row["kind"] == "bf16" else GREY
