"""A float network as ncnn's two files, the text of its layers (.param) and its weights (.bin), float or int8.

Written by hand because no converter will do: pnnx drops the padding of channels, and ncnn's int8 tools are in no Python
package. The layout of both files is ncnn's own (docs/developer-guide/operators.md and the layers' load_model there).

int8, as ncnn defines it: activations round(x * scale) with one scale, zero point 0; weights with a scale for each
channel of the result. Of weights that differ by their signs alone the integers are +1 and -1, which is exact and keeps
ncnn's int8 Winograd from overflowing its 16 bits; others get 6 bits where Winograd may be taken and 8 elsewhere, as
ncnn's own tool gives them.
"""

import numpy as np

from bitwren.deploy.float_form import Append, FloatAdd, FloatAffine, FloatConv, FloatForm, FloatPool, GlobalMean
from bitwren.network.graph import PIXELS

MAGIC = 7767517
FLOAT_WEIGHTS, INT8_WEIGHTS = 0, 0x000D4B38  # the flag before a layer's weights
LARGEST = 3.4028234e38


def quantised_inputs(form: FloatForm) -> list[str]:
    """Return the tensors that int8 convolutions read; depthwise ones (binomial pooling) stay float."""
    inputs = [step.input for step in form.steps if isinstance(step, FloatConv) and step.groups == 1]
    return list(dict.fromkeys(inputs))


def ncnn_files(form: FloatForm, scales: dict[str, float] | None = None) -> tuple[str, bytes, dict[str, str]]:
    """Return .param, .bin and the blob that holds each tensor of the form.

    scales: int8 scale of every tensor of quantised_inputs(form), so that x * scale is at most 127; None writes float.
    """
    return _Writer(form, scales).files()


