"""Standing notes: a few short texts under labels, read whole at the start of a session and edited in place.

    label -> text, version        version 0 is a note that was never written; every edit adds one, emptying included

Guarantees
1. A note longer than `block_chars_max` is refused, never cut; so is one note more than `blocks_max`.
2. An edit with `if_version` happens only on that version; an edit with `old` only where `old` occurs exactly once.
3. Functions here take the open transaction and commit nothing.

Not here: who may edit, and the log (memory.py).
"""

import sqlite3
from dataclasses import dataclass

from .errors import ArgumentError, Conflict, LimitExceeded, NotFound
from .facts import Masked, sane
from .limits import Limits
from .store import Transaction

__all__ = ["SCHEMA", "Block", "edited", "listed"]

SCHEMA = """
    CREATE TABLE block(
        principal TEXT NOT NULL, label TEXT NOT NULL, text TEXT NOT NULL, version INTEGER NOT NULL, updated_at REAL NOT NULL,
        PRIMARY KEY(principal, label)) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Block:
    label: str
    text: str
    version: int
    chars_left: int
    masked: tuple[Masked, ...] = ()


def listed(db: sqlite3.Connection, principal: str, label: str | None, limits: Limits) -> list[Block]:
    """All notes that have a text, by label; or the one, which must exist."""
    sane(label or "", "label", None)
    rows = db.execute(
        "SELECT label, text, version FROM block WHERE principal=? AND (label=? OR (? IS NULL AND text<>'')) ORDER BY label",
        (principal, label, label),
    ).fetchall()
    if label is not None and not rows:
        raise NotFound("memory.unknown", f"There is no standing note {label!r}. memory_edit makes one.")
    return [Block(name, text, version, limits.block_chars_max - len(text)) for name, text, version in rows]


def edited(
    tx: Transaction,
    principal: str,
    *,
    label: str,
    text: str,
    old: str | None,
    if_version: int | None,
    now: float,
    limits: Limits,
) -> Block:
    """Set the whole note, or replace `old` in it; an empty `old` appends. An empty note keeps its version but is not listed."""
    sane(label, "label", limits.memory_label_chars_max)
    sane(text, "text", None)
    if not label.strip():
        raise ArgumentError("argument.invalid", "label is empty. Name the note.")
    asked = "SELECT text, version FROM block WHERE principal=? AND label=?"
    present, version = tx.execute(asked, (principal, label)).fetchone() or ("", 0)
    if if_version is not None and if_version != version:
        raise Conflict(
            "memory.version_conflict",
            f"The note {label!r} has version {version}, not {if_version}. Read it with memory_blocks, edit what is there now.",
        )
    new = text if old is None else _replaced(present, old, text, label)
    if len(new) > limits.block_chars_max:
        raise LimitExceeded(
            "memory.block_full",
            f"The note {label!r} would have {len(new)} characters, {limits.block_chars_max} fit. Nothing was changed."
            " Shorten it, or put the details into memory_add.",
        )
    if new and not present:
        count = tx.execute("SELECT count(*) FROM block WHERE principal=? AND text<>''", (principal,)).fetchone()[0]
        if count >= limits.blocks_max:
            raise LimitExceeded(
                "memory.block_full", f"There are {count} notes, the most there may be. Empty one first."
            )
    tx.execute(
        "INSERT INTO block VALUES(?,?,?,?,?) ON CONFLICT(principal, label) DO UPDATE SET text=excluded.text,"
        " version=excluded.version, updated_at=excluded.updated_at",
        (principal, label, new, version + 1, now),
    )
    return Block(label, new, version + 1, limits.block_chars_max - len(new))


def _replaced(present: str, old: str, text: str, label: str) -> str:
    if not old:
        return present + text
    times = present.count(old)
    if times != 1:
        raise Conflict(
            "memory.old_conflict",
            f"`old` occurs {times} times in the note {label!r}, it must be once. Read it with memory_blocks, quote more of it.",
        )
    return present.replace(old, text)
