"""Every machine against the oracle: the same pictures, every tensor, tolerance zero.

A machine is a function of a network that returns a function of pictures, uint8 (N, channels, height, width), to tensors
by node name; it may give some of the tensors, but the logits it must. An engine gives logits alone, and its answers may
hang on how many pictures it gets at a time and on its threads: it is a function of a network and all pictures to logits
by the name of the way in which they were computed, each compared as a machine of that name. What is not installed
raises UsageError with what to install, and is reported as skipped. `MACHINES` and `ENGINES` are the one list of them.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np

from bitwren.deploy.export_onnx import onnx_bytes
from bitwren.deploy.generate_c.host import compiled
from bitwren.deploy.onnx_operators import LOGITS, require_onnx, tensor_names
from bitwren.deploy.runtime import Runtime, kernel_sets
from bitwren.errors import ModelError, UsageError
from bitwren.network import reference
from bitwren.network.graph import PIXELS, Network
from bitwren.network.pack import encode

Machine = Callable[[np.ndarray], Mapping[str, np.ndarray]]
Engine = Callable[[Network, np.ndarray], Mapping[str, np.ndarray]]
RANDOM = 16  # pictures of random bytes, and as many of random 0 and 255
VALUES_AT_ONCE = 2**23  # of all tensors together; int64, so 64 MB a machine


@dataclass(frozen=True)
class Difference:
    """The first value that differs: of the first node in the graph's order, the first picture, channel, row, column."""

    node: str
    picture: str
    channel: int
    row: int
    column: int
    expected: int
    got: int


@dataclass(frozen=True)
class MachineReport:
    """What one machine gave. skipped: why it did not run, else None. tensors: how many were compared, by name."""

    machine: str
    skipped: str | None
    tensors: tuple[str, ...]
    difference: Difference | None


@dataclass(frozen=True)
class Verification:
    """All machines on the same pictures. pictures: given, made_up: extreme and random ones, drawn with the seed."""

    pictures: int
    made_up: int
    seed: int
    machines: tuple[MachineReport, ...]

    @property
    def equal(self) -> bool:
        """True where no machine differs."""
        return all(report.difference is None for report in self.machines)


def _simulation(network: Network) -> Machine:
    try:
        from bitwren.network.simulate import Simulation
    except ImportError:
        raise UsageError("PyTorch is not installed: pip install 'bitwren[train]'") from None
    return Simulation(network).run_all


