"""The command line: parse, call, print. Each command imports its room when it runs, so that --help is quick and a
command needs only the packages that it uses.

Results go to stdout, progress and errors to stderr. Exit status: 0 done, 1 failed, 2 wrong usage.
"""

import argparse
import contextlib
import importlib
import os
import re
import signal
import sys
import textwrap
import threading
from pathlib import Path

from bitwren.deploy.calibration import CALIBRATION
from bitwren.deploy.emulate.cores import CORES
from bitwren.errors import BitwrenError, UsageError, unknown_name

_DESCRIPTION = """\
Image networks whose every weight is one bit, without batch normalization.

  bitwren recipes                              what can be trained
  bitwren train digits                         train it
  bitwren evaluate runs/digits                 measure it on the test pictures
  bitwren predict runs/digits picture.png      use it
"""


class _Parser(argparse.ArgumentParser):
    """argparse, with the nearest name for a wrong one and errors in this program's own form."""

    def __init__(self, **options):
        super().__init__(**options, allow_abbrev=False)  # else --data would be taken for --data-dir

    def error(self, message: str):
        raise UsageError(f"{message} (see {self.prog} --help)")

    def _check_value(self, action, value):
        if action.choices is not None and value not in action.choices:
            raise unknown_name(
                "command" if isinstance(action, argparse._SubParsersAction) else action.dest, value, action.choices
            )


