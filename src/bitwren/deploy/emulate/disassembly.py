"""A linked image as functions: their instructions, whom they call, what stack they take."""

import bisect
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bitwren.deploy.emulate.instructions import kind_of
from bitwren.deploy.emulate.tools import run_tool


@dataclass(frozen=True)
class Instruction:
    """One instruction. text: as objdump prints it. kind: of instructions.py."""

    address: int
    text: str
    kind: str


@dataclass
class Function:
    """A function. leaves: by which instruction it calls or goes on in which other, or itself anew.

    untraced: jumps whose goal is in a register, or in no function.

    data_after: how many instructions come before each run of constants.
    pushed: bytes by which it moves the stack pointer down, all its ways together; an upper bound of its frame unless
    unbounded is set: the pointer then moves by what a register holds.
    """

    name: str
    instructions: list[Instruction] = field(default_factory=list)
    leaves: list[tuple[Instruction, str]] = field(default_factory=list)
    untraced: list[Instruction] = field(default_factory=list)
    pushed: int = 0
    unbounded: bool = False
    data_after: set[int] = field(default_factory=set)

    @property
    def address(self) -> int:
        """Where it starts."""
        return self.instructions[0].address if self.instructions else -1

    @property
    def calls(self) -> set[str]:
        """The functions that it calls or goes on in."""
        return {name for _, name in self.leaves}


_LABEL = re.compile(r"([0-9a-f]+) <(.+)>:$")
_LINE = re.compile(r"\s*([0-9a-f]+):\s+(\S+)(?:\s+(.*))?$")
_GOAL = re.compile(r"\b([0-9a-f]+) <")
_ENDS = {  # instructions that end a function: a jump or a return, on no condition
    "arm": re.compile(r"b(\.[wn])? |bx |pop \{.*pc|ldmia(\.w)? sp!, \{.*pc|(mov|ldr)(\.w)? pc"),
    "riscv": re.compile(r"c\.jr? |jalr? zero"),
}
_CALL = re.compile(r"bl |bl\.w |jal ra,|c\.jal |jalr ra,")  # to its own start: recursion, where a branch is a loop


def disassemble(objdump: str, architecture: str, path: Path) -> dict[str, Function]:
    """Return the functions of a linked image by name. objdump: the program. Raises ToolError where it fails."""
    options = ["-d", "--no-show-raw-insn", *(["-M", "no-aliases"] if architecture == "riscv" else [])]
    return read_disassembly(architecture, run_tool([objdump, *options, str(path)]).splitlines())


def read_disassembly(architecture: str, lines: Iterable[str]) -> dict[str, Function]:
    """Return the functions of a disassembly, by name."""
    functions: list[Function] = []
    names: set[str] = set()
    jumps: list[tuple[Function, Instruction, int | None]] = []
    for line in lines:
        if label := _LABEL.match(line):
            # Two files may each have a static function of that name: the second is told apart by its address.
            functions.append(Function(label[2] if label[2] not in names else f"{label[2]}@{label[1].lstrip('0')}"))
            names.add(label[2])
        elif (found := _LINE.match(line)) and functions:
            function, mnemonic, operands = functions[-1], found[2], found[3] or ""
            if mnemonic.startswith("."):  # .word and the like: constants, between instructions
                function.data_after.add(len(function.instructions))
                continue
            instruction = Instruction(
                int(found[1], 16), f"{mnemonic} {operands}".strip(), kind_of(architecture, mnemonic)
            )
            function.instructions.append(instruction)
            goal = _GOAL.search(operands)
            operands = re.split(r"\s*[;@#]\s|\s+<", operands)[0]  # without comments
            if _JUMPS[architecture](mnemonic, operands):
                jumps.append((function, instruction, int(goal[1], 16) if goal else None))
            moved = _STACK[architecture](mnemonic, operands)
            function.unbounded |= moved is None
            function.pushed += max(0, moved or 0)
    functions = [function for function in functions if function.instructions]
    starts = [function.address for function in functions]  # objdump goes through the image in order
    far: set[int] = set()  # Thumb-1's long way to jump within a function is bl, which is otherwise a call
    for function, instruction, goal in jumps:
        place = -1 if goal is None else bisect.bisect_right(starts, goal) - 1
        if place < 0 or goal > functions[place].instructions[-1].address:
            function.untraced.append(instruction)
        elif functions[place] is not function or (goal == function.address and _CALL.match(instruction.text)):
            function.leaves.append((instruction, functions[place].name))
        elif instruction.text.startswith("bl "):
            far.add(instruction.address)
    for function, after in itertools.pairwise([*functions, None]):
        for count in sorted({*function.data_after, len(function.instructions)}):
            before = function.instructions[:count]
            last = next((i for i in reversed(before) if i.kind != "other"), function.instructions[0])
            if _ENDS[architecture].match(last.text) or last.address in far:
                continue
            if count < len(function.instructions) or count in function.data_after or after is None:
                function.untraced.append(last)  # it goes on where there are no instructions
            else:
                function.leaves.append((last, after.name))  # it goes on in the next one
    return {function.name: function for function in functions}


