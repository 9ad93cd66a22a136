"""Memory's records: the tables of facts and of what happened to them, and every statement that writes there.

    memory         one row a fact; `scope` begins with 1 while it is live and 0 when it is history; `before` is the item said before it in
                   its conversation, `ordinal` its number among its principal's own
    memory_count   per principal: items and bytes that are kept, and how many were ever added
    memory_log     what happened to which id, by whom, without text; refuses UPDATE and DELETE

Guarantees
1. No statement here reads or changes a row of another principal; an id of another one answers as an unknown id.
2. What changes a row tells the index (recall.py) and the log in the same transaction, which the caller holds: nothing commits here.

Not here: which of it is done and in what order (memory.py), what is found and shown (recall.py).
"""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import quarantine, recall
from .errors import ArgumentError, Conflict, NotFound
from .facts import Item, check_texts, sane
from .quarantine import Held
from .store import Transaction
from .wording import asks, pieces_of

__all__ = [
    "ONE", "SCHEMA", "SCHEMA_3", "Author", "Choice", "Row", "chosen", "close", "confirm", "delete", "digest_of", "equal_to",
    "insert", "log", "octets_of", "retract", "row_of", "slot", "waiting",
]  # fmt: skip

SCHEMA = """
    CREATE TABLE memory(
        n INTEGER PRIMARY KEY, principal TEXT NOT NULL, scope TEXT NOT NULL, conversation TEXT, before INTEGER,
        words INTEGER NOT NULL, trust INTEGER NOT NULL, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, key TEXT, tags TEXT NOT NULL,
        source TEXT, run_id TEXT, step ANY, dated INTEGER NOT NULL, valid_from REAL NOT NULL, valid_to REAL,
        recorded_at REAL NOT NULL, closed_at REAL, superseded_by TEXT, retracted_at REAL, reason TEXT, expires_at REAL,
        digest BLOB NOT NULL, speaker TEXT NOT NULL, text TEXT NOT NULL) STRICT;
    CREATE INDEX memory_equal ON memory(scope, digest);
    CREATE INDEX memory_newest ON memory(scope, valid_from);
    CREATE INDEX memory_key ON memory(principal, key) WHERE key IS NOT NULL;
    CREATE INDEX memory_conversation ON memory(principal, conversation, n) WHERE conversation IS NOT NULL;
    CREATE INDEX memory_source ON memory(principal, source) WHERE source IS NOT NULL;
    CREATE INDEX memory_before ON memory(before) WHERE before IS NOT NULL;
    CREATE TABLE memory_count(principal TEXT PRIMARY KEY, items INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE memory_log(
        n INTEGER PRIMARY KEY, principal TEXT NOT NULL, op TEXT NOT NULL, id TEXT NOT NULL, at REAL NOT NULL,
        trust INTEGER, run_id TEXT, step ANY) STRICT;
    CREATE INDEX memory_log_id ON memory_log(id);
    CREATE TRIGGER memory_log_kept BEFORE DELETE ON memory_log BEGIN SELECT raise(ABORT, 'the log is append-only'); END;
    CREATE TRIGGER memory_log_fixed BEFORE UPDATE ON memory_log BEGIN SELECT raise(ABORT, 'the log is append-only'); END;
    """

SCHEMA_3 = """
    ALTER TABLE memory ADD COLUMN client TEXT;
    ALTER TABLE memory ADD COLUMN confirmed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE memory ADD COLUMN ordinal INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE memory ADD COLUMN octets INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE memory_count ADD COLUMN added INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE memory_count ADD COLUMN octets INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE memory_log ADD COLUMN client TEXT;
    UPDATE memory SET ordinal = n, confirmed = (SELECT count(*) FROM memory_log l WHERE l.id = memory.id AND l.op = 'confirm'),
        octets = length(CAST(text || tags || speaker || kind || ifnull(key, '') || ifnull(conversation, '') || ifnull(source, '') AS BLOB));
    UPDATE memory_count SET (added, octets) =
        (SELECT ifnull(max(n), 0), ifnull(sum(m.octets), 0) FROM memory m WHERE m.principal = memory_count.principal);
    """


@dataclass(frozen=True, slots=True)
class Author:
    """Provenance at a moment: what every row and every line of the log carries."""

    principal: str
    trust: int
    client: str | None
    run_id: str | None
    step: str | int | None
    now: float


class Row(NamedTuple):
    """What is needed of a stored fact in order to end it."""

    n: int
    id: str
    scope: str
    speaker: str
    text: str
    valid_from: float
    dated: int
    retracted_at: float | None
    run_id: str | None
    step: str | int | None
    octets: int


