"""Values of the kernel become replies: dataclasses to plain JSON, empty fields left out, long ones cut.

Guarantees
1. Attribute names are the wire names; None, empty strings, lists and objects are left out, zero and false stay. What a program
   returned (`output`, `result`, `content`, ...) is the caller's data and stays as it is.
2. `fitted` returns an object whose compact JSON is below the limit; strings are cut in the middle first, then lists. What was cut is
   whole at the uri in its field `whole`.

Pure; nothing to lose when the process dies.
"""

import dataclasses
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import orjson

__all__ = ["compact", "fitted", "wire", "with_cut_outputs"]

OPAQUE = frozenset(
    {"output", "result", "content", "input", "details", "schema", "value", "args", "frontmatter", "payload"}
)
"""Fields that hold somebody's own JSON."""
STRING_LEAST = 240
LIST_LEAST = 2


def wire(value: Any) -> Any:
    """Plain JSON values, without the empty fields."""
    match value:
        case str() if type(value) is not str:
            return str(value.value) if isinstance(value, Enum) else str(value)
        case None | bool() | int() | float() | str():
            return value
        case Path():
            return str(value)
        case Mapping():
            return _fields(value.items())
        case tuple() if hasattr(value, "_asdict"):
            return _fields(value._asdict().items())
        case list() | tuple() | set() | frozenset():
            return [wire(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    raise TypeError(f"{type(value).__name__} has no form on the wire")


def _fields(pairs: Any) -> dict[str, Any]:
    made = {}
    for name, value in pairs:
        if name in OPAQUE:
            if value is not None:
                made[name] = value
            continue
        plain = wire(value)
        if plain is None or (isinstance(plain, str | list | dict) and not plain):
            continue
        made[name] = plain
    return made


def compact(value: Any) -> bytes:
    """JSON without spaces; what a guest returned may hold integers past 64 bits and lone surrogates, which stay readable."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


def with_cut_outputs(reply: dict[str, Any], bytes_max: int) -> dict[str, Any]:
    """A sandbox's result whose output has a uri of its own: the middle of what is too long makes room for that uri."""
    cut = reply
    for keep in (bytes_max, bytes_max // 2, bytes_max // 4, bytes_max // 8):
        if len(compact(cut)) <= bytes_max:
            break
        cut = {
            name: _cut_strings(value, keep, reply[f"{name}_uri"]) if f"{name}_uri" in reply else value
            for name, value in reply.items()
        }
    return cut


def fitted(value: Any, bytes_max: int, uri: str) -> Any:
    """`value`, or a cut copy that names `uri` as the place of the whole."""
    if len(compact(value)) <= bytes_max:
        return value
    budget = bytes_max - 200 - len(uri)
    keep = bytes_max
    cut = value
    while keep >= STRING_LEAST:
        cut = _cut_strings(value, keep, "")
        if len(compact(cut)) <= budget:
            return _with_whole(cut, uri)
        keep = keep * 3 // 4
    items = 512
    while items >= LIST_LEAST:
        shorter = _cut_lists(cut, items)
        if len(compact(shorter)) <= budget:
            return _with_whole(shorter, uri)
        items //= 2
    return {
        "whole": uri,
        "size_bytes": len(compact(value)),
        "head": compact(value)[: budget // 3].decode(errors="ignore"),
    }


def _with_whole(value: Any, uri: str) -> Any:
    return {**value, "whole": uri} if isinstance(value, dict) else {"value": value, "whole": uri}


def _cut_strings(value: Any, keep: int, uri: str) -> Any:
    match value:
        case str() if len(value) > keep:
            half = (keep - 100) // 2
            where = f", whole at {uri}" if uri else ""
            return f"{value[:half]}\n[... {len(value) - 2 * half} characters cut{where} ...]\n{value[-half:]}"
        case dict():
            return {name: _cut_strings(inner, keep, uri) for name, inner in value.items()}
        case list():
            return [_cut_strings(inner, keep, uri) for inner in value]
    return value


def _cut_lists(value: Any, keep: int) -> Any:
    match value:
        case dict() if len(value) > max(keep, 40):
            names = list(value)
            kept = {name: _cut_lists(value[name], keep) for name in names[:keep]}
            return {**kept, "...": f"{len(names) - keep} more names cut"}
        case dict():
            return {name: _cut_lists(inner, keep) for name, inner in value.items()}
        case list() if len(value) > keep:
            half = keep // 2
            parts = [_cut_lists(inner, keep) for inner in (*value[:half], *value[-half:])]
            return [*parts[:half], f"[... {len(value) - 2 * half} items cut ...]", *parts[half:]]
        case list():
            return [_cut_lists(inner, keep) for inner in value]
    return value
