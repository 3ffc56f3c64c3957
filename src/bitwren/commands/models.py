"""Commands about integer networks: convert, import, export, verify, and info, evaluate, predict of a .bwn file."""

import dataclasses
import json
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np

from bitwren.atomic import write_json
from bitwren.commands.printing import data_source, make_folder, print_prediction
from bitwren.errors import BitwrenError, UsageError


def convert(arguments) -> int:
    """bitwren convert RUN -o model.bwn."""
    from bitwren.commands.training import require_torch

    require_torch(None)
    from bitwren.network.convert import convert as convert_network
    from bitwren.network.pack import write_bwn
    from bitwren.network.simulate import Simulation
    from bitwren.pictures import Pictures
    from bitwren.train.distributed import find_device
    from bitwren.train.predict import (
        CALIBRATION_SEED,
        calibration_pictures,
        evaluation_pictures,
        in_memory,
        logits_of,
    )
    from bitwren.train.run import CHECKPOINTS, open_run

    if arguments.calibrate < 1:
        raise UsageError(f"--calibrate is {arguments.calibrate}, expected at least 1")
    run = open_run(arguments.run_folder)
    held = "validation" if run.about.get("validation_pictures") else "training"
    training = evaluation_pictures(run, None, arguments.data_dir, "training")
    measured = training if held == "training" else evaluation_pictures(run, None, arguments.data_dir, held)
    training = calibration_pictures(training, arguments.calibrate)
    if not isinstance(measured, Pictures):
        measured = in_memory(measured, np.arange(min(len(measured.labels), arguments.calibrate)))
    network = run.network(CHECKPOINTS[arguments.checkpoint])
    about = {
        "recipe": run.recipe.name,
        "settings": run.recipe.changed(),
        "trained_by_commit": run.about.get("commit"),
        "calibration_seed": CALIBRATION_SEED,
    }
    integer = convert_network(
        network, training.images, run.classes, bits=arguments.bits, method=arguments.scales, about=about
    )
    write_bwn(arguments.out, integer)
    real, labels = logits_of(network, measured, find_device("cpu"))
    logits = Simulation(integer).run(measured.images)
    answers, real_answers = logits.argmax(1), real.argmax(1)
    print(f"float      {(real_answers == labels).mean():.2%} of {len(labels):,} {held} pictures")
    print(f"integer    {(answers == labels).mean():.2%}, {(answers != real_answers).sum():,} predictions changed")
    print_saved(integer, arguments.out)
    return 0


def print_saved(network, path: Path) -> None:
    """Say what was saved where, and what comes next."""
    size = path.stat().st_size
    print(f"weights    {network.weights:,} in {size:,} bytes: {8 * size / network.weights:.3f} bits each, all told")
    print(f"left       {network.total_multiplications:,} multiplications for a picture")
    print(f"saved      {path}")
    print(f"next       bitwren info {path}    bitwren verify {path}    bitwren predict {path} PICTURE")


