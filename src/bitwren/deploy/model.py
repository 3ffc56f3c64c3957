"""An integer network ready to classify pictures, with NumPy alone: what evaluate and predict run a .bwn file by."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bitwren.errors import BitwrenError, ModelError
from bitwren.network.graph import Network
from bitwren.network.pack import read_bwn
from bitwren.network.reference import run
from bitwren.pictures import read_picture

BATCH_BYTES = 1 << 28  # of the largest intermediate array of the reference, float64 windows of a convolution


class Model:
    """A network and the machine that runs it; pictures in, logits or probabilities out."""

    def __init__(self, network: Network):
        """network: as read_bwn gives it."""
        self.network = network
        largest = max(np.prod(tensor.shape) for tensor in network.tensors.values())
        self._batch = max(1, int(BATCH_BYTES // (9 * 8 * largest)))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.network.classes

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.network.height, self.network.width

    def logits(self, pictures: np.ndarray) -> np.ndarray:
        """Return int32 (N, classes) for uint8 (N, channels, height, width). Raises ModelError for another shape."""
        parts = [run(self.network, pictures[i : i + self._batch]) for i in range(0, len(pictures), self._batch)]
        return np.concatenate(parts) if parts else run(self.network, pictures)

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """Return float64 (N, classes), each row summing to 1, for uint8 (N, channels, height, width)."""
        return softmax(self.logits(pictures) * self.network.logit_scale)

    def predict_files(self, files: list[Path]) -> Iterator[tuple[Path, np.ndarray | BitwrenError]]:
        """Yield each picture file with its probabilities (classes,), or with the error that kept it from being read."""
        if self.network.channels not in (1, 3):
            raise ModelError(f"the network reads {self.network.channels} channels, expected 1 or 3 for picture files")
        for path in files:
            try:
                picture = read_picture(path, self.size, self.network.channels)
            except BitwrenError as error:
                yield path, error
                continue
            yield path, self.probabilities(picture[None])[0]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return exp(logits) over its sum along the last axis, float64."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def open_model(path: Path) -> Model:
    """Return the model in a .bwn file. Raises ModelError, one line, for whatever is not one."""
    return Model(read_bwn(path))