def int8_weights(step: FloatConv) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 weights like step.weights and float32 (out,) scales: weight = integer / scale."""
    rows = np.abs(step.weights.reshape(len(step.weights), -1))
    largest = rows.max(1)
    winograd = step.weights.shape[2] == 3 and step.stride == 1
    top = np.where(rows.min(1) == largest, 1, 31 if winograd else 127)  # (out,)
    scales = np.where(largest > 0, top / np.where(largest > 0, largest, 1), 1).astype(np.float32)
    return np.rint(step.weights * scales[:, None, None, None]).astype(np.int8), scales


class _Writer:
    def __init__(self, form: FloatForm, scales: dict[str, float] | None):
        self.form, self.scales = form, scales
        self.lines, self.weights, self.blobs = [], bytearray(), 0
        self.readers: dict[str, list[str]] = {}
        self.free: dict[str, list[str]] = {}
        for step in form.steps:
            for name in step.inputs if isinstance(step, FloatAdd) else (step.input,):
                self.readers.setdefault(name, []).append(step.name)
        self.flat = set()

    def files(self) -> tuple[str, bytes, dict[str, str]]:
        channels, height, width = self.form.shape
        self.layer("Input", PIXELS, [], PIXELS, f"0={width} 1={height} 2={channels}")
        for step in self.form.steps:
            match step:
                case FloatConv():
                    self.conv(step)
                case FloatAffine():
                    self.affine(step)
                case FloatAdd():
                    self.layer("BinaryOp", step.name, [self.take(name) for name in step.inputs], step.name, "0=0")
                case FloatPool():
                    self.pool(step)
                case Append():
                    values = f"0=0 1=0 2=0 3=0 4=0 5=0.0 7=0 8={step.channels}"
                    self.layer("Padding", step.name, [self.take(step.input)], step.name, values)
                case GlobalMean():
                    self.flat.add(step.name)
                    self.layer("Pooling", step.name, [self.take(step.input)], step.name, "0=1 4=1")
        text = "\n".join([str(MAGIC), f"{len(self.lines)} {self.blobs}", *self.lines, ""])
        return text, bytes(self.weights), {name: name for name in self.form.channels}

    def layer(self, kind: str, name: str, inputs: list[str], output: str, values: str) -> None:
        """Append a layer, and behind it a Split where several layers read its result."""
        self.lines.append(f"{kind} {_word(name)} {len(inputs)} 1 {' '.join([*inputs, _word(output)])} {values}")
        self.blobs += 1
        readers = len(self.readers.get(output, ()))
        self.free[output] = [_word(output)]
        if readers > 1:
            copies = [f"{_word(output)}:{index}" for index in range(readers)]
            split = f"Split {_word(output)}:split 1 {readers} {' '.join([_word(output), *copies])}"
            self.lines.append(split)
            self.blobs += readers
            self.free[output] = copies

    def take(self, tensor: str) -> str:
        """Return a blob that holds the tensor and that no layer reads yet."""
        return self.free[tensor].pop(0)

    def floats(self, values: np.ndarray) -> None:
        self.weights += np.ascontiguousarray(values, "<f4").tobytes()

    def conv(self, step: FloatConv) -> None:
        out, size = len(step.weights), step.weights.size
        has_bias = int(step.bias.any())
        int8 = self.scales is not None and step.groups == 1
        activation = ""
        if step.floor == 0:
            activation = " 9=1"
        elif step.floor is not None:
            activation = f" 9=3 -23310=2,{step.floor!r},{LARGEST!r}"
        requantised = self.next_scale(step.name) if int8 else None
        term = "" if not int8 else f" 8={1 if requantised is None else 101}"
        if step.input in self.flat:
            term = term.replace("101", "1")
            values = f"0={out} 1={has_bias} 2={size}{term}{activation}"
            self.layer("InnerProduct", step.name, [self.take(step.input)], step.name, values)
            requantised = None
        else:
            top, left, bottom, right = step.padding
            window = step.weights.shape[2]
            values = f"0={out} 1={window} 11={window} 3={step.stride} 4={left} 15={right} 14={top} 16={bottom}"
            values += f" 5={has_bias} 6={size}{term}{activation}"
            kind = "Convolution" if step.groups == 1 else "ConvolutionDepthWise"
            values += "" if step.groups == 1 else f" 7={step.groups}"
            self.layer(kind, step.name, [self.take(step.input)], step.name, values)
        if int8:
            integers, scales = int8_weights(step)
            self.weights += INT8_WEIGHTS.to_bytes(4, "little") + integers.tobytes()
            self.weights += bytes(-len(self.weights) % 4)
        else:
            self.weights += FLOAT_WEIGHTS.to_bytes(4, "little")
            self.floats(step.weights)
        if has_bias:
            self.floats(step.bias)
        if int8:
            self.floats(scales)
            self.floats(np.array([self.scales[step.input]]))
            if requantised is not None:
                self.floats(np.array([requantised]))

    def next_scale(self, tensor: str) -> float | None:
        """Return the scale of a tensor that only int8 convolutions read: its layer gives int8 at once."""
        readers = [step for step in self.form.steps if step.name in self.readers.get(tensor, ())]
        direct = len(readers) == 1 and isinstance(readers[0], FloatConv) and readers[0].groups == 1
        return self.scales[tensor] if direct else None

    def affine(self, step: FloatAffine) -> None:
        whole, source = step.name, self.take(step.input)
        if step.floor is not None and (step.gain is not None or step.bias is not None):
            whole = f"{step.name}:whole"
        if step.gain is not None or step.bias is not None or step.floor is None:
            channels = self.form.channels[step.name]
            self.floats(np.ones(channels) if step.gain is None else step.gain)
            if step.bias is not None:
                self.floats(step.bias)
            self.layer("Scale", whole, [source], whole, f"0={channels} 1={int(step.bias is not None)}")
            source = _word(whole)
        if step.floor == 0:
            self.layer("ReLU", step.name, [source], step.name, "0=0.0")
        elif step.floor is not None:
            self.layer("Clip", step.name, [source], step.name, f"0={step.floor!r} 1={LARGEST!r}")

    def pool(self, step: FloatPool) -> None:
        top, left, bottom, right = step.padding
        values = f"0={int(step.kind != 'max')} 1=3 2=2 3={left} 14={right} 13={top} 15={bottom} 5=1"
        values += f" 6={int(step.kind == 'mean')}"
        self.layer("Pooling", step.name, [self.take(step.input)], step.name, values)


def _word(name: str) -> str:
    """Return a name as ncnn reads it: without blanks."""
    return name.replace(" ", "_")