def import_published(arguments) -> int:
    """bitwren import authors.mat -o model.bwn."""
    from bitwren.network.pack import write_bwn
    from bitwren.network.published import import_published as read

    classes = None
    if arguments.classes is not None:
        try:
            classes = tuple(arguments.classes.read_text(encoding="utf-8").split("\n"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{arguments.classes}: cannot be read: {error}") from None
        classes = tuple(name.strip() for name in classes if name.strip())
    network = read(arguments.file, arguments.bits, classes)
    write_bwn(arguments.out, network)
    print_saved(network, arguments.out)
    return 0


def verify(arguments) -> int:
    """bitwren verify model.bwn."""
    from bitwren.deploy.verify import format_verification
    from bitwren.deploy.verify import verify as verify_network
    from bitwren.network.pack import encode, read_bwn

    if arguments.images < 0 or arguments.seed < 0:
        raise UsageError(f"--images is {arguments.images} and --seed {arguments.seed}, expected at least 0 each")
    network, pixels = read_bwn(arguments.model), None
    if arguments.data is not None:
        pixels = _test_pictures((network.height, network.width), network.channels, arguments).images[: arguments.images]
    elif arguments.data_dir is not None:
        raise UsageError("--data-dir is given without --data")

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done:,} of {total:,} pictures", end="" if done < total else "\n", file=sys.stderr, flush=True)

    if arguments.out is not None:
        make_folder(arguments.out.parent)  # before the comparison, which may take long, is lost
    verification = verify_network(network, pixels, arguments.seed, progress)
    print(format_verification(verification))
    if arguments.out is not None:
        about = {"model": arguments.model.name, "data": arguments.data, "crc32": zlib.crc32(encode(network))}
        write_json(arguments.out, {**about, "equal": verification.equal, **dataclasses.asdict(verification)})
    return 0 if verification.equal else 1


def _test_pictures(size: tuple[int, int], channels: int, arguments):
    """Return the test pictures of DATA, in the form that the network reads."""
    from bitwren.pictures import load_dataset

    name, folder = data_source(arguments.data, arguments.data_dir)
    return load_dataset(name, folder, size=size, channels=channels).test


def export(arguments) -> int:
    """bitwren export model.bwn --to onnx."""
    from bitwren.deploy.export_onnx import export_onnx
    from bitwren.deploy.zoo import packaged_networks
    from bitwren.network.pack import read_bwn

    network = read_bwn(arguments.model)
    out = arguments.out or arguments.model.with_suffix(".onnx")
    if arguments.out is None and arguments.model in packaged_networks().values():
        out = Path(out.name)  # here, not among the package's own files
    size = export_onnx(network, out)
    print(f"weights    {network.weights:,} in {size:,} bytes: {8 * size / network.weights:.2f} bits each, all told")
    print(f"saved      {out}")
    return 0


def info(path: Path, as_json: bool) -> int:
    """bitwren info model.bwn."""
    from bitwren.network.pack import read_bwn
    from bitwren.report.graph import describe_network, format_network

    network = read_bwn(path)
    size = path.stat().st_size
    print(json.dumps(describe_network(network, size)) if as_json else format_network(network, size))
    return 0


def _open(arguments):
    """Return the Model of a .bwn file; say on stderr where the reference stands in for the runtime."""
    from bitwren.deploy.model import load

    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError(f"--threads is {arguments.threads}, expected at least 1")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = load(arguments.model, arguments.engine, arguments.threads or 0)
    for warning in told:
        print(f"bitwren: {warning.message}", file=sys.stderr)
    return model


def evaluate(arguments) -> int:
    """bitwren evaluate model.bwn DATA."""
    from bitwren.commands.printing import write_evaluation
    from bitwren.errors import DataError
    from bitwren.report.evaluation import evaluate_logits, format_evaluation

    if arguments.data is None:
        raise UsageError("DATA is missing: name of a data set, or a folder of pictures")
    if arguments.split != "test" or arguments.checkpoint != "best":
        raise UsageError("--split and --checkpoint belong to a run; a .bwn file is measured on test pictures")
    model = _open(arguments)
    pictures = _test_pictures(model.size, model.channels, arguments)
    if pictures.classes != model.classes:
        raise DataError(f"the pictures' classes are {list(pictures.classes)}, expected {list(model.classes)}")
    evaluation = evaluate_logits(model.logits(pictures.images), pictures.labels, model.classes)
    print(format_evaluation(evaluation))
    if arguments.out is not None:
        write_evaluation(evaluation, arguments.out, {"model": str(arguments.model), "data": arguments.data})
    return 0


def predict(arguments) -> int:
    """bitwren predict model.bwn picture..."""
    model = _open(arguments)
    failed = False
    for path, outcome in model.predict_files(arguments.pictures):
        failed |= isinstance(outcome, BitwrenError)
        print_prediction(path, outcome, model.classes, arguments)
    return 1 if failed else 0
