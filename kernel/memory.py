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
7. Replies are bounded: long texts are cut in the middle, and what does not fit is on the next page.

Format: `memory` is the content table of `memory_fts`, whose column `scope` holds one term, `1` or `0` (live or history) and 24 digits
of the principal's hash: a small principal's search never walks through another's postings. `before` links an item to the one said
before it in its conversation. `memory_log` says what happened to which id, without text, and refuses UPDATE and DELETE.

Not here: the order of hits (base/ranking.py), the file scan behind the proof (base/erasure.py), commits (base/store.py).

If the process dies: before COMMIT nothing of an add or forget is there, after it all. Between an erasure's COMMIT and its scrub the
bytes may still lie in the WAL; the next open folds the WAL into the file, where the same pages are zeroed.
"""

import dataclasses
import functools
import hashlib
import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict, Unpack

from .base import notes, ranking
from .base.erasure import Elsewhere, Erased, Proof, prove
from .base.errors import ArgumentError, Conflict, LimitExceeded, NotFound
from .base.facts import TRUST, Added, Hit, Hits, Item, Similar, item_of, moment, sane, trust_of
from .base.limits import Limits
from .base.notes import Block
from .base.pages import Cursor, fitting, mark_of, resumed, share, weight
from .base.ports import LOCAL, Ports, rfc3339
from .base.ranking import Place, Text
from .base.store import Migrations, Store, Transaction

__all__ = [
    "MIGRATIONS",
    "Added",
    "Block",
    "Filters",
    "Forgotten",
    "Hit",
    "Hits",
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
    CREATE VIRTUAL TABLE memory_fts USING fts5(
        scope, speaker, text, content='memory', content_rowid='n', tokenize='porter unicode61 remove_diacritics 2');
    INSERT INTO memory_fts(memory_fts, rank) VALUES('rank', 'bm25(0.0, 1.0, 1.0)');
    CREATE TABLE memory_count(principal TEXT PRIMARY KEY, items INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE memory_log(
        n INTEGER PRIMARY KEY, principal TEXT NOT NULL, op TEXT NOT NULL, id TEXT NOT NULL, at REAL NOT NULL,
        trust INTEGER, run_id TEXT, step ANY) STRICT;
    CREATE INDEX memory_log_id ON memory_log(id);
    CREATE TRIGGER memory_log_kept BEFORE DELETE ON memory_log BEGIN SELECT raise(ABORT, 'the log is append-only'); END;
    CREATE TRIGGER memory_log_fixed BEFORE UPDATE ON memory_log BEGIN SELECT raise(ABORT, 'the log is append-only'); END;
    """
    + notes.SCHEMA,
}

NAMES_BYTES = 160
"""Names of a hit's fields, as JSON."""
FRAME_BYTES = 256
"""What is around the hits of a reply."""
BRIEF = 160
"""Least bytes of a hit's text in a reply; when not even that fits, the rest is on the next page."""


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


class Filters(TypedDict, total=False):
    """What a search is narrowed to; all of them together. Times as base/facts.py reads them."""

    key: str | None
    conversation: str | None
    tags: Sequence[str] | None
    ids: Sequence[str] | None
    kind: str | None
    since: str | float | None
    until: str | float | None
    as_of: str | float | None
    known_at: str | float | None
    min_trust: str | None
    include_retired: bool


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