ROW = ", ".join(Row._fields)
ONE = f"SELECT {ROW} FROM memory WHERE id=? AND principal=?"  # noqa: S608
SLOT = f"SELECT {ROW} FROM memory WHERE principal=? AND key=? AND retracted_at IS NULL ORDER BY valid_from, n"  # noqa: S608
SLOT_LIVE = SLOT.replace("WHERE", "WHERE superseded_by IS NULL AND")


class Choice(NamedTuple):
    ids: Sequence[str] | None
    source: str | None
    conversation: str | None
    expect_count: int | None


def digest_of(item: Item) -> bytes:
    same = json.dumps([item.key, item.conversation, item.speaker, item.text])
    return hashlib.sha256(same.encode()).digest()[:16]


def insert(tx: Transaction, new_id: str, item: Item, author: Author, digest: bytes) -> Row:
    live, _ = recall.scopes_of(author.principal)
    before = None
    if item.conversation is not None:
        asked = "SELECT max(n) FROM memory WHERE principal=? AND conversation=?"
        before = tx.execute(asked, (author.principal, item.conversation)).fetchone()[0]
    valid_from = author.now if item.time is None else item.time
    speaker, octets = item.speaker or "", octets_of(item)
    counted = (
        "INSERT INTO memory_count(principal, items, octets, added) VALUES(?,1,?,1) ON CONFLICT(principal) DO UPDATE"
        " SET items = items + 1, octets = octets + excluded.octets, added = added + 1 RETURNING added"
    )
    [(ordinal,)] = tx.execute(counted, (author.principal, octets)).fetchall()
    values = {
        "principal": author.principal, "scope": live, "conversation": item.conversation, "before": before,
        "ordinal": ordinal, "octets": octets, "client": author.client,
        "words": len(item.text.split()), "trust": author.trust, "id": new_id, "kind": item.kind, "key": item.key,
        "tags": json.dumps(item.tags, ensure_ascii=False), "source": item.source, "run_id": author.run_id, "step": author.step,
        "dated": item.time is not None, "valid_from": valid_from, "recorded_at": author.now, "expires_at": item.expires_at,
        "digest": digest, "speaker": speaker, "text": item.text, "asks": asks(item.text),
        "pieces": pieces_of(f"{speaker} {item.text}"),
    }  # fmt: skip
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    n = tx.execute(f"INSERT INTO memory({names}) VALUES({marks})", tuple(values.values())).lastrowid
    assert n is not None
    recall.index(tx, n)
    return Row(
        n, new_id, live, speaker, item.text, valid_from, item.time is not None, None, author.run_id, author.step, octets
    )  # fmt: skip


def equal_to(tx: Transaction, live: str, digest: bytes, now: float) -> tuple[Any, ...] | None:
    found: tuple[Any, ...] | None = tx.execute(
        "SELECT n, id, trust, expires_at FROM memory WHERE scope=? AND digest=? AND (expires_at IS NULL OR expires_at>?)",
        (live, digest, now),
    ).fetchone()
    return found


def confirm(tx: Transaction, equal: tuple[Any, ...], item: Item, author: Author) -> None:
    n, known_id, trust, ends = equal
    longer = ends is not None and (item.expires_at is None or item.expires_at > ends)
    lifted = (max(trust, author.trust), item.expires_at if longer else ends, n)
    tx.execute("UPDATE memory SET trust=?, expires_at=?, confirmed=confirmed+1 WHERE n=?", lifted)
    log(tx, author, "confirm", known_id)


def slot(tx: Transaction, principal: str, key: str, *, dated: bool) -> list[Row]:
    """The values of a key. Only a date can put a new one behind an old one; without it a slot's long history need not be read."""
    return [Row(*row) for row in tx.execute(SLOT if dated else SLOT_LIVE, (principal, key))]


def close(tx: Transaction, author: Author, row: Row, *, valid_to: float, by: str) -> None:
    ended = (valid_to, author.now, by, row.n)
    tx.execute("UPDATE memory SET valid_to=?, closed_at=?, superseded_by=? WHERE n=?", ended)
    shelve(tx, row)
    log(tx, author, "supersede", row.id)


def retract(tx: Transaction, author: Author, row: Row, reason: str) -> None:
    tx.execute("UPDATE memory SET retracted_at=?, reason=? WHERE n=?", (author.now, reason or None, row.n))
    shelve(tx, row)
    log(tx, author, "retract", row.id)


def shelve(tx: Transaction, row: Row) -> None:
    """Move a row from the live items to history, in the table and in the index, which must be told the old values."""
    if row.scope.startswith("1"):
        recall.unindex(tx, row.n)
        tx.execute("UPDATE memory SET scope=? WHERE n=?", ("0" + row.scope[1:], row.n))
        recall.index(tx, row.n)


