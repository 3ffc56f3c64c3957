"""bitwren emulate: a network as firmware on an emulated microcontroller."""

import shlex
import sys

import numpy as np

from bitwren.atomic import write_json
from bitwren.commands.printing import data_source, make_folder
from bitwren.errors import UsageError


def emulate(arguments) -> int:
    """bitwren emulate model.bwn --core CORE."""
    from bitwren.deploy.emulate.build import compiler_version
    from bitwren.deploy.emulate.cores import CORES
    from bitwren.deploy.emulate.emulation import emulate as emulate_network
    from bitwren.deploy.emulate.tools import find_tool
    from bitwren.deploy.generate_c import generate
    from bitwren.network.pack import read_bwn
    from bitwren.report.emulation import describe_emulation, format_emulation

    if arguments.images < 1 or arguments.seed < 0:
        raise UsageError(
            f"--images is {arguments.images} and --seed {arguments.seed}, expected at least 1 and at least 0"
        )
    if arguments.data is None and arguments.data_dir is not None:
        raise UsageError("--data-dir is given without --data")
    try:
        flags = shlex.split(arguments.flags)
    except ValueError as error:
        raise UsageError(f"--flags is {arguments.flags!r}: {error}") from None
    core = CORES[arguments.core]
    network = read_bwn(arguments.model)
    compiler_version(core)  # what is missing is missed before the pictures are read
    for machine in core.machines:
        find_tool(machine.emulator)
    pixels, labels = _pictures(network, arguments)
    for folder in (arguments.build, arguments.out and arguments.out.parent):
        if folder is not None:
            make_folder(folder)

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done:,} of {total:,} pictures", end="" if done < total else "\n", file=sys.stderr, flush=True)

    emulation = emulate_network(
        network,
        generate(network, optimise=arguments.optimise),
        core,
        pixels,
        labels,
        flags,
        arguments.build,
        progress,
    )
    told = {
        "model": arguments.model.name,
        "data": arguments.data or f"random pictures, seed {arguments.seed}",
        "optimise": arguments.optimise,
        **describe_emulation(emulation),
    }
    print(format_emulation(told, arguments.certify))
    if arguments.out is not None:
        write_json(arguments.out, told)
    return 1 if told["failures"] or (arguments.certify and told["certificate"]["refused"]) else 0


def _pictures(network, arguments):
    """Return pictures uint8 (N, channels, height, width), and their labels (N,) or None."""
    if arguments.data is None:
        rng = np.random.default_rng(arguments.seed)
        shape = (arguments.images, network.channels, network.height, network.width)
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        pixels[1::2] = np.where(pixels[1::2] < 128, 0, 255)  # every second one of extremes
        return pixels, None
    from bitwren.pictures import load_dataset

    name, folder = data_source(arguments.data, arguments.data_dir)
    test = load_dataset(name, folder, size=(network.height, network.width), channels=network.channels).test
    labels = test.labels[: arguments.images] if test.classes == network.classes else None
    return test.images[: arguments.images], labels
