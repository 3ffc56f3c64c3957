"""Measure the authors' released network: float against integer, and how far its codes should reach.

    python evidence/published_network.py --shared ../shared --out results/published-network.json

The scale of the codes is chosen on training pictures (the first 100 of CIFAR-10's training set); accuracy is measured
on the first 500 test pictures. The float evaluation runs our own batch-norm network with the authors' weights.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat

from bitwren.atomic import write_json
from bitwren.network.pack import encode
from bitwren.network.published import CODE_REACH, import_published, published_scales, read_published
from bitwren.network.quantise import quantise
from bitwren.network.simulate import Simulation
from bitwren.train import WideResNet
from bitwren.train.run import provenance

REACHES = (5.0, 6.0, 8.0, 10.0, 12.0, 16.0)


def float_network(path: Path) -> WideResNet:
    """Return our 20-10 network holding the authors' signs and moments."""
    arrays = [a for name, a in loadmat(str(path)).items() if not name.startswith("__")]
    network = WideResNet(20, 10, activation="bn", padding="same", input="batchnorm").eval()
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for module, bits in zip(convolutions, arrays[1::2], strict=True):
            module.weight.copy_(torch.from_numpy(2.0 * bits[0].transpose(3, 2, 0, 1) - 1))
        network.input.weight.copy_(torch.from_numpy(arrays[0][0]))
        network.input.bias.copy_(torch.from_numpy(arrays[0][1]))
        for module, moments in zip(norms, [arrays[0][2:], *arrays[2::2]], strict=True):
            module.running_mean.copy_(torch.from_numpy(moments[0]))
            module.running_var.copy_(torch.from_numpy(moments[1]))
    return network.to(memory_format=torch.channels_last)


@torch.no_grad()
def float_logits(network: WideResNet, pixels: np.ndarray) -> np.ndarray:
    """Return float32 logits (N, 10) of uint8 (N, 3, 32, 32)."""
    return torch.cat([network(batch) for batch in torch.from_numpy(pixels).split(50)]).numpy()


def pictures(path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first pictures of a file as uint8 (N, 3, 32, 32), and their labels."""
    held = np.load(path)
    return np.ascontiguousarray(held["images"][:count].transpose(0, 3, 1, 2)), held["labels"][:count]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("results/published-network.json"))
    arguments = parser.parse_args()
    path = arguments.shared / "published" / "cifar10-wrn20-10-1bit-bn.mat"
    network, folded = float_network(path), read_published(path)

    training, _ = pictures(arguments.shared / "data" / "cifar10-lossless-train4000.npz", 100)
    truth = float_logits(network, training)
    reaches = {}
    for reach in REACHES:
        scales = published_scales(folded)
        scaled = dataclasses.replace(scales, steps={k: v * reach / CODE_REACH for k, v in scales.steps.items()})
        integer = quantise(folded, scaled, {})
        change = Simulation(integer).run(training, 50) * integer.logit_scale - truth
        reaches[str(reach)] = float(np.sqrt(np.square(change).mean()))

    test, labels = pictures(arguments.shared / "data" / "cifar10-lossless-test500.npz", 500)
    integer = import_published(path)
    began = time.monotonic()
    truth = float_logits(network, test)
    float_seconds, began = time.monotonic() - began, time.monotonic()
    logits = Simulation(integer).run(test, 50)
    size = len(encode(integer))
    write_json(
        arguments.out,
        {
            "data": "CIFAR-10, first 500 test pictures, lossless",
            "float_correct": int((truth.argmax(1) == labels).sum()),
            "integer_correct": int((logits.argmax(1) == labels).sum()),
            "predictions_changed": int((logits.argmax(1) != truth.argmax(1)).sum()),
            "pictures": len(labels),
            "weights": integer.weights,
            "bwn_bytes": size,
            "bits_per_weight": 8 * size / integer.weights,
            "multiplications": integer.total_multiplications,
            "float_seconds": round(float_seconds, 1),
            "simulation_seconds": round(time.monotonic() - began, 1),
            "rms_logit_change_by_code_reach": {"pictures": "first 100 training pictures", **reaches},
            **provenance(),
        },
    )


if __name__ == "__main__":
    main()
