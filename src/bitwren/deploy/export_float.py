"""An integer network as an ordinary float ONNX file, for engines that know nothing of one-bit weights.

    pixels  float32 (N, channels, height, width), 0..255  ->  logits  float32 (N, classes)

The measure of other engines, not a way to deploy: classes agree but for a few pictures (deploy/float_form.py says why);
export_onnx.py writes the exact network. Operators are those that exporters write and engines fuse.
"""

import numpy as np

from bitwren.deploy.float_form import Append, FloatAdd, FloatAffine, FloatConv, FloatForm, FloatPool, GlobalMean
from bitwren.deploy.onnx_operators import LOGITS, require_onnx
from bitwren.network.graph import PIXELS

OPSET, IR_VERSION = 17, 8


def float_onnx(form: FloatForm):
    """Return the float network as an onnx.ModelProto. Raises UsageError without the package onnx."""
    onnx = require_onnx()
    nodes, constants = [], []

    def constant(name: str, values) -> str:
        constants.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def op(operator: str, inputs: list[str], result: str, **attributes) -> str:
        nodes.append(onnx.helper.make_node(operator, inputs, [result], name=result, **attributes))
        return result

    def cut(x: str, name: str, floor: float | None) -> None:
        """Name x, cut off below the floor."""
        if floor == 0:
            op("Relu", [x], name)
        elif floor is not None:
            op("Clip", [x, constant(f"{name}.floor", np.float32(floor))], name)

    def before_cut(step) -> str:
        return step.name if step.floor is None else f"{step.name}.whole"

    for step in form.steps:
        match step:
            case FloatConv():
                inputs = [step.input, constant(f"{step.name}.weights", step.weights)]
                if step.bias.any():
                    inputs.append(constant(f"{step.name}.bias", step.bias))
                attributes = {"kernel_shape": step.weights.shape[2:], "strides": [step.stride] * 2}
                whole = op("Conv", inputs, before_cut(step), pads=step.padding, group=step.groups, **attributes)
                cut(whole, step.name, step.floor)
            case FloatAffine():
                whole = step.input
                if step.gain is not None:
                    # As a batch norm: one pass where Mul and Add are two, and engines fuse it with what follows.
                    channels = len(step.gain)
                    bias = np.zeros(channels, np.float32) if step.bias is None else step.bias
                    inputs = [whole, constant(f"{step.name}.gain", step.gain), constant(f"{step.name}.bias", bias),
                              constant(f"{step.name}.mean", np.zeros(channels, np.float32)),
                              constant(f"{step.name}.variance", np.ones(channels, np.float32))]
                    whole = op("BatchNormalization", inputs, before_cut(step), epsilon=0.0)
                elif step.bias is not None:
                    bias = constant(f"{step.name}.bias", step.bias[None, :, None, None])
                    whole = op("Add", [whole, bias], before_cut(step))
                elif step.floor is None:
                    op("Identity", [whole], step.name)
                cut(whole, step.name, step.floor)
            case FloatAdd():
                op("Add", list(step.inputs), step.name)
            case FloatPool():
                attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": step.padding}
                if step.kind == "max":
                    op("MaxPool", [step.input], step.name, **attributes)
                else:
                    op("AveragePool", [step.input], step.name, count_include_pad=step.kind == "mean", **attributes)
            case Append():
                pads = constant(f"{step.name}.pads", np.array([0, 0, 0, 0, 0, step.channels, 0, 0], np.int64))
                op("Pad", [step.input, pads], step.name)
            case GlobalMean():
                op("GlobalAveragePool", [step.input], step.name)
    op("Flatten", [form.logits], LOGITS if form.logits != LOGITS else f"{LOGITS}.flat", axis=1)

    def described(name: str, shape):
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *shape])

    classes = form.channels[form.logits]
    graph = onnx.helper.make_graph(
        nodes, "bitwren", [described(PIXELS, form.shape)], [described(nodes[-1].output[0], [classes])], constants
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(graph, producer_name="bitwren", opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model
