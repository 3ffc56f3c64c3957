"""The constants of a step: fields of a struct in flash, and the arrays that they point to."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Field:
    """A member of a step's struct. value: a number; a tuple or an array, which the member then points to.

    comment: what stands behind the value in the file.
    """

    ctype: str
    name: str
    value: int | tuple[int, ...] | np.ndarray
    comment: str = ""

    @property
    def is_array(self) -> bool:
        """True where the struct holds a pointer to the values."""
        return not isinstance(self.value, int)

    @property
    def declaration(self) -> str:
        """The member as C declares it."""
        return f"const {self.ctype} *{self.name};" if self.is_array else f"{self.ctype} {self.name};"

    @property
    def bytes(self) -> int:
        """What it takes in flash, the pointer included."""
        size = int(self.ctype.removeprefix("u").removeprefix("int").removesuffix("_t")) // 8
        return 4 + size * len(self.value) if self.is_array else size


def literal(ctype: str, value: int) -> str:
    """Return a number as C writes it in that type."""
    if ctype.startswith("u"):
        return f"{value}u"
    return "(-2147483647 - 1)" if value == -(2**31) else str(value)


def array_text(name: str, ctype: str, values) -> str:
    """Return the definition of a constant array, lines of at most 110 columns."""
    width = {"uint32_t": 8, "uint16_t": 4, "uint8_t": 2}.get(ctype)
    words = [f"0x{int(v):0{width}x}u" if width else literal(ctype, int(v)) for v in values]
    lines, line = [], "   "
    for word in words:
        if len(line) + len(word) + 2 > 110:
            lines.append(line)
            line = "   "
        line += f" {word},"
    lines.append(line)
    body = "\n".join(lines)
    return f"static const {ctype} {name}[{len(words)}] = {{\n{body}\n}};\n"
