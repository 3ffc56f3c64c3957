"""What the tests of training share: a few small pictures, and processes that can be killed."""

import numpy as np
import pytest
from PIL import Image
from train_runs import TINY, Launcher, train

CLASSES = ("cold", "cool", "warm")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 3 classes that differ in brightness: 24 pictures each to train on, 8 to test, 8 x 7 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 100, (8, 7, 3)) + 70 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{index:02}.png")
    return folder


@pytest.fixture(scope="session")
def launcher(tmp_path_factory):
    """Runs the command line in processes of their own; see train_runs.py."""
    made = Launcher(tmp_path_factory.mktemp("launcher"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def model(photos, launcher, tmp_path_factory):
    """A tiny trained network as a .bwn file."""
    folder = tmp_path_factory.mktemp("model")
    ended = launcher.run(*train(photos, *TINY, "train.epochs=3", "network.layer_scale='pow2'"), "--out", folder / "run")
    assert ended.returncode == 0, ended.stderr
    ended = launcher.run("convert", folder / "run", "-o", folder / "model.bwn")
    assert ended.returncode == 0, ended.stderr
    return folder / "model.bwn"
