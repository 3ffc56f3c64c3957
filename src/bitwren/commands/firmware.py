"""Commands that make C for microcontrollers: generate."""

import shlex

from bitwren.atomic import write_atomic
from bitwren.commands.printing import make_folder


def generate(arguments) -> int:
    """bitwren generate model.bwn -o DIR."""
    from bitwren.deploy.generate_c import generate as make_files
    from bitwren.network.pack import read_bwn

    network = read_bwn(arguments.model)
    options = ["--layout", arguments.layout, "--optimise", arguments.optimise]
    words = ["bitwren", "generate", arguments.model.name, *options]
    files = make_files(network, arguments.layout, arguments.optimise, shlex.join(words))
    for name, content in files.items():
        path = arguments.out / name
        make_folder(path.parent)
        write_atomic(path, content)
        print(f"{len(content):>9,} bytes  {path}")
    return 0
