"""The command line: parse, call, print. Each command imports its room when it runs, so that --help is quick and a
command needs only the packages that it uses.

Results go to stdout, progress and errors to stderr. Exit status: 0 done, 1 failed, 2 wrong usage.
"""

import argparse
import json
import os
import sys
import textwrap
from pathlib import Path

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

    def error(self, message: str):
        raise UsageError(f"{message} (see {self.prog} --help)")

    def _check_value(self, action, value):
        if action.choices is not None and value not in action.choices:
            raise unknown_name("command" if isinstance(action, argparse._SubParsersAction) else action.dest, value,
                               action.choices)


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
        "train", _train, "train a network from a recipe and pictures",
        """\
        RECIPE is a name from `bitwren recipes` or a .toml file. Your own pictures: one folder per class, or
        train/CLASS/ and test/CLASS/, then `bitwren train folder --data-dir DIR`. A run stopped at any moment goes on
        with --resume. Several GPUs: torchrun --nproc-per-node 8 -m bitwren train RECIPE --out RUN.""",
    )
    train.add_argument("recipe", metavar="RECIPE", nargs="?", help="may be left out with --resume")
    train.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
                       help="change a key of the recipe, such as network.width=2 (repeatable)")
    _add_data_dir(train)
    train.add_argument("--out", metavar="RUN", type=Path, help="folder of the run (default: runs/RECIPE)")
    train.add_argument("--resume", action="store_true", help="go on with the run in --out")
    _add_device(train)
    train.add_argument("--quiet", action="store_true", help="no progress, only the result")

    evaluate = command("evaluate", _evaluate, "measure a trained network on the test pictures of its data set")
    evaluate.add_argument("model", metavar="RUN", type=Path)
    _add_data_dir(evaluate)
    evaluate.add_argument("--data", metavar="NAME", help="another data set with the same classes (default: its own)")
    evaluate.add_argument("--split", choices=("test", "validation", "training"), default="test")
    evaluate.add_argument("--checkpoint", choices=("best", "last"), default="best")
    evaluate.add_argument("--out", metavar="DIR", type=Path, help="where to write (default: RUN/evaluation-SPLIT)")
    _add_device(evaluate)

    predict = command("predict", _predict, "name what is in pictures of any size and kind")
    predict.add_argument("model", metavar="RUN", type=Path)
    predict.add_argument("pictures", metavar="PICTURE", nargs="+", type=Path)
    predict.add_argument("--top", metavar="N", type=int, default=1, help="classes to print for each picture")
    predict.add_argument("--json", action="store_true", help="one JSON object a line")
    _add_device(predict)

    info = command(
        "info", _info, "show a network layer by layer: shapes, weights, operations, memory",
        "RUN-or-RECIPE is a folder that was trained, a recipe's name, or a .toml file.",
    )
    info.add_argument("target", metavar="RUN-or-RECIPE")
    info.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings")
    info.add_argument("--compare", action="store_true", help="batch norm and shifted ReLU side by side")
    info.add_argument("--json", action="store_true", help="as JSON")

    recipes = command("recipes", _recipes, "list the recipes that come with the package")
    recipes.add_argument("--keys", action="store_true", help="list every key of a recipe with its meaning and default")
    command("datasets", _datasets, "list the data sets that bitwren knows")

    bench = command("bench", _bench, "measure speed and memory against peers in the same run")
    subjects = bench.add_subparsers(dest="subject", metavar="SUBJECT", required=True, parser_class=_Parser)
    training = subjects.add_parser("train", help="training steps: shifted ReLU, batch norm, and plain PyTorch")
    training.add_argument("--rounds", type=int, default=15, help="interleaved rounds; medians are reported")
    training.add_argument("--threads", type=int, default=2)
    training.add_argument("--out", metavar="FILE", type=Path, help="write the figures as JSON")
    return parser


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="folder that holds the pictures or the set's files")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="NAME", default="auto", help="cpu, cuda, cuda:N (default: a GPU if there)")
    parser.add_argument("--threads", metavar="N", type=int, help="processor threads (default: as many as cores)")