# ------------------------------------------------- does it jump, other than by returning to the caller?


def _arm_jumps(mnemonic: str, operands: str) -> bool:
    name = mnemonic.removesuffix(".w").removesuffix(".n")
    if kind_of("arm", name) == "branch":
        return operands != "lr"  # bx lr returns
    if name.startswith(("tbb", "tbh")):
        return True
    if name.startswith(("pop", "ldm")) or (name == "ldr" and operands.replace(" ", "") == "pc,[sp],#4"):
        return False  # pops the return address
    # Any other that writes the program counter: first operand pc, of a move, an addition or a load.
    return operands.split(",")[0].strip() == "pc" and not (name.startswith("mov") and operands.endswith("lr"))


def _riscv_jumps(mnemonic: str, operands: str) -> bool:
    name = mnemonic.removeprefix("c.")
    if kind_of("riscv", name) != "branch":
        return False
    return not (name == "jr" and operands == "ra") and not (
        name == "jalr" and operands.replace(" ", "") == "zero,0(ra)"
    )


_JUMPS = {"arm": _arm_jumps, "riscv": _riscv_jumps}

# ------------------------------------------------- by how many bytes does it move the stack pointer down?


def _arm_stack(mnemonic: str, operands: str) -> int | None:
    name, places = mnemonic.removesuffix(".w").removesuffix(".n"), [o.strip() for o in operands.split(",")]
    if name.startswith("push") or (name.startswith("stmdb") and places[0] == "sp!"):
        return 4 * _register_count(operands)
    if name.startswith("vpush"):
        return 8 * 32  # never met: the certificate refuses it, and this is the most it can be
    if name.startswith(("str", "ldr")) and (moved := re.search(r"\[sp, #(-\d+)\]!", operands)):
        return -int(moved[1])
    if places[0] == "sp" and name.startswith(("sub", "add", "mov")):
        number = re.fullmatch(r"#(-?\d+)", places[-1])
        if number is None:
            # mov sp, rN gives a frame pointer back: GCC's ends of functions whose stack is of variable size.
            return None
        return int(number[1]) if name.startswith("sub") else -int(number[1])
    return 0


def _register_count(operands: str) -> int:
    names = {"sb": 9, "sl": 10, "fp": 11, "ip": 12, "sp": 13, "lr": 14, "pc": 15}

    def number(name: str) -> int:
        return names[name] if name in names else int(name[1:])

    count = 0
    for part in re.search(r"\{(.*)\}", operands)[1].split(","):
        first, _, last = part.strip().partition("-")
        count += number(last or first) - number(first) + 1
    return count


def _riscv_stack(mnemonic: str, operands: str) -> int | None:
    places = [o.strip() for o in operands.split(",")]
    if places[0] != "sp" or kind_of("riscv", mnemonic) in ("load", "store", "branch"):
        return 0
    number = re.fullmatch(r"-?\d+", places[-1])
    if number is None or "addi" not in mnemonic:
        return None
    return -int(number[0])


_STACK = {"arm": _arm_stack, "riscv": _riscv_stack}

# ------------------------------------------------- from the disassembly to what a call can reach


def reachable(functions: Mapping[str, Function], roots: Iterable[str]) -> list[str]:
    """Return the functions that calls of the roots can reach, roots first, each once."""
    found: list[str] = []
    waiting = list(roots)
    while waiting:
        name = waiting.pop(0)
        if name in functions and name not in found:
            found.append(name)
            waiting += sorted(functions[name].calls)
    return found


def deepest(functions: Mapping[str, Function], root: str, frames: Mapping[str, int]) -> tuple[int, list[str]] | None:
    """Return the most bytes of stack that a call of root can take, and the calls that do; None where it is recursive.

    frames: bytes of stack of each function.
    """
    done: dict[str, tuple[int, list[str]]] = {}
    open_calls: list[tuple[str, Iterator[str]]] = [(root, iter(sorted(functions[root].calls & functions.keys())))]
    while open_calls:
        name, callees = open_calls[-1]
        callee = next(callees, None)
        if callee is None:
            open_calls.pop()
            below = max((done[c] for c in functions[name].calls & functions.keys()), default=(0, []))
            done[name] = (frames[name] + below[0], [name, *below[1]])
        elif any(callee == caller for caller, _ in open_calls):
            return None
        elif callee not in done:
            open_calls.append((callee, iter(sorted(functions[callee].calls & functions.keys()))))
    return done[root]
