"""The same integers computed by PyTorch, on the processor, in batches: made for whole test sets.

A convolution runs in floating point and is exact. Its terms w * (x - zero) are whole numbers, and the graph's bound for
the node is the largest possible sum of their magnitudes. Whatever partial sums an algorithm forms, in whatever order,
each adds a part of these terms, so it is a whole number no larger than the bound. float32 holds every whole number to
2^24 (float64 to 2^53, beyond any int32), so no addition ever rounds, fused or not, and the order cannot matter.

This needs an algorithm that only adds products of weights and inputs: direct, or by matrix multiplication. Winograd's
and Fourier's multiply by fractions first. PyTorch takes neither on the processor; on a GPU it may, and may shorten
float32 to TF32 as well, so this file stays on the processor, and the tests compare with the reference at the bounds.

Everything else is integer arithmetic: int32 where the graph's ranges allow, else int64; `>>` is arithmetic in PyTorch.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bitwren.network.graph import INT16, INT32, PIXELS, Add, Conv, Network, Pool, Requantise, Sum, inputs_of
from bitwren.network.reference import check_pixels

EXACT_FLOAT32 = 2**24  # every whole number up to here is a float32
BATCH = 250  # pictures at once by default


class Simulation:
    """A network prepared for PyTorch: its weights and constants as tensors, made once.

    network: checked by its own making, so no value below can pass the types chosen from its ranges.
    """

    def __init__(self, network: Network):
        """Prepare every node."""
        self.network = network
        self._steps = [(node, _PREPARE[type(node)](node, network)) for node in network.nodes]
        last_reader = {name: node.name for node in network.nodes for name in inputs_of(node)}
        self._spent = {node.name: [x for x, r in last_reader.items() if r == node.name] for node in network.nodes}

    def run(self, pixels: np.ndarray, batch: int = BATCH) -> np.ndarray:
        """Return the logits, int32 (N, classes), of pictures uint8 (N, channels, height, width).

        batch: pictures computed at once; the result does not depend on it. Raises ModelError for another shape or type.
        """
        check_pixels(self.network, pixels)
        logits = np.empty((len(pixels), len(self.network.classes)), np.int32)
        for start in range(0, len(pixels), batch):
            values = self._values(pixels[start : start + batch], keep=False)
            logits[start : start + batch] = values[self.network.logits][:, :, 0, 0].numpy()
        return logits

    def run_all(self, pixels: np.ndarray, batch: int = BATCH) -> dict[str, np.ndarray]:
        """Return every tensor by name, int64 (N, C, H, W), as the reference's run_all does."""
        check_pixels(self.network, pixels)
        results = {
            name: np.empty((len(pixels), *tensor.shape), np.int64) for name, tensor in self.network.tensors.items()
        }
        for start in range(0, len(pixels), batch):
            for name, value in self._values(pixels[start : start + batch], keep=True).items():
                results[name][start : start + batch] = value.numpy()
        return results

    @torch.inference_mode()
    def _values(self, pixels: np.ndarray, keep: bool) -> dict[str, Tensor]:
        """Return all tensors (keep) or those that nobody read; channels last in memory, as convolutions like them."""
        values = {PIXELS: torch.tensor(np.ascontiguousarray(pixels)).contiguous(memory_format=torch.channels_last)}
        with torch.autocast("cpu", enabled=False):  # a caller's bfloat16 would round
            for node, compute in self._steps:
                values[node.name] = compute(*(values[name] for name in inputs_of(node)))
                if not keep:
                    for name in self._spent[node.name]:
                        del values[name]
        return values


# --------------------------------------------- one function per kind: the node -> what computes it from its inputs