def _torch(threads: int | None = None):
    """Import PyTorch and set its threads, or say what to install."""
    try:
        import torch
    except ImportError:
        raise UsageError("this command needs PyTorch: pip install 'bitwren[train]'") from None
    if threads is not None:
        if threads < 1:
            raise UsageError(f"--threads is {threads}, expected at least 1")
        torch.set_num_threads(threads)
    return torch


# -------------------------------------------------------------------- commands


def _train(arguments) -> int:
    from bitwren.recipe import load_recipe

    recipe = None
    if arguments.recipe is not None:
        recipe = load_recipe(arguments.recipe, arguments.settings)
    elif arguments.settings or not arguments.resume or arguments.out is None:
        raise UsageError("RECIPE is missing (it may be left out only with --resume --out RUN and without --set)")
    out = arguments.out or Path("runs") / recipe.name
    _torch(arguments.threads)
    from bitwren.train.distributed import world
    from bitwren.train.start import make_trainer

    with world(arguments.device) as processes:
        show = not arguments.quiet
        trainer = make_trainer(
            recipe, out, processes, data_dir=arguments.data_dir, resume=arguments.resume, progress=show
        )
        if show and processes.writes:
            print(_beginning(trainer), file=sys.stderr)
        result = trainer.train(show)
        if processes.writes:
            print(_trained(trainer, result))
    return 0


def _beginning(trainer) -> str:
    run, network = trainer.run, trainer.network
    about = run.about
    pictures = f"{about['training_pictures']:,} training, {about['validation_pictures']:,} validation"
    return (
        f"{run.recipe.name}: {run.recipe.title}\n"
        f"{network.conv_weights():,} weights; {pictures}, {about['test_pictures']:,} test pictures, "
        f"{len(run.classes)} classes; {about['device']}, {about['threads']} threads x {about['processes']} processes\n"
        f"run folder {run.folder}"
    )


