"""Long-term memory: facts that are added and never overwritten, found by their words and their neighbourhood; and standing notes.

A fact is a text with provenance: who wrote it (principal, run, step, source), through which channel (trust), about when (`time`) and
when we learnt it (`recorded_at`). Two things end one: a newer fact takes its place (`superseded_by`, `valid_to`), or it is withdrawn
because it was wrong (`retracted_at`). Both stay readable as history. Only `erase` destroys.

    as_of T        what was true in the world at T, by what is known now
    known_at S     what this memory believed at S
    both           what it believed at S about T

Guarantees
1. memory.add.only: a text, once stored, never changes. An equal live text (same key, conversation, speaker) gives the old id back
   with `duplicate`; from a more trusted channel, or with a later end, it lifts the old one's trust and end.
2. memory.key.supersedes: a new value of a `key` closes the live one in the same transaction. One that is dated before a live value
   that is dated too goes into the past of the slot and closes nothing.
3. memory.scope: no statement here reads or changes a row of another principal; an id of another one answers as an unknown id.
4. memory.trust: the channel decides it (web < tool < guest < agent < user), never the item.
5. memory.erase: afterwards no byte of the text is in the database or its log; the reply says what was scanned and which other places
   hold the words still.
6. memory.block: a standing note has a size limit and a version. Full means refused, never cut; a stale version is a conflict.
7. memory.secrets: what looks like a key, password or card number is refused, or left out and named by kind and place, as the
   operator's rule says; never stored because nobody looked.
8. Replies are bounded: long texts are cut in the middle, and what does not fit is on the next page.

Format: `memory` holds the rows, `memory_fts` (base/recall.py) their words. `before` links an item to the one said before it in its
conversation. `memory_log` says what happened to which id, without text, and refuses UPDATE and DELETE.

Not here: the index, and what a search sees and shows (base/recall.py), the order of hits (base/ranking.py), the file scan behind the
proof (base/erasure.py), commits (base/store.py).

If the process dies: before COMMIT nothing of an add or forget is there, after it all. Between an erasure's COMMIT and its scrub the
bytes may still lie in the WAL; the next open folds the WAL into the file, where the same pages are zeroed.
"""

import dataclasses
import hashlib
import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict, Unpack

from .base import notes, ranking, recall
from .base.erasure import Elsewhere, Erased, Proof, prove
from .base.errors import ArgumentError, Conflict, LimitExceeded, NotFound
from .base.facts import Added, Hit, Hits, Item, Masked, Similar, item_of, sane, screened, screened_item, trust_of
from .base.limits import Limits
from .base.live import Live, Place, live
from .base.notes import Block
from .base.pages import Cursor, mark_of, resumed
from .base.policy import MemoryRules
from .base.ports import LOCAL, Ports
from .base.ranking import Text
from .base.recall import Filters
from .base.store import Migrations, Store, Transaction

__all__ = [
    "MIGRATIONS",
    "Added",
    "Block",
    "Filters",
    "Forgotten",
    "Hit",
    "Hits",
    "Masked",
    "Memory",
    "Provenance",
    "Question",
    "Similar",
]