def delete(tx: Transaction, author: Author, rows: Sequence[Row]) -> None:
    for row in rows:
        recall.unindex(tx, row.n)
        tx.execute("UPDATE memory SET before=(SELECT before FROM memory WHERE n=?) WHERE before=?", (row.n, row.n))
        tx.execute("DELETE FROM memory WHERE n=?", (row.n,))
    if rows:
        # A deleted entry stays in its index segment beside a tombstone until segments are merged.
        tx.execute("INSERT INTO memory_fts(memory_fts) VALUES('optimize')")
        tx.execute(
            "UPDATE memory_count SET items = items - ?, octets = octets - ? WHERE principal=?",
            (len(rows), sum(row.octets for row in rows), author.principal),
        )


def _filters(choice: Choice) -> list[tuple[str, Any]]:
    if choice.ids is not None:
        check_texts(choice.ids, "ids")
    filters = [
        ("id IN (SELECT value FROM json_each(?))", None if choice.ids is None else json.dumps(list(choice.ids))),
        ("source=?", choice.source),
        ("conversation=?", choice.conversation),
    ]
    given = [(sql, value) for sql, value in filters if value is not None]
    if not given:
        raise ArgumentError("argument.missing", "Say which: ids, source or conversation.")
    for _, value in given:
        sane(value, "a filter", None)
    return given


def chosen(tx: Transaction, principal: str, choice: Choice) -> tuple[list[Row], list[Held]]:
    """What `forget` means: rows, live and history, and what waits in quarantine."""
    given = _filters(choice)
    where = " AND ".join(["principal=?", *(sql for sql, _ in given)])
    asked = f"SELECT {ROW} FROM memory WHERE {where} ORDER BY n"  # noqa: S608  (our own words, values are bound)
    rows = [Row(*row) for row in tx.execute(asked, (principal, *(value for _, value in given)))]
    waiting = quarantine.chosen(tx, principal, given)
    if len(given) == 1:
        # An id that was erased before is no mistake: the caller may be repeating himself after a crash.
        known = {row.id for row in rows} | {held.id for held in waiting}
        missing = [i for i in dict.fromkeys(choice.ids or ()) if i not in known and not _was_erased(tx, principal, i)]
        if missing:
            raise _unknown(missing)
    count = len(rows) + len(waiting)
    if choice.expect_count not in (None, count):
        held = f" ({len(waiting)} of them in quarantine)" if waiting else ""
        raise Conflict(
            "memory.count_conflict",
            f"{count} memories match{held}, not {choice.expect_count}. Nothing was forgotten. Search, then say the right count.",
        )
    return rows, waiting


def waiting(tx: Transaction, principal: str, choice: Choice) -> list[Held]:
    """What a person decides about; each id must be one that waits."""
    found = quarantine.chosen(tx, principal, _filters(choice))
    missing = set(choice.ids or ()) - {held.id for held in found}
    if missing:
        raise NotFound(
            "memory.unknown",
            f"{', '.join(sorted(missing)[:5])} does not wait in quarantine. Nothing was changed. See: agent-kernel memory quarantine.",
        )
    return found


def _was_erased(tx: Transaction, principal: str, memory_id: str) -> bool:
    asked = "SELECT 1 FROM memory_log WHERE id=? AND principal=? AND op IN ('erase', 'refuse')"
    return tx.execute(asked, (memory_id, principal)).fetchone() is not None


def row_of(db: sqlite3.Connection, principal: str, memory_id: str) -> Row:
    row = db.execute(ONE, (memory_id, principal)).fetchone()
    if row is None:
        raise _unknown([memory_id])
    return Row(*row)


def octets_of(item: Item) -> int:
    """Bytes of the text and all its labels."""
    parts = (
        item.text,
        json.dumps(item.tags, ensure_ascii=False),
        item.speaker,
        item.kind,
        item.key,
        item.conversation,
        item.source,
    )
    return sum(len(part.encode()) for part in parts if part is not None)


def log(tx: Transaction, author: Author, op: str, what: str) -> None:
    tx.execute(
        "INSERT INTO memory_log(principal, op, id, at, trust, client, run_id, step) VALUES(?,?,?,?,?,?,?,?)",
        (author.principal, op, what, author.now, author.trust, author.client, author.run_id, author.step),
    )


def _unknown(ids: Sequence[str]) -> NotFound:
    shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return NotFound("memory.unknown", f"There is no memory {shown}. Nothing was changed. memory_search gives the ids.")