def _trained(trainer, result: dict) -> str:
    run, weights = trainer.run, trainer.network.conv_weights()
    bits = run.recipe.network.weight_bits
    chosen = "last epoch" if result["validation_accuracy"] is None else f"chosen on validation, {result['validation_accuracy']:.2%}"
    size = -(-weights * bits // 8)
    return "\n".join((
        f"accuracy   {result['test_accuracy']:.2%} of {result['test_pictures']:,} test pictures "
        f"(epoch {result['epoch']}, {chosen})",
        f"weights    {weights:,} x {bits} bit = {size:,} bytes" + ("" if bits == 1 else " as 32-bit floats"),
        f"saved      {run.folder} (network: best.safetensors, result: result.json)",
        f"next       bitwren evaluate {run.folder}    bitwren predict {run.folder} PICTURE    bitwren info {run.folder}",
    ))


def _evaluate(arguments) -> int:
    _torch(arguments.threads)
    from bitwren.report.evaluation import evaluate_logits, format_evaluation
    from bitwren.train.distributed import find_device
    from bitwren.train.predict import evaluation_pictures, logits_of
    from bitwren.train.run import BEST, LAST, open_run

    run = open_run(arguments.model)
    pictures = evaluation_pictures(run, arguments.data, arguments.data_dir, arguments.split)
    network = run.network(BEST if arguments.checkpoint == "best" else LAST)
    logits, labels = logits_of(network, pictures, find_device(arguments.device))
    evaluation = evaluate_logits(logits, labels, run.classes)
    out = arguments.out or run.folder / f"evaluation-{arguments.split}"
    _write_evaluation(evaluation, out, {"run": str(run.folder), "split": arguments.split,
                                        "data": arguments.data or run.recipe.data.name})
    print(format_evaluation(evaluation))
    print(f"\nsaved      {out}/evaluation.json, {out}/confusion.png")
    return 0


def _write_evaluation(evaluation, out: Path, about: dict) -> None:
    from bitwren.report.plots import plot_confusion
    from bitwren.train.checkpoint import write_json

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: cannot be made: {error.strerror}") from None
    write_json(out / "evaluation.json", {**about, **evaluation.to_json()})
    plot_confusion(evaluation, out / "confusion.png")


def _predict(arguments) -> int:
    _torch(arguments.threads)
    from bitwren.train.distributed import find_device
    from bitwren.train.predict import predict_files
    from bitwren.train.run import open_run

    if arguments.top < 1:
        raise UsageError(f"--top is {arguments.top}, expected at least 1")
    run = open_run(arguments.model)
    network = run.network().to(find_device(arguments.device))
    failed = False
    width = max(len(str(p)) for p in arguments.pictures)
    for path, outcome in predict_files(run, network, arguments.pictures):
        if isinstance(outcome, BitwrenError):
            print(f"bitwren: {outcome}", file=sys.stderr)
            failed = True
            continue
        best = sorted(range(len(outcome)), key=lambda k: -outcome[k])[: arguments.top]
        if arguments.json:
            print(json.dumps({"picture": str(path),
                              "classes": [{"class": run.classes[k], "probability": float(outcome[k])} for k in best]}))
        else:
            print(f"{path!s:<{width}}  " + "  ".join(f"{run.classes[k]} {outcome[k]:.1%}" for k in best))
    return 1 if failed else 0


def _info(arguments) -> int:
    from bitwren.recipe import load_recipe, packaged_recipes

    _torch()
    from bitwren.train.run import RECIPE, open_run
    from bitwren.train.summary import compare_activations, format_comparison, format_summary, summarise_recipe

    target = Path(arguments.target)
    size = channels = classes = None
    if arguments.target not in packaged_recipes() and target.is_dir():
        if arguments.settings:
            raise UsageError("--set changes a recipe; a run that was trained stays as it is")
        run = open_run(target)
        recipe, size, channels, classes = run.recipe, run.size, run.channels, len(run.classes)
    else:
        recipe = load_recipe(arguments.target, arguments.settings)
    if arguments.compare:
        summaries = compare_activations(recipe, size, channels, classes)
        content = {name: s.to_json() for name, s in summaries.items()}
        print(json.dumps(content) if arguments.json else format_comparison(summaries))
    else:
        summary = summarise_recipe(recipe, size, channels, classes)
        print(json.dumps(summary.to_json()) if arguments.json else f"{recipe.name}: {recipe.title}\n\n{format_summary(summary)}")
    return 0


def _recipes(arguments) -> int:
    from bitwren.recipe import known_keys, load_recipe, packaged_recipes

    if arguments.keys:
        for key, field in known_keys().items():
            default = "" if field.default is None else f" [{field.default!r}]"
            print(f"{key:<26} {field.metadata['meaning']}{default}")
        return 0
    for name in packaged_recipes():
        recipe = load_recipe(name)
        published = f"{recipe.published:6.2f} %" if recipe.published is not None else " " * 8
        print(f"{name:<34} {published}  {recipe.title}")
    print("\nThe percentage is the accuracy that the authors published. `bitwren recipes --keys` lists what --set can change.")
    return 0


def _datasets(arguments) -> int:
    from bitwren.pictures.datasets import DATASETS

    for name, entry in DATASETS.items():
        print(f"{name:<16} {entry.summary}")
    return 0


def _bench(arguments) -> int:
    _torch()
    from bitwren.train.benchmark import benchmark_training, format_benchmark
    from bitwren.train.checkpoint import write_json

    figures = benchmark_training(arguments.rounds, arguments.threads)
    print(format_benchmark(figures))
    if arguments.out:
        write_json(arguments.out, figures)
    return 0


def main(words: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    try:
        parser = _parser()
        arguments = parser.parse_args(words)
        if arguments.version:
            from importlib.metadata import version

            print(f"bitwren {version('bitwren')}")
            return 0
        if arguments.command is None:
            parser.print_help()
            return 2
        return arguments.run(arguments)
    except BitwrenError as error:
        print(f"bitwren: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("bitwren: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
