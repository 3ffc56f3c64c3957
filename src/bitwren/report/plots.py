"""Pictures of a run: confusion matrix, learning curve, predictions. Needs Matplotlib, draws without its global state.

Colours are of the set by M. Okabe and K. Ito ("Color universal design", 2008), which colour-blind readers tell apart;
nothing is said by colour alone.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bitwren.atomic import write_atomic
from bitwren.errors import UsageError
from bitwren.report.evaluation import Evaluation

BLUE, GREEN, RED = "#0072B2", "#009E73", "#D55E00"
DPI = 120
COUNTED_CLASSES = 20  # up to here a confusion matrix has its numbers written in
NAMED_CLASSES = 120  # and up to here its classes named
COLUMNS, ROWS = 8, 2  # of pictures, right ones and wrong ones each
LONGEST_NAME = 13  # letters of a class name under a picture


def new_figure(width: float, height: float, layout: str | None = "constrained"):
    """Return an empty figure of that many inches; pyplot, whose figures are global, stays out of it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("drawing needs Matplotlib, which is not installed: pip install 'bitwren[train]'") from None
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def picture_kind(path: Path | str) -> str:
    """Return the format of a picture file by the name's ending. Raises UsageError for one that cannot be drawn."""
    known = new_figure(1, 1).canvas.get_supported_filetypes()
    kind = Path(path).suffix[1:].lower()
    if kind not in known:
        expected = ", ".join(sorted(known))
        raise UsageError(f"{path}: the name ends in {Path(path).suffix!r}, expected one of {expected}")
    return kind


def save_figure(figure, path: Path | str) -> None:
    """Write the figure, the format by the name's ending, so that a reader sees the old file or the new one."""
    content = io.BytesIO()
    figure.savefig(content, format=picture_kind(path))
    write_atomic(Path(path), content.getvalue())


def plain_axes(axes, title: str) -> None:
    """Give axes their title and take away what says nothing."""
    axes.set_title(title, loc="left", fontsize=11, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def plot_confusion(evaluation: Evaluation, path: Path | str) -> None:
    """Draw the confusion matrix to a file (.png, .svg, ...): a row for each true class, shaded by the share of the row.

    Up to 20 classes the cells hold the numbers of pictures, up to 120 the classes are named, beyond that numbered.
    Raises UsageError where Matplotlib is missing, WriteError where the file cannot be written.
    """
    confusion, names = evaluation.confusion, evaluation.classes
    k = len(names)
    pictures = confusion.sum(1, keepdims=True)
    # A class without pictures has no shares: masked, and drawn grey.
    shares = np.ma.masked_array(100.0 * confusion / np.maximum(pictures, 1), np.broadcast_to(pictures == 0, (k, k)))

    side = min(max(2.0 + 0.55 * k, 4.5), 13.0)  # inches
    figure = new_figure(side + 1.2, side + 0.3)
    from matplotlib.colors import PowerNorm  # after new_figure, which says so where Matplotlib is missing

    axes = figure.add_subplot()
    axes.set_facecolor("#DDDDDD")
    # Shaded by the square root of the share: an error of 1 % can be told from none.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    if k <= COUNTED_CLASSES:
        for row, column in zip(*np.nonzero(confusion), strict=True):
            colour = "white" if shares[row, column] > 35 else "black"
            text = f"{confusion[row, column]:,}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9 if len(text) < 5 else 7)
    if k <= NAMED_CLASSES:
        size = min(9.0, 0.6 * 72 * side / k)  # points; some two thirds of a row, the margins taken off
        labels = [_shortened(name, 24) for name in names]
        axes.set_xticks(range(k), labels, rotation=90 if max(map(len, names)) > 2 else 0, fontsize=size)
        axes.set_yticks(range(k), labels, fontsize=size)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_parse_math(False)
    axes.tick_params(length=0 if k <= NAMED_CLASSES else 3)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(f"{evaluation.top1:.2%} of {evaluation.count:,} pictures right", loc="left", fontsize=11)
    bar = figure.colorbar(image, ax=axes, shrink=0.75, aspect=30, pad=0.03, ticks=[0, 1, 5, 10, 25, 50, 100])
    bar.set_label("% of the true class's pictures" + (" (grey: it has none)" if (pictures == 0).any() else ""))
    bar.outline.set_visible(False)
    save_figure(figure, path)


def plot_learning_curve(records: Sequence[dict], path: Path | str, title: str) -> None:
    """Draw loss and accuracy against the epoch, for training and (where recorded) validation, to a file.

    records: the lines of a run's metrics.jsonl, with epoch, train_loss, train_accuracy (0..1), and perhaps
        validation_loss and validation_accuracy.
    Raises UsageError for no records or where Matplotlib is missing, WriteError where the file cannot be written.
    """
    if not records:
        raise UsageError("no epoch to draw a learning curve of, expected at least 1")
    figure = new_figure(10, 4.2)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left", parse_math=False)
    left, right = figure.subplots(1, 2)
    few = len(records) <= 30
    for axes, key, factor, name in ((left, "loss", 1, "loss"), (right, "accuracy", 100, "accuracy, %")):
        plain_axes(axes, name)
        for part, label, colour, style, mark in (
            ("train", "training", BLUE, "--", "s"),
            ("validation", "validation", RED, "-", "o"),
        ):
            points = [(r["epoch"], factor * r[f"{part}_{key}"]) for r in records if f"{part}_{key}" in r]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour, label=label, linewidth=1.8,
                          marker=mark if few else None, markersize=3.5)
        axes.set_xlabel("epoch")
        axes.grid(axis="y", color="#E5E5E5")
        axes.set_axisbelow(True)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if len(records) == 1:
            axes.set_xlim(records[0]["epoch"] - 0.9, records[0]["epoch"] + 0.9)
        axes.legend(frameon=False, fontsize=9)
    validated = [r for r in records if "validation_accuracy" in r]
    if validated:
        best = max(validated, key=lambda r: r["validation_accuracy"])  # the first of equals, as the loop chooses
        value = 100 * best["validation_accuracy"]
        right.plot(best["epoch"], value, "o", color=RED, markersize=9, markerfacecolor="none")
        right.set_title(f"best {value:.2f} at epoch {best['epoch']}", loc="right", fontsize=9, color=RED)
    save_figure(figure, path)


