"""What a network's generated C needs of a microcontroller, and the largest network of its family that would fit.

Arena and constants are those of the generator's plan. Instructions and bytes of code are estimates: the planner's count
for a Cortex-M4 and the operators of the generated C, each times what was measured on emulated cores (`CALIBRATION`).
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping

from bitwren.deploy.calibration import CALIBRATION, CODE_OFF
from bitwren.deploy.generate_c.emit import STACK, macs, write_steps
from bitwren.deploy.generate_c.plan import Plan, plan
from bitwren.network.graph import Conv, Network, Pool, Requantise
from bitwren.recipe import Recipe

OBJECTIVES = ("speed", "size", "memory")  # of `bitwren generate --optimise`, the quicker first
WIDTH_STEP = 16  # widths are searched in steps of 1 / 16: one channel of a wide ResNet's first stage


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a microcontroller has for the network. core: a key of CALIBRATION. flash, ram: bytes."""

    core: str
    flash: int
    ram: int


@dataclasses.dataclass(frozen=True)
class Needs:
    """What the generated C of a network needs. optimise: how it was generated.

    weight_bytes: of the bits of the weights; constants: bytes of flash, those included. code: bytes and instructions: a
    picture's, by core, estimated. arena, stack: bytes; stack is the most that a call takes. picture: bytes of one.
    by_rows: whether the picture can come row by row, and so need not be in memory.
    """

    optimise: str
    weight_bytes: int
    constants: int
    code: Mapping[str, int]
    arena: int
    stack: int
    instructions: Mapping[str, int]
    macs: int
    multiplications: int
    picture: int
    by_rows: bool

    @property
    def ram(self) -> int:
        """Bytes of RAM: arena and stack. Where the picture cannot come by rows, the arena holds it."""
        return self.arena + self.stack

    def flash(self, core: str) -> int:
        """Return bytes of flash: constants and code."""
        return self.constants + self.code[core]

    def fit(self, budget: Budget) -> bool:
        """Return whether all that is needed is there."""
        return self.flash(budget.core) <= budget.flash and self.ram <= budget.ram

    def close(self, budget: Budget) -> bool:
        """Return whether fit hangs on the estimate of the code: nearer the limit of flash than that may be off."""
        return (
            abs(self.flash(budget.core) - budget.flash) <= CODE_OFF * self.code[budget.core] and self.ram <= budget.ram
        )


def counts(network: Network, made: Plan, code: str) -> tuple[tuple[float, ...], tuple[int, int]]:
    """Return what a Calibration's instructions and code multiply. code: of the generated steps."""
    kinds = {"Convolve": 0.0, "Compact": 0.0, "Window": 0.0, "Multiply": 0.0, "other": 0.0}
    for form in made.forms:
        kind = "Compact" if made.compact and form.step.kind == "Convolve" else form.step.kind
        kinds[kind if kind in kinds else "other"] += form.instructions
    divided, multiplied = (
        sum(network.multiplications(node) for node in network.nodes if isinstance(node, kind))
        for kind in (Pool, Requantise)
    )
    bare = re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL)
    return (*kinds.values(), multiplied, divided), (1, len(re.findall(r"[-+*<>&|]=?", bare)))


def needs(network: Network, optimise: str) -> Needs:
    """Return what a network needs. optimise: one of OBJECTIVES. Raises ModelError where there is no plan for it."""
    made = plan(network, optimise)
    steps = write_steps(network, made)
    work, text = counts(network, made, steps.code)

    def total(factors: tuple[float, ...], of: tuple[float, ...]) -> int:
        return round(sum(a * b for a, b in zip(factors, of, strict=True)))

    return Needs(
        optimise,
        weight_bytes(network),
        steps.constant_bytes,
        {core: total(c.code, text) for core, c in CALIBRATION.items()},
        -(-made.arena // 4) * 4,
        STACK,
        {core: total(c.instructions, work) for core, c in CALIBRATION.items()},
        macs(network),
        network.total_multiplications,
        network.channels * network.height * network.width,
        made.by_rows,
    )


def weight_bytes(network: Network) -> int:
    """Return the bytes of the weights: one bit each, or 8."""
    bits = sum(node.weights.size * node.weight_bits for node in network.nodes if isinstance(node, Conv))
    return -(-bits // 8)


def best_needs(network: Network, budget: Budget, objectives: tuple[str, ...] = OBJECTIVES) -> Needs:
    """Return the needs of the first of the objectives with which a network fits, else of the one with the least RAM."""
    found = []
    for optimise in objectives:
        found.append(needs(network, optimise))
        if found[-1].fit(budget):
            return found[-1]
    return min(found, key=lambda one: one.ram)


# ------------------------------------------------------------------ the largest that fits


@dataclasses.dataclass(frozen=True)
class Largest:
    """The largest network that fits when one key of the recipe is changed; value, needs: None where none does."""

    key: str
    value: float | int | None
    needs: Needs | None


def largest(
    recipe: Recipe,
    pictures: tuple[int, int, tuple[int, int]],
    budget: Budget,
    objectives: tuple[str, ...] = OBJECTIVES,
    progress: Callable[[str], None] = lambda trial: None,
) -> Iterator[Largest]:
    """Yield the largest width and, where the family has several, the largest depth that fit, all else as in the recipe.

    pictures: channels, classes, (height, width). progress: called with what is tried. Needs PyTorch, which makes the
    networks that are tried; each has random weights. Taken for granted: what is larger needs more.
    """
    for key, value_of in _axes(recipe):

        def trial(k: int, key: str = key, value_of: Callable[[int], float] = value_of) -> Needs | None:
            options = dataclasses.replace(recipe.network, **{key: value_of(k)})
            progress(f"{key} {value_of(k):g}")
            return _fitting(dataclasses.replace(recipe, network=options), pictures, budget, objectives)

        k, found = _last(trial)
        yield Largest(key, value_of(k) if found else None, found)


def _axes(recipe: Recipe) -> Iterator[tuple[str, Callable[[int], float]]]:
    yield "width", lambda k: k / WIDTH_STEP
    if recipe.network.family == "wide-resnet":
        yield "depth", lambda k: 6 * k + 2


def _last(trial: Callable[[int], Needs | None]) -> tuple[int, Needs | None]:
    """Return the largest k, from 1, whose trial gives something, and what; (0, None) where even 1 gives nothing."""
    good, found, bad = 0, None, 1
    while (more := trial(bad)) is not None:
        good, found, bad = bad, more, 2 * bad
    while bad - good > 1:
        middle = (good + bad) // 2
        if (more := trial(middle)) is not None:
            good, found = middle, more
        else:
            bad = middle
    return good, found


def _fitting(recipe: Recipe, pictures, budget: Budget, objectives: tuple[str, ...]) -> Needs | None:
    """Return the needs of a recipe's network where it fits, else None; no plan is made where weights alone do not."""
    from bitwren.network.untrained import untrained
    from bitwren.train.summary import summarise_recipe

    bits = 1 if recipe.network.weight_bits == 1 else 8
    if summarise_recipe(recipe, *pictures).conv_weights * bits > 8 * budget.flash:
        return None
    found = best_needs(untrained(recipe, *pictures), budget, objectives)
    return found if found.fit(budget) else None
