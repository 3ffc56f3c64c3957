"""Self-contained C of an integer network, for machines with nothing under it."""

from importlib.metadata import version

from bitwren.deploy.generate_c.emit import c_files
from bitwren.deploy.generate_c.layouts import LAYOUTS, laid_out
from bitwren.deploy.generate_c.plan import OBJECTIVES
from bitwren.deploy.generate_c.plan import plan as make_plan
from bitwren.errors import unknown_name
from bitwren.network.graph import Network


def generate(
    network: Network, layout: str = "plain", optimise: str = "speed", command: str = "bitwren generate"
) -> dict[str, bytes]:
    """Return the files of a C program that classifies as the network does: name to content, the same for the same call.

    layout: a key of LAYOUTS. optimise: a key of OBJECTIVES. command: written into the files. Raises ModelError for a
    network that cannot be planned, UsageError for another layout or objective.
    """
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if optimise not in OBJECTIVES:
        raise unknown_name("objective", optimise, OBJECTIVES)
    sources = c_files(network, make_plan(network, optimise), command, version("bitwren"))
    files = laid_out(layout, sources, version("bitwren"))
    return {name: text.encode() for name, text in files.items()}
