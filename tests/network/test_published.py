"""The authors' MATLAB files: read, refused, and computed as our own batch-norm network computes them."""

import numpy as np
import pytest
import torch
from scipy.io import savemat

from bitwren.errors import ModelError
from bitwren.network.graph import Pool
from bitwren.network.pack import encode
from bitwren.network.published import CIFAR10, import_published, read_published
from bitwren.network.simulate import Simulation
from bitwren.train import WideResNet

FILE = "cifar10-wrn20-10-1bit-bn.mat"


def arrays(width=2, classes=10, depth=8, seed=0):
    """A file's content as the authors write it, for a network D-K of width * 4 channels; random signs and moments."""
    rng = np.random.default_rng(seed)
    stages = [4 * width * 2**s for s in range(3) for _ in range((depth - 2) // 3)]
    shapes = [(3, 3, 4 * width)] + [(3, a, b) for a, b in zip([4 * width, *stages], stages, strict=False)]
    shapes.append((1, stages[-1], classes))
    first = np.stack(
        [rng.uniform(0.5, 1.5, 3), rng.normal(0, 0.2, 3), rng.uniform(100, 140, 3), rng.uniform(3e3, 5e3, 3)]
    )
    made = {"batch_normalization_1": first.astype(np.float32)}
    for i, (window, reads, out) in enumerate(shapes):
        made[f"conv2d_{i}"] = rng.integers(0, 2, (1, window, window, reads, out), dtype=np.uint8)
        made[f"batch_normalization_{i + 2}"] = np.stack([rng.normal(0, 0.5, out), rng.uniform(1, 6, out)]).astype("f4")
    return made


def saved(tmp_path, content):
    path = tmp_path / "authors.mat"
    savemat(str(path), content)
    return path


def float_twin(content, depth, width, classes):
    """Our own network with the file's signs and moments: an independent reading of the file."""
    network = WideResNet(depth, width, classes, "bn", padding="same", input="batchnorm").eval()
    values = list(content.values())
    with torch.no_grad():
        convs = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
        for conv, bits in zip(convs, values[1::2], strict=True):
            conv.weight.copy_(torch.from_numpy(bits[0].transpose(3, 2, 0, 1) * 2.0 - 1))
        norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        network.input.weight.copy_(torch.from_numpy(values[0][0]))
        network.input.bias.copy_(torch.from_numpy(values[0][1]))
        for norm, moments in zip(norms, [values[0][2:], *values[2::2]], strict=True):
            norm.running_mean.copy_(torch.from_numpy(moments[0]))
            norm.running_var.copy_(torch.from_numpy(moments[1]))
    return network


@pytest.mark.parametrize(("depth", "classes"), [(8, 10), (14, 100)])
@torch.no_grad()
def test_any_width_depth_and_number_of_classes_follows_the_float_network(tmp_path, depth, classes, seed):
    content = arrays(classes=classes, depth=depth, seed=seed)
    network = import_published(saved(tmp_path, content))
    images = np.random.default_rng(seed).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    got = Simulation(network).run(images) * network.logit_scale
    truth = float_twin(content, depth, 0.5, classes)(torch.from_numpy(images)).numpy()
    # Codes of 8 bits against float, random moments: it must follow, and does so far more closely than any misreading.
    assert np.corrcoef(got.ravel(), truth.ravel())[0, 1] > 0.99
    assert network.classes == (CIFAR10 if classes == 10 else tuple(map(str, range(100))))


def test_the_authors_network_fits_in_a_bit_per_weight_and_agrees_with_its_float_evaluation(shared):
    path = shared / "published" / FILE
    network = import_published(path)
    assert network.weights == 26_737_120
    assert 8 * len(encode(network)) / network.weights <= 1.02
    assert [n.kind for n in network.nodes if isinstance(n, Pool)] == ["mean-real", "mean-real"]
    test = np.load(shared / "data" / "cifar10-lossless-test500.npz")
    images = np.ascontiguousarray(test["images"][:4].transpose(0, 3, 1, 2))
    assert Simulation(network).run(images).argmax(1).tolist() == test["labels"][:4].tolist()


def change(name, value):
    return lambda content: {**content, name: value}


def without(name):
    return lambda content: {k: v for k, v in content.items() if k != name}


NAN = np.full((2, 8), np.nan, np.float32)


@pytest.mark.parametrize(
    ("mutate", "message"),
    [
        (without("conv2d_3"), "16 arrays, expected 1 + 2 (6n + 2): the input's moments, then pairs"),
        (
            change("conv2d_0", np.full((1, 3, 3, 3, 8), 2, np.uint8)),
            "conv2d_0: uint8 weights, expected whole numbers 0 and 1",
        ),
        (change("conv2d_0", np.zeros((3, 3, 3, 8), np.uint8)), "conv2d_0: (3, 3, 3, 8), expected (1, F, F, C, K)"),
        (change("conv2d_0", np.zeros((1, 3, 3, 3, 8))), "conv2d_0: float64 weights, expected whole numbers 0 and 1"),
        (
            change("conv2d_1", np.zeros((1, 3, 3, 9, 8), np.uint8)),
            "conv2d_1: 9 channels in, 8 out, expected 8 in and 8 out",
        ),
        (change("batch_normalization_2", NAN), "batch_normalization_2: float32 (2, 8), expected finite numbers (2, C)"),
        (
            change("batch_normalization_2", -np.ones((2, 8))),
            "batch_normalization_2: variance -1.0, expected at least 0",
        ),
        (
            change("batch_normalization_1", np.ones((2, 3))),
            "batch_normalization_1: float64 (2, 3), expected finite numbers (4, C)",
        ),
    ],
)
def test_what_is_not_such_a_network_is_refused_by_name(tmp_path, mutate, message):
    path = saved(tmp_path, mutate(arrays()))
    with pytest.raises(ModelError) as error:
        read_published(path)
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize("content", [b"", b"not a MATLAB file", b"MATLAB 5.0 MAT-file" + bytes(200)])
def test_broken_files_give_one_line(tmp_path, content):
    path = tmp_path / "authors.mat"
    path.write_bytes(content)
    with pytest.raises(ModelError) as error:
        read_published(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_missing_file_and_a_wrong_number_of_names_give_one_line(tmp_path):
    with pytest.raises(ModelError, match="cannot be read as a MATLAB file"):
        read_published(tmp_path / "none.mat")
    with pytest.raises(ModelError, match="2 class names, expected 10"):
        read_published(saved(tmp_path, arrays()), ("cat", "dog"))
