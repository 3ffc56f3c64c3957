"""A trained PyTorch network -> folded network -> integer network, scales chosen on training pictures.

This file and simulate.py are the only ones of this room that see PyTorch.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from bitwren.errors import ModelError, UsageError, unknown_name
from bitwren.network.folded import Affine, Centre, FoldedBlock, FoldedConv, FoldedNetwork, fold_batch_norm
from bitwren.network.graph import Network
from bitwren.network.quantise import Scales, base, quantise, stream_exponent, zero_point
from bitwren.network.simulate import Simulation
from bitwren.train.layers import BinaryConv2d, CentredReLU, FloatConv2d, ShiftedReLU, Shortcut, Standardise
from bitwren.train.networks import Block, ResidualNetwork

METHODS = ("error", "max", "percentile", "logits")
PERCENTILE = 99.99
_BATCH = 100
_STEPS_TRIED = 16  # candidate steps of a batch norm's codes
_OCTAVES_ABOVE_1 = 8  # the largest step of a shifted ReLU is 2^8


# ------------------------------------------------------------------ folding


def fold(network: ResidualNetwork, height: int, width: int, classes: tuple[str, ...]) -> FoldedNetwork:
    """Return the folded form of a trained network for pictures (channels, height, width)."""
    stem, max_pool = (network.stem[0], True) if isinstance(network.stem, nn.Sequential) else (network.stem, False)
    whole_zero = None
    if isinstance(network.input, Standardise):
        gain = np.full(network.channels, 2.0 ** -float(network.input.exponent))
        mean = network.input.mean.double().cpu().numpy()
        pixels, whole_zero = Affine(gain, -gain * mean), mean.astype(np.int64)
    else:
        pixels = _affine(network.input)
    return FoldedNetwork(
        network.channels,
        height,
        width,
        pixels,
        whole_zero,
        _conv(stem),
        max_pool,
        tuple(_block(block) for block in network.blocks),
        _norm(network.act),
        _conv(network.head),
        None if network.head_norm is None else _affine(network.head_norm),
        network.temperature,
        classes,
    )


def _block(block: Block) -> FoldedBlock:
    pool, new = None, 0
    if block.shortcut is not None:
        pool, new = _pool(block.shortcut), block.shortcut.new_channels
    return FoldedBlock(_norm(block.act1), _conv(block.conv1), _norm(block.act2), _conv(block.conv2), pool, new)


def _pool(shortcut: Shortcut) -> str:
    if shortcut.stride == 1:
        return "identity"
    if shortcut.kind == "binomial":
        return "binomial"
    return "mean" if shortcut.padding == "symmetric" else "mean-real"


def _conv(conv: FloatConv2d) -> FoldedConv:
    # The weights as the network itself computes them: their signs are the bits, whatever made them.
    weights = conv.effective_weight().detach().double().cpu().permute(0, 2, 3, 1).numpy()
    if isinstance(conv, BinaryConv2d):
        signs = np.where(weights > 0, 1, -1).astype(np.int8)
        return FoldedConv(signs, conv.weight_scale, 1, conv.stride[0], conv.same)
    return FoldedConv(weights, 1.0, 32, conv.stride[0], conv.same)


def _norm(act: nn.Module) -> Affine | Centre | None:
    if isinstance(act, CentredReLU):
        return Centre(act.mean.double().cpu().numpy())
    return None if isinstance(act, ShiftedReLU) else _affine(act[0])


def _affine(norm: nn.BatchNorm2d) -> Affine:
    def array(tensor: Tensor | None, default: float):
        return default if tensor is None else tensor.detach().double().cpu().numpy()

    moments = array(norm.running_mean, 0.0), array(norm.running_var, 1.0)
    return fold_batch_norm(*moments, norm.eps, array(norm.weight, 1.0), array(norm.bias, 0.0))


# ------------------------------------------------------------------ choosing scales


def is_shift_only(folded: FoldedNetwork) -> bool:
    """Return whether the network can do without multiplication: shifted ReLU, one bit, and powers of two throughout."""
    convs = [folded.stem, folded.head, *itertools.chain(*((b.conv1, b.conv2) for b in folded.blocks))]
    return (
        folded.whole_zero is not None
        and all(c.bits == 1 and np.frexp(c.scale)[0] == 0.5 for c in convs)
        and all(b.pool in (None, "identity", "binomial") for b in folded.blocks)
        and not any(isinstance(n, Affine) for b in folded.blocks for n in (b.norm1, b.norm2))
        and not isinstance(folded.norm, Affine)
        and folded.head_norm is None
    )


def _shifted_relu_steps(bits: int, shift_only: bool) -> np.ndarray:
    """Return the steps that a shifted ReLU's codes may have: one over a zero point, or 2 and more with zero point 0.

    Steps above 1 hold activations beyond 254 in 8 bits.
    """
    top = 2**bits - 1
    per_octave = 1 if shift_only else 4
    zeros = {round(2 ** (e / per_octave)) for e in range(per_octave * bits)}
    coarse = [2 ** (e / per_octave) for e in range(per_octave, per_octave * _OCTAVES_ABOVE_1 + 1)]
    return np.array(sorted(1 / z for z in zeros if z < top) + coarse)


@dataclasses.dataclass
class _Site:
    """One activation: the candidates for its step, and each one's squared error summed over the pictures so far."""

    steps: np.ndarray
    zeros: np.ndarray
    bases: np.ndarray
    error: np.ndarray
    largest: float = 0.0


