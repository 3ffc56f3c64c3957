"""OpenVINO: float, and int8 by NNCF's post-training quantisation."""

import contextlib
import io
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bitwren.deploy.export_float import float_onnx
from bitwren.deploy.float_form import FloatForm
from bitwren.network.graph import PIXELS

PACKAGES = ("openvino", "nncf", "onnx")
FORMS = ("fp32", "bf16", "int8")


def prepare(form: FloatForm, kind: str, calibration: np.ndarray, folder: Path) -> dict:
    """Write the file of a form into a folder; return settings. calibration: uint8 (N, C, H, W)."""
    import onnx
    import openvino

    path, _ = files(kind, folder)
    plain = folder / f"openvino-{kind}-plain.onnx"
    onnx.save(float_onnx(form), plain)
    model = openvino.convert_model(plain, input=[(PIXELS, [1, *form.shape])])
    plain.unlink()
    settings = {}
    if kind == "int8":
        logging.disable(logging.WARNING)
        with contextlib.redirect_stdout(io.StringIO()):  # progress bars: stdout is the results'
            import nncf

            pictures = nncf.Dataset(calibration, lambda picture: picture[None].astype(np.float32))
            settings = {"preset": "mixed", "subset_size": len(calibration), "fast_bias_correction": True}
            model = nncf.quantize(
                model,
                pictures,
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(calibration),
                fast_bias_correction=True,
            )
        logging.disable(logging.NOTSET)
    openvino.save_model(model, path, compress_to_fp16=False)
    return settings


def files(kind: str, folder: Path) -> list[Path]:
    """Return the files that the engine loads."""
    return [folder / f"openvino-{kind}{suffix}" for suffix in (".xml", ".bin")]


def load(kind: str, folder: Path, threads: int, batch: int) -> tuple[Callable[[np.ndarray], np.ndarray], dict]:
    """Return a function, uint8 (batch, C, H, W) -> logits (batch, classes), and the settings in use."""
    import openvino

    core = openvino.Core()
    model = core.read_model(files(kind, folder)[0])
    shape = list(model.inputs[0].shape)
    if batch != shape[0]:
        model.reshape([batch, *shape[1:]])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "bf16" if kind == "bf16" else "f32",
    }
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()

    def run(pixels: np.ndarray) -> np.ndarray:
        return request.infer({0: pixels.astype(np.float32)}, share_inputs=True)[0].copy()

    return run, settings
