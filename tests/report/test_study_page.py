"""The page of a study: its statistics, and that it stands up to runs that failed, are missing or carry markup."""

import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bitwren.cli import main
from bitwren.errors import DataError
from bitwren.recipe import load_recipe
from bitwren.report.study_page import figures as figures_module
from bitwren.report.study_page import write_page
from bitwren.report.study_page.records import checked_records
from bitwren.report.study_page.statistics import paired_difference, summarise, verdict
from bitwren.report.study_page.tables import Grid, difference_table, main_table
from bitwren.study.grid import StudyRun
from bitwren.study.task import Task, failure

pytest.importorskip("jinja2")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def run(activation="srelu", bits=1, seed=0, test=0.6, data="cifar10-jpeg", **changes):
    record = {
        "study": "small",
        "run": f"{activation}-{bits}-{data}-seed{seed}",
        "status": "done",
        "error": None,
        "axes": {"activation": activation, "weight_bits": bits},
        "seed": seed,
        "data": data,
        "recipe": {"network": {"depth": 8}},
        "pictures": {"training": 10, "validation": 5, "test": 10},
        "accuracy": {"validation": test, "test": test, "integer_test": test},
        "cost": {"weights": 9, "weight_bits": 9 * bits, "multiplications": 0, "saved_activation_bytes": 100},
        "seconds": {"training": 1.0, "step": 0.05},
        "curve": [{"epoch": 1, "train_accuracy": 0.7, "validation_accuracy": test}],
        "made": {"command": "bitwren study"},
    }
    return record | changes


def failed(error="loss is nan", **changes):
    """The record that a study writes of a run that failed."""
    would = run(**changes)
    recipe = load_recipe("digits")
    one = StudyRun(would["run"], would["axes"], would["seed"], would["data"], None, recipe)
    return failure(Task("small", one, Path("nowhere"), None, 1, "bitwren study"), error).record


def written(folder, records):
    folder.mkdir(exist_ok=True)
    (folder / "runs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return folder


def page_of(folder, records):
    write_page(written(folder, records), folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.ids, self.links, self.loads, self.tags = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "xlink:href") and tag in ("a", "use"):
                self.links.append(value)
            elif name in ("src", "href", "xlink:href", "srcset", "data"):
                self.loads.append(value)


GRID = [
    run(activation, bits, seed, 0.6 + 0.01 * seed + 0.02 * (activation == "bn"))
    for activation in ("srelu", "bn")
    for bits in (1, 32)
    for seed in range(3)
]


def test_summary_by_hand():
    # Mean 2, standard deviation 1; t of 97.5 % at 2 degrees of freedom is 4.302653, over the root of 3: 2.484138.
    s = summarise([1.0, 2.0, 3.0])
    assert (s.n, s.mean, s.spread) == (3, 2.0, 1.0)
    assert s.low == pytest.approx(2 - 2.484138, abs=1e-5) and s.high == pytest.approx(2 + 2.484138, abs=1e-5)


def test_one_value_and_none():
    assert summarise([]) is None
    s = summarise([5.0])
    assert (s.n, s.mean, s.spread, s.low, s.high) == (1, 5.0, None, None, None)


def test_difference_is_paired_by_seed():
    # Differences 1 and 3 of seeds 1 and 2; t of 97.5 % at 1 degree of freedom is 12.706205, times 1.
    d = paired_difference({0: 50.0, 1: 10.0, 2: 20.0}, {1: 9.0, 2: 17.0, 3: 80.0})
    assert (d.n, d.mean) == (2, 2.0)
    assert d.low == pytest.approx(2 - 12.706205, abs=1e-5) and d.high == pytest.approx(2 + 12.706205, abs=1e-5)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1.0, 1.1, 0.9], "excludes zero: B makes fewer errors than A"),
        ([-1.0, -1.1, -0.9], "excludes zero: A makes fewer errors than B"),
        ([1.0, -1.0, 0.1], "includes zero: no difference is shown"),
        ([1.0], "n = 1"),
    ],
)
def test_verdict(values, sentence):
    assert sentence in verdict(summarise(values), "A", "B")


def test_tables_have_the_figures():
    grid = Grid(GRID)
    assert grid.columns == [("bn", 1), ("bn", 32), ("srelu", 1), ("srelu", 32)]
    (line,) = main_table(grid)
    assert [round(cell["summary"].mean, 6) for cell in line["cells"]] == [37.0, 37.0, 39.0, 39.0]
    assert [cell["theirs"] for cell in line["cells"]] == [3.75, 3.38, 3.48, 4.34]  # 100 - the published accuracy
    assert [round(d["difference"].mean, 6) for d in difference_table(grid)] == [-2.0, -2.0]


