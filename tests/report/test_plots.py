"""The pictures of a run: what is drawn is what was measured; any number of classes; a whole file or the old one."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from bitwren.errors import UsageError, WriteError
from bitwren.report import plots
from bitwren.report.evaluation import evaluate_logits

RNG = np.random.default_rng(0)


def confusion_of(classes: int, wrong: int = 3):
    labels = np.arange(max(3 * classes, 4)) % classes
    predicted = labels.copy()
    predicted[:wrong] = (predicted[:wrong] + 1) % classes
    names = [f"${i}_{{$" for i in range(classes)]  # as mathematics, which they are not, they would be an error
    return evaluate_logits(np.eye(classes)[predicted], labels, names)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would have been written."""
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    return figures


@pytest.mark.parametrize("classes", [1, 2, 10, 100])
def test_confusion_is_written_as_a_picture(tmp_path, classes):
    plots.plot_confusion(confusion_of(classes), tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        image.load()
        assert image.format == "PNG" and min(image.size) > 400
    assert [p.name for p in tmp_path.iterdir()] == ["confusion.png"]


def test_confusion_cells_hold_the_numbers_and_an_empty_class_is_masked(drawn):
    evaluation = evaluate_logits(np.eye(3)[[0, 0, 0, 1, 1]], np.array([0, 0, 1, 1, 1]), ("a", "b", "c"))
    plots.plot_confusion(evaluation, "unused.png")
    axes, bar = drawn[0].axes
    assert {(t.get_position(), t.get_text()) for t in axes.texts} == {((0, 0), "2"), ((0, 1), "1"), ((1, 1), "2")}
    (image,) = axes.images
    assert image.get_array().tolist() == [[100, 0, 0], [pytest.approx(100 / 3), pytest.approx(200 / 3), 0], [None] * 3]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.get_title("left") == "80.00% of 5 pictures right"
    assert "grey: it has none" in bar.get_ylabel()


def test_many_classes_have_names_but_no_numbers_and_very_many_neither(drawn):
    for classes in (100, 130):
        plots.plot_confusion(confusion_of(classes), "unused.png")
    hundred, more = (figure.axes[0] for figure in drawn)
    assert not hundred.texts and len(hundred.get_yticklabels()) == 100
    assert len(more.get_yticklabels()) < 30


RECORDS = [
    {"epoch": i + 1, "train_loss": 2.0 / (i + 1), "train_accuracy": i / 4, "validation_loss": 3.0 / (i + 1),
     "validation_accuracy": (0.1, 0.9, 0.9, 0.8)[i]}
    for i in range(4)
]


def test_learning_curve_draws_the_records(drawn):
    plots.plot_learning_curve(RECORDS, "unused.png", "a $_{$ title")
    loss, accuracy = drawn[0].axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in loss.lines}
    assert curves["training"] == [[1, 2.0], [2, 1.0], [3, 2 / 3], [4, 0.5]]
    assert curves["validation"] == [[1, 3.0], [2, 1.5], [3, 1.0], [4, 0.75]]
    curves = {line.get_label(): line.get_xydata().tolist() for line in accuracy.lines}
    assert curves["training"] == [[1, 0], [2, 25], [3, 50], [4, 75]]
    assert curves["validation"] == [[1, 10], [2, 90], [3, 90], [4, 80]]
    assert accuracy.get_title("right") == "best 90.00 at epoch 2"  # the first of equals


def test_learning_curve_without_validation_has_one_line(drawn):
    records = [{k: v for k, v in r.items() if "validation" not in k} for r in RECORDS]
    plots.plot_learning_curve(records, "unused.png", "")
    assert [len(axes.lines) for axes in drawn[0].axes] == [1, 1]


@pytest.mark.parametrize("epochs", [1, 4])
def test_learning_curve_is_written(tmp_path, epochs):
    plots.plot_learning_curve(RECORDS[:epochs], tmp_path / "curve.svg", "a $_{$ title")
    assert b"<svg" in (tmp_path / "curve.svg").read_bytes()


def test_learning_curve_of_nothing_is_refused():
    with pytest.raises(UsageError, match="no epoch"):
        plots.plot_learning_curve([], "unused.png", "")


def predictions(right: int, wrong: int, classes: int = 3, channels: int = 3, size=(4, 6)):
    """Class 0 is predicted of all, ever less certainly; the mistakes are of class 1."""
    n = right + wrong
    images = RNG.integers(0, 256, (n, channels, *size), dtype=np.uint8)
    best = np.linspace(0.9, 0.6, n)
    probabilities = np.full((n, classes), 0.0)
    probabilities[:, 1:] = ((1 - best) / max(classes - 1, 1))[:, None]
    probabilities[:, 0] = best if classes > 1 else 1.0
    labels = np.array([0] * right + [1] * wrong)
    return images, labels, probabilities, [f"$c{i}_{{$" for i in range(classes)]


@pytest.mark.parametrize(
    ("right", "wrong", "shown"),
    [(3, 2, (3, 2)), (40, 0, (16, 0)), (0, 40, (0, 16)), (16, 17, (16, 16)), (1, 0, (1, 0))],
)
def test_predictions_show_up_to_16_of_each(drawn, right, wrong, shown):
    plots.plot_predictions(*predictions(right, wrong), "unused.png")
    captions = [axes.get_xlabel() for axes in drawn[0].axes]
    assert (sum("true" not in c for c in captions), sum("true" in c for c in captions)) == shown
    headings = [text.get_text() for text in drawn[0].texts]
    n = right + wrong
    most = " (the most confident mistakes)" if wrong > 16 else ""
    assert headings == [f"✓ right: {right} of {n}", f"✗ wrong: {wrong} of {n}{most}"]


