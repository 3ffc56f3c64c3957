"""`bitwren bench train`: one training step of the shifted-ReLU network beside batch norm and a plain PyTorch network.

Every variant of a network has the same convolutions, and every step is the training loop's: an augmented batch of raw
pixels, forward, loss, backward, SGD update. The variants take turns in one process, in another order each round, so
that whatever else the machine does falls on all of them; what is compared are medians.

Saved activations: the bytes of all distinct storages that autograd holds at the end of the forward pass through
tensors whose first axis is the batch. Weights, 1-bit weights and moments have no batch axis and are not counted.
Peak memory: how far one step raises the resident memory of a process of its own above what it was before the step;
this counts gradients and the libraries' working memory too, so it is larger.
"""

import dataclasses
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from bitwren.errors import TrainingError, UsageError
from bitwren.recipe import AugmentOptions, NetworkOptions, Recipe, TrainOptions
from bitwren.train.batches import MemoryBatches
from bitwren.train.distributed import World
from bitwren.train.loop import autocast, make_optimiser
from bitwren.train.plain import PlainWideResNet
from bitwren.train.run import build_network, provenance

SRELU, BN, PLAIN, SRELU_BF16, BN_BF16 = "srelu 1 bit", "bn 1 bit", "plain PyTorch", "srelu 1 bit bf16", "bn 1 bit bf16"
VARIANTS = {
    SRELU: "ours: shifted ReLU, 1-bit weights",
    BN: "ours: batch norm, 1-bit weights",
    PLAIN: "nn.Conv2d, nn.BatchNorm2d, F.relu, torch.optim.SGD, default layout",
    SRELU_BF16: "the first with bf16 passes",
    BN_BF16: "the second with bf16 passes",
}
IN_ONE_PRECISION = (SRELU, BN, PLAIN)
CLASSES = 10
AUGMENTATION = AugmentOptions(flip=True, shift=4, cutout=18)
WARM_UP_STEPS = 3
MEBIBYTE = 2**20


@dataclasses.dataclass(frozen=True)
class Case:
    """A network D-K, and what is asked of it: ratios of step times, of saved bytes, and the data's share of a step."""

    depth: int
    width: float
    srelu_to_bn_time: float  # at most
    plain_to_srelu_time: float  # at least
    srelu_to_bn_memory: float = 0.55  # at most
    data_share: float = 0.05  # at most

    @property
    def name(self) -> str:
        """D-K as the papers write it."""
        return f"{self.depth}-{self.width:g}"


CASES = (
    Case(14, 0.5, srelu_to_bn_time=0.75, plain_to_srelu_time=1.4),
    Case(20, 1.0, srelu_to_bn_time=0.95, plain_to_srelu_time=1.3),
)


class Stepper:
    """One variant of a network with its optimiser: `step` is one training step."""

    def __init__(self, case: Case, variant: str):
        if variant == PLAIN:
            torch.manual_seed(0)
            self.network = PlainWideResNet(case.depth, case.width, CLASSES)
            self.optimiser = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
            self.recipe = Recipe(PLAIN)
            return
        activation = "bn" if variant in (BN, BN_BF16) else "srelu"
        precision = "bf16" if variant in (SRELU_BF16, BN_BF16) else "fp32"
        options = NetworkOptions(depth=case.depth, width=case.width, activation=activation)
        self.recipe = Recipe(variant, network=options, train=TrainOptions(precision=precision))
        self.network = build_network(self.recipe, 3, CLASSES).to(memory_format=torch.channels_last)
        self.optimiser = make_optimiser(self.network, self.recipe)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross entropy of a batch (N, 3, H, W) uint8 and its labels (N,) int64."""
        with autocast(self.recipe, images.device):
            logits = self.network(images)
        return F.cross_entropy(logits.float(), labels)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Train on one batch."""
        loss = self.loss(images, labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()


def saved_activation_bytes(forward: Callable[[], object], batch: int) -> int:
    """Return the bytes that autograd holds after forward(), by the rule at the top of this file.

    batch: the length of the first axis by which an activation is known.
    """
    held = []  # the tensors themselves: a storage that is freed could come again at the same address

    def keep(tensor: Tensor) -> Tensor:
        if tensor.dim() and tensor.shape[0] == batch:
            held.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    total = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}.values())
    del result
    return total


