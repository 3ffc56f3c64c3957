"""The no-multiply certificate: what the code of a linked image can execute, instruction by instruction.

Checked is every function of the network that is in the image, and all that those can reach. Each instruction must be
known (instructions.py) and no product, quotient or float; each function must be the network's own or one that hides
nothing; each jump must show its goal. The image checked is the one that runs.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from bitwren.deploy.emulate.build import Image
from bitwren.deploy.emulate.disassembly import Function, deepest, disassemble, reachable
from bitwren.deploy.emulate.instructions import DIVIDE, HARMLESS, MULTIPLY, REFUSED, hidden_by
from bitwren.deploy.emulate.tools import find_tool

ENTRIES = ("network_classify", "network_begin", "network_row", "network_end")


@dataclass(frozen=True)
class Finding:
    """What is refused, and where. what: a kind of REFUSED, what a library's function hides, or "untraced jump"."""

    function: str
    address: int
    text: str
    what: str

    def __str__(self) -> str:
        return f"{self.what}: {self.text} at {self.address:#x} in {self.function}"


@dataclass(frozen=True)
class Certificate:
    """What was checked and found. kinds: instructions by kind. state: bytes of the network's own variables.

    stack_bound: bytes, by the compiler's report along the calls; None with a reason in stack_findings.
    """

    functions: tuple[str, ...]
    kinds: Mapping[str, int]
    findings: tuple[Finding, ...]
    state: int
    stack_bound: int | None
    stack_path: tuple[str, ...]
    stack_findings: tuple[str, ...]

    @property
    def instructions(self) -> int:
        """How many were checked."""
        return sum(self.kinds.values())

    @property
    def multiplications(self) -> dict[str, int]:
        """Instructions that multiply or divide, and calls that hide one, by function."""
        return dict(Counter(f.function for f in self.findings if f.what in (MULTIPLY, DIVIDE)))

    def refusals(self, multiplications_allowed: bool) -> tuple[str, ...]:
        """Return why it is no certificate.

        multiplications_allowed: for a network whose constants need them, or whose pooling divides.
        """
        refused = [str(f) for f in self.findings if not (multiplications_allowed and f.what in (MULTIPLY, DIVIDE))]
        missing = [name for name in ENTRIES if name not in self.functions]
        if missing:
            refused.append(f"{missing[0]} was not found in the image")
        if self.state:
            refused.append(f"the network has {self.state} bytes of variables, expected none")
        return (*refused, *self.stack_findings)


def certify(image: Image) -> Certificate:
    """Check all that the network in an image can execute. Raises ToolError where objdump is missing."""
    functions = disassemble(find_tool(f"{image.core.tools}objdump"), image.core.architecture, image.path)
    first, last = image.symbols["at_network_start"], image.symbols["at_network_code_end"]
    own = {name for name, function in functions.items() if first <= function.address < last}
    state = image.span("at_network_state_start", "at_network_state_end")
    return examine(functions, own, sorted(own), image.frames, state)


def examine(
    functions: Mapping[str, Function],
    own: set[str],
    roots: list[str],
    frames: Mapping[str, int | None],
    state: int = 0,
) -> Certificate:
    """Check what the roots can reach. own: the network's functions. frames: bytes of stack by the compiler's report."""
    names, kinds, findings, unbounded = reachable(functions, roots), Counter(), [], []
    sizes = {}
    for name in names:
        function = functions[name]
        trusted = name in own or HARMLESS.fullmatch(name)  # what an untrusted one calls counts as its own doing
        findings += [
            Finding(name, i.address, f"calls {callee}", hidden_by(callee))
            for i, callee in function.leaves
            if trusted and callee not in own and not HARMLESS.fullmatch(callee)
        ]
        kinds.update(i.kind for i in function.instructions)
        findings += [Finding(name, i.address, i.text, i.kind) for i in function.instructions if i.kind in REFUSED]
        # RISC-V's library divides by routines that return through t0, the other link register.
        untraced = [i for i in function.untraced if name in own or i.text not in ("jalr zero,0(t0)", "c.jr t0")]
        findings += [Finding(name, i.address, i.text, "untraced jump") for i in untraced]
        reported = frames.get(name, None if function.unbounded else function.pushed)
        if reported is None:
            unbounded.append(f"the stack of {name} has no bound")
        sizes[name] = reported or 0
    bound, path = 0, []
    for root in roots:
        depth = deepest(functions, root, sizes)
        if depth is None:
            unbounded.append(f"{root} is recursive")
        elif depth[0] >= bound:
            bound, path = depth
    if any(f.what == "untraced jump" for f in findings):
        unbounded.append("the stack has no bound: a jump does not show its goal")
    return Certificate(
        tuple(names),
        dict(kinds.most_common()),
        tuple(findings),
        state,
        None if unbounded else bound,
        tuple(path),
        tuple(unbounded),
    )
