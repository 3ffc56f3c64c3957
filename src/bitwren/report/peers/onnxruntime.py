"""ONNX Runtime: float, and int8 by its own static quantiser: QDQ, weights signed, activations unsigned or signed."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bitwren.deploy.export_float import float_onnx
from bitwren.deploy.float_form import FloatForm
from bitwren.network.graph import PIXELS
from bitwren.report.peers.processor import has_vnni

PACKAGES = ("onnxruntime", "onnx")
FORMS = ("fp32", "int8", "int8-s8s8")


def prepare(form: FloatForm, kind: str, calibration: np.ndarray, folder: Path) -> dict:
    """Write the file of a form into a folder; return settings. calibration: uint8 (N, C, H, W)."""
    import onnx

    (path,) = files(kind, folder)
    model = float_onnx(form)
    if kind == "fp32":
        onnx.save(model, path)
        return {}
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(CalibrationDataReader):
        def __init__(self):
            self.left = iter(calibration)

        def get_next(self):
            picture = next(self.left, None)
            return None if picture is None else {PIXELS: picture[None].astype(np.float32)}

    plain, merged = folder / f"{path.stem}-plain.onnx", folder / f"{path.stem}-merged.onnx"
    onnx.save(model, plain)
    quant_pre_process(plain, merged, skip_symbolic_shape=True)
    signed = kind == "int8-s8s8"
    reduced = not has_vnni() and not signed  # vpmaddubsw saturates its 16-bit sums of unsigned times signed
    settings = {
        "activation_type": "int8" if signed else "uint8",
        "weight_type": "int8",
        "per_channel": True,
        "reduce_range": reduced,
        "calibrate_method": "MinMax",
        "calibration pictures": len(calibration),
    }
    logging.disable(logging.WARNING)  # advice to pre-process, which has been done
    try:
        quantize_static(
            merged,
            path,
            Pictures(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=reduced,
            calibrate_method=CalibrationMethod.MinMax,
        )
    finally:
        logging.disable(logging.NOTSET)
    plain.unlink()
    merged.unlink()
    return settings


def files(kind: str, folder: Path) -> list[Path]:
    """Return the files that the engine loads."""
    return [folder / f"onnxruntime-{kind}.onnx"]


def load(kind: str, folder: Path, threads: int, batch: int) -> tuple[Callable[[np.ndarray], np.ndarray], dict]:
    """Return a function, uint8 (N, C, H, W) -> logits (N, classes), and the settings in use."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Threads of a pool that spin between runs would take the other engines' time; they spin within a run.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(files(kind, folder)[0], options, providers=["CPUExecutionProvider"])
    settings = {"intra_op_num_threads": threads, "graph_optimization_level": "all", "force_spinning_stop": True}
    return lambda pixels: session.run(None, {PIXELS: pixels.astype(np.float32)})[0], settings
