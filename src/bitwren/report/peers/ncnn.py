"""ncnn: float with Winograd and packing, and int8 from files made here (ncnn_files.py)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bitwren.deploy.float_form import FloatForm
from bitwren.network.graph import PIXELS
from bitwren.report.peers.calibration import int8_scale
from bitwren.report.peers.ncnn_files import ncnn_files, quantised_inputs

PACKAGES = ("ncnn",)
FORMS = ("fp32", "int8")
DRAWN = 128  # values of a tensor for each calibration picture, beside its extremes


def prepare(form: FloatForm, kind: str, calibration: np.ndarray, folder: Path) -> dict:
    """Write the files of a form into a folder; return settings. calibration: uint8 (N, C, H, W)."""
    stem = folder / f"ncnn-{kind}"
    settings, scales = {}, None
    if kind == "int8":
        settings["int8 file"] = "made by bitwren: activations by least squared error, weights +-1"
        scales = _scales(form, calibration, folder)
        settings["calibration pictures"] = len(calibration)
    _write(stem, *ncnn_files(form, scales)[:2])
    return settings


def _write(stem: Path, text: str, weights: bytes) -> None:
    stem.with_suffix(".param").write_text(text)
    stem.with_suffix(".bin").write_bytes(weights)


def _scales(form: FloatForm, calibration: np.ndarray, folder: Path) -> dict[str, float]:
    """Return the int8 scale of each tensor that a convolution reads, from the float network's own values."""
    stem = folder / "ncnn-calibration"
    text, weights, blobs = ncnn_files(form)
    _write(stem, text, weights)
    net = _net(stem, 1, "fp32")  # two threads that wait for each other are slow on a busy machine
    names = quantised_inputs(form)
    samples = {name: [] for name in names}
    random = np.random.default_rng(0)
    import ncnn

    for picture in calibration.astype(np.float32):
        extractor = net.create_extractor()
        extractor.set_light_mode(False)
        extractor.input(PIXELS, ncnn.Mat(picture).clone())  # a copy: a Mat does not keep the array alive
        for name in names:
            values = np.array(extractor.extract(blobs[name])[1]).ravel()
            if len(values) > DRAWN:
                drawn = values[random.integers(0, len(values), DRAWN)]
                values = np.concatenate([drawn, [values.min(), values.max()]])
            samples[name].append(values)
    for suffix in (".param", ".bin"):
        stem.with_suffix(suffix).unlink()
    return {name: int8_scale(np.concatenate(values)) for name, values in samples.items()}


def _net(stem: Path, threads: int, kind: str):
    import ncnn

    net = ncnn.Net()
    for name, value in options(threads, kind).items():
        setattr(net.opt, name, value)
    if net.load_param(str(stem.with_suffix(".param"))) or net.load_model(str(stem.with_suffix(".bin"))):
        raise RuntimeError(f"ncnn does not load {stem}")
    return net


def options(threads: int, kind: str) -> dict:
    """Return the options that a network is opened with; what is not named is ncnn's default."""
    return {
        "num_threads": threads,
        "openmp_blocktime": 0,  # idle threads sleep; the other engines' turn comes next
        "use_winograd_convolution": True,
        "use_sgemm_convolution": True,
        "use_packing_layout": True,
        "use_int8_inference": kind == "int8",
        "use_fp16_storage": False,
        "use_fp16_packed": False,
        "use_fp16_arithmetic": False,
        "use_bf16_storage": kind == "bf16",
        "use_vulkan_compute": False,
    }


def files(kind: str, folder: Path) -> list[Path]:
    """Return the files that the engine loads."""
    return [(folder / f"ncnn-{kind}").with_suffix(suffix) for suffix in (".param", ".bin")]


def load(kind: str, folder: Path, threads: int, batch: int) -> tuple[Callable[[np.ndarray], np.ndarray], dict]:
    """Return a function, uint8 (N, C, H, W) -> logits (N, classes), and the settings in use."""
    import ncnn

    param, _ = files(kind, folder)
    net = _net(param.with_suffix(""), threads, kind)
    output = net.output_names()[-1]

    def run(pixels: np.ndarray) -> np.ndarray:
        rows = []
        for picture in pixels.astype(np.float32):  # ncnn knows no batches
            extractor = net.create_extractor()
            extractor.input(PIXELS, ncnn.Mat(picture).clone())  # a copy: layers work in place
            rows.append(np.array(extractor.extract(output)[1]).ravel())
        return np.stack(rows)

    return run, options(threads, kind)
