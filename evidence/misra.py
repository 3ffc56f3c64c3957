"""Count what cppcheck, with its MISRA addon and without, finds in the C that is generated for a network.

    python evidence/misra.py src/bitwren/zoo/cifar10-20-1.bwn --out results/misra.json

Reasons for the rules that are found stand in docs/firmware.md.
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

from bitwren.atomic import write_json
from bitwren.deploy.emulate.tools import run_tool
from bitwren.deploy.generate_c import generate
from bitwren.deploy.generate_c.plan import OBJECTIVES
from bitwren.network.pack import read_bwn
from bitwren.train.run import provenance

CHECKS = ("--addon=misra", "--enable=warning,performance,portability", "--std=c99", "--quiet", "--template={id}")


def findings(model: Path, optimise: str) -> dict[str, int]:
    """Return how often each finding comes."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in generate(read_bwn(model), optimise=optimise).items():
            (Path(folder) / name).write_bytes(content)
        told = run_tool(["cppcheck", *CHECKS, "--output-file=found", "network.c"], Path(folder))
        found = (Path(folder) / "found").read_text(encoding="utf-8") + told
    return dict(sorted(Counter(found.split()).items()))


def main() -> None:
    """Check and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/misra.json"))
    arguments = parser.parse_args()
    told = {optimise: findings(arguments.model, optimise) for optimise in OBJECTIVES}
    version = run_tool(["cppcheck", "--version"]).strip()
    write_json(arguments.out, {"model": arguments.model.name, "cppcheck": version, "findings": told, **provenance()})
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