def _resident(which: str) -> int | None:
    """Return VmRSS (resident memory now) or VmHWM (its peak) of this process in bytes, None where no /proc says so."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    kibibytes = [int(line.split()[1]) for line in lines if line.startswith(f"{which}:")]
    return 1024 * kibibytes[0] if kibibytes else None


def _peak_of_a_step(case: Case, variant: str, batch: int, size: int, threads: int) -> int | None:
    """Run in a fresh process: bytes by which one step raises the resident memory at its peak."""
    torch.set_num_threads(threads)
    stepper = Stepper(case, variant)
    picture = torch.randint(256, (2, 3, size, size), dtype=torch.uint8)
    stepper.step(picture, torch.zeros(2, dtype=torch.int64))  # loads code and makes gradients and momentum
    images = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8)
    before = _resident("VmRSS")
    stepper.step(images, torch.zeros(batch, dtype=torch.int64))
    peak = _resident("VmHWM")
    return None if before is None or peak is None else max(peak - before, 0)


def peak_bytes(case: Case, variant: str, batch: int, size: int, threads: int) -> int | None:
    """Return the peak memory of one step in bytes, measured in a process of its own; None where no /proc is there."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(_peak_of_a_step, case, variant, batch, size, threads).result()


def _pictures(count: int, batch: int, size: int) -> MemoryBatches:
    """Return a training set of `count` random pictures, augmented as the CIFAR-10 recipes do."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return MemoryBatches(batch, 0, AUGMENTATION, World(0, 1, torch.device("cpu")), images, labels)


def _endless(batches: MemoryBatches) -> Iterator[tuple[Tensor, Tensor]]:
    epoch = 0
    while True:
        for images, labels, _ in batches.epoch(epoch):
            yield images, labels
        epoch += 1


def _spread(seconds: list[float]) -> dict:
    quartiles = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return {
        "median_s": quartiles[1],
        "minimum_s": min(seconds),
        "lower_quartile_s": quartiles[0],
        "upper_quartile_s": quartiles[2],
        "samples": len(seconds),
    }


def _measure(case: Case, rounds: int, threads: int, batches: MemoryBatches, peaks: bool) -> dict:
    """Return the figures of one network."""
    batch, size = batches.batch, batches.images.shape[2]
    steppers = {variant: Stepper(case, variant) for variant in VARIANTS}
    drawn = _endless(batches)
    saved = {v: saved_activation_bytes(lambda s=s: s.loss(*next(drawn)), batch) for v, s in steppers.items()}
    peak = {v: peak_bytes(case, v, batch, size, threads) for v in IN_ONE_PRECISION} if peaks else {}
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    data_seconds = []
    order = list(VARIANTS)
    for number in range(-WARM_UP_STEPS, rounds):
        order = order[1:] + order[:1]  # so that none always runs after the same one
        for variant in order:
            began = time.perf_counter()
            images, labels = next(drawn)
            ready = time.perf_counter()
            steppers[variant].step(images, labels)
            ended = time.perf_counter()
            if number >= 0:
                data_seconds.append(ready - began)
                seconds[variant].append(ended - ready)
    variants = {
        v: {"step": _spread(seconds[v]), "saved_activation_bytes": saved[v], "peak_bytes": peak.get(v)}
        for v in VARIANTS
    }
    data = _spread(data_seconds)
    _finite(case, steppers)
    return {"network": case.name, "variants": variants, "data": data, "bars": _bars(case, variants, data)}


def _finite(case: Case, steppers: dict[str, Stepper]) -> None:
    """Raise TrainingError where a variant diverged: its steps would not be those of training."""
    for variant, stepper in steppers.items():
        if not all(torch.isfinite(p).all() for p in stepper.network.parameters()):
            raise TrainingError(f"benchmark: {case.name} {variant}: a weight is not finite")


def _bars(case: Case, variants: dict, data: dict) -> list[dict]:
    """Return each bar with the value measured: ratios of medians, and of bytes."""
    step = {v: figures["step"]["median_s"] for v, figures in variants.items()}
    saved = {v: figures["saved_activation_bytes"] for v, figures in variants.items()}

    def bar(what: str, value: float, *, most: float | None = None, least: float | None = None) -> dict:
        kind, limit = ("at most", most) if least is None else ("at least", least)
        return {"what": what, "value": value, "bar": f"{kind} {limit:g}",
                "reached": value <= limit if least is None else value >= limit}

    return [
        bar("step time, shifted ReLU / batch norm", step[SRELU] / step[BN], most=case.srelu_to_bn_time),
        bar("step time, plain PyTorch / shifted ReLU", step[PLAIN] / step[SRELU], least=case.plain_to_srelu_time),
        bar("saved activations, shifted ReLU / batch norm", saved[SRELU] / saved[BN], most=case.srelu_to_bn_memory),
        bar("data and augmentation / shifted-ReLU step", data["median_s"] / step[SRELU], most=case.data_share),
    ]


def benchmark_training(
    rounds: int,
    threads: int,
    cases: tuple[Case, ...] = CASES,
    *,
    batch: int = 125,
    size: int = 32,
    pictures: int = 45_000,
    peaks: bool = True,
) -> dict:
    """Measure training steps on the CPU and return figures that JSON can hold: seconds, bytes, ratios, provenance.

    rounds: steps timed of each variant, at least 1. threads: of PyTorch, set while it runs.
    batch: pictures in a step. size: their height and width in pixels. pictures: in the set they are drawn from.
    peaks: measure the peak memory too, in processes of their own, which takes seconds for each.
    Raises UsageError for a number below 1.
    """
    for name, value in (("rounds", rounds), ("threads", threads)):
        if value < 1:
            raise UsageError(f"--{name} is {value}, expected at least 1")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        batches = _pictures(pictures, batch, size)
        networks = [_measure(case, rounds, threads, batches, peaks) for case in cases]
        made_by = provenance()
    finally:
        torch.set_num_threads(before)
    settings = {"rounds": rounds, "batch": batch, "size": size, "pictures": pictures, "classes": CLASSES,
                "augmentation": dataclasses.asdict(AUGMENTATION), "device": "cpu"}
    return {"benchmark": "train", "provenance": made_by, "settings": settings, "variants": VARIANTS,
            "networks": networks}


def format_benchmark(figures: dict) -> str:
    """Return the figures of benchmark_training as a table for people."""
    made_by, settings = figures["provenance"], figures["settings"]
    lines = [
        f"one training step of {settings['batch']} pictures, {settings['size']}x{settings['size']} pixels; "
        f"{made_by['processor']}, {made_by['threads']} threads, PyTorch {made_by['versions']['torch']}",
        f"medians of {settings['rounds']} interleaved rounds [quartiles]; ratios are to the first row",
    ]
    for network in figures["networks"]:
        variants = network["variants"]
        first = variants[SRELU]["step"]["median_s"]
        lines += ["", f"{network['network']:<18} {'step, ms':>9} {'quartiles':>15} {'least':>7} {'ratio':>6} "
                      f"{'saved, MiB':>11} {'peak, MiB':>10}"]
        for variant, row in variants.items():
            step, peak = row["step"], row["peak_bytes"]
            between = f"[{step['lower_quartile_s'] * 1e3:.1f}, {step['upper_quartile_s'] * 1e3:.1f}]"
            lines.append(
                f"  {variant:<16} {step['median_s'] * 1e3:9.1f} {between:>15} {step['minimum_s'] * 1e3:7.1f} "
                f"{step['median_s'] / first:6.2f} {row['saved_activation_bytes'] / MEBIBYTE:11.1f} "
                f"{'-' if peak is None else f'{peak / MEBIBYTE:.1f}':>10}"
            )
        data = network["data"]
        between = f"[{data['lower_quartile_s'] * 1e3:.2f}, {data['upper_quartile_s'] * 1e3:.2f}]"
        middle, least = data["median_s"] * 1e3, data["minimum_s"] * 1e3
        lines.append(f"  {'data, augmented':<16} {middle:9.2f} {between:>15} {least:7.2f}")
        for bar in network["bars"]:
            verdict = "reached" if bar["reached"] else "MISSED"
            lines.append(f"  {bar['what']:<46} {bar['value']:6.3f}  {bar['bar']:<13} {verdict}")
    return "\n".join(lines)