def _shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """Names of one set often begin alike, so what is left out is in the middle."""
    return name if len(name) <= longest else f"{name[: longest - 6]}…{name[-5:]}"


def _spread(indices: np.ndarray, count: int) -> np.ndarray:
    """Return `count` of the indices (fewer where there are fewer), evenly spaced: all parts of the set are seen."""
    return indices[np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)]


def _checked_predictions(images, labels, probabilities, classes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images, labels, probabilities = map(np.asarray, (images, labels, probabilities))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise UsageError(f"images are {images.dtype} {images.shape}, expected uint8 (N >= 1, 1 or 3, H, W)")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise UsageError(f"labels are {labels.dtype} {labels.shape}, expected integers {images.shape[:1]}")
    if probabilities.shape != (len(images), len(classes)) or not np.isfinite(probabilities).all():
        expected = (len(images), len(classes))
        raise UsageError(f"probabilities are {probabilities.shape} (or not finite), expected finite {expected}")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UsageError(f"labels are {labels.min()} to {labels.max()}, expected 0 to {len(classes) - 1}")
    return images, labels, probabilities


def plot_predictions(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], path: Path | str
) -> None:
    """Draw up to 16 pictures classified right, evenly spaced over the set, and the 16 most confident mistakes.

    images: uint8 (N, 1 or 3, H, W). labels: integers (N,). probabilities: (N, K), 0..1. classes: K names.
    Under each picture stand the predicted class and its probability, under a mistake also the true class.
    Raises UsageError for arrays that do not fit or where Matplotlib is missing, WriteError where the file cannot be
    written.
    """
    images, labels, probabilities = _checked_predictions(images, labels, probabilities, classes)
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    hits, misses = np.flatnonzero(predicted == labels), np.flatnonzero(predicted != labels)
    shown_hits = _spread(hits, COLUMNS * ROWS)
    shown_misses = misses[np.argsort(-confidence[misses], kind="stable")][: COLUMNS * ROWS]
    most = " (the most confident mistakes)" if len(misses) > len(shown_misses) else ""
    panels = [
        (f"✓ right: {len(hits):,} of {len(labels):,}", GREEN, shown_hits, 1),
        (f"✗ wrong: {len(misses):,} of {len(labels):,}{most}", RED, shown_misses, 2),
    ]
    # Placed in inches: a heading, then rows of pictures with captions of one or two lines.
    width, gap, line, heading = 1.3, 0.1, 0.17, 0.35
    height = width * min(max(images.shape[2] / images.shape[3], 0.4), 2.5)
    pitches = [height + line * lines + 2 * gap for *_, lines in panels]
    rows = [-(-len(shown) // COLUMNS) for _, _, shown, _ in panels]
    across = COLUMNS * (width + gap) + gap
    down = sum(heading + r * pitch for r, pitch in zip(rows, pitches, strict=True)) + gap
    figure = new_figure(across, down, layout=None)
    top = down - gap
    for count, pitch, (text, colour, shown, _) in zip(rows, pitches, panels, strict=True):
        figure.text(gap / across, top / down, text, va="top", fontsize=12, color=colour, fontweight="bold")
        top -= heading
        for place, index in enumerate(shown):
            row, column = divmod(place, COLUMNS)
            left, bottom = gap + column * (width + gap), top - row * pitch - height
            axes = figure.add_axes((left / across, bottom / down, width / across, height / down))
            caption = f"{_shortened(classes[predicted[index]])} ({_percent(confidence[index])})"
            if predicted[index] != labels[index]:
                caption += f"\ntrue: {_shortened(classes[labels[index]])}"
            _draw_picture(axes, images[index], caption, colour)
        top -= count * pitch
    save_figure(figure, path)


def _percent(probability: float) -> str:
    """Whole per cent; what is not certain does not read 100."""
    return ">99%" if 0.995 <= probability < 1 else f"{probability:.0%}"


def _draw_picture(axes, image: np.ndarray, caption: str, colour: str) -> None:
    """image: uint8 (1 or 3, H, W)."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(caption, fontsize=8, labelpad=3, parse_math=False)
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2.5)
