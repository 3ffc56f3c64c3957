"""What pip makes of the project: with a compiler, the package and the C runtime in it; without one, the package."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from network.examples import pictures, wide_resnet
from PIL import Image
from runtime.program import EXPECTED

from bitwren.network.pack import write_bwn
from bitwren.network.reference import run

ROOT = Path(__file__).resolve().parents[1]
NET = wide_resnet(8, 0.25, size=8)
ANSWER = """
import sys, numpy as np, bitwren
assert bitwren.__file__.startswith(sys.argv[1]), bitwren.__file__
print(bitwren.load(sys.argv[2], "runtime").logits(np.load(sys.argv[3])).tolist())
"""


def call(*words, **environment):
    """Run a command in no folder of the project; show what it says where it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        env={**os.environ, **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done


def python(package, *words):
    """Run Python with the unpacked package and the packages installed here: -S, or an editable install would win."""
    return call(sys.executable, "-S", *words, PYTHONPATH=os.pathsep.join([str(package), sysconfig.get_path("purelib")]))


@pytest.fixture(scope="module")
def build():
    """Return a function that builds a wheel of a folder and unpacks it: its name, and where the package now is."""
    pytest.importorskip("scikit_build_core")
    if not shutil.which("cmake"):
        (pytest.fail if EXPECTED else pytest.skip)("needs cmake: package cmake")

    def build(source, folder, **environment):
        pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-cache-dir")
        call(*pip, "--wheel-dir", folder, source, **environment)
        (wheel,) = folder.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(folder / "package")
        return wheel.name, folder / "package"

    return build


@pytest.fixture
def files(tmp_path):
    """A network, pictures for it as an array, and one of them, as files."""
    drawn = pictures(NET, 3, 1)
    write_bwn(tmp_path / "model.bwn", NET)
    np.save(tmp_path / "pictures.npy", drawn)
    Image.fromarray(drawn[0].transpose(1, 2, 0)).save(tmp_path / "picture.png")
    return tmp_path / "model.bwn", tmp_path / "pictures.npy", tmp_path / "picture.png"


def names(folder):
    """Return the files of a folder, but for those that installing and running make."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if not {"__pycache__", "lib"} & {*path.parts}}


def test_without_a_compiler_the_package_is_installed_and_the_reference_runs(build, files, tmp_path):
    wheel, package = build(ROOT, tmp_path / "built", CC=str(tmp_path / "no-compiler"))
    assert wheel.endswith("-py3-none-any.whl")  # nothing in it is of this processor
    assert names(package / "bitwren") == names(ROOT / "src" / "bitwren")
    model, _, picture = files
    told = python(package, "-m", "bitwren", "predict", model, picture)
    assert told.stdout.startswith(str(picture)) and told.stderr.count("\n") == 1
    assert str(package / "bitwren" / "lib") in told.stderr and "install a C compiler" in told.stderr
    assert told.stderr.endswith("; the slow reference runs instead\n")
    listed = python(package, "-m", "bitwren", "zoo").stdout
    assert "\ndigits " in listed and (package / "bitwren" / "zoo" / "digits.bwn").is_file()


def test_from_the_source_archive_the_wheel_holds_the_runtime(build, files, tmp_path):
    if not shutil.which("cc"):
        (pytest.fail if EXPECTED else pytest.skip)("needs a C compiler: package gcc")
    archive = "import os, sys; from scikit_build_core.build import build_sdist; os.chdir(sys.argv[1])"
    call(sys.executable, "-c", f"{archive}; build_sdist(sys.argv[2])", ROOT, tmp_path)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as packed:
        packed.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    # Built as Debug: this is about where the library lands, and takes a third of the time.
    wheel, package = build(source, tmp_path / "built", SKBUILD_CMAKE_BUILD_TYPE="Debug")
    assert "-py3-none-linux_" in wheel or not sys.platform.startswith("linux")
    assert names(package / "bitwren") == names(ROOT / "src" / "bitwren")
    assert len([*(package / "bitwren" / "lib").iterdir()]) == 1
    model, drawn, _ = files
    logits = python(package, "-c", ANSWER, package, model, drawn).stdout
    assert logits == f"{run(NET, np.load(drawn)).tolist()}\n"
