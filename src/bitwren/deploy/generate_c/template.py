"""C fragments with gaps: the files of templates/, read as C with three additions.

    ${expression}                 the value of a Python expression
    @for name in expression       the lines up to @end, once for each item
    @if expression ... @else      the lines up to @end where it holds

The expressions see what `render` is given and nothing else. Indentation before @ does not matter.
"""

import functools
import re
from importlib import resources

_GAP = re.compile(r"\$\{((?:[^{}]|\{[^{}]*\})+)\}")  # braces may be nested once


def render(file: str, /, **values) -> str:
    """Return the text of templates/FILE with its gaps filled from the values."""
    return _lines(_parsed(file), values)


@functools.cache
def _parsed(file: str) -> tuple:
    text = (resources.files(__package__) / "templates" / file).read_text(encoding="utf-8")
    lines = iter(text.splitlines())
    return _block(lines, None)[0]


def _block(lines, opened: str | None) -> tuple[tuple, str]:
    """Return the parts up to the directive that closes the block, and that directive."""
    parts: list = []
    for line in lines:
        words = line.split(None, 1)
        word, rest = (words[0], words[1] if len(words) > 1 else "") if words else ("", "")
        if word == "@for":
            variable, _, items = rest.partition(" in ")
            body, _ = _block(lines, "@for")
            parts.append(("for", variable.strip(), compile(items, line, "eval"), body))
        elif word == "@if":
            body, closing = _block(lines, "@if")
            other = _block(lines, "@if")[0] if closing == "@else" else ()
            parts.append(("if", compile(rest, line, "eval"), body, other))
        elif word in ("@end", "@else"):
            return tuple(parts), word
        else:
            pieces = _GAP.split(line)
            parts.append(("line", tuple(compile(p, line, "eval") if k % 2 else p for k, p in enumerate(pieces))))
    if opened is not None:
        raise ValueError(f"{opened} without @end")
    return tuple(parts), ""


def _lines(parts: tuple, values: dict) -> str:
    out = []
    for kind, *rest in parts:
        if kind == "for":
            variable, items, body = rest
            names = [name.strip() for name in variable.split(",")]
            for item in eval(items, values):
                items = item if len(names) > 1 else [item]
                out.append(_lines(body, {**values, **dict(zip(names, items, strict=True))}))
        elif kind == "if":
            condition, body, other = rest
            out.append(_lines(body if eval(condition, values) else other, values))
        else:
            out.append("".join(p if isinstance(p, str) else str(eval(p, values)) for p in rest[0]) + "\n")
    return "".join(out)
