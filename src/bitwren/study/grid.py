"""A study file and the runs that it describes: every combination of the axes' values, and of the seeds.

    name = "two-cores"
    recipe = "cifar10-14-0.5"             a recipe's name, or a .toml file beside the study's
    seeds = [0, 1, 2]                     each becomes train.seed; [0] where there are none
    [settings]                            keys of the recipe, changed in all runs
    "train.epochs" = 15
    [axes]
    "network.weight_bits" = [1, 32]       an axis: a key and its values; it is called by the key's last part
    [[axes.data]]                         an axis of bundles: several keys at once, with a label;
    label = "fashion-mnist"               `recipe` starts these runs from another recipe,
    recipe = "fashion-mnist"              `data_dir` says where their pictures are
    [[rules]]                             what holds for some combinations only, after the axes
    when = { weight_bits = 32, data = ["cifar10", "mnist"] }      label by axis; of several, any
    "network.temperature" = 80.0          or `skip = true`: no such runs
"""

import dataclasses
import itertools
import re
import tomllib
from pathlib import Path

from bitwren.errors import UsageError, unknown_name
from bitwren.recipe import Recipe, from_tables, known_keys, load_recipe

_ROOT_KEYS = ("name", "recipe", "seeds", "data_dir", "settings", "axes", "rules")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_LONGEST = 200  # characters of a run's id, which is a folder's name


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    id: of the labels and the seed; the name of its folder. axes: label by axis. data: how the study calls its pictures,
    and data_dir: where the study file says that they are.
    """

    id: str
    axes: dict
    seed: int
    data: str
    data_dir: Path | None
    recipe: Recipe


@dataclasses.dataclass(frozen=True)
class Study:
    """A study's name, what its file says, and its runs in order: the seed varies slowest, the last axis fastest.

    All combinations come with the first seed before any comes with the second: a study stopped half-way is then a whole
    study of fewer seeds.
    """

    name: str
    source: dict
    runs: tuple[StudyRun, ...]


@dataclasses.dataclass(frozen=True)
class _Value:
    """One value of an axis: its label, the keys that it sets, and what else a bundle may say."""

    label: object
    settings: dict
    recipe: str | None = None
    data_dir: str | None = None


@dataclasses.dataclass(frozen=True)
class _Rule:
    when: dict  # axis -> labels, as text
    settings: dict
    skip: bool

    def holds(self, point: dict[str, _Value]) -> bool:
        return all(_text(point[axis].label) in labels for axis, labels in self.when.items())


def read_study(path: Path) -> Study:
    """Return the study that a file describes. Raises UsageError, one line, for whatever is wrong in it."""
    return expand(read_source(path), path)


def read_source(path: Path) -> dict:
    """Return what a study file says, as nested dictionaries. Raises UsageError where it is no TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such study file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as TOML: {error}") from None


def expand(source: dict, path: Path) -> Study:
    """Return the study of nested dictionaries; path: the file to name in a message, and to find others beside."""
    for key in source:
        if key not in _ROOT_KEYS:
            raise UsageError(f"{path}: {unknown_name('key', key, _ROOT_KEYS)}")
    name = _text_of(source, "name", path)
    if not _NAME.fullmatch(name):
        raise UsageError(f"{path}: name is {name!r}, expected letters, digits and ._+- only: it names a folder")
    seeds = source.get("seeds", [0])
    if not (isinstance(seeds, list) and seeds and all(type(s) is int for s in seeds) and len(set(seeds)) == len(seeds)):
        raise UsageError(f"{path}: seeds is {seeds!r}, expected a list of different whole numbers")
    settings = _settings(source.get("settings", {}), f"{path}: settings")
    axes = _axes(source.get("axes", {}), path)
    rules = _rules(source.get("rules", []), axes, path)
    runs, folder = {}, path.parent
    bases: dict[str, Recipe] = {}
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        held = [rule for rule in rules if rule.holds(point)]
        if any(rule.skip for rule in held):
            continue
        base_name = next((v.recipe for v in values if v.recipe is not None), source.get("recipe"))
        if base_name is None:
            raise UsageError(f"{path}: recipe is missing, expected the name of the recipe that the runs start from")
        if base_name not in bases:
            bases[base_name] = _base(base_name, folder, path)
        tables = bases[base_name].tables()
        for change in (settings, *(v.settings for v in values), *(rule.settings for rule in held)):
            tables = {t: {**tables.get(t, {}), **change.get(t, {})} for t in ("data", "network", "augment", "train")}
        data_dir = next((v.data_dir for v in values if v.data_dir is not None), source.get("data_dir"))
        for seed in seeds:
            run_id = "-".join([*(_text(v.label) for v in values), f"seed{seed}"])
            if run_id in runs:
                raise UsageError(f"{path}: two runs are called {run_id!r}, expected labels that tell them apart")
            if len(run_id) > _LONGEST:
                raise UsageError(f"{path}: a run is called {run_id[:40]!r}..., expected at most {_LONGEST} characters")
            tables["train"]["seed"] = seed
            made = from_tables(bases[base_name].name, {**tables, "title": f"{name}: {run_id}"}, f"{path}: {run_id}")
            runs[run_id] = StudyRun(
                run_id,
                {axis: value.label for axis, value in point.items()},
                seed,
                _data_name(point, made),
                None if data_dir is None else folder / data_dir,
                made,
            )
    if not runs:
        raise UsageError(f"{path}: no runs are left, expected rules that skip fewer")
    return Study(name, source, tuple(sorted(runs.values(), key=lambda run: seeds.index(run.seed))))