_BWN = "a .bwn file, or a name from `bitwren zoo`"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bitwren", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def command(name: str, run, summary: str, more: str = "") -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.\n\n{textwrap.dedent(more)}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        return made

    train = command(
        "train",
        _command("training", "train"),
        "train a network from a recipe and pictures",
        """\
        RECIPE is a name from `bitwren recipes` or a .toml file. Your own pictures: one folder per class, or
        train/CLASS/ and test/CLASS/, then `bitwren train folder --data-dir DIR`. A run stopped at any moment goes on
        with --resume. Several GPUs: torchrun --standalone --nproc-per-node 8 -m bitwren train RECIPE --out RUN.""",
    )
    train.add_argument("recipe", metavar="RECIPE", nargs="?", help="may be left out with --resume")
    train.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="change a key of the recipe, such as network.width=2 (repeatable)",
    )
    _add_data_dir(train)
    train.add_argument("--out", metavar="RUN", type=Path, help="folder of the run (default: runs/RECIPE)")
    train.add_argument(
        "--from",
        metavar="MODEL",
        type=Path,
        dest="start",
        help=f"start from the signs of a trained network of the same convolutions: {_BWN}",
    )
    train.add_argument(
        "--teacher",
        metavar="MODEL",
        type=Path,
        help=f"learn the answers of a trained network too, with the share train.distil of the loss: {_BWN}",
    )
    train.add_argument("--resume", action="store_true", help="go on with the run in --out")
    _add_device(train)
    train.add_argument("--quiet", action="store_true", help="no progress, only the result")

    evaluate = command(
        "evaluate",
        _evaluate,
        "measure a trained network on the test pictures of its data set",
        "MODEL is the folder of a run, or a .bwn file or a name from `bitwren zoo`, which need DATA and no PyTorch.",
    )
    evaluate.add_argument("model", metavar="MODEL", type=Path)
    _add_data_dir(evaluate)
    evaluate.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        help="name of a data set, or a folder of pictures (default for a run: its own)",
    )
    evaluate.add_argument("--split", choices=("test", "validation", "training"), default="test")
    evaluate.add_argument("--checkpoint", choices=("best", "last"), default="best")
    evaluate.add_argument("--out", metavar="DIR", type=Path, help="where to write (default: RUN/evaluation-SPLIT)")
    _add_device(evaluate)
    _add_engine(evaluate)

    predict = command("predict", _predict, "name what is in pictures of any size and kind")
    predict.add_argument("model", metavar="MODEL", type=Path, help=f"folder of a run, {_BWN}")
    predict.add_argument("pictures", metavar="PICTURE", nargs="+", type=Path)
    predict.add_argument("--top", metavar="N", type=int, default=1, help="classes to print for each picture")
    predict.add_argument("--json", action="store_true", help="one JSON object a line")
    _add_device(predict)
    _add_engine(predict)

    info = command(
        "info",
        _info,
        "show a network layer by layer: shapes, weights, operations, memory",
        """\
        TARGET is the folder of a run, a .bwn file or a name from `bitwren zoo`, a recipe's name or a .toml file. A name
        of both is the trained network; with --set or --compare it is the recipe.""",
    )
    info.add_argument("target", metavar="TARGET")
    info.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings")
    info.add_argument("--compare", action="store_true", help="batch norm and shifted ReLU side by side")
    info.add_argument("--json", action="store_true", help="as JSON")

    convert = command(
        "convert",
        _command("models", "convert"),
        "make a trained run an exact integer network, one file",
        """\
        Scales are chosen on training pictures; accuracy before and after is measured on the validation pictures.""",
    )
    convert.add_argument("run_folder", metavar="RUN", type=Path)
    convert.add_argument("-o", "--out", metavar="FILE", type=Path, required=True, help="the .bwn file")
    convert.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="chosen on validation (default), or where training stands: to start another run --from",
    )
    convert.add_argument(
        "--calibrate",
        metavar="N",
        type=int,
        default=500,
        help="training pictures to choose scales on (default: %(default)s)",
    )
    convert.add_argument("--bits", type=int, default=8, help="of an activation code, 4 to 9 (default: %(default)s)")
    convert.add_argument(
        "--scales",
        choices=("error", "max", "percentile", "logits"),
        default="error",
        help="smallest squared error (default), largest value, 99.99 %%, or nearest logits",
    )
    _add_data_dir(convert)

    published = command(
        "import",
        _command("models", "import_published"),
        "make the authors' released 1-bit network an integer network",
        "FILE is a MATLAB file of github.com/McDonnell-Lab/1-bit-per-weight. Needs SciPy.",
    )
    published.add_argument("file", metavar="FILE", type=Path)
    published.add_argument("-o", "--out", metavar="FILE", type=Path, required=True, help="the .bwn file")
    published.add_argument("--bits", type=int, default=8, help="of an activation code, 4 to 9 (default: %(default)s)")
    published.add_argument("--classes", metavar="FILE", type=Path, help="text file with a class name a line")

    verify = command(
        "verify",
        _command("models", "verify"),
        "run a network on every machine there is and compare every value with the reference",
        """\
        The pictures are extreme and random ones, and with --data the first of a data set's test pictures too. Exit
        status 1 where any machine differs; one that is not installed is skipped.""",
    )
    verify.add_argument("model", metavar="MODEL", type=Path, help=_BWN)
    verify.add_argument(
        "--data", metavar="DATA", help="name of a data set of the network's picture size, or a folder of pictures"
    )
    _add_data_dir(verify)
    verify.add_argument(
        "--images", metavar="N", type=int, default=100, help="pictures of --data (default: %(default)s)"
    )
    verify.add_argument(
        "--seed", metavar="S", type=int, default=0, help="of the random pictures (default: %(default)s)"
    )
    verify.add_argument("--out", metavar="FILE", type=Path, help="write the report as JSON")

    export = command("export", _command("models", "export"), "write a network for another machine")
    export.add_argument("model", metavar="MODEL", type=Path, help=_BWN)
    export.add_argument("--to", choices=("onnx",), required=True, help="onnx: for ONNX Runtime, integers throughout")
    export.add_argument("-o", "--out", metavar="FILE", type=Path, help="default: MODEL with the ending .onnx")

    generate = command(
        "generate",
        _command("firmware", "generate"),
        "write a network as C for a microcontroller",
        """\
        One header and one source file that need nothing else: C99, no heap, no floating point, and no multiplication
        where the network needs none. DIR/network.h says how to call them and what memory they take.""",
    )
    generate.add_argument("model", metavar="MODEL", type=Path, help=_BWN)
    generate.add_argument("-o", "--out", metavar="DIR", type=Path, required=True)
    generate.add_argument(
        "--layout",
        choices=("plain", "arduino", "zephyr", "esp-idf", "cmake"),
        default="plain",
        help="of the folder (default: %(default)s)",
    )
    generate.add_argument(
        "--optimise",
        choices=("speed", "size", "memory"),
        default="speed",
        help="fewest instructions (default), least flash, or smallest arena",
    )

    fit = command(
        "fit",
        _command("firmware", "fit"),
        "tell whether a network fits a microcontroller, before it is trained",
        """\
        TARGET is a .bwn file, or a recipe's name, a .toml file or the folder of a run, which need PyTorch. Sizes are
        bytes, or a number with K or M: 256K. Exit status 1 where it does not fit.""",
    )
    fit.add_argument("target", metavar="TARGET")
    fit.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings")
    fit.add_argument("--flash", metavar="SIZE", type=_size, required=True, help="for code, weights and constants")
    fit.add_argument("--ram", metavar="SIZE", type=_size, required=True, help="for arena and stack")
    fit.add_argument("--core", choices=tuple(CALIBRATION), default="cortex-m4", help="default: %(default)s")
    fit.add_argument("--mhz", metavar="N", type=float, default=80.0, help="of the clock (default: %(default)g)")
    fit.add_argument(
        "--optimise",
        choices=("speed", "memory"),
        help="as `bitwren generate` has it (default: speed, or memory where only that fits)",
    )
    fit.add_argument(
        "--no-search", action="store_false", dest="search", help="do not look for the largest width and depth that fit"
    )
    fit.add_argument("--json", action="store_true", help="as JSON")

    emulate = command(
        "emulate",
        _command("emulate", "emulate"),
        "run a network as firmware on an emulated microcontroller and measure it",
        """\
        Generates C, cross compiles it, boots it in QEMU and compares every logit with the reference. Exit status 1
        where one differs, where memory outside was touched, or where --certify finds what it must not.""",
    )
    emulate.add_argument("model", metavar="MODEL", type=Path, help=_BWN)
    emulate.add_argument("--core", required=True, choices=tuple(CORES))
    emulate.add_argument(
        "--data", metavar="DATA", help="name of a data set, or a folder of pictures (default: random pictures)"
    )
    _add_data_dir(emulate)
    emulate.add_argument("--images", metavar="N", type=int, default=20, help="pictures (default: %(default)s)")
    emulate.add_argument(
        "--seed", metavar="S", type=int, default=0, help="of the random pictures (default: %(default)s)"
    )
    emulate.add_argument("--optimise", choices=("size", "speed", "memory"), default="speed")
    emulate.add_argument(
        "--flags", metavar="FLAGS", default="", help="more flags for the compiler, such as --flags=-Os (default: -O2)"
    )
    emulate.add_argument("--certify", action="store_true", help="prove that nothing multiplies, divides or uses floats")
    emulate.add_argument("--build", metavar="DIR", type=Path, help="keep what was generated, compiled and linked here")
    emulate.add_argument("--out", metavar="FILE", type=Path, help="write the figures as JSON")

    study = command(
        "study",
        _command("study", "study"),
        "carry out a grid of training runs, and keep a record of each",
        """\
        STUDY is a .toml file: a recipe, and the axes of the grid. One run that fails does not end the rest; exit
        status 1 where any did. A study stopped at any moment goes on with --resume, runs that failed included.""",
    )
    study.add_argument("study", metavar="STUDY", type=Path, help="a .toml file")
    study.add_argument("--out", metavar="DIR", type=Path, help="folder of the study (default: runs/NAME)")
    study.add_argument("--resume", action="store_true", help="go on with the study in the folder, if there is one")
    study.add_argument("--dry-run", action="store_true", help="print the runs and how long they would take")
    study.add_argument(
        "--on", metavar="WHERE", default="local", help="local (default), ray, or ray://HOST:PORT for a Ray cluster"
    )
    study.add_argument("--jobs", metavar="N", type=int, default=1, help="runs at the same time (default: %(default)s)")
    study.add_argument("--threads", metavar="N", type=int, help="processor threads of a run (default: cores / jobs)")
    study.add_argument(
        "--data-dir",
        metavar="[NAME=]DIR",
        action="append",
        default=[],
        help="folder of the pictures, or of those called NAME in the study; may be given several times",
    )

    recipes = command("recipes", _command("lists", "recipes"), "list the recipes that come with the package")
    recipes.add_argument("--keys", action="store_true", help="list every key of a recipe with its meaning and default")
    command("datasets", _command("lists", "datasets"), "list the data sets that bitwren knows")
    zoo = command("zoo", _command("lists", "zoo"), "list the trained networks that come with the package")
    zoo.add_argument("name", metavar="NAME", nargs="?", help="print the card of this one")

    bench = command("bench", _command("training", "bench"), "measure speed and memory against peers in the same run")
    subjects = bench.add_subparsers(dest="subject", metavar="SUBJECT", required=True, parser_class=_Parser)
    training = subjects.add_parser("train", help="training steps: shifted ReLU, batch norm, and plain PyTorch")
    training.add_argument("--rounds", type=int, default=15, help="interleaved rounds; medians are reported")
    training.add_argument("--threads", type=int, default=2)
    training.add_argument("--out", metavar="FILE", type=Path, help="write the figures as JSON")
    _add_bench_model(subjects)

    report = command(
        "report",
        _command("report", "report"),
        "write the page of a study: tables, pictures, statistics",
        """\
        STUDY is a study's folder, or its runs.jsonl. One HTML file that loads nothing from anywhere; the pictures also
        lie beside it, as report-files/NAME.svg for report.html. Needs the extra: pip install 'bitwren[study]'.""",
    )
    report.add_argument("study", metavar="STUDY", type=Path)
    report.add_argument("-o", "--out", metavar="FILE", type=Path, help="default: report.html in the study's folder")
    return parser


