"""Values that cross the wall between a program and the kernel: JSON in its strict form, and the error a program sees.

Guarantees
1. What `encode` accepts is decoded by any strict JSON parser to an equal value (tuples become lists). Refused, with the place named:
   NaN and infinities, keys that are not strings, lone surrogates, nesting deeper than 100, every other type.
2. Equal values are equal bytes: keys are sorted.
3. `Error` has the four fields of every failure of the kernel: code, message, fault, retryable.

Not here: size limits of frames (frames.py), the errors of the kernel itself (base/errors.py). Standard library only.
"""

import json
import math
from typing import Any

__all__ = ["Error", "Record", "decode", "encode"]

DEPTH_MAX = 100


class Error(Exception):
    """A call that failed. `code` is stable and made to be compared; `message` is made to be read."""

    def __init__(self, code: str, message: str = "", fault: str = "guest", *, retryable: bool = False) -> None:
        super().__init__(code, message, fault)
        self.code = code
        self.message = message
        self.fault = fault
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def to_wire(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "fault": self.fault, "retryable": self.retryable}

    @staticmethod
    def from_wire(wire: dict[str, Any]) -> "Error":
        return Error(wire["code"], wire["message"], wire["fault"], retryable=bool(wire["retryable"]))


Error.__module__ = "kernel"  # the name that programs know it by


class Record(dict[str, Any]):
    """A JSON object whose fields are attributes too: `r.stdout` is `r["stdout"]`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no field {name!r}; there are: {', '.join(self) or 'none'}") from None


def encode(value: Any, what: str) -> bytes:
    """Raises TypeError, which names the place inside `what`."""
    _check(value, (None, what), 0)
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return text.encode()
    except UnicodeEncodeError as error:
        raise TypeError(f"{what} has a lone surrogate in a text: {error.reason}") from None
    except ValueError as error:  # an integer of thousands of digits
        raise TypeError(f"{what} is not JSON: {error}") from None


def decode(data: bytes, kind: type[dict[str, Any]] = dict) -> Any:
    if not data:
        return None
    return json.loads(data) if kind is dict else json.loads(data, object_hook=kind)


_Place = tuple[Any, Any]


def _check(value: Any, place: _Place, depth: int) -> None:
    if value is None or isinstance(value, str | int):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{_named(place)} is {value}, which JSON has not; use None or a text")
    elif depth >= DEPTH_MAX:
        raise TypeError(f"{place[1]} is nested deeper than {DEPTH_MAX}")
    elif isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{_named(place)} has the key {key!r}; keys are texts in JSON, write {str(key)!r}")
            _check(entry, (place, key), depth + 1)
    elif isinstance(value, list | tuple):
        for i, entry in enumerate(value):
            _check(entry, (place, i), depth + 1)
    else:
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        raise TypeError(
            f"{_named(place)} is of type {kind}, which is not JSON; convert it to a dict, list, text or number"
        )


def _named(place: _Place) -> str:
    keys = []
    while place[0] is not None:
        place, key = place
        keys.append(f"[{key!r}]")
    return str(place[1]) + "".join(reversed(keys))
