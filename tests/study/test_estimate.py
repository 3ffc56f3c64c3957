"""The time of a study: from records of equal runs where there are any, else measured once for each network."""

from dataclasses import replace

from bitwren.recipe import load_recipe
from bitwren.study.estimate import estimate
from bitwren.study.grid import StudyRun
from bitwren.study.task import Task


def task(tmp_path, seed=0, **changes):
    recipe = load_recipe("digits")
    for table, fields in changes.items():
        recipe = replace(recipe, **{table: replace(getattr(recipe, table), **fields)})
    recipe = replace(recipe, train=replace(recipe.train, seed=seed))
    run = StudyRun(f"{len(str(changes))}-seed{seed}", {}, seed, "digits", None, recipe)
    return Task("s", run, tmp_path, None, 1, "")


def measure(calls):
    def picture_seconds(recipe, channels, classes, size):
        calls.append((recipe.network.width, channels, classes, size))
        return 0.5, 0.25

    return picture_seconds


def test_runs_that_differ_in_the_seed_are_measured_once(tmp_path):
    calls = []
    tasks = [task(tmp_path, seed) for seed in (0, 1)] + [task(tmp_path, 0, train={"epochs": 3})]
    first, second = estimate(tasks, {}, measure(calls))
    assert calls == [(1.0, 1, 10, (8, 8))]  # epochs do not change what a picture takes
    assert (first.runs, first.source) == (tuple(t.run.id for t in tasks[:2]), "measured")
    held = round(0.15 * 1438)
    assert first.seconds == 40 * ((1438 - held) * 0.5 + held * 0.25) + 359 * 0.25
    assert second.seconds == 3 * ((1438 - held) * 0.5 + held * 0.25) + 359 * 0.25


def test_earlier_runs_tell_more(tmp_path):
    calls = []
    records = {
        str(seed): {"status": status, "recipe": task(tmp_path, seed).run.recipe.tables(), "seconds": {"all": seconds}}
        for seed, status, seconds in ((5, "done", 10.0), (6, "done", 20.0), (7, "failed", 1e9))
    }
    first, second = estimate([task(tmp_path), task(tmp_path, network={"width": 2.0})], records, measure(calls))
    assert (first.seconds, first.source) == (15.0, "2 earlier")
    assert second.source == "measured" and calls == [(2.0, 1, 10, (8, 8))]


def test_a_folder_that_is_not_named(tmp_path):
    (only,) = estimate([task(tmp_path, data={"name": "folder"})], {}, measure([]))
    assert (only.seconds, only.source) == (None, "needs --data-dir: only the folder tells how many pictures there are")
