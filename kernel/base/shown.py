"""How records of a run are shown, and the one JSON of the journal. Pure.

Guarantees
1. `dumps` writes ASCII without NaN: any text has bytes, any reader takes it. `loads` refuses NaN and numbers that are infinite as a
   float (1e999), so what it gave can be written again; integers keep their size. `received` also refuses what is nested deeper than
   `DEPTH_MAX`: whoever shows it walks it.
2. What is null or empty is left out of a reply; a value that is longer than `SHOWN_BYTES_MAX` is shown cut.

Not here: which records are read (journal.py), the size of a whole reply (mcp_server).
"""

import json
import math
from collections.abc import Iterable
from typing import Any

from .ports import rfc3339

__all__ = ["base36", "clean", "dumps", "filled", "loads", "name_of", "received", "shown_step"]

DEPTH_MAX = 100
"""Of what a guest sends; its own library (cell/values.py) says so too."""
SHOWN_BYTES_MAX = 2048
"""Of one value in a view; the whole one is what the program got."""


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def loads(data: bytes | str) -> Any:
    return json.loads(data, parse_constant=_no_constant, parse_float=_finite)


def received(data: bytes) -> Any:
    value = loads(data)
    level, depth = [value], 0
    while level := [inner for outer in level if isinstance(outer, dict | list) for inner in _parts(outer)]:
        depth += 1
        if depth > DEPTH_MAX:
            raise ValueError(f"it is nested deeper than {DEPTH_MAX}")
    return value


def _parts(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is no number that can be kept")
    return number


def shown_step(epoch: float, record: tuple[Any, ...]) -> dict[str, Any]:
    n, path, method, kind, args, attempts, started_t, t, value, effect = record
    shown: Any = (
        _parsed(value) if len(value) <= SHOWN_BYTES_MAX else value[:SHOWN_BYTES_MAX].decode("utf8", "replace") + "..."
    )
    files = None
    if method == "step" and kind == "ok" and isinstance(shown, dict):
        files = sorted(shown.get("files") or {}) or None
        shown = shown.get("value")
    entry = filled(
        n=n, path=path, kind=method, name=name_of(method, args), status="completed" if kind == "ok" else "failed",
        attempts=attempts, started_at=rfc3339(epoch + started_t), ended_at=rfc3339(epoch + t), effect=effect, files=files,
    )  # fmt: skip
    entry["result" if kind == "ok" else "error"] = shown
    return entry


def name_of(method: str, arguments: bytes | None) -> str:
    """What people call the call: the name of a step, skill or tool, else the method."""
    given = None if arguments is None else _parsed(arguments)
    named = given.get("name") if isinstance(given, dict) else None
    return named if isinstance(named, str) else method


def _parsed(data: bytes) -> Any:
    try:
        return loads(data)
    except (ValueError, RecursionError):
        return None


def filled(**entries: Any) -> dict[str, Any]:
    """Without what is null or empty, as every reply of the contract."""
    return {name: value for name, value in entries.items() if value is not None and value not in ("", [], {})}


def clean(text: str) -> str:
    """Lone surrogates have no UTF-8 bytes, so SQLite cannot hold them."""
    return text.encode("utf8", "replace").decode()


def base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
        if not number:
            return digits