def test_other_axes_make_the_table():
    runs = [
        run(seed=seed, test=0.5, axes={"remedy": remedy}, run=f"{remedy}-{seed}")
        for remedy in ("batch norm", "plain", "balanced")
        for seed in (0, 1)
    ]
    grid = Grid(runs)
    assert grid.columns == [("batch norm",), ("plain",), ("balanced",)]
    pairs = [line["pair"] for line in difference_table(grid)]
    assert pairs == ["batch norm − plain", "batch norm − balanced", "plain − balanced"]


def test_one_run(tmp_path):
    html = page_of(tmp_path, [run()])
    assert "n = 1, no interval" in html and "1 run:" in html and "<h2 id=\"differences\">" not in html


@pytest.mark.parametrize("status", ["done", "failed"])
def test_a_record_of_what_it_must_have_and_no_more(tmp_path, status):
    html = page_of(tmp_path, [{"run": "bare", "status": status, "axes": {}, "seed": 0}])
    assert f"{status}; seed 0; data –" in html


def test_all_failed(tmp_path):
    html = page_of(tmp_path, [failed()])
    assert "loss is nan" in html and "<svg" not in html


def test_failed_and_missing(tmp_path):
    records = [r for r in GRID if r["run"] != "bn-1-cifar10-jpeg-seed0"] + [failed(activation="bn", data="digits")]
    html = page_of(tmp_path, records)
    assert "Failed runs" in html and "loss is nan" in html
    digits = next(row for row in re.findall(r"<tr>.*?</tr>", html, re.S) if '<th scope="row">digits' in row)
    assert digits.count("–") == 4


def test_runs_to_come_are_counted(tmp_path):
    study = 'name = "small"\nrecipe = "digits"\nseeds = [0, 1, 2]\n[axes]\n"network.weight_bits" = [1, 32]\n'
    (tmp_path / "study.toml").write_text(study, encoding="utf-8")
    there = run(run="1-seed0") | {"axes": {"weight_bits": 1}}
    assert "1 run: 1 done, 0 failed, 5 of the study to come." in page_of(tmp_path, [there])
    (tmp_path / "study.toml").write_text(study.replace('"digits"', '"gone.toml"'), encoding="utf-8")
    assert "1 run: 1 done, 0 failed." in page_of(tmp_path, [there])


def test_numbers_that_are_no_numbers(tmp_path):
    html = page_of(tmp_path, [run(accuracy={"test": float("nan")}, cost=None, seconds={"step": "fast"}, curve=None)])
    assert "nan</td>" not in html and "–" in html


@pytest.mark.parametrize("sets", [["cifar10-jpeg"], ["cifar10-jpeg", "fashion-mnist"]])
def test_no_legend_is_cut_off_and_no_ticks_overlap(monkeypatch, sets):
    records = [
        run(activation, bits, data=data, cost={"weight_bits": bits, "multiplications": (bits - 1) * 50_000})
        for data in sets
        for activation in ("bn", "srelu")
        for bits in (1, 32)
    ]
    drawn, svg = [], figures_module._svg
    monkeypatch.setattr(figures_module, "_svg", lambda figure, *words: (drawn.append(figure), svg(figure, *words))[1])
    figures_module.draw_figures(Grid(records), records)
    assert len(drawn) >= 4
    for figure in drawn:
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width, (box, figure.bbox)
        for one in figure.axes:
            low, high = one.get_xlim()
            shown = [t for t in one.get_xticklabels() if t.get_text() and low <= t.get_position()[0] <= high]
            boxes = sorted((t.get_window_extent() for t in shown), key=lambda b: b.x0)
            assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes)), [t.get_text() for t in shown]


def test_last_line_counts_and_a_torn_one_does_not(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(failed()) + "\n" + json.dumps(run()) + "\n" + json.dumps(run(seed=1))[:40])
    (record,) = checked_records(path)
    assert record["status"] == "done"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no run"),
        ("{\n{}\n", "line 1 is not JSON"),
        ("[]\n", "line 1 is b'[]', expected the record of a run"),
        (json.dumps(run(status="odd")) + "\n", "status is 'odd'"),
        (json.dumps(run(axes=[1])) + "\n", "axes is [1]"),
        (json.dumps(run(seed=None)) + "\n", "seed is None"),
        (json.dumps(run(curve={"a": 1})) + "\n", "curve is dict"),
    ],
)
def test_broken_records_are_refused(tmp_path, content, message):
    (tmp_path / "runs.jsonl").write_text(content)
    with pytest.raises(DataError, match=re.escape(message)):
        checked_records(tmp_path / "runs.jsonl")


def test_markup_in_records_is_text(tmp_path):
    evil = "<script>alert(1)</script>\"'&$\\frac{"
    html = page_of(
        tmp_path,
        [
            run(study=evil, run=evil, data=evil, axes={evil: evil, "weight_bits": 1}, made={evil: evil}),
            failed(error=evil, run="other"),
        ],
    )
    assert "<script>alert" not in html and html.count("<script") == 1
    assert Page(html).tags.count("script") == 1
    assert "<script" not in "".join(p.read_text() for p in (tmp_path / "report-files").iterdir())


