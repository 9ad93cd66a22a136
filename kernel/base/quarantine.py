"""Facts that were written and are not believed yet: a table of their own, which no search reads, until a person decides.

    add -> held -> release: stored as if it were said now, by whom and in the step that said it, under the id it was given
                -> refuse:  gone; the log keeps the id

Guarantees
1. What is held is in no index and in no answer but `listed`: reading it takes the table's name, and only this file has it.
2. A fact that is held already gives its id back. At most `memory_held_max` wait for each principal: a flood is refused, not stored.
3. Functions here take the open transaction and commit nothing.

Not here: which channels are held (base/policy.py), who may decide (mcp_server: a person at a terminal, never a tool), the log (memory.py).
"""

import dataclasses
import json
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from .errors import LimitExceeded
from .facts import TRUST, Item
from .limits import Limits
from .ports import rfc3339
from .store import Transaction

__all__ = ["SCHEMA", "Held", "Waiting", "chosen", "count", "drop", "hold", "known", "listed"]

SCHEMA = """
    CREATE TABLE memory_held(
        n INTEGER PRIMARY KEY, principal TEXT NOT NULL, id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, trust INTEGER NOT NULL,
        client TEXT, run_id TEXT, step ANY, recorded_at REAL NOT NULL, source TEXT, conversation TEXT, item TEXT NOT NULL) STRICT;
    CREATE UNIQUE INDEX memory_held_equal ON memory_held(principal, digest);
"""

TEXT_CHARS_SHOWN = 400
COLUMNS = "id, trust, client, run_id, step, recorded_at, item"


class Held(NamedTuple):
    """A row: the fact, and by whom, through which channel and in which step it came."""

    id: str
    trust: int
    client: str | None
    run_id: str | None
    step: str | int | None
    recorded_at: float
    item: Item


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """What a person is shown in order to decide."""

    id: str
    text: str
    chars: int
    """Of the whole text."""
    recorded_at: str
    trust: str
    key: str | None
    speaker: str | None
    conversation: str | None
    tags: tuple[str, ...]
    source: str | None
    client: str | None
    run_id: str | None
    step: str | int | None


def hold(tx: Transaction, principal: str, held: Held, digest: bytes, limits: Limits) -> None:
    waiting = count(tx, principal)
    if waiting >= limits.memory_held_max:
        raise LimitExceeded(
            "memory.full",
            f"{waiting} facts wait in quarantine, no more are taken. A person looks through them: agent-kernel memory quarantine.",
        )
    tx.execute(
        "INSERT INTO memory_held(principal, id, digest, trust, client, run_id, step, recorded_at, source, conversation, item)"
        " VALUES(?,?,?,?,?,?,?,?,?,?,?)",
        (
            principal, held.id, digest, held.trust, held.client, held.run_id, held.step, held.recorded_at, held.item.source,
            held.item.conversation, json.dumps(dataclasses.asdict(held.item), ensure_ascii=False),
        ),
    )  # fmt: skip


def known(db: sqlite3.Connection, principal: str, digest: bytes) -> str | None:
    """The id of an equal fact that is held."""
    row = db.execute("SELECT id FROM memory_held WHERE principal=? AND digest=?", (principal, digest)).fetchone()
    return None if row is None else str(row[0])


def count(db: sqlite3.Connection, principal: str) -> int:
    found: int = db.execute("SELECT count(*) FROM memory_held WHERE principal=?", (principal,)).fetchone()[0]
    return found


def chosen(db: sqlite3.Connection, principal: str, filters: Sequence[tuple[str, Any]]) -> list[Held]:
    """Those that all the conditions select, oldest first; conditions are ours, values are bound."""
    where = " AND ".join(["principal=?", *(sql for sql, _ in filters)])
    rows = db.execute(
        f"SELECT {COLUMNS} FROM memory_held WHERE {where} ORDER BY n",  # noqa: S608
        (principal, *(value for _, value in filters)),
    )
    return [_held(row) for row in rows]


def drop(tx: Transaction, held: Sequence[Held]) -> None:
    tx.executemany("DELETE FROM memory_held WHERE id=?", [(one.id,) for one in held])


def listed(db: sqlite3.Connection, principal: str, limit: int) -> list[Waiting]:
    """The oldest."""
    rows = db.execute(f"SELECT {COLUMNS} FROM memory_held WHERE principal=? ORDER BY n LIMIT ?", (principal, limit))  # noqa: S608
    shown = []
    for row in rows:
        held = _held(row)
        item = held.item
        shown.append(
            Waiting(
                held.id, item.text[:TEXT_CHARS_SHOWN], len(item.text), rfc3339(held.recorded_at), TRUST[held.trust], item.key,
                item.speaker, item.conversation, item.tags, item.source, held.client, held.run_id, held.step,
            )
        )  # fmt: skip
    return shown


def _held(row: tuple[Any, ...]) -> Held:
    item = json.loads(row[-1])
    for name in ("tags", "supersedes"):
        item[name] = tuple(item[name])
    held_id, trust, client, run_id, step, recorded_at, _ = row
    return Held(held_id, trust, client, run_id, step, recorded_at, Item(**item))
