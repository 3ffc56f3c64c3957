"""cppcheck's MISRA addon finds nothing in generated C that docs/firmware.md does not list."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from network.examples import conv, network, requantise

from bitwren.deploy.generate_c import generate
from bitwren.network.graph import PIXELS, Sum

DOCS = Path(__file__).resolve().parents[2] / "docs" / "firmware.md"


@pytest.mark.skipif(shutil.which("cppcheck") is None, reason="needs cppcheck")
def test_no_finding_that_is_not_listed(tmp_path):
    rules = re.findall(r"^\| (\d+\.\d+) \|", DOCS.read_text(encoding="utf-8"), re.M)
    nodes = [conv("conv", PIXELS, [[[[1, -1, 1]] * 3] * 3] * 4, padding=(1, 1, 1, 1))]
    nodes += [requantise("codes", "conv", 1, 16, 2, 0, 255, 4), conv("head", "codes", 4), Sum("scores", "head")]
    for name, content in generate(network((3, 5, 6), *nodes, classes=4)).items():
        (tmp_path / name).write_bytes(content)
    command = ["cppcheck", "--addon=misra", "--enable=warning,performance,portability", "--std=c99", "--quiet"]
    done = subprocess.run([*command, "--template={id}", "network.c"], cwd=tmp_path, capture_output=True, text=True)
    found = set(done.stderr.split())
    assert "misra-c2012-18.4" in found, done.stdout + done.stderr  # the addon did run
    assert found <= {f"misra-c2012-{rule}" for rule in rules}
