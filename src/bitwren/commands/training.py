"""Commands that need PyTorch: train, bench train, and info, evaluate, predict of a trained run."""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from bitwren.commands.printing import data_source, make_folder, print_prediction, write_evaluation
from bitwren.errors import BitwrenError, ModelError, UsageError

SAMPLE = 200  # pictures to draw predictions from, where they are read from files


def require_torch(threads: int | None) -> None:
    """Set PyTorch's threads, or say what to install. Raises UsageError."""
    try:
        from bitwren.train.distributed import use_threads
    except ImportError:
        raise UsageError("this command needs PyTorch: pip install 'bitwren[train]'") from None
    if threads is not None:
        if threads < 1:
            raise UsageError(f"--threads is {threads}, expected at least 1")
        use_threads(threads)


def train(arguments) -> int:
    """bitwren train RECIPE."""
    from bitwren.recipe import load_recipe

    recipe = None
    if arguments.recipe is not None:
        recipe = load_recipe(arguments.recipe, arguments.settings)
    elif arguments.settings or not arguments.resume or arguments.out is None:
        raise UsageError("RECIPE is missing (it may be left out only with --resume --out RUN and without --set)")
    out = arguments.out or Path("runs") / recipe.name
    require_torch(arguments.threads)
    from bitwren.train.distributed import world
    from bitwren.train.start import make_trainer, precision_warning

    with world(arguments.device) as processes:
        show = not arguments.quiet
        trainer = make_trainer(
            recipe,
            out,
            processes,
            data_dir=arguments.data_dir,
            resume=arguments.resume,
            progress=show,
            signs=None if arguments.start is None else _signs_of(arguments.start),
            teacher=None if arguments.teacher is None else _teacher(arguments.teacher, arguments.threads or 0),
        )
        if show and processes.writes:
            print(_beginning(trainer), file=sys.stderr)
            if (warning := precision_warning(trainer.run.recipe, processes.device)) is not None:
                print(f"warning    {warning}", file=sys.stderr)
        result = trainer.train(show)
        if processes.writes:
            _draw_curve(trainer.run)
            print(_trained(trainer, result))
    return 0


def _signs_of(model: Path):
    """Return the signs of a .bwn file, or of a network of the zoo. Raises UsageError or ModelError."""
    from bitwren.deploy.zoo import find_model
    from bitwren.network.graph import Conv
    from bitwren.network.pack import decode, read_content
    from bitwren.train.inherit import Signs

    path = find_model(model)
    content = read_content(path)
    convolutions = [node for node in decode(content, str(path)).nodes if isinstance(node, Conv)]
    for conv in convolutions:
        if conv.weight_bits != 1:
            raise UsageError(f"{path}: {conv.name} has weights of {conv.weight_bits} bits, expected 1")
    return Signs(str(model), hashlib.sha256(content).hexdigest(), tuple(c.weights for c in convolutions))


def _teacher(model: Path, threads: int):
    """Return a .bwn file, or a network of the zoo, as a teacher. Raises UsageError or ModelError."""
    from bitwren.deploy.model import load
    from bitwren.deploy.zoo import find_model
    from bitwren.network.pack import read_content
    from bitwren.train.distil import Teacher

    path = find_model(model)
    content = read_content(path)
    try:
        network = load(content, threads=threads)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    digest, scale = hashlib.sha256(content).hexdigest(), network.engine.logit_scale
    return Teacher(
        str(model), digest, network.classes, network.channels, network.size, lambda p: network.logits(p) * scale
    )


