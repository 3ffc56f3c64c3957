"""A recipe: everything that decides what a training run computes, read from TOML into frozen dataclasses.

A recipe file has four tables, [data], [network], [augment] and [train]; each key is a field below, and an unknown key
is refused with the nearest one that exists. `extends = "name"` starts from another recipe (one that comes with the
package, or a path relative to the file) and changes only what it names.
"""

import dataclasses
import math
import tomllib
import types
import typing
from importlib import resources
from pathlib import Path

from bitwren.errors import UsageError, unknown_name

_Range = tuple[float, float]
_ANY: _Range = (-math.inf, math.inf)


def _option(default, meaning: str, *, choices: tuple = (), between: _Range = _ANY):
    """A field with its meaning, and what values it takes: the choices, or a closed range of numbers."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "choices": choices, "between": between})


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """The pictures: which set, at what size, and how many training pictures are held out for selection."""

    name: str = _option("folder", "data set (see `bitwren datasets`)")
    image_size: tuple[int, int] | None = _option(
        None, "height and width in pixels; without it the set's own", between=(1, 8192)
    )
    channels: int | None = _option(None, "1 grey or 3 colour; without it the set's own", choices=(1, 3))
    validation: float = _option(
        0.1, "training pictures held out for selection: a fraction below 1, or a number of pictures", between=(0, 1e7)
    )
    training: int | None = _option(
        None, "pictures to learn from, of each class its share; without it all that are not held out", between=(1, 1e9)
    )
    workers: int = _option(4, "processes that read pictures where the set does not fit in memory", between=(0, 256))


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """The network. The fields but `family` are the arguments of bitwren.train.WideResNet."""

    family: str = _option("wide-resnet", "kind of network", choices=("wide-resnet", "resnet18"))
    depth: int = _option(20, "number of convolutions: 6n + 2, or 18 for resnet18", between=(8, 1000))
    width: float = _option(1.0, "width factor K; fractions make small networks", between=(0.01, 100))
    activation: str = _option("srelu", "shifted ReLU, or batch norm and ReLU", choices=("srelu", "bn"))
    weight_bits: int = _option(1, "bits per weight", choices=(1, 32))
    layer_scale: str = _option(
        "he", "constant scale of a 1-bit layer: sqrt(2 / fan-in), or the nearest power of two", choices=("he", "pow2")
    )
    signs: str = _option(
        "plain", "of the latent weights, or of what they exceed their filter's mean by", choices=("plain", "balanced")
    )
    padding: str = _option(
        "symmetric", "zeros round a picture: on all sides, or as TensorFlow's `same`", choices=("symmetric", "same")
    )
    downsample: str = _option(
        "avg3", "skip path at stride 2: 3x3 mean, or 3x3 binomial (shifts only)", choices=("avg3", "binomial")
    )
    skip: bool = _option(True, "residual network; false makes the plain one")
    temperature: float | None = _option(
        None, "divides the logits; without it 40 for srelu and 1 for bn", between=(1e-6, 1e6)
    )
    input: str = _option(
        "auto",
        "integer means and one power of two, or a learned batch norm; auto goes with the activation",
        choices=("auto", "standardise", "batchnorm"),
    )
    bn_affine: bool = _option(False, "learn the scale and offset of every batch norm")
    centre: bool = _option(False, "subtract each channel's mean before every shifted ReLU: a constant at inference")


@dataclasses.dataclass(frozen=True)
class AugmentOptions:
    """What is done to each training picture, at random, before the network sees it."""

    flip: bool = _option(False, "mirror left and right with probability one half")
    shift: int = _option(0, "shift by up to this many pixels; uncovered pixels are random", between=(0, 1024))
    cutout: int = _option(0, "side of the square that is overwritten with random pixels", between=(0, 1024))
    crop: bool = _option(
        False, "random crop of 8 to 100 % of the area, resized (ImageNet; only for pictures read from files)"
    )


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """The optimiser: SGD with momentum, no Nesterov, and its schedule."""

    epochs: int = _option(300, "passes over the training pictures", between=(1, 100000))
    batch: int = _option(125, "pictures in a step, over all processes", between=(1, 1000000))
    learning_rate: float = _option(0.1, "at the start of a cycle", between=(0, 1000))
    final_learning_rate: float = _option(1e-5, "at the end of a cycle", between=(0, 1000))
    schedule: str = _option("cosine", "one cosine over all epochs, or warm restarts", choices=("cosine", "restarts"))
    first_cycle: int = _option(
        2, "epochs of the first cycle with warm restarts; each next is twice as long", between=(1, 100000)
    )
    momentum: float = _option(0.9, "of SGD", between=(0, 0.999999))
    weight_decay: float = _option(5e-4, "L2 on the latent weights", between=(0, 1))
    clip: float = _option(
        0.0, "largest norm of a layer's gradient, as a share of its weights'; 0: any", between=(0, 1e6)
    )
    distil: float = _option(
        0.0, "share of the loss that a teacher's answers have (train --teacher); 0: no teacher", between=(0, 1)
    )
    distil_temperature: float = _option(
        1.0, "divides the logits of teacher and student where they are compared", between=(1e-6, 1e6)
    )
    precision: str = _option(
        "fp32", "of the passes; weights and their updates stay fp32 with bf16", choices=("fp32", "bf16", "fp64")
    )
    compile: bool = _option(False, "compile the network with torch.compile")
    reestimate_bn: bool = _option(False, "after training, pass the augmented training set once for the BN moments")
    seed: int = _option(0, "of the weights, the order and the augmentation", between=(0, 2**32 - 1))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training run. published: the accuracy in per cent that the authors report for it, None where they do not."""

    name: str
    title: str = ""
    published: float | None = None
    data: DataOptions = DataOptions()
    network: NetworkOptions = NetworkOptions()
    augment: AugmentOptions = AugmentOptions()
    train: TrainOptions = TrainOptions()

    def tables(self) -> dict:
        """Return the recipe as nested dictionaries of TOML values; what is None is left out."""

        def present(pairs):
            return {k: list(v) if isinstance(v, tuple) else v for k, v in pairs if v is not None}

        return present({k: v for k, v in dataclasses.asdict(self, dict_factory=present).items() if k != "name"}.items())

    def changed(self) -> dict:
        """Return, as nested dictionaries, the keys of the four tables that differ from a key's default.

        from_tables makes the same run of them: it is all that a model file needs to say of its recipe.
        """
        tables, defaults = self.tables(), Recipe("").tables()
        kept = {t: {k: v for k, v in tables[t].items() if defaults[t].get(k) != v} for t in TABLES}
        return {table: keys for table, keys in kept.items() if keys}