SHOWN = (
    "n", "id", "text", "valid_from", "conversation", "speaker", "key", "tags", "trust", "source", "run_id", "step",
    "superseded_by", "retracted_at", "reason", "expires_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _View:
    """Which rows a search may see, as SQL over `memory m`; and the scope terms that select the same ones inside the index."""

    scopes: tuple[str, ...]
    where: str
    args: tuple[Any, ...]


class Memory:
    def __init__(self, *, store: Store, ports: Ports, limits: Limits) -> None:
        self._store = store
        self._ports = ports
        self._limits = limits

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
        parsed = [item_of(item, number, self._limits) for number, item in enumerate(items)]
        if _count(tx, author.principal) + len(parsed) > self._limits.memory_rows_max:
            raise LimitExceeded(
                "memory.full", f"{self._limits.memory_rows_max} memories are kept at most. Erase what is not needed."
            )
        # All the searches come before the first insert: one after it would write the index's pending words out as a segment.
        texts = [Text.of("", item.text) for item in parsed]
        stored = [_lookalikes(tx, author.principal, text) for text in texts]
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
        return added

    def _add_one(self, tx: Transaction, item: Item, text: Text, others: Sequence[Text], author: _Author) -> Added:
        live, _ = _scopes(author.principal)
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
            slot = [_Row(*row) for row in tx.execute(SLOT, (author.principal, item.key))]
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
        view = _narrowed(_view(principal, now, filters), newest, filters)
        wanted = here.offset + limit + 1
        if query is not None and query.strip():
            found = _ranked(db, view, principal, ranking.search_terms(query), wanted)
        else:
            found = _newest(db, view, wanted)
        page = found[here.offset : here.offset + limit]
        hits = _shown(db, page, found[0][1] if found else None, now, reply_bytes or self._limits.reply_bytes_max)
        reached = here.offset + len(hits)
        more = reached < len(found)
        return Hits(hits, more, Cursor(reached, newest, here.mark).to_text() if more else None)

    async def text(self, memory_id: str, *, principal: str = LOCAL) -> str:
        """The whole text behind `memory://<id>`, live or history."""
        row = await self._store.read(lambda db: _row_of(db, principal, memory_id))
        return row.text

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
        block = notes.edited(
            tx, author.principal,
            label=label, text=text, old=old, if_version=if_version, now=author.now, limits=self._limits,
        )  # fmt: skip
        _log(tx, author, "edit", label)
        return block

    def _author(
        self, principal: str = LOCAL, trust: str = "user", run_id: str | None = None, step: str | int | None = None
    ) -> _Author:
        return _Author(principal, trust_of(trust), run_id, step, self._now())

    def _now(self) -> float:
        """Whole milliseconds, rounded down: a time that was shown and is given back must still include what it was shown for."""
        return math.floor(self._ports.clock.now() * 1000) / 1000


# --- writing rows


@functools.lru_cache(maxsize=1024)
def _scopes(principal: str) -> tuple[str, str]:
    """The index terms of a principal's live items and of its history. Digits, because the stemmer leaves those alone."""
    number = int.from_bytes(hashlib.sha256(principal.encode("utf8", "surrogatepass")).digest()) % 10**24
    return f"1{number:024d}", f"0{number:024d}"


def _digest(item: Item) -> bytes:
    same = json.dumps([item.key, item.conversation, item.speaker, item.text])
    return hashlib.sha256(same.encode()).digest()[:16]


def _insert(tx: Transaction, new_id: str, item: Item, author: _Author, digest: bytes) -> _Row:
    live, _ = _scopes(author.principal)
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
    _index(tx, row, live)
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
        _unindex(tx, row)
        _index(tx, row, history)


def _index(tx: Transaction, row: _Row, scope: str) -> None:
    entry = (row.n, scope, row.speaker, row.text)
    tx.execute("INSERT INTO memory_fts(rowid, scope, speaker, text) VALUES(?,?,?,?)", entry)


def _unindex(tx: Transaction, row: _Row) -> None:
    entry = (row.n, row.scope, row.speaker, row.text)
    tx.execute("INSERT INTO memory_fts(memory_fts, rowid, scope, speaker, text) VALUES('delete',?,?,?,?)", entry)


def _erase(tx: Transaction, author: _Author, rows: Sequence[_Row]) -> tuple[Erased, ...]:
    for row in rows:
        _unindex(tx, row)
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


def _count(db: sqlite3.Connection, principal: str) -> int:
    row = db.execute("SELECT items FROM memory_count WHERE principal=?", (principal,)).fetchone()
    return int(row[0]) if row else 0


def _log(tx: Transaction, author: _Author, op: str, what: str) -> None:
    tx.execute(
        "INSERT INTO memory_log(principal, op, id, at, trust, run_id, step) VALUES(?,?,?,?,?,?,?)",
        (author.principal, op, what, author.now, author.trust, author.run_id, author.step),
    )


def _lookalikes(tx: Transaction, principal: str, text: Text) -> list[Text]:
    """The newest few live texts that have rare words in common with this one."""
    live, _ = _scopes(principal)
    match = ranking.some_of(text.rare())
    if not match:
        return []
    rows = tx.execute(
        "SELECT m.id, substr(m.text, 1, 500) FROM memory_fts f CROSS JOIN memory m ON m.n=f.rowid"
        " WHERE memory_fts MATCH ? AND m.scope=? ORDER BY f.rowid DESC LIMIT 10",
        (_scoped(tx, principal, (live,), f"text : ({match})"), live),
    )
    return [Text.of(*row) for row in rows]


# --- reading


def _view(principal: str, now: float, filters: Filters) -> _View:
    scopes = _scopes(principal)
    as_of, known_at = filters.get("as_of"), filters.get("known_at")
    everything = filters.get("include_retired", False)
    if as_of is None and known_at is None and not everything:
        return _View(scopes[:1], "m.scope=? AND (m.expires_at IS NULL OR m.expires_at>?)", (scopes[0], now))
    where, args = "m.scope IN (?,?)", list[Any](scopes)
    known = now if known_at is None else moment(known_at, "known_at", end=True)
    if known_at is not None:
        where += " AND m.recorded_at<=?"
        args.append(known)
    if everything:
        return _View(scopes, where, tuple(args))
    at = known if as_of is None else moment(as_of, "as_of", end=True)
    where += " AND (m.retracted_at IS NULL OR m.retracted_at>?) AND (m.expires_at IS NULL OR m.expires_at>?)"
    args += [known, at]
    if as_of is None:
        return _View(scopes, where + " AND (m.closed_at IS NULL OR m.closed_at>?)", (*args, known))
    # A value that was put into the middle of a slot's past hides the one it divides, whose own end was never rewritten.
    where += (
        " AND m.valid_from<=? AND (m.valid_to IS NULL OR m.closed_at>? OR m.valid_to>?)"
        " AND (m.key IS NULL OR NOT EXISTS (SELECT 1 FROM memory k WHERE k.principal=m.principal AND k.key=m.key"
        " AND k.valid_from<=? AND (k.valid_from, k.n)>(m.valid_from, m.n) AND k.recorded_at<=?"
        " AND (k.retracted_at IS NULL OR k.retracted_at>?)))"
    )
    return _View(scopes, where, (*args, at, known, at, at, known, known))


def _narrowed(view: _View, newest: int, filters: Filters) -> _View:
    wanted: list[tuple[str, Any]] = [("m.n<=?", newest)]
    named = {"key": filters.get("key"), "conversation": filters.get("conversation"), "kind": filters.get("kind")}
    wanted += [(f"m.{name}=?", value) for name, value in named.items() if value is not None]
    wanted += [("EXISTS (SELECT 1 FROM json_each(m.tags) WHERE value=?)", tag) for tag in filters.get("tags") or ()]
    for _, value in wanted[1:]:
        sane(value, "a filter", None)
    if (ids := filters.get("ids")) is not None:
        wanted.append(("m.id IN (SELECT value FROM json_each(?))", json.dumps(list(ids))))
    if (since := filters.get("since")) is not None:
        wanted.append(("m.valid_from>=?", moment(since, "since")))
    if (until := filters.get("until")) is not None:
        wanted.append(("m.valid_from<=?", moment(until, "until", end=True)))
    if (trust := filters.get("min_trust")) is not None:
        wanted.append(("m.trust>=?", trust_of(trust)))
    where = " AND ".join([view.where, *(sql for sql, _ in wanted)])
    return _View(view.scopes, where, (*view.args, *(value for _, value in wanted)))


def _ranked(
    db: sqlite3.Connection, view: _View, principal: str, terms: Sequence[str], wanted: int
) -> list[tuple[int, float | None]]:
    """The first `wanted` of all hits: the neighbourhood order of the best, then the rest by their own score."""
    if not terms:
        return []
    match = _scoped(db, principal, view.scopes, f"{{speaker text}} : ({ranking.any_of(terms)})")

    def hits(limit: int) -> list[tuple[Any, ...]]:
        return db.execute(
            "SELECT m.n, -f.rank, m.conversation, m.before, m.words"  # noqa: S608
            " FROM memory_fts f CROSS JOIN memory m ON m.n=f.rowid"
            f" WHERE memory_fts MATCH ? AND {view.where} ORDER BY f.rank LIMIT ?",
            (match, *view.args, limit),
        ).fetchall()

    pool = hits(ranking.POOL)
    own = {row[0]: row[1] for row in pool}
    places = {row[0]: Place(*row[2:]) for row in pool}
    before = [place.before for place in places.values() if place.before is not None]
    for column, numbers in (("n", before), ("before", list(own))):
        beside = db.execute(
            "SELECT m.n, m.conversation, m.before, m.words FROM json_each(?) j"  # noqa: S608
            f" CROSS JOIN memory m ON m.{column}=j.value WHERE {view.where}",
            (json.dumps(numbers), *view.args),
        )
        places.update((row[0], Place(*row[1:])) for row in beside)
    found: list[tuple[int, float | None]] = list(ranking.order(own, places))
    if len(pool) == ranking.POOL and wanted > len(found):
        found += [(row[0], row[1]) for row in hits(wanted + len(found)) if row[0] not in places]
    return found


def _scoped(db: sqlite3.Connection, principal: str, scopes: Sequence[str], match: str) -> str:
    """`match` within the scopes, where that saves work: the join on `m.scope` is the wall, the term in the index a short cut.

    The term skips what others own. For who owns most of it, walking the postings of his own scope costs more than the join.
    """
    total = db.execute("SELECT coalesce(max(n), 0) FROM memory").fetchone()[0]
    return match if _count(db, principal) * 2 >= total else f"scope : ({ranking.any_of(scopes)}) AND {match}"


def _newest(db: sqlite3.Connection, view: _View, wanted: int) -> list[tuple[int, float | None]]:
    rows = db.execute(
        f"SELECT m.n FROM memory m WHERE {view.where} ORDER BY m.valid_from DESC, m.n DESC LIMIT ?",  # noqa: S608
        (*view.args, wanted),
    )
    return [(row[0], None) for row in rows]


def _shown(
    db: sqlite3.Connection, page: Sequence[tuple[int, float | None]], best: float | None, now: float, budget: int
) -> tuple[Hit, ...]:
    """As many hits of the page as fit, each with as much of its text as an equal share of the room allows."""
    asked = f"SELECT {', '.join(SHOWN)} FROM memory WHERE n IN (SELECT value FROM json_each(?))"  # noqa: S608
    rows = {
        row[0]: dict(zip(SHOWN, row, strict=True)) for row in db.execute(asked, (json.dumps([n for n, _ in page]),))
    }
    hits = [_hit(rows[n], None if score is None else round(score / (best or 1), 3), now) for n, score in page]
    texts = [weight(hit.text) for hit in hits]
    rests = [weight(dataclasses.astuple(hit)) + NAMES_BYTES - text for hit, text in zip(hits, texts, strict=True)]
    count, room = fitting(rests, texts, budget - FRAME_BYTES, BRIEF)
    size = share(texts[:count], room, BRIEF)
    return tuple(
        hit if text <= size else _cut(hit, size * len(hit.text) // text)
        for hit, text in zip(hits[:count], texts, strict=False)
    )


def _cut(hit: Hit, chars: int) -> Hit:
    return dataclasses.replace(hit, text=ranking.excerpt(hit.text, max(chars - 80, 40), f"memory://{hit.id}"))


def _hit(row: Mapping[str, Any], score: float | None, now: float) -> Hit:
    retired = None
    if row["retracted_at"] is not None:
        retired = f"retracted: {row['reason']}" if row["reason"] else "retracted"
    elif row["superseded_by"] is not None:
        retired = f"superseded by {row['superseded_by']}"
    elif row["expires_at"] is not None and row["expires_at"] <= now:
        retired = "expired"
    told = {name: row[name] for name in ("id", "text", "conversation", "key", "source", "run_id", "step")}
    tags, speaker = tuple(json.loads(row["tags"])), row["speaker"] or None
    time, trust = rfc3339(row["valid_from"]), TRUST[row["trust"]]
    return Hit(**told, score=score, time=time, speaker=speaker, tags=tags, trust=trust, retired=retired)


def _unknown(ids: Sequence[str]) -> NotFound:
    shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return NotFound("memory.unknown", f"There is no memory {shown}. Nothing was changed. memory_search gives the ids.")
