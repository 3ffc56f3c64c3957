"""JSON that nobody is trusted to have written: one key once, numbers that are numbers, messages of one short line."""

import json
import math

from bitwren.errors import ModelError

_MAX_DIGITS = 19  # of a whole number, as int64 has


def parse_object(text: str | memoryview, what: str) -> dict:
    """Return a JSON object, UTF-8 if bytes. Raises ModelError for anything else.

    Refused beyond what JSON refuses: a key twice in one object, NaN and Infinity and numbers that become them, whole
    numbers of more than 19 digits, nesting that Python's parser cannot follow.
    """
    try:
        if not isinstance(text, str):
            text = str(text, "utf-8")
        value = json.loads(
            text, parse_int=_int, parse_float=_float, parse_constant=_constant, object_pairs_hook=_object
        )
    except RecursionError:
        raise ModelError(f"{what}: nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ModelError(f"{what}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ModelError(f"{what}: not JSON at character {error.pos}: {error.msg}") from None
    except ModelError as error:
        raise ModelError(f"{what}: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{what}: {shown(value)}, expected an object")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ModelError(f"key {shown(twice)} stands twice")
    return value


def _int(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_DIGITS:
        raise ModelError(f"number {shown(text)}, expected at most {_MAX_DIGITS} digits")
    return int(text)


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ModelError(f"number {shown(text)}, expected a finite one")
    return value


def _constant(text: str) -> None:
    raise ModelError(f"number {text}, expected a finite one")


def is_whole(value: object, low: int, high: int) -> bool:
    """Return whether a JSON value is a whole number (3, not 3.0, not true) from low to high."""
    return type(value) is int and low <= value <= high


def shown(value: object) -> str:
    """Return a value of the file as a message shows it: on one line, short, and never walking into its depths."""
    if isinstance(value, dict):
        keys = ", ".join(shown(key) for key in list(value)[:5])
        return f"an object of {len(value)} keys" + (f" ({keys}{', ...' if len(value) > 5 else ''})" if value else "")
    if isinstance(value, list):
        if len(value) <= 4 and not any(isinstance(part, dict | list) for part in value):
            return f"[{','.join(map(shown, value))}]"
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        return repr(value) if len(value) <= 40 else repr(value[:40]) + "..."
    return str(value)  # a number, of 19 digits at most


def are_whole(value: object, count: int, low: int, high: int) -> bool:
    """Return whether a JSON value is a list of `count` whole numbers from low to high."""
    return isinstance(value, list) and len(value) == count and all(is_whole(n, low, high) for n in value)


def check_keys(where: str, value: object, keys: tuple[str, ...]) -> None:
    """Raise ModelError unless a JSON value is an object of exactly these keys."""
    if not isinstance(value, dict):
        raise ModelError(f"{where}: {shown(value)}, expected an object")
    for key in keys:
        if key not in value:
            raise ModelError(f"{where}: key {key!r} is missing")
    if len(value) != len(keys):
        raise ModelError(f"{where}: key {shown(next(k for k in value if k not in keys))} is unknown")