TABLES = {"data": DataOptions, "network": NetworkOptions, "augment": AugmentOptions, "train": TrainOptions}
_ROOT_KEYS = ("title", "published", "extends")


def known_keys() -> dict[str, dataclasses.Field]:
    """Return every key of a recipe as "table.key" with its field."""
    return {f"{table}.{f.name}": f for table, kind in TABLES.items() for f in dataclasses.fields(kind)}


def _shown(value) -> str:
    """Return the value for a message, cut to a line's length; Python refuses to print very long numbers."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _checked(key: str, value, where: str):
    """Return value as the field's type, or raise UsageError saying what it got and expected."""
    field = known_keys()[key]
    wanted = typing.get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,)
    kind = wanted[0]
    lowest, highest = field.metadata["between"]

    def refuse(expected: str) -> UsageError:
        return UsageError(f"{where}: {key} is {_shown(value)}, expected {expected}")

    if typing.get_origin(kind) is tuple:
        count = len(typing.get_args(kind))
        fits = isinstance(value, (list, tuple)) and len(value) == count and all(type(v) is int for v in value)
        if not fits or not all(lowest <= v <= highest for v in value):
            raise refuse(f"{count} whole numbers from {lowest:g} to {highest:g}")
        return tuple(value)
    if kind is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            value = math.copysign(math.inf, value > 0 or -1)
    if type(value) is not kind:
        raise refuse({bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind])
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise refuse("one of " + ", ".join(map(repr, choices)))
    if kind in (int, float) and not lowest <= value <= highest:  # NaN fails too
        raise refuse(f"{lowest:g} to {highest:g}")
    return value


