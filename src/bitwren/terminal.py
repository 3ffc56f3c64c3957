"""Tables and numbers for the terminal."""


def byte_count(count: int) -> str:
    """Return a number of bytes for a person: B, KiB or MiB."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:,.1f} KiB" if count < 1024**2 else f"{count / 1024**2:,.2f} MiB"


def aligned(rows: list[tuple[str, ...]], left: int, gap: int = 2) -> list[str]:
    """Return rows as lines; the first `left` columns are flush left, the others, numbers, flush right."""
    columns = []
    for index, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        columns.append([cell.ljust(width) if index < left else cell.rjust(width) for cell in column])
    return [(" " * gap).join(cells) for cells in zip(*columns, strict=True)]


def ruled(lines: list[str]) -> str:
    """Return the lines as one text, a rule under the first."""
    rule = "-" * max(map(len, lines))
    return "\n".join(line.rstrip() for line in [lines[0], rule, *lines[1:]])