MIGRATIONS: Migrations = {
    1: """
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
    + recall.SCHEMA
    + notes.SCHEMA,
}


@dataclass(frozen=True, slots=True)
class Forgotten:
    ids: tuple[str, ...]
    """At most 100 of them."""
    count: int
    mode: str
    proof: Proof | None = None
    elsewhere: tuple[Elsewhere, ...] = ()


class Provenance(TypedDict, total=False):
    """Who acts, through which channel, in which step of which run. Set by whoever holds the channel, never by an argument of a tool."""

    principal: str
    trust: str
    run_id: str | None
    step: str | int | None


class _Choice(NamedTuple):
    ids: Sequence[str] | None
    source: str | None
    conversation: str | None
    expect_count: int | None


class Question(Filters, total=False):
    limit: int
    cursor: str | None
    principal: str
    reply_bytes: int | None
    """Room for the hits as JSON; `limits.reply_bytes_max` unless said."""


@dataclass(frozen=True, slots=True)
class _Author:
    """Provenance at a moment: what every row and every line of the log carries."""

    principal: str
    trust: int
    run_id: str | None
    step: str | int | None
    now: float


class _Row(NamedTuple):
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


ROW = ", ".join(_Row._fields)
ONE = f"SELECT {ROW} FROM memory WHERE id=? AND principal=?"  # noqa: S608
SLOT = f"SELECT {ROW} FROM memory WHERE principal=? AND key=? AND retracted_at IS NULL ORDER BY valid_from, n"  # noqa: S608

SLOT_LIVE = SLOT.replace("WHERE", "WHERE superseded_by IS NULL AND")


class Memory:
    def __init__(self, *, store: Store, ports: Ports, limits: Limits, rules: MemoryRules = MemoryRules()) -> None:  # noqa: B008
        self._store = store
        self._ports = ports
        self._limits = limits
        self._rules = rules

    # --- add

    async def add(self, items: Sequence[Mapping[str, Any]], **by: Unpack[Provenance]) -> list[Added]:
        return await self._store.write(lambda tx: self.add_in(tx, items, **by))

    def add_in(self, tx: Transaction, items: Sequence[Mapping[str, Any]], **by: Unpack[Provenance]) -> list[Added]:
        """All of `items` or none."""
        if len(items) > self._limits.memory_items_max:
            raise LimitExceeded(
                "limit.exceeded",
                f"{len(items)} items in one call; at most {self._limits.memory_items_max}. Split them.",
            )
        author = self._author(**by)
        cleaned = [
            screened_item(item_of(item, number, self._limits), number, self._rules.secrets)
            for number, item in enumerate(items)
        ]
        parsed = [item for item, _ in cleaned]
        if recall.count(tx, author.principal) + len(parsed) > self._limits.memory_rows_max:
            raise LimitExceeded(
                "memory.full", f"{self._limits.memory_rows_max} memories are kept at most. Erase what is not needed."
            )
        # All the searches come before the first insert: one after it would write the index's pending words out as a segment.
        texts = [Text.of("", item.text) for item in parsed]
        stored = [recall.lookalikes(tx, author.principal, text) for text in texts]
        batch: list[Text] = []
        ended: set[str] = set()
        added = []
        for item, text, others in zip(parsed, texts, stored, strict=True):
            live = [other for other in (*reversed(batch), *others) if other.id not in ended]
            one = self._add_one(tx, item, text, live, author)
            added.append(one)
            ended.update(one.superseded)
            if not one.duplicate:
                batch.append(text._replace(id=one.id))
        return [
            dataclasses.replace(one, masked=masked) if masked else one
            for one, (_, masked) in zip(added, cleaned, strict=True)
        ]

    def _add_one(self, tx: Transaction, item: Item, text: Text, others: Sequence[Text], author: _Author) -> Added:
        live, _ = recall.scopes_of(author.principal)
        digest = _digest(item)
        equal = tx.execute(
            "SELECT n, id, trust, expires_at FROM memory WHERE scope=? AND digest=? AND (expires_at IS NULL OR expires_at>?)",
            (live, digest, author.now),
        ).fetchone()
        if equal is not None:
            _confirm(tx, equal, item, author)
            return Added(equal[1], duplicate=True, superseded=(), similar=())
        valid_from = author.now if item.time is None else item.time
        ended = [_row_of(tx, author.principal, old) for old in item.supersedes]
        later = None
        if item.key is not None:
            # Only a date can put the new value behind an old one; without it a slot's long history need not be read.
            slot = [
                _Row(*row)
                for row in tx.execute(SLOT if item.time is not None else SLOT_LIVE, (author.principal, item.key))
            ]
            if item.time is not None:
                later = next((row for row in slot if row.dated and row.valid_from > valid_from), None)
            if later is None:
                ended += slot
        new_id = self._ports.new_id("mem")
        new = _insert(tx, new_id, item, author, digest)
        _log(tx, author, "add", new_id)
        superseded = {row.id: row for row in ended if row.scope == live}
        for row in superseded.values():
            _close(tx, author, row, valid_to=max(valid_from, row.valid_from), by=new_id)
        if later is not None:
            _close(tx, author, new, valid_to=later.valid_from, by=later.id)
        alike = ranking.near_duplicates(text, (other for other in others if other.id not in superseded))
        similar = tuple(Similar(other.id, other.text[:200], round(score, 2)) for other, score in alike)
        return Added(new_id, duplicate=False, superseded=tuple(superseded), similar=similar)

    # --- search

    async def search(self, query: str | None = None, **asked: Unpack[Question]) -> Hits:
        return await self._store.read(lambda db: self.search_in(db, query, **asked))

    def search_in(
        self,
        db: sqlite3.Connection,
        query: str | None = None,
        *,
        limit: int = 10,
        cursor: str | None = None,
        principal: str = LOCAL,
        reply_bytes: int | None = None,
        **filters: Unpack[Filters],
    ) -> Hits:
        """What matches, best first; without a query newest first. Later pages see no item that was added after the first one."""
        if not 1 <= limit <= self._limits.memory_items_max:
            raise ArgumentError("argument.invalid", f"limit is {limit}; give 1 to {self._limits.memory_items_max}.")
        given = {name: value for name, value in filters.items() if value is not None}
        here = resumed(cursor, mark_of([principal, query, sorted(given.items())]))
        newest = here.newest
        if newest is None:
            newest = int(db.execute("SELECT coalesce(max(n), 0) FROM memory").fetchone()[0])
        now = self._now()
        view = recall.view_of(principal, now, newest, filters)
        wanted = here.offset + limit + 1
        if query is not None and query.strip():
            found = recall.ranked(db, view, principal, ranking.search_terms(query), wanted)
        else:
            found = recall.newest_first(db, view, wanted)
        page = found[here.offset : here.offset + limit]
        hits = recall.shown(db, page, found[0][1] if found else None, now, reply_bytes or self._limits.reply_bytes_max)
        reached = here.offset + len(hits)
        more = reached < len(found)
        return Hits(hits, more, Cursor(reached, newest, here.mark).to_text() if more else None)

    async def text(self, memory_id: str, *, principal: str = LOCAL) -> str:
        """The whole text behind `memory://<id>`, live or history."""
        row = await self._store.read(lambda db: _row_of(db, principal, memory_id))
        return row.text

    def live_in(
        self, db: sqlite3.Connection, kind: str, *, principal: str = LOCAL, **place: Unpack[Place]
    ) -> Iterator[Live]:
        """Live facts of one kind, whole, oldest first."""
        return live(db, principal, self._now(), kind, **place)

    # --- forget

    async def forget(
        self,
        ids: Sequence[str] | None = None,
        *,
        mode: str = "retract",
        reason: str = "",
        source: str | None = None,
        conversation: str | None = None,
        expect_count: int | None = None,
        **by: Unpack[Provenance],
    ) -> Forgotten:
        """Everything that all of `ids`, `source` and `conversation` select: withdrawn, or destroyed."""
        chosen = _Choice(ids, source, conversation, expect_count)
        author = self._author(**by)
        if mode == "retract":
            return await self._store.write(lambda tx: self._retract(tx, chosen, reason, author))
        if mode != "erase":
            raise ArgumentError("argument.invalid", f"mode is {mode!r}; it is 'retract' (kept as history) or 'erase'.")
        gone = await self._store.write(lambda tx: _erase(tx, author, _chosen(tx, author.principal, chosen)))
        proof, elsewhere = await prove(self._store, author.principal, gone)
        return Forgotten(tuple(row.id for row in gone)[:100], len(gone), "erase", proof, elsewhere)

    def forget_in(
        self,
        tx: Transaction,
        ids: Sequence[str] | None = None,
        *,
        mode: str = "retract",
        reason: str = "",
        source: str | None = None,
        conversation: str | None = None,
        expect_count: int | None = None,
        **by: Unpack[Provenance],
    ) -> Forgotten:
        """Retract only: erasing has to empty the log of the file, which cannot be done from within a transaction."""
        if mode != "retract":
            raise ArgumentError("argument.invalid", f"mode is {mode!r}; inside a transaction it is 'retract'.")
        return self._retract(tx, _Choice(ids, source, conversation, expect_count), reason, self._author(**by))

    def _retract(self, tx: Transaction, chosen: _Choice, reason: str, author: _Author) -> Forgotten:
        sane(reason, "reason", 4 * self._limits.memory_label_chars_max)
        reason, _ = screened(reason, "reason", self._rules.secrets)
        done = [row for row in _chosen(tx, author.principal, chosen) if row.retracted_at is None]
        for row in done:
            tx.execute("UPDATE memory SET retracted_at=?, reason=? WHERE n=?", (author.now, reason or None, row.n))
            _shelve(tx, row)
            _log(tx, author, "retract", row.id)
        return Forgotten(tuple(row.id for row in done)[:100], len(done), "retract")

    # --- standing notes

    async def blocks(self, label: str | None = None, *, principal: str = LOCAL) -> list[Block]:
        return await self._store.read(lambda db: self.blocks_in(db, label, principal=principal))

    def blocks_in(self, db: sqlite3.Connection, label: str | None = None, *, principal: str = LOCAL) -> list[Block]:
        return notes.listed(db, principal, label, self._limits)

    async def edit(
        self, label: str, text: str, old: str | None = None, *, if_version: int | None = None, **by: Unpack[Provenance]
    ) -> Block:
        return await self._store.write(lambda tx: self.edit_in(tx, label, text, old, if_version=if_version, **by))

    def edit_in(
        self,
        tx: Transaction,
        label: str,
        text: str,
        old: str | None = None,
        *,
        if_version: int | None = None,
        **by: Unpack[Provenance],
    ) -> Block:
        author = self._author(**by)
        sane(text, "text", None)
        text, masked = screened(text, "text", self._rules.secrets)
        block = notes.edited(
            tx, author.principal,
            label=label, text=text, old=old, if_version=if_version, now=author.now, limits=self._limits,
        )  # fmt: skip
        _log(tx, author, "edit", label)
        return dataclasses.replace(block, masked=tuple(masked)) if masked else block

    def _author(
        self, principal: str = LOCAL, trust: str = "user", run_id: str | None = None, step: str | int | None = None
    ) -> _Author:
        return _Author(principal, trust_of(trust), run_id, step, self._now())

    def _now(self) -> float:
        """Whole milliseconds, rounded down: a time that was shown and is given back must still include what it was shown for."""
        return math.floor(self._ports.clock.now() * 1000) / 1000


# --- writing rows


def _digest(item: Item) -> bytes:
    same = json.dumps([item.key, item.conversation, item.speaker, item.text])
    return hashlib.sha256(same.encode()).digest()[:16]


def _insert(tx: Transaction, new_id: str, item: Item, author: _Author, digest: bytes) -> _Row:
    live, _ = recall.scopes_of(author.principal)
    before = None
    if item.conversation is not None:
        asked = "SELECT max(n) FROM memory WHERE principal=? AND conversation=?"
        before = tx.execute(asked, (author.principal, item.conversation)).fetchone()[0]
    valid_from = author.now if item.time is None else item.time
    speaker = item.speaker or ""
    values = {
        "principal": author.principal, "scope": live, "conversation": item.conversation, "before": before,
        "words": len(item.text.split()), "trust": author.trust, "id": new_id, "kind": item.kind, "key": item.key,
        "tags": json.dumps(item.tags, ensure_ascii=False), "source": item.source, "run_id": author.run_id, "step": author.step,
        "dated": item.time is not None, "valid_from": valid_from, "recorded_at": author.now, "expires_at": item.expires_at,
        "digest": digest, "speaker": speaker, "text": item.text,
    }  # fmt: skip
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    n = tx.execute(f"INSERT INTO memory({names}) VALUES({marks})", tuple(values.values())).lastrowid
    assert n is not None
    row = _Row(n, new_id, live, speaker, item.text, valid_from, item.time is not None, None, author.run_id, author.step)
    recall.index(tx, n, live, speaker, item.text)
    tx.execute(
        "INSERT INTO memory_count VALUES(?,1) ON CONFLICT(principal) DO UPDATE SET items = items + 1",
        (author.principal,),
    )
    return row


def _confirm(tx: Transaction, equal: tuple[Any, ...], item: Item, author: _Author) -> None:
    n, known_id, trust, ends = equal
    longer = ends is not None and (item.expires_at is None or item.expires_at > ends)
    if author.trust > trust or longer:
        lifted = (max(trust, author.trust), item.expires_at if longer else ends, n)
        tx.execute("UPDATE memory SET trust=?, expires_at=? WHERE n=?", lifted)
    _log(tx, author, "confirm", known_id)


def _close(tx: Transaction, author: _Author, row: _Row, *, valid_to: float, by: str) -> None:
    ended = (valid_to, author.now, by, row.n)
    tx.execute("UPDATE memory SET valid_to=?, closed_at=?, superseded_by=? WHERE n=?", ended)
    _shelve(tx, row)
    _log(tx, author, "supersede", row.id)


def _shelve(tx: Transaction, row: _Row) -> None:
    """Move a row from the live items to history, in the table and in the index, which must be told the old values."""
    if row.scope.startswith("1"):
        history = "0" + row.scope[1:]
        tx.execute("UPDATE memory SET scope=? WHERE n=?", (history, row.n))
        recall.unindex(tx, row.n, row.scope, row.speaker, row.text)
        recall.index(tx, row.n, history, row.speaker, row.text)


def _erase(tx: Transaction, author: _Author, rows: Sequence[_Row]) -> tuple[Erased, ...]:
    for row in rows:
        recall.unindex(tx, row.n, row.scope, row.speaker, row.text)
        tx.execute("UPDATE memory SET before=(SELECT before FROM memory WHERE n=?) WHERE before=?", (row.n, row.n))
        tx.execute("DELETE FROM memory WHERE n=?", (row.n,))
        _log(tx, author, "erase", row.id)
    if rows:
        # A deleted entry stays in its index segment beside a tombstone until segments are merged.
        tx.execute("INSERT INTO memory_fts(memory_fts) VALUES('optimize')")
        tx.execute("UPDATE memory_count SET items = items - ? WHERE principal=?", (len(rows), author.principal))
    return tuple(Erased(row.id, row.text, row.run_id, row.step) for row in rows)


def _chosen(tx: Transaction, principal: str, choice: _Choice) -> list[_Row]:
    """Rows for `forget`, live and history."""
    filters = [
        ("id IN (SELECT value FROM json_each(?))", None if choice.ids is None else json.dumps(list(choice.ids))),
        ("source=?", choice.source),
        ("conversation=?", choice.conversation),
    ]
    given = [(sql, value) for sql, value in filters if value is not None]
    if not given:
        raise ArgumentError("argument.missing", "Say what to forget: ids, source or conversation.")
    for _, value in given:
        sane(value, "a filter", None)
    where = " AND ".join(["principal=?", *(sql for sql, _ in given)])
    asked = f"SELECT {ROW} FROM memory WHERE {where} ORDER BY n"  # noqa: S608  (our own words, values are bound)
    rows = [_Row(*row) for row in tx.execute(asked, (principal, *(value for _, value in given)))]
    if len(given) == 1:
        # An id that was erased before is no mistake: the caller may be repeating himself after a crash.
        known = {row.id for row in rows}
        missing = [i for i in dict.fromkeys(choice.ids or ()) if i not in known and not _was_erased(tx, principal, i)]
        if missing:
            raise _unknown(missing)
    if choice.expect_count not in (None, len(rows)):
        raise Conflict(
            "memory.count_conflict",
            f"{len(rows)} memories match, not {choice.expect_count}. Nothing was forgotten. Search, then say the right count.",
        )
    return rows


def _was_erased(tx: Transaction, principal: str, memory_id: str) -> bool:
    asked = "SELECT 1 FROM memory_log WHERE id=? AND principal=? AND op='erase'"
    return tx.execute(asked, (memory_id, principal)).fetchone() is not None


def _row_of(db: sqlite3.Connection, principal: str, memory_id: str) -> _Row:
    row = db.execute(ONE, (memory_id, principal)).fetchone()
    if row is None:
        raise _unknown([memory_id])
    return _Row(*row)


def _log(tx: Transaction, author: _Author, op: str, what: str) -> None:
    tx.execute(
        "INSERT INTO memory_log(principal, op, id, at, trust, run_id, step) VALUES(?,?,?,?,?,?,?)",
        (author.principal, op, what, author.now, author.trust, author.run_id, author.step),
    )


def _unknown(ids: Sequence[str]) -> NotFound:
    shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return NotFound("memory.unknown", f"There is no memory {shown}. Nothing was changed. memory_search gives the ids.")