def _prepare_conv(node: Conv, network: Network) -> Callable[[Tensor], Tensor]:
    kind = torch.float32 if network.tensors[node.name].high <= EXACT_FLOAT32 else torch.float64
    weights = torch.tensor(node.weights).permute(0, 3, 1, 2).to(kind).contiguous(memory_format=torch.channels_last)
    zero = _per_channel(network.tensors[node.input].zero, kind)
    top, left, bottom, right = node.padding
    symmetric = (top, left) == (bottom, right)

    def compute(x: Tensor) -> Tensor:
        centred = x.to(kind)  # a copy, whole numbers
        if zero is not None:
            centred -= zero
        if symmetric:
            return F.conv2d(centred, weights, stride=node.stride, padding=(top, left)).to(torch.int32)
        return F.conv2d(F.pad(centred, (left, right, top, bottom)), weights, stride=node.stride).to(torch.int32)

    return compute


def _prepare_requantise(node: Requantise, network: Network) -> Callable[[Tensor], Tensor]:
    x = network.tensors[node.input]
    products = np.multiply.outer(node.multiplier.astype(np.int64), [x.low, x.high])
    sums = products + node.offset.astype(np.int64)[:, None]
    fits = min(products.min(), sums.min()) >= INT32[0] and max(products.max(), sums.max()) <= INT32[1]
    kind = torch.int32 if fits else torch.int64
    shift = min(node.shift, torch.iinfo(kind).bits - 1)  # as far as the type goes: the sign is left, as it would be
    multiplier = _per_channel(node.multiplier, kind, neutral=1)
    offset = _per_channel(node.offset, kind)

    def compute(x: Tensor) -> Tensor:
        y = x.to(kind, copy=True)
        if multiplier is not None:
            y *= multiplier
        if offset is not None:
            y += offset
        if shift:
            y >>= shift
        return y.clamp_(node.low, node.high).to(torch.int32)

    return compute


def _prepare_add(node: Add, network: Network) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: (a + b).clamp_(*INT16)  # the sum of two int16 fits int32


def _prepare_pool(node: Pool, network: Network) -> Callable[[Tensor], Tensor]:
    top, left, bottom, right = node.padding
    outside = INT16[0] if node.kind == "max" else 0
    channels, height, width = network.tensors[node.input].shape
    count = 9
    if node.kind == "mean-real":
        count = _three(F.pad(torch.ones(1, 1, height, width, dtype=torch.int32), (left, right, top, bottom)), _sum)

    def compute(x: Tensor) -> Tensor:
        x = F.pad(x.to(torch.int32), (left, right, top, bottom), value=outside)
        if node.kind == "max":
            y = _three(x, lambda a, b, c: torch.maximum(torch.maximum(a, b), c))
        elif node.kind == "binomial":  # [1 2 1] down, then across; 16 times an int16 fits int32
            y = (_three(x, lambda a, b, c: a + 2 * b + c) + 8) >> 4
        else:
            y = torch.div(2 * _three(x, _sum) + count, 2 * count, rounding_mode="floor")
        return F.pad(y, (0, 0, 0, 0, 0, node.channels - channels))

    return compute


def _prepare_sum(node: Sum, network: Network) -> Callable[[Tensor], Tensor]:
    return lambda x: x.sum((2, 3), keepdim=True, dtype=torch.int64).to(torch.int32)


_PREPARE = {
    Conv: _prepare_conv,
    Requantise: _prepare_requantise,
    Add: _prepare_add,
    Pool: _prepare_pool,
    Sum: _prepare_sum,
}


def _three(x: Tensor, combine: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """Combine the three rows, then the three columns, of every 3 x 3 window of padded x (N, C, H, W), moved by 2."""
    for axis in (2, 3):
        count = (x.shape[axis] - 3) // 2 + 1
        starts = (torch.arange(k, k + 2 * count - 1, 2) for k in range(3))
        x = combine(*(x.index_select(axis, start) for start in starts))
    return x


def _sum(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return a + b + c


def _per_channel(values: np.ndarray, kind: torch.dtype, neutral: int = 0) -> Tensor | None:
    """Return values (1,) or (C,) as a tensor (C, 1, 1) of the type, or None where all are neutral: nothing to do."""
    return None if (values == neutral).all() else torch.tensor(values, dtype=kind)[:, None, None]
