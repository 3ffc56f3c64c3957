"""An integer network as an ONNX file of standard operators, all on integers; ONNX Runtime gives the oracle's integers.

    pixels  uint8 (N, channels, height, width)  ->  logits  int32 (N, classes)

Between them every node's tensor carries the node's name: uint8 where it holds codes up to 255, else int32. The file
describes them all (value_info), so that any of them can be made an output and compared.
"""

import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from bitwren.atomic import write_atomic
from bitwren.deploy.onnx_operators import LOGITS, Writer, require_onnx
from bitwren.network.graph import PIXELS, Network

OPSET, IR_VERSION = 18, 8  # the first with BitwiseAnd; ONNX Runtime 1.14 and later execute it


def export_onnx(network: Network, path: Path, compact: bool = True) -> int:
    """Write the network as an ONNX file, whole or not at all, and return its bytes; the same network, the same file.

    compact: weights of one bit packed eight to a byte and unpacked in the graph; otherwise a byte each.
    Raises UsageError without the package onnx, WriteError where the disk refuses.
    """
    content = onnx_bytes(network, compact)
    write_atomic(path, content)
    return len(content)


def onnx_bytes(network: Network, compact: bool = True) -> bytes:
    """Return the ONNX file of a network, checked by onnx. Raises UsageError without the package onnx."""
    onnx = require_onnx()
    writer = Writer(network, compact)
    for node in network.nodes:
        writer.write(node)
    writer.write_logits()

    def described(name: str, kind: np.dtype, shape: Iterable):
        return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(kind), ["N", *shape])

    graph = onnx.helper.make_graph(
        writer.nodes,
        "bitwren",
        [described(PIXELS, np.dtype(np.uint8), network.tensors[PIXELS].shape)],
        [described(LOGITS, np.dtype(np.int32), [len(network.classes)])],
        writer.constants,
        value_info=[
            described(name, writer.kinds[name], network.tensors[node.name].shape)
            for node in network.nodes
            for name in (writer.names[node.name],)
        ],
    )
    model = onnx.helper.make_model(
        graph,
        producer_name="bitwren",
        producer_version=version("bitwren"),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.helper.set_model_props(
        model,
        {
            "classes": json.dumps(network.classes, ensure_ascii=False),
            "logit_scale": repr(network.logit_scale),  # real logit = integer logit * this
            "bitwren": version("bitwren"),
        },
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)
