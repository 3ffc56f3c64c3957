"""What all tests share: one thread, a printed seed for each random test, and the material beside the project."""

import os

# Before PyTorch is imported, and for the processes that tests start. The tensors here are small, and two OpenMP
# threads that spin for each other on a busy machine take a hundred times as long as one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
import signal
from pathlib import Path

import hypothesis
import pytest

SEED_VARIABLE = "BITWREN_TEST_SEED"

# No deadline: the machine may be busy. A failure prints the example and the blob that brings it back.
hypothesis.settings.register_profile("bitwren", deadline=None, derandomize=False, print_blob=True)
hypothesis.settings.load_profile("bitwren")


# A shell starts what it runs in the background with Ctrl-C ignored; the processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def seed() -> int:
    """A new seed for every test and run, shown where the test fails; BITWREN_TEST_SEED=N repeats it."""
    value = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(2**32))
    print(f"{SEED_VARIABLE}={value}")
    return value


@pytest.fixture
def shared() -> Path:
    """The folder ../shared: measured networks and real pictures that some tests read."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared/, which is not part of the project")
    return folder