def _draw_curve(run) -> None:
    from bitwren.report.plots import plot_learning_curve
    from bitwren.train.loop import run_folder_metrics

    plot_learning_curve(run_folder_metrics(run.folder), run.folder / "curve.png", run.recipe.name)


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
    bits, validation = run.recipe.network.weight_bits, result["validation_accuracy"]
    chosen = "last epoch" if validation is None else f"chosen on validation, {validation:.2%}"
    size = -(-weights * bits // 8)
    return "\n".join(
        (
            f"accuracy   {result['test_accuracy']:.2%} of {result['test_pictures']:,} test pictures "
            f"(epoch {result['epoch']}, {chosen})",
            f"weights    {weights:,} x {bits} bit = {size:,} bytes" + ("" if bits == 1 else " as 32-bit floats"),
            f"saved      {run.folder}: network best.safetensors, result.json, learning curve curve.png",
            f"next       bitwren evaluate {run.folder}    bitwren predict {run.folder} PICTURE    "
            f"bitwren info {run.folder}",
        )
    )


def evaluate(arguments) -> int:
    """bitwren evaluate RUN."""
    require_torch(arguments.threads)
    from bitwren.report.evaluation import evaluate_logits, format_evaluation
    from bitwren.train.distributed import find_device
    from bitwren.train.predict import evaluation_pictures, logits_of
    from bitwren.train.run import CHECKPOINTS, open_run

    run = open_run(arguments.model)
    data, folder = arguments.data, arguments.data_dir
    if data is not None:
        data, folder = data_source(data, folder)
    pictures = evaluation_pictures(run, data, folder, arguments.split)
    network = run.network(CHECKPOINTS[arguments.checkpoint])
    logits, labels = logits_of(network, pictures, find_device(arguments.device))
    evaluation = evaluate_logits(logits, labels, run.classes)
    out = arguments.out or run.folder / f"evaluation-{arguments.split}"
    about = {"run": str(run.folder), "split": arguments.split, "data": arguments.data or run.recipe.data.name}
    files = write_evaluation(evaluation, out, about)
    files.append(_draw_predictions(pictures, logits, labels, run.classes, out / "predictions.png"))
    print(format_evaluation(evaluation))
    print(f"\nsaved      {', '.join(map(str, files))}")
    if run.recipe.network.weight_bits == 1:
        print(f"next       bitwren convert {run.folder} -o model.bwn    makes the exact integer network")
    return 0


def _draw_predictions(pictures, logits: np.ndarray, labels: np.ndarray, classes, path: Path) -> Path:
    """Draw right and wrong predictions: of all pictures, or of a sample where they are read from files."""
    from bitwren.deploy.model import softmax
    from bitwren.pictures import Pictures, read_picture
    from bitwren.report.plots import plot_predictions

    if isinstance(pictures, Pictures):
        chosen, images = np.arange(len(labels)), pictures.images
    else:
        chosen = np.linspace(0, len(labels) - 1, min(SAMPLE, len(labels))).astype(int)
        images = np.stack([read_picture(pictures.files[i], pictures.size, pictures.channels) for i in chosen])
    plot_predictions(images, labels[chosen], softmax(logits[chosen].astype(np.float64)), classes, path)
    return path


def predict(arguments) -> int:
    """bitwren predict RUN picture..."""
    require_torch(arguments.threads)
    from bitwren.train.distributed import find_device
    from bitwren.train.predict import predict_files
    from bitwren.train.run import open_run

    run = open_run(arguments.model)
    network = run.network().to(find_device(arguments.device))
    failed = False
    for path, outcome in predict_files(run, network, arguments.pictures):
        failed |= isinstance(outcome, BitwrenError)
        print_prediction(path, outcome, run.classes, arguments)
    return 1 if failed else 0


def info(target: str, settings: list[str], compare: bool, as_json: bool) -> int:
    """bitwren info RUN-or-RECIPE."""
    require_torch(None)
    from bitwren.train.summary import compare_activations, format_comparison, format_summary, summarise_recipe

    recipe, pictures = recipe_and_pictures(target, settings)
    if compare:
        summaries = compare_activations(recipe, *pictures)
        told = {name: dataclasses.asdict(summary) for name, summary in summaries.items()}
        print(json.dumps(told) if as_json else format_comparison(summaries))
        return 0
    summary = summarise_recipe(recipe, *pictures)
    heading = f"{recipe.name}: {recipe.title}"
    print(json.dumps(dataclasses.asdict(summary)) if as_json else f"{heading}\n\n{format_summary(summary)}")
    return 0


def recipe_and_pictures(target: str, settings: list[str]):
    """Return the recipe that a user names, or whose run, and (channels, classes, (height, width)) of its data."""
    from bitwren.recipe import load_recipe, packaged_recipes
    from bitwren.train.run import open_run

    if target not in packaged_recipes() and Path(target).is_dir():
        if settings:
            raise UsageError("--set changes a recipe; a run that was trained stays as it is")
        run = open_run(Path(target))
        return run.recipe, (run.channels, len(run.classes), run.size)
    recipe = load_recipe(target, settings)
    return recipe, _expected_pictures(recipe)


def _expected_pictures(recipe) -> tuple[int, int, tuple[int, int]]:
    """Return channels, classes and size that a recipe's data set will have: 10 classes where only the folder tells."""
    from bitwren.pictures import find_dataset

    entry, options = find_dataset(recipe.data.name), recipe.data
    size = options.image_size or entry.size
    if size is None:
        raise UsageError(f"{recipe.name}: only the pictures tell their size; give one by --set data.image_size=[32,32]")
    classes = len(entry.classes) if entry.classes else 1000 if entry.name == "imagenet" else 10
    return options.channels or entry.channels or 3, classes, size


def bench(arguments) -> int:
    """bitwren bench train."""
    require_torch(None)
    from bitwren.atomic import write_json
    from bitwren.train.benchmark import benchmark_training, format_benchmark

    if arguments.out:
        make_folder(arguments.out.parent)  # before the measurement, which takes a minute, is lost
    figures = benchmark_training(arguments.rounds, arguments.threads)
    print(format_benchmark(figures))
    if arguments.out:
        write_json(arguments.out, figures)
    return 0