def _add_bench_model(subjects) -> None:
    summary = "a network in a .bwn file; the word may be left out: bitwren bench digits.bwn"
    model = subjects.add_parser("model", help=summary, description=f"Measure {summary}.")
    model.set_defaults(run=_command("bench", "bench_model"))
    model.add_argument("model", metavar="MODEL", type=Path, help=_BWN)
    model.add_argument("--against", metavar="NAMES", help="peers to measure beside: onnxruntime,openvino,ncnn")
    model.add_argument("--threads", metavar="LIST", default="1,2", help="default: %(default)s")
    model.add_argument("--batches", metavar="LIST", default="1,2,4,8,16", help="for throughput (default: %(default)s)")
    model.add_argument("--rounds", type=int, default=5, help="turns of each engine (default: %(default)s)")
    model.add_argument("--seconds", type=float, default=0.3, help="of each turn (default: %(default)s)")
    model.add_argument(
        "--undisturbed", action="store_true", help="repeat turns during which others were at work on the cores"
    )
    model.add_argument("--layers", action="store_true", help="show each layer's kernel and where its time goes")
    model.add_argument("--data", metavar="DATA", help="data set or folder: calibrates int8 peers, measures accuracy")
    _add_data_dir(model)
    model.add_argument("--files", metavar="DIR", type=Path, help="keep the peers' files here, and use those kept")
    model.add_argument("--out", metavar="FILE", type=Path, help="write the figures as JSON")
    model.add_argument("--plot", metavar="FILE", type=Path, help="draw the latencies, .png or .svg")


