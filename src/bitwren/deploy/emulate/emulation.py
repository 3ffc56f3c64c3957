"""A network as firmware on an emulated core: exact or not, how many instructions, how much stack, flash and RAM."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitwren.deploy.emulate.boot import Records, boot
from bitwren.deploy.emulate.build import Image, build
from bitwren.deploy.emulate.certificate import Certificate, certify
from bitwren.deploy.emulate.cores import Core
from bitwren.deploy.model import Reference
from bitwren.network.graph import Conv, Network, macs

BY_ROWS = 3  # pictures that are also given row by row


@dataclass(frozen=True)
class Mismatch:
    """The first logit that differs from the reference's."""

    picture: str
    class_name: str
    expected: int
    got: int


@dataclass(frozen=True)
class Emulation:
    """What came of it. selftest: what network_selftest returned.

    right: pictures whose largest logit is the label's, None without labels.
    """

    network: Network
    image: Image
    records: Records
    certificate: Certificate
    mismatch: Mismatch | None
    selftest: int
    right: int | None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a picture, padding included; here they are additions."""
        network = self.network
        return sum(macs(node, network.tensors[node.name].shape) for node in network.nodes if isinstance(node, Conv))

    def failures(self) -> tuple[str, ...]:
        """Return what is wrong with the run, apart from the certificate."""
        found = list(self.records.damage)
        if (m := self.mismatch) is not None:
            found.append(f"{m.picture}, {m.class_name}: logit {m.got}, expected {m.expected}")
        if self.selftest:
            found.append(f"network_selftest returned {self.selftest}, expected 0")
        bound, measured = self.certificate.stack_bound, int(self.records.stack.max(initial=0))
        if bound is not None and bound > self.records.declared_stack:
            found.append(f"NETWORK_STACK_BYTES is {self.records.declared_stack}, expected at least {bound}")
        if bound is not None and measured > bound:
            found.append(f"{measured} bytes of stack were used, more than the bound of {bound}")
        return tuple(found)

    def refusals(self) -> tuple[str, ...]:
        """Return why there is no certificate."""
        return self.certificate.refusals(multiplications_allowed=self.network.total_multiplications > 0)


def emulate(
    network: Network,
    sources: Mapping[str, bytes],
    core: Core,
    pixels: np.ndarray,
    labels: np.ndarray | None = None,
    flags: Iterable[str] = (),
    folder: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Emulation:
    """Build, check and boot a network's C, and compare every logit with the reference's.

    sources: network.h and network.c. pixels: uint8 (N, channels, height, width). labels: int (N,), where known.
    flags: of the compilation of network.c. folder: to build in, kept; otherwise one that goes away.
    progress: called with the pictures done and their number.
    Raises ToolError (build, boot), ModelError for pictures of another shape.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="bitwren-") as place:
            return emulate(network, sources, core, pixels, labels, flags, Path(place), progress)
    expected = Reference(network).run(pixels)
    image = build(core, sources, folder, flags)
    # As a camera delivers them: channels innermost.
    rows = pixels.transpose(0, 2, 3, 1).reshape(len(pixels), int(np.prod(pixels.shape[1:])))
    records = boot(image, rows, len(network.classes), progress)
    tested = boot(build(core, sources, folder / "selftest", flags, selftest=True), rows[:BY_ROWS], len(network.classes))
    return Emulation(
        network,
        image,
        records,
        certify(image),
        _mismatch(network, "picture", expected, records.logits)
        or _mismatch(network, "by rows, picture", expected[:BY_ROWS], tested.logits),
        tested.selftest,
        None if labels is None else int((records.logits.argmax(1) == labels).sum()),
    )


def _mismatch(network: Network, what: str, expected: np.ndarray, got: np.ndarray) -> Mismatch | None:
    places = np.argwhere(expected != got)
    if not len(places):
        return None
    picture, index = map(int, places[0])
    return Mismatch(
        f"{what} {picture}", network.classes[index], int(expected[picture, index]), int(got[picture, index])
    )