def choose_scales(
    network: ResidualNetwork,
    folded: FoldedNetwork,
    images: np.ndarray,
    bits: int = 8,
    method: str = "error",
    about: Mapping | None = None,
) -> Scales:
    """Return scales chosen on training pictures, uint8 (N, C, H, W).

    method: "max" covers the largest value seen, "percentile" the 99.99 % of each activation, "error" makes the mean
    squared error of each activation's codes smallest, "logits" starts there and moves one scale after another to the
    neighbour that brings the integer logits closest to the float ones.
    Raises UsageError for an unknown method or bits outside 4..9.
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if not 4 <= bits <= 9:
        raise UsageError(f"activation bits are {bits}, expected 4 to 9")
    if not len(images):
        raise UsageError("no pictures to choose scales on, expected at least 1")
    network = network.eval()
    values, streams = _record_largest(network, images)
    shift_only, top = is_shift_only(folded), 2**bits - 1
    sites: dict[str, _Site] = {}
    for name, act in _activations(network):
        if isinstance(act, ShiftedReLU):
            steps = _shifted_relu_steps(bits, shift_only)
            zeros, bases = (np.array([of(step) for step in steps], float) for of in (zero_point, base))
        else:
            steps = max(values[name], 1e-6) / top * np.geomspace(0.1, 1.0, _STEPS_TRIED)
            zeros = bases = np.zeros_like(steps)
        sites[name] = _Site(steps, zeros, bases, np.zeros(len(steps)), values[name])
    if method == "max":
        steps = {name: _covering(site, site.largest, top) for name, site in sites.items()}
    elif method == "percentile":
        reach = _percentiles(network, images)
        steps = {name: _covering(site, reach[name], top) for name, site in sites.items()}
    else:
        _record_errors(network, images, sites, top)
        steps = {name: float(site.steps[site.error.argmin()]) for name, site in sites.items()}
    scales = Scales(bits, steps, _stage_exponents(network, streams))
    if method == "logits":
        scales = _refine(network, folded, images, sites, scales, about or {})
    return scales


def _covering(site: _Site, reach: float, top: int) -> float:
    """Return the smallest candidate step whose codes reach that value, else the largest."""
    fits = site.steps[(top - site.zeros) * site.steps + site.bases >= reach]
    return float(fits.min() if len(fits) else site.steps.max())


def _activations(network: ResidualNetwork) -> Iterator[tuple[str, nn.Module]]:
    for i, block in enumerate(network.blocks, 1):
        yield f"block{i}.act1", block.act1
        yield f"block{i}.act2", block.act2
    yield "act", network.act


@torch.no_grad()
def _forward(
    network: ResidualNetwork, images: np.ndarray, hooks: Mapping[nn.Module, Callable[[Tensor], None]]
) -> Tensor:
    """Run the pictures in batches, calling each hook with its module's output; return the logits (N, classes)."""
    handles = [m.register_forward_hook(lambda _, __, out, see=see: see(out)) for m, see in hooks.items()]
    device = next(network.parameters()).device
    try:
        batches = torch.from_numpy(images).split(_BATCH)
        return torch.cat([network(batch.to(device)).double().cpu() for batch in batches])
    finally:
        for handle in handles:
            handle.remove()