def _data_name(point: dict[str, _Value], recipe: Recipe) -> str:
    """Return the label of the value that chose the pictures, or the name of the recipe's data set."""
    choosing = [v for v in point.values() if "name" in v.settings.get("data", {}) or v.data_dir or v.recipe]
    return _text(choosing[-1].label) if choosing else recipe.data.name


def _base(name: str, folder: Path, path: Path) -> Recipe:
    if not isinstance(name, str) or not name:
        raise UsageError(f"{path}: recipe is {name!r}, expected a name or a .toml file")
    try:
        return load_recipe(folder / name if name.endswith(".toml") else name)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _text_of(table: dict, key: str, where: object) -> str:
    if key not in table:
        raise UsageError(f"{where}: {key} is missing, expected a text")
    if not isinstance(table[key], str):
        raise UsageError(f"{where}: {key} is {table[key]!r}, expected a text")
    return table[key]


def _flat(table: dict, prefix: str = "") -> dict:
    """Return nested tables as {"table.key": value}, whichever way the file wrote them."""
    flat = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _settings(table: object, where: str) -> dict:
    """Return keys and values as nested tables, each known and in its range."""
    if not isinstance(table, dict):
        raise UsageError(f"{where} is {table!r}, expected a table")
    nested: dict = {}
    for key, value in _flat(table).items():
        if key == "train.seed":
            raise UsageError(f"{where}: train.seed is set, expected it in seeds")
        section, _, name = key.partition(".")
        if key not in known_keys():
            near = [k for k in known_keys() if k.endswith(f".{key.rpartition('.')[2]}")]
            if near:
                raise UsageError(f"{where}: unknown key {key!r}; did you mean {near[0]!r}?")
            raise UsageError(f"{where}: {unknown_name('key', key, known_keys())}")
        nested.setdefault(section, {})[name] = value
    from_tables("settings", nested, where)  # the ranges
    return nested


def _text(label: object) -> str:
    """Return a label as it stands in a run's id."""
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, list):
        return "x".join(map(_text, label))
    return re.sub(r"[^A-Za-z0-9._+-]", "_", f"{label:g}" if isinstance(label, float) else str(label))


def _label(value: object) -> object:
    """Return what stands for a value in the records: a text or a number."""
    return _text(value) if isinstance(value, list) else value


def _axes(table: object, path: Path) -> dict[str, list[_Value]]:
    """Return the values of each axis by its name."""
    if not isinstance(table, dict):
        raise UsageError(f"{path}: axes is {table!r}, expected a table")
    axes: dict[str, list[_Value]] = {}
    for key, values in _flat(table).items():
        where = f"{path}: axes.{key}"
        if not isinstance(values, list) or not values:
            raise UsageError(f"{where} is {values!r}, expected a list of values")
        name = key.rpartition(".")[2]
        if all(isinstance(value, dict) for value in values):
            read = [_bundle(value, where) for value in values]
        else:
            read = [_Value(_label(value), _settings({key: value}, where)) for value in values]
        labels = [_text(value.label) for value in read]
        if len(set(labels)) < len(labels):
            raise UsageError(f"{where}: values {labels}, expected different ones")
        if name in axes:
            raise UsageError(f"{where}: a second axis called {name!r}, expected different names")
        axes[name] = read
    return axes


def _bundle(table: dict, where: str) -> _Value:
    label = _text_of(table, "label", where)
    if not _NAME.fullmatch(label):
        raise UsageError(f"{where}: label is {label!r}, expected letters, digits and ._+- only: it names a folder")
    for key in ("recipe", "data_dir"):
        if key in table:
            _text_of(table, key, f"{where} {label!r}")
    keys = {k: v for k, v in table.items() if k not in ("label", "recipe", "data_dir")}
    return _Value(label, _settings(keys, f"{where} {label!r}"), table.get("recipe"), table.get("data_dir"))


def _rules(tables: object, axes: dict[str, list[_Value]], path: Path) -> list[_Rule]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{path}: rules is {tables!r}, expected [[rules]] tables")
    rules = []
    for number, table in enumerate(tables, 1):
        where, when = f"{path}: rule {number}", table.get("when")
        if not isinstance(when, dict) or not when:
            raise UsageError(f"{where}: when is {when!r}, expected a table of labels by axis")
        wanted = {}
        for axis, labels in when.items():
            if axis not in axes:
                raise UsageError(f"{where}: {unknown_name('axis', axis, axes)}")
            wanted[axis] = {_text(label) for label in (labels if isinstance(labels, list) else [labels])}
            known = [_text(value.label) for value in axes[axis]]
            for label in wanted[axis] - set(known):
                raise UsageError(f"{where}: {unknown_name(f'value of {axis}', label, known)}")
        skip = table.get("skip", False)
        if type(skip) is not bool:
            raise UsageError(f"{where}: skip is {skip!r}, expected true or false")
        keys = {k: v for k, v in table.items() if k not in ("when", "skip")}
        rules.append(_Rule(wanted, _settings(keys, where), skip))
    return rules
