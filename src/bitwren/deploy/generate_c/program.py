"""The text of a program as it grows: kernels and steps, each written once however often it is used."""

import dataclasses
import re
from importlib import resources

from bitwren.deploy.generate_c.constants import Field
from bitwren.deploy.generate_c.template import render
from bitwren.network.graph import INT16, Network, Requantise

NAME = "@NAME@"


@dataclasses.dataclass(frozen=True)
class Code:
    """A step's code. kind: the first part of its name. text: C, with @NAME@ for the name. fields: its constants."""

    kind: str
    text: str
    fields: list[Field]


class Program:
    """Kernels and functions of steps by their text; equal texts have one name."""

    def __init__(self, network: Network, arena: int, compact: bool = False):
        """arena: bytes. compact: whether functions that can serve all convolutions do, for the least flash.

        offsets: the C type of a requantise's offset where each channel has one.
        """
        self.network, self.compact = network, compact
        self._place = "uint16_t" if arena < 1 << 16 else "uint32_t"
        # One type for all steps: steps that differ in it alone would each have a function.
        several = [n.offset for n in network.nodes if isinstance(n, Requantise) and len(n.offset) > 1]
        fit = all(INT16[0] <= offset.min() and offset.max() <= INT16[1] for offset in several)
        self.offsets = "int16_t" if fit else "int32_t"
        self.constant_bytes = 0  # of the kernels
        self._names: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self.kernels: list[str] = []
        self.functions: list[str] = []

    def kernel(self, kind: str, template: str, /, bytes: int = 0, **values) -> str:
        """Add a function, or constants of so many bytes, from a template; return its name."""
        known = len(self._names)
        name = self._named(kind, render(template, name=NAME, **values), self.kernels)
        self.constant_bytes += bytes if len(self._names) > known else 0
        return name

    def function(self, code: Code) -> str:
        """Add the functions of a step; return the name of the first and of its struct."""
        return self._named(code.kind, code.text, self.functions)

    def _named(self, kind: str, text: str, where: list[str]) -> str:
        if text not in self._names:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._names[text] = f"{kind}_{self._counts[kind]}"
            where.append(text.replace(NAME, self._names[text]))
        return self._names[text]

    def place(self, name: str, at: int) -> Field:
        """Return the constant that tells where in the arena something lies."""
        return Field(self._place, f"{name}_at", at)

    def common(self, text: str) -> str:
        """Return the definitions of common.c.in that a text uses, and those that they use."""
        file = (resources.files(__package__) / "templates" / "common.c.in").read_text(encoding="utf-8")
        parts = [part.split("\n", 1) for part in file.split("@@ ")[1:]]
        wanted = {name for name, _ in parts if re.search(rf"\b{name}\b", text)}  # none uses another
        return "\n".join(body for name, body in parts if name in wanted)