def test_nothing_is_loaded_and_every_link_has_its_place(tmp_path):
    page = Page(page_of(tmp_path, GRID))
    assert page.loads == []
    assert len(page.ids) == len(set(page.ids))
    inside = [link[1:] for link in page.links if link.startswith("#")]
    assert set(inside) <= set(page.ids) and sum(name.startswith("run-") for name in inside) >= 2 * len(GRID)
    outside = {link for link in page.links if not link.startswith("#")}
    assert outside == {"https://arxiv.org/abs/1907.06916", "https://arxiv.org/abs/1802.08530"}


def test_same_bytes_twice(tmp_path):
    first = page_of(tmp_path, GRID)
    pictures = {p.name: p.read_bytes() for p in (tmp_path / "report-files").iterdir()}
    assert page_of(tmp_path, GRID) == first and len(pictures) == 6
    assert {p.name: p.read_bytes() for p in (tmp_path / "report-files").iterdir()} == pictures


def test_command(tmp_path, capsys):
    written(tmp_path, GRID[:1])
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "a" / "page.html")]) == 0
    assert (tmp_path / "a" / "page.html").is_file() and (tmp_path / "a" / "page-files" / "curves.svg").is_file()
    assert main(["report", str(tmp_path / "none")]) == 1
    assert main(["report", str(tmp_path), "-o", "page.png"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_in_a_browser(tmp_path):
    page_of(tmp_path, GRID)
    # The page narrower than a phone's screen must not be wider than it, and a click on a heading sorts.
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    probe = """<script>addEventListener("load", () => {
      const table = document.querySelector("#costs ~ .box table"), heads = table.tHead.rows[0].cells;
      const seeds = () => [...table.tBodies[0].rows].map(row => row.cells[3].textContent).join("");
      heads[3].querySelector("button").click(); const up = seeds();
      heads[3].querySelector("button").click(); const down = seeds();
      const frame = document.documentElement;
      document.title = `${up} ${down} ${frame.scrollWidth <= frame.clientWidth}`;
    });</script>"""
    (tmp_path / "probe.html").write_text(html.replace("</body>", f"{probe}</body>"), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=390,844", "--dump-dom", (tmp_path / "probe.html").as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "<title>000011112222 222211110000 true</title>" in result.stdout


def test_an_axis_that_names_the_data_set_is_not_compared():
    remedies = ("plain", "balanced", "centred")
    records = [
        run(data=data, run=f"{data}-{remedy}", axes={"data": data, "remedy": remedy}, test=0.5 + k / 10)
        for data in ("cifar10-jpeg", "digits")
        for k, remedy in enumerate(remedies)
    ]
    grid = Grid(records)
    assert (grid.compared, grid.row_axes, grid.rows) == ("remedy", [], [("cifar10-jpeg",), ("digits",)])
    pairs = [(line["labels"], line["pair"]) for line in difference_table(grid)]
    assert pairs[:3] == [
        (["cifar10-jpeg"], "plain − balanced"),
        (["cifar10-jpeg"], "plain − centred"),
        (["cifar10-jpeg"], "balanced − centred"),
    ]


@pytest.mark.parametrize(("variants", "heads"), [(4, ["data", *"abcd"]), (5, ["variant", "cifar10-jpeg", "digits"])])
def test_more_variants_than_fit_side_by_side_are_lines(tmp_path, variants, heads):
    records = [
        run(data=data, run=f"{data}-{remedy}", axes={"data": data, "remedy": remedy}, test=0.5 + k / 100 + j / 10)
        for j, data in enumerate(("cifar10-jpeg", "digits"))
        for k, remedy in enumerate("abcde"[:variants])
    ]
    table = page_of(tmp_path / "s", records).partition("<table")[2].partition("</table>")[0]
    assert re.findall(r'<th scope="col">([^<]*)', table) == heads
    lines = list("abcde") if variants > 4 else ["cifar10-jpeg", "digits"]
    assert re.findall(r'<th scope="row">([^<]*)', table) == lines
    told = re.findall(r"<strong>([\d.]+)", table)
    errors = [[50 - k - 10 * j for k in range(variants)] for j in range(2)]
    wanted = zip(*errors, strict=True) if variants > 4 else errors
    assert told == [f"{error:.2f}" for line in wanted for error in line]


@pytest.mark.parametrize("bits", [(1,), (1, 32)])
def test_no_two_columns_look_alike(bits):
    grid = Grid([run(activation=f"remedy {k}", bits=b) for k in range(12) for b in bits])
    styles = [figures_module._style(grid, column) for column in grid.columns]
    assert len(styles) == 12 * len(bits) and len(set(styles)) == len(styles)