def test_predictions_have_their_own_picture_caption_and_frame(drawn):
    images, labels, probabilities, classes = predictions(1, 2)
    plots.plot_predictions(images, labels, probabilities, classes, "unused.png")
    axes = drawn[0].axes
    captions = ["$c0_{$ (90%)", "$c0_{$ (75%)\ntrue: $c1_{$", "$c0_{$ (60%)\ntrue: $c1_{$"]
    assert [a.get_xlabel() for a in axes] == captions
    for a, image in zip(axes, images, strict=True):
        assert np.array_equal(a.images[0].get_array(), image.transpose(1, 2, 0))
    from matplotlib.colors import to_hex

    frames = [to_hex(a.spines["top"].get_edgecolor()).upper() for a in axes]
    assert frames == [plots.GREEN, plots.RED, plots.RED]


def test_mistakes_are_the_most_confident_and_right_ones_evenly_spaced(drawn):
    images, labels, probabilities, classes = predictions(31, 20)
    order = RNG.permutation(51)
    plots.plot_predictions(images[order], labels[order], probabilities[order], classes, "unused.png")
    wrong = [a for a in drawn[0].axes if "true" in a.get_xlabel()]
    for axes, index in zip(wrong, range(31, 47), strict=True):  # made in the order of certainty
        assert np.array_equal(axes.images[0].get_array(), images[index].transpose(1, 2, 0))
    right = [a for a in drawn[0].axes if "true" not in a.get_xlabel()]
    for axes, index in zip(right, order[labels[order] == 0][::2], strict=True):
        assert np.array_equal(axes.images[0].get_array(), images[index].transpose(1, 2, 0))


@pytest.mark.parametrize("classes", [1, 2, 10, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_predictions_are_written(tmp_path, classes, channels):
    shown = predictions(2, 0 if classes == 1 else 2, classes, channels, (5, 3))
    plots.plot_predictions(*shown, tmp_path / "predictions.png")
    with Image.open(tmp_path / "predictions.png") as image:
        image.load()
        assert min(image.size) > 300


def test_grey_pictures_are_not_stretched(drawn):
    images, labels, probabilities, classes = predictions(1, 0, channels=1)
    plots.plot_predictions(images // 4 + 100, labels, probabilities, classes, "unused.png")
    (image,) = drawn[0].axes[0].images
    assert image.get_clim() == (0, 255) and image.get_cmap().name == "gray"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: np.zeros((3, 3, 4, 4))}, r"images are float64 \(3, 3, 4, 4\), expected uint8"),
        ({0: np.zeros((3, 2, 4, 4), np.uint8)}, "images are uint8"),
        ({1: np.array([0, 1])}, "labels are int64"),
        ({1: np.array([0, 1, 3])}, "labels are 0 to 3, expected 0 to 2"),
        ({2: np.zeros((3, 4))}, r"probabilities are \(3, 4\)"),
        ({2: np.full((3, 3), np.nan)}, "not finite"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(change, message):
    arguments = [change.get(i, given) for i, given in enumerate(predictions(1, 2))]
    with pytest.raises(UsageError, match=message):
        plots.plot_predictions(*arguments, "unused.png")


def test_a_probability_just_below_one_does_not_read_as_certain():
    assert [plots._percent(p) for p in (0.994, 0.995, 0.99999, 1.0, 0.0)] == ["99%", ">99%", ">99%", "100%", "0%"]


def test_a_long_name_keeps_both_ends():
    assert plots._shortened("sturgeon_of_the_north") == "sturgeo…north" and plots._shortened("cat") == "cat"


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    def fail(*names):
        raise OSError(28, "No space left on device")

    path = tmp_path / "curve.png"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(WriteError, match=r"curve\.png: cannot be written: No space left on device"):
        plots.plot_learning_curve(RECORDS, path, "")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_and_an_unknown_ending_are_refused(tmp_path):
    with pytest.raises(WriteError, match="cannot be written"):
        plots.plot_learning_curve(RECORDS, tmp_path / "none" / "curve.png", "")
    with pytest.raises(UsageError, match=r"ends in '.bmp', expected one of .*png"):
        plots.plot_learning_curve(RECORDS, tmp_path / "curve.bmp", "")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.plot_confusion(confusion_of(2), "unused.png"),
        lambda: plots.plot_learning_curve(RECORDS, "unused.png", ""),
        lambda: plots.plot_predictions(*predictions(1, 1), "unused.png"),
    ],
)
def test_without_matplotlib_one_line_says_what_to_install(monkeypatch, draw):
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"pip install 'bitwren\[train\]'"):
        draw()


def test_pyplot_and_torch_stay_out_of_it(tmp_path):
    code = (
        "import sys; from bitwren.report.plots import plot_learning_curve as p;"
        f"p([{RECORDS[0]!r}], {str(tmp_path / 'c.png')!r}, '');"
        "print(sorted({'matplotlib.pyplot', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
