"""Calls that may come twice: a mark that commits with the effect, so that the second time it is known.

    with stamped(Stamp(...)): ...      the first write of the block takes the stamp along, in its transaction
    known(db, ...)                     what was kept with the effect; None when there was no effect

Whoever sends calls numbers them. When a kernel dies between commit and answer, the sender asks the next one again under the same number.

Guarantees
1. Effect and stamp are one commit: both are there or neither.
2. What is kept beside a stamp is what its owner chose to, without texts: an erased fact leaves nothing here.
3. Stamps are kept for KEPT_S.

A context variable carries it, since between the call and the one place where transactions are made lie all primitives, none of which has
to know. If the process dies: see 1.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["MIGRATIONS", "Stamp", "known", "stamped", "with_stamp"]

T = TypeVar("T")
KEPT_S = 3600.0
"""A sender asks again within seconds."""

MIGRATIONS = {
    7: """
    CREATE TABLE stamp(
        principal TEXT NOT NULL, caller TEXT NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, kept TEXT NOT NULL,
        PRIMARY KEY(principal, caller, number)) STRICT, WITHOUT ROWID;
    CREATE INDEX stamp_at ON stamp(at);
    """,
}


@dataclass(slots=True)
class Stamp:
    principal: str
    caller: str
    number: int
    keep: Callable[[Any], Any]
    """Of what the unit gave, what the answer can be made of again; JSON."""
    taken: bool = False


_current: ContextVar[Stamp | None] = ContextVar("stamp", default=None)


@contextmanager
def stamped(stamp: Stamp) -> Iterator[None]:
    before = _current.set(stamp)
    try:
        yield
    finally:
        stamp.taken = True  # for tasks that were started inside and go on
        _current.reset(before)


def with_stamp(unit: Callable[[sqlite3.Connection], T], now: float) -> Callable[[sqlite3.Connection], T]:
    """The unit, with the stamp of the call that this is a part of when it has one and nobody took it yet."""
    stamp = _current.get()
    if stamp is None or stamp.taken:
        return unit
    stamp.taken = True

    def both(tx: sqlite3.Connection) -> T:
        value = unit(tx)
        tx.execute("DELETE FROM stamp WHERE at<?", (now - KEPT_S,))
        kept = json.dumps(stamp.keep(value))
        tx.execute("INSERT INTO stamp VALUES(?,?,?,?,?)", (stamp.principal, stamp.caller, stamp.number, now, kept))
        return value

    return both


def known(db: sqlite3.Connection, principal: str, caller: str, number: int) -> Any:
    """None, or a list of what was kept."""
    asked = "SELECT kept FROM stamp WHERE principal=? AND caller=? AND number=?"
    row = db.execute(asked, (principal, caller, number)).fetchone()
    return None if row is None else [json.loads(row[0])]