def _onnx_runtime(network: Network) -> Machine:
    """Two sessions: the file as exported gives the logits, and with its inner tensors made outputs, the rest."""
    onnx = require_onnx()
    try:
        import onnxruntime
    except ImportError:
        raise UsageError("ONNX Runtime is not installed: pip install 'bitwren[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # 0: as many as there are cores
    options.log_severity_level = 3  # errors

    def session(content: bytes):
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    content = onnx_bytes(network)
    model = onnx.load_from_string(content)
    model.graph.output.extend(model.graph.value_info)
    exported, opened = session(content), session(model.SerializeToString())
    names = {onnx_name: name for name, onnx_name in tensor_names(network).items() if name != PIXELS}

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        values = dict(zip(names.values(), opened.run(list(names), {PIXELS: pixels}), strict=True))
        values[network.logits] = exported.run([LOGITS], {PIXELS: pixels})[0][:, :, None, None]
        return values

    return run


def _c_runtime(network: Network, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Every kernel set of this processor, with 1 and 2 threads, a picture at a time and all together."""
    content, logits = encode(network), {}
    for kernels in kernel_sets():
        with Runtime(content, kernels) as runtime:
            for threads, name in ((1, f"C {kernels}, 1 thread"), (2, f"C {kernels}, 2 threads")):
                singly = [runtime.run(picture[None], threads) for picture in pixels]
                logits[f"{name}, singly"] = np.concatenate(singly)
                logits[f"{name}, together"] = runtime.run(pixels, threads)
    return logits


def _generated_c(network: Network, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The C for microcontrollers, compiled for this machine; a picture at a time, on one thread."""
    return {"generated C": compiled(network)(pixels)}


MACHINES: dict[str, Callable[[Network], Machine]] = {"PyTorch": _simulation, "ONNX Runtime": _onnx_runtime}
ENGINES: dict[str, Engine] = {"C runtime": _c_runtime, "generated C": _generated_c}


def made_up_pictures(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, list[str]]:
    """Return extreme and random pictures, uint8 (N, C, H, W), and what each is, for reports.

    All 0, all 255, chessboards, one channel at 255 at a time; then random bytes, and random 0 and 255.
    """
    _, rows, columns = np.indices(shape)
    board = (rows + columns) % 2 * 255
    named = [("all 0", np.zeros(shape)), ("all 255", np.full(shape, 255)), ("chessboard", board)]
    named.append(("chessboard, inverted", 255 - board))
    if shape[0] > 1:
        alone = np.eye(shape[0])[:, :, None, None] * np.full(shape, 255)  # (C, C, H, W)
        named += [(f"channel {channel} at 255", picture) for channel, picture in enumerate(alone)]
    rng = np.random.default_rng(seed)
    named += [(f"random bytes {k}", rng.integers(0, 256, shape)) for k in range(RANDOM)]
    named += [(f"random 0 and 255, {k}", rng.integers(0, 2, shape) * 255) for k in range(RANDOM)]
    names, pictures = zip(*named, strict=True)
    return np.stack(pictures).astype(np.uint8), list(names)


def verify(
    network: Network,
    pixels: np.ndarray | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verification:
    """Run every machine on pictures, and on extreme and random ones, and compare every tensor with the reference's.

    pixels: uint8 (N, channels, height, width), or None. progress: called with the pictures done and their number.
    Raises ModelError for pictures of another shape, and for a machine whose tensors are not those of the network.
    """
    made_up, names = made_up_pictures(network.tensors[PIXELS].shape, seed)
    given = made_up[:0] if pixels is None else pixels
    reference.check_pixels(network, given)
    everything, names = np.concatenate([given, made_up]), [f"picture {k}" for k in range(len(given))] + names
    machines: dict[str, Machine] = {}
    logits: dict[str, np.ndarray] = {}
    skipped: dict[str, str] = {}
    for name in (*MACHINES, *ENGINES):
        try:
            if name in MACHINES:
                machines[name] = MACHINES[name](network)
            else:
                logits |= ENGINES[name](network, everything)
        except UsageError as error:
            skipped[name] = str(error)
    order = {node.name: k for k, node in enumerate(network.nodes)}
    compared: dict[str, tuple[str, ...]] = {}
    first: dict[str, Difference] = {}
    for start, part in _parts(network, everything):
        expected = reference.run_all(network, part)
        rows = slice(start, start + len(part))
        given_logits = ((name, {network.logits: all_rows[rows, :, None, None]}) for name, all_rows in logits.items())
        for name, got in chain(((name, run(part)) for name, run in machines.items()), given_logits):
            compared[name] = _compared(network, name, got)
            found = _first_difference(compared[name], expected, got, names[start:])
            if found and (name not in first or order[found.node] < order[first[name].node]):
                first[name] = found
        progress(start + len(part), len(everything))
    named = [*MACHINES, *logits, *(name for name in skipped if name not in MACHINES)]
    reports = [MachineReport(n, skipped.get(n), compared.get(n, ()), first.get(n)) for n in named]
    return Verification(len(given), len(made_up), seed, tuple(reports))


def _parts(network: Network, pixels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the pictures in parts whose tensors fit in memory, each with its start."""
    values = sum(int(np.prod(tensor.shape)) for tensor in network.tensors.values())
    count = max(1, VALUES_AT_ONCE // values)
    for start in range(0, len(pixels), count):
        yield start, pixels[start : start + count]


def _compared(network: Network, machine: str, got: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Return the names of the tensors to compare, in the graph's order."""
    for name in got:
        if name not in network.tensors:
            raise ModelError(f"{machine} gives a tensor {name!r}, which the network has not")
    if network.logits not in got:
        raise ModelError(f"{machine} gives no {network.logits!r}, the logits")
    return tuple(node.name for node in network.nodes if node.name in got)


def _first_difference(names, expected, got, pictures: list[str]) -> Difference | None:
    for name in names:
        if got[name].shape != expected[name].shape:
            raise ModelError(f"{name} has shape {got[name].shape}, expected {expected[name].shape}")
        if not np.array_equal(got[name], expected[name]):
            place = tuple(int(k) for k in np.argwhere(got[name] != expected[name])[0])
            return Difference(name, pictures[place[0]], *place[1:], int(expected[name][place]), int(got[name][place]))
    return None


def format_verification(verification: Verification) -> str:
    """Return one line for each machine, and for one that differs the place."""
    v = verification
    width = max(12, *(len(report.machine) for report in v.machines))
    drawn = f"{v.made_up} extreme and random ones (seed {v.seed})"
    lines = [f"{'reference':<{width}}  NumPy, on {v.pictures:,} pictures and {drawn}"]
    for report in v.machines:
        if report.skipped is not None:
            outcome = f"skipped: {report.skipped}"
        elif report.difference is None:
            count = len(report.tensors)
            outcome = f"equal: {count} tensor{'s' if count > 1 else ''}, every value"
        else:
            d = report.difference
            outcome = (
                f"DIFFERS first at {d.node}, {d.picture}, channel {d.channel}, row {d.row}, column {d.column}: "
                f"{d.got}, expected {d.expected}"
            )
        lines.append(f"{report.machine:<{width}}  {outcome}")
    return "\n".join(lines)
