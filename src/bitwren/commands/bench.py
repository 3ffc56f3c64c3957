"""bitwren bench MODEL: the runtime's speed and memory, beside other engines'."""

import dataclasses
import sys

import numpy as np

from bitwren.atomic import write_json
from bitwren.commands.printing import data_source, make_folder
from bitwren.errors import UsageError


def bench_model(arguments) -> int:
    """bitwren bench model.bwn."""
    from bitwren.report.benchmark import Plan, benchmark, parse_counts
    from bitwren.report.benchmark_plot import plot_latency
    from bitwren.report.benchmark_table import format_benchmark, format_steps
    from bitwren.report.engines import parse_peers
    from bitwren.report.plots import picture_kind
    from bitwren.report.undisturbed import Cores

    plan = Plan(
        peers=tuple(parse_peers(arguments.against)),
        threads=parse_counts("--threads", arguments.threads),
        batches=parse_counts("--batches", arguments.batches),
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        folder=arguments.files,
    )
    if not 1 <= plan.rounds <= 1000:
        raise UsageError(f"--rounds is {plan.rounds}, expected 1 to 1000")
    if not 0 < plan.seconds <= 60:
        raise UsageError(f"--seconds is {plan.seconds:g}, expected more than 0 and at most 60")
    for out in (arguments.out, arguments.plot):
        if out is not None:
            make_folder(out.parent)  # before the measurement, which takes minutes, is lost
    if arguments.plot is not None:
        picture_kind(arguments.plot)
    if plan.folder is not None:
        make_folder(plan.folder)
    calibration, test = _pictures(arguments)
    if arguments.undisturbed:
        plan = dataclasses.replace(plan, cores=Cores())  # takes a second, so after all that may be refused
    figures = benchmark(arguments.model, plan, calibration, test, _tell)
    print(format_benchmark(figures))
    if arguments.layers:
        print(f"\n{format_steps(figures['steps'])}")
    if arguments.out is not None:
        write_json(arguments.out, figures)
    if arguments.plot is not None:
        plot_latency(figures, arguments.plot)
    return 0


def _tell(line: str) -> None:
    print(f"bitwren: {line}", file=sys.stderr, flush=True)


def _pictures(arguments):
    """Return calibration pictures and (test pictures, labels), None and None without --data."""
    from bitwren.network.pack import read_bwn
    from bitwren.pictures import load_dataset
    from bitwren.report.benchmark import CALIBRATION_PICTURES, TEST_PICTURES

    if arguments.data is None:
        if arguments.data_dir is not None:
            raise UsageError("--data-dir is given without --data")
        return None, None
    network = read_bwn(arguments.model)
    name, folder = data_source(arguments.data, arguments.data_dir)
    split = load_dataset(name, folder, size=(network.height, network.width), channels=network.channels)
    order = np.random.default_rng(0).permutation(len(split.train.labels))[:CALIBRATION_PICTURES]
    test = split.test.images[:TEST_PICTURES], split.test.labels[:TEST_PICTURES]
    return np.ascontiguousarray(split.train.images[np.sort(order)]), test