def _record_largest(network: ResidualNetwork, images: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """Return the largest value of each activation, and the largest magnitude of the stream after each block."""
    values: dict[str, float] = {}
    streams: dict[str, float] = {}

    def note(into: dict[str, float], name: str) -> Callable[[Tensor], None]:
        def see(out: Tensor) -> None:
            into[name] = max(into.get(name, 0.0), float(out.abs().max()))

        return see

    hooks = {act: note(values, name) for name, act in _activations(network)}
    hooks[network.stem] = note(streams, "stem")
    for i, block in enumerate(network.blocks, 1):
        hooks[block] = note(streams, f"block{i}")
    # A shifted ReLU in place overwrites what the hook of the module before it has already seen: the order is right.
    _forward(network, images, hooks)
    return values, streams


def _stage_exponents(network: ResidualNetwork, streams: Mapping[str, float]) -> dict[str, int]:
    """Return one exponent for each stage, for the largest magnitude in it: by block name."""
    stages: list[list[str]] = [["stem"]]
    for i, block in enumerate(network.blocks, 1):
        if block.shortcut is not None and block.shortcut.stride != 1:
            stages.append([])
        stages[-1].append(f"block{i}")
    return {name: stream_exponent(max(streams[n] for n in stage)) for stage in stages for name in stage}


def _record_errors(network: ResidualNetwork, images: np.ndarray, sites: Mapping[str, _Site], top: int) -> None:
    def see(site: _Site) -> Callable[[Tensor], None]:
        def add(out: Tensor) -> None:
            for k, (step, zero, least) in enumerate(zip(site.steps, site.zeros, site.bases, strict=True)):
                coded = (out - least).div_(step).round_().clamp_(-zero, top - zero).mul_(step).add_(least)
                site.error[k] += float((coded - out).square_().sum())

        return add

    _forward(network, images, {act: see(sites[name]) for name, act in _activations(network)})


def _percentiles(network: ResidualNetwork, images: np.ndarray) -> dict[str, float]:
    reach: dict[str, list[float]] = {name: [] for name, _ in _activations(network)}

    def see(name: str) -> Callable[[Tensor], None]:
        return lambda out: reach[name].append(float(np.percentile(out.float().cpu().numpy(), PERCENTILE)))

    _forward(network, images, {act: see(name) for name, act in _activations(network)})
    return {name: float(np.mean(values)) for name, values in reach.items()}


def _refine(network, folded, images, sites: Mapping[str, _Site], scales: Scales, about: Mapping) -> Scales:
    truth = _forward(network, images, {}).numpy()

    def distance(candidate: Scales) -> float:
        try:
            integer = quantise(folded, candidate, about)
        except ModelError:  # a scale for which a constant does not fit
            return float("inf")
        return float(np.square(Simulation(integer).run(images) * integer.logit_scale - truth).mean())

    best = distance(scales)
    for name, site in sites.items():
        at = int(np.abs(site.steps - scales.steps[name]).argmin())
        for k in (at - 1, at + 1):
            if 0 <= k < len(site.steps):
                moved = dataclasses.replace(scales, steps={**scales.steps, name: float(site.steps[k])})
                got = distance(moved)
                if got < best:
                    best, scales = got, moved
    return scales


def convert(
    network: ResidualNetwork,
    images: np.ndarray,
    classes: tuple[str, ...],
    *,
    bits: int = 8,
    method: str = "error",
    about: Mapping | None = None,
) -> Network:
    """Return the integer network of a trained one.

    images: uint8 (N, C, H, W), training pictures to choose scales on. bits: of an activation code, 4 to 9.
    method: how, see choose_scales. about: provenance, JSON. Raises UsageError for options out of range, ModelError for
    a network whose sums pass int32.
    """
    height, width = images.shape[2:]
    folded = fold(network, height, width, classes)
    about = {**(about or {}), "bits": bits, "scales": method, "calibration_pictures": len(images)}
    return quantise(folded, choose_scales(network, folded, images, bits, method, about), about)