def from_tables(name: str, tables: dict, where: str) -> Recipe:
    """Return the recipe that nested dictionaries describe.

    where: the file or option to name in a message. Raises UsageError for an unknown key or a value out of range.
    """
    root = {k: v for k, v in tables.items() if k not in TABLES}
    for key in root:
        if key not in _ROOT_KEYS:
            raise _at(where, unknown_name("key", key, (*_ROOT_KEYS, *TABLES)))
    if not isinstance(root.get("title", ""), str):
        raise UsageError(f"{where}: title is {_shown(root['title'])}, expected a text")
    published = root.get("published")
    if published is not None and not (type(published) in (int, float) and 0 <= published <= 100):
        raise UsageError(f"{where}: published is {_shown(published)}, expected an accuracy from 0 to 100")
    made = {}
    for table, kind in TABLES.items():
        values = tables.get(table, {})
        if not isinstance(values, dict):
            raise UsageError(f"{where}: {table} is {_shown(values)}, expected a table")
        for key in values:
            _known(f"{table}.{key}", where)
        made[table] = kind(**{k: _checked(f"{table}.{k}", v, where) for k, v in values.items()})
    return Recipe(name=name, title=root.get("title", ""), published=published, **made)


def _at(where: str, error: UsageError) -> UsageError:
    return UsageError(f"{where}: {error}")


def _known(key: str, where: str) -> None:
    if key in known_keys():
        return
    last = key.rpartition(".")[2]
    elsewhere = [k for k in known_keys() if k.endswith(f".{last}")]
    if elsewhere:
        raise UsageError(f"{where}: unknown key {key!r}; did you mean {elsewhere[0]!r}?")
    raise _at(where, unknown_name("key", key, known_keys()))


def packaged_recipes() -> dict[str, Path]:
    """Return the recipes that come with the package, name to file, sorted by name."""
    folder = resources.files("bitwren") / "recipes"
    return {
        Path(f.name).stem: Path(str(f))
        for f in sorted(folder.iterdir(), key=lambda f: f.name)
        if f.name.endswith(".toml")
    }


def _find(name: str, beside: Path | None) -> Path:
    packaged = packaged_recipes()
    if name in packaged:
        return packaged[name]
    path = (beside.parent / name) if beside else Path(name)
    if path.suffix == ".toml" or path.exists():
        return path
    error = unknown_name("recipe", name, packaged)
    raise _at(str(beside), error) if beside else error


def _merged(base: dict, change: dict) -> dict:
    both = dict(base)
    for key, value in change.items():
        both[key] = _merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both


def _read_tables(path: Path, seen: tuple[Path, ...]) -> dict:
    try:
        resolved, text = path.resolve(), path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe file") from None
    except (OSError, ValueError, RuntimeError) as error:  # also bytes that are not UTF-8, a null byte, a loop of links
        raise UsageError(f"{path}: cannot be read ({error})") from None
    if resolved in seen:
        raise UsageError(f"{path}: extends itself by way of {' -> '.join(p.name for p in seen)}")
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of too many digits, brackets nested too deep
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    parent = tables.pop("extends", None)
    if parent is None:
        return tables
    if not isinstance(parent, str) or not parent.isprintable():
        raise UsageError(f"{path}: extends is {_shown(parent)}, expected a recipe's name")
    inherited = _read_tables(_find(parent, path), (*seen, resolved))
    if set(tables) & set(TABLES):  # another network or schedule is another row: its title and figure are its own
        inherited = {k: v for k, v in inherited.items() if k in TABLES}
    return _merged(inherited, tables)


def parse_setting(text: str) -> tuple[str, object]:
    """Return key and value of "table.key=value"; the value is read as TOML, and as plain text where that fails."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UsageError(f"--set {text}: expected table.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        parsed = {}
    return key, parsed["value"] if parsed.keys() == {"value"} else value.strip()


def load_recipe(name: str | Path, settings: tuple[str, ...] | list[str] = ()) -> Recipe:
    """Return the recipe of a packaged name or a .toml file, with "table.key=value" settings applied.

    Raises UsageError for an unknown recipe or key, a file that cannot be read, or a value out of range.
    """
    path = _find(str(name), None)
    tables = _read_tables(path, ())
    for text in settings:
        key, value = parse_setting(text)
        _known(key, f"--set {text}")
        _checked(key, value, f"--set {text}")
        table, _, last = key.partition(".")
        tables = _merged(tables, {table: {last: value}})
        tables.pop("published", None)  # what is trained is no longer the authors' row
    return from_tables(path.stem, tables, str(path))