def _with_subject(words: list[str]) -> list[str]:
    """Return the words with `bench FILE` written out as `bench model FILE`."""
    if words[:1] != ["bench"] or len(words) == 1:
        return words
    from bitwren.deploy.zoo import packaged_networks

    named = words[1].endswith(".bwn") or words[1] in packaged_networks() or _is_file(words[1])
    return ["bench", "model", *words[1:]] if named else words


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _size(text: str) -> int:
    """Return the bytes of a size such as 256K."""
    found = re.fullmatch(r"([0-9]{1,15})([KM]?)", text, re.IGNORECASE)
    size = int(found[1]) << {"": 0, "K": 10, "M": 20}[found[2].upper()] if found else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size, expected bytes, or a number with K or M: 256K")
    return size


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", metavar="DIR", type=Path, help="folder that holds the pictures or the set's files"
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="NAME", default="auto", help="cpu, cuda, cuda:N (default: a GPU if there)")
    parser.add_argument("--threads", metavar="N", type=int, help="processor threads (default: as many as cores)")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=("runtime", "reference"),
        help="what runs a .bwn file: the C runtime (default), or the slow NumPy reference; the same integers",
    )


# -------------------------------------------------------------------- a run or a .bwn file


def _find_model(arguments) -> None:
    """Replace a name from the zoo by its file, in a command that has a MODEL. Raises UsageError."""
    if "model" in arguments:
        from bitwren.deploy.zoo import find_model

        arguments.model = find_model(arguments.model)


