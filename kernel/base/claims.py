"""What a one-shot guest says of itself, cut to size and type, with nothing in it that moves a cursor. Pure.

A frame of another form says nothing: the caller decides what that means.
"""

import json
from dataclasses import dataclass
from typing import Any, Self

from . import payloads
from .output import harmless

__all__ = ["Claim", "Note", "noted"]

VALUE_CHARS_MAX = 2000
ERROR_CHARS = {"type": 200, "message": 2000, "traceback": 16_000}

Note = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Claim:
    """What the guest says of itself in END, cut to size and type; the rest of the frame is not looked at."""

    exit_code: int
    value: str | None
    error: dict[str, str] | None

    @classmethod
    def of(cls, payload: bytes) -> Self | None:
        try:
            said = json.loads(payload)
        except (ValueError, RecursionError):
            return None
        if not isinstance(said, dict) or type(said.get("exit_code")) is not int:
            return None
        value, error = said.get("value"), said.get("error")
        return cls(
            said["exit_code"] & 0xFF,
            harmless(value[:VALUE_CHARS_MAX]) if isinstance(value, str) else None,
            {name: harmless(str(error[name])[-most:]) for name, most in ERROR_CHARS.items() if name in error}
            if isinstance(error, dict)
            else None,
        )


def noted(payload: bytes) -> Note | None:
    try:
        note = payloads.note(payload)
    except payloads.Malformed:
        return None
    if "log" in note:
        return {"log": harmless(note["log"])}
    done, total, message = note["progress"].values()
    return {"progress": [done, total, harmless(message)]}
