"""An integer network ready to classify pictures, without PyTorch: what evaluate and predict run a .bwn file by.

Two engines give the same integers: the C runtime, and the NumPy reference, which is slow.
"""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bitwren.deploy.runtime import Runtime, RuntimeMissing
from bitwren.deploy.zoo import find_model
from bitwren.errors import BitwrenError, ModelError, UsageError, unknown_name
from bitwren.network.graph import Network
from bitwren.network.pack import decode, read_bwn
from bitwren.network.reference import run
from bitwren.pictures import read_picture

BATCH_BYTES = 1 << 28  # of the largest intermediate array of the reference, float64 windows of a convolution


class Reference:
    """The NumPy reference, a batch at a time, with what Model asks of an engine."""

    def __init__(self, network: Network):
        """network: as read_bwn gives it."""
        self._network = network
        self.channels, self.height, self.width = network.channels, network.height, network.width
        self.classes, self.logit_scale = network.classes, network.logit_scale
        largest = max(np.prod(tensor.shape) for tensor in network.tensors.values())
        self._batch = max(1, int(BATCH_BYTES // (9 * 8 * largest)))

    def run(self, pixels: np.ndarray, threads: int = 0) -> np.ndarray:
        """Return the logits, int32 (N, classes). threads: NumPy's own business."""
        parts = [run(self._network, pixels[i : i + self._batch]) for i in range(0, len(pixels), self._batch)]
        return np.concatenate(parts) if parts else run(self._network, pixels)


class Model:
    """A network and the engine that runs it; pictures in, classes, probabilities or logits out.

    classes: names, in the order of the logits. channels; size: height and width of the pictures.
    """

    def __init__(self, engine: Runtime | Reference, threads: int = 0):
        """threads: of the runtime; 0 is one for each core that the process may use."""
        self.engine, self.threads = engine, threads
        self.classes, self.channels, self.size = engine.classes, engine.channels, (engine.height, engine.width)

    def logits(self, pictures: np.ndarray) -> np.ndarray:
        """Return int32 (N, classes) for uint8 (N, channels, height, width). Raises ModelError for another shape."""
        return self.engine.run(pictures, self.threads)

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """Return float64 (N, classes), each row summing to 1, for uint8 (N, channels, height, width)."""
        return softmax(self.logits(pictures) * self.engine.logit_scale)

    def predict(self, pictures: np.ndarray) -> np.ndarray:
        """Return the index of each picture's class, int64 (N,), for uint8 (N, channels, height, width)."""
        return self.logits(pictures).argmax(1)

    def predict_files(self, files: list[Path]) -> Iterator[tuple[Path, np.ndarray | BitwrenError]]:
        """Yield each picture file with its probabilities (classes,), or with the error that kept it from being read."""
        if self.channels not in (1, 3):
            raise ModelError(f"the network reads {self.channels} channels, expected 1 or 3 for picture files")
        for path in files:
            try:
                picture = read_picture(path, self.size, self.channels)
            except BitwrenError as error:
                yield path, error
                continue
            yield path, self.probabilities(picture[None])[0]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return exp(logits) over its sum along the last axis, float64."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _reference(source: Path | bytes) -> Reference:
    return Reference(decode(source, "network") if isinstance(source, bytes) else read_bwn(source))


ENGINES = {"runtime": Runtime, "reference": _reference}


def load(source: str | os.PathLike | bytes, engine: str | None = None, threads: int = 0) -> Model:
    """Return the network in a .bwn file, or the one of that name in the zoo, ready to run. An existing path goes first.

    source: the path or name, or the bytes of such a file. engine: "runtime", "reference", or None: the runtime, and
    where this installation has none, the reference with a warning that says what is missing. threads: of the runtime;
    0 is one for each core that the process may use.
    Raises ModelError, one line, for whatever is no network, UsageError for a name that is neither a file's nor in the
    zoo, for another engine or number of threads.
    """
    if engine not in (None, *ENGINES):
        raise unknown_name("engine", str(engine), ENGINES)
    if threads < 0:
        raise UsageError(f"threads is {threads}, expected at least 0")
    if not isinstance(source, bytes):
        source = find_model(source)
    try:
        opened = ENGINES[engine or "runtime"](source)
    except RuntimeMissing as error:
        if engine is not None:
            raise
        warnings.warn(f"{error}; the slow reference runs instead", stacklevel=2)
        opened = ENGINES["reference"](source)
    return Model(opened, threads)
