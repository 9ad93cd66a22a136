"""Pages of a long answer: a cursor that fits one question only, and an even share of the room for each text. Pure.

Guarantees
1. A cursor is refused, not guessed at, when it is not of this question or was never made here.
2. `share` never exceeds the room as long as each text may be cut to `least`; what short texts leave over goes to the long ones.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from .errors import ArgumentError

__all__ = ["Cursor", "fitting", "mark_of", "resumed", "share", "weight"]


class Cursor(NamedTuple):
    offset: int
    newest: int | None
    """The last row number that the first page could see; later pages of one question see no more."""
    mark: str

    def to_text(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(self).encode()).decode()


def mark_of(question: Any) -> str:
    return hashlib.sha256(json.dumps(question).encode()).hexdigest()[:12]


def resumed(cursor: str | None, mark: str) -> Cursor:
    if cursor is None:
        return Cursor(0, None, mark)
    try:
        offset, newest, made_for = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        valid = type(offset) is int and type(newest) is int and 0 <= offset < 1 << 31 and made_for == mark
    except (binascii.Error, ValueError, TypeError, RecursionError):
        valid = False
    if not valid:
        raise ArgumentError(
            "argument.invalid",
            "cursor is not one of this question. Repeat the same arguments with it, or leave it out.",
        )
    return Cursor(offset, newest, mark)


def weight(value: Any) -> int:
    """Bytes that a value takes in a JSON reply."""
    return len(orjson.dumps(value))


def fitting(rests: Sequence[int], texts: Sequence[int], room: int, least: int) -> tuple[int, int]:
    """How many entries fit, at least one, when each text may be cut to `least`; and what room is then left for their texts."""
    count = 0
    for rest, text in zip(rests, texts, strict=True):
        if count and room < rest + min(text, least):
            break
        room -= rest + min(text, least)
        count += 1
    return count, room + sum(min(text, least) for text in texts[:count])


def share(texts: Sequence[int], room: int, least: int) -> int:
    """The most that each text may have so that all of them fit."""
    left = len(texts)
    for text in sorted(texts):
        if text * left > room:
            return max(room // left, least)
        room -= text
        left -= 1
    return max(texts, default=0)