def _room_of(arguments):
    """Return the room of the commands for MODEL."""
    from bitwren.commands import models, training
    from bitwren.deploy.zoo import is_model

    _find_model(arguments)
    if is_model(arguments.model):
        return models
    if arguments.engine is not None:
        raise UsageError("--engine belongs to a .bwn file; a run is evaluated by PyTorch")
    return training


def _evaluate(arguments) -> int:
    return _room_of(arguments).evaluate(arguments)


def _predict(arguments) -> int:
    if arguments.top < 1:
        raise UsageError(f"--top is {arguments.top}, expected at least 1")
    return _room_of(arguments).predict(arguments)


def _info(arguments) -> int:
    from bitwren.commands import models, training
    from bitwren.deploy.zoo import is_model, packaged_networks

    target = Path(arguments.target)
    if not (arguments.settings or arguments.compare or os.path.exists(target)):
        target = packaged_networks().get(arguments.target, target)
    if is_model(target):
        if arguments.settings or arguments.compare:
            raise UsageError("--set and --compare belong to a recipe; a .bwn file stays as it is")
        return models.info(target, arguments.json)
    return training.info(arguments.target, arguments.settings, arguments.compare, arguments.json)


def _command(room: str, name: str):
    """Return a command that imports its room when it runs."""

    def run(arguments) -> int:
        _find_model(arguments)
        return getattr(importlib.import_module(f"bitwren.commands.{room}"), name)(arguments)

    return run


@contextlib.contextmanager
def _sigterm_interrupts():
    """Let SIGTERM do what Ctrl-C does, so that what is half done is tidied up; unless somebody else sees to it."""

    def interrupt(*_):
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _fail(message: str, status: int = 1) -> int:
    print("bitwren:", message.replace("\n", "\\n"), file=sys.stderr)  # one line, even where a file's name has two
    return status


def main(words: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a stream without an encoding
            stream.reconfigure(errors="backslashreplace")  # file names may hold what the terminal cannot show
    try:
        parser = _parser()
        arguments = parser.parse_args(_with_subject(sys.argv[1:] if words is None else words))
        if arguments.version:
            from importlib.metadata import version

            print(f"bitwren {version('bitwren')}")
            return 0
        if arguments.command is None:
            parser.print_help(sys.stderr)
            return 2
        with _sigterm_interrupts():
            status = arguments.run(arguments)
        sys.stdout.flush()  # here, where a reader that left, or a full disk, can still be handled
        return status
    except BitwrenError as error:
        return _fail(str(error), error.exit_status)
    except KeyboardInterrupt:
        return _fail("interrupted")
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a folder without permission, a full disk: wherever it happens, not our mistake
        named = [] if error.filename is None else [str(error.filename)]
        return _fail(": ".join([*named, error.strerror or str(error) or type(error).__name__]))
    except MemoryError as error:
        return _fail(f"out of memory{f': {error}' if str(error) else ''}")
