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

import base64
import binascii
import dataclasses
import hashlib
import json
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .base import ranking
from .base.erasure import Elsewhere, Erased, Proof, prove
from .base.errors import ArgumentError, Conflict, LimitExceeded, NotFound
from .base.facts import TRUST, Item, item_of, moment, sane
from .base.limits import Limits
from .base.ports import LOCAL, Ports, rfc3339
from .base.ranking import Place
from .base.store import Migrations, Store, Transaction

__all__ = ["MIGRATIONS", "Added", "Block", "Forgotten", "Hit", "Hits", "Memory", "Similar"]

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
    CREATE TABLE block(
        principal TEXT NOT NULL, label TEXT NOT NULL, text TEXT NOT NULL, version INTEGER NOT NULL, updated_at REAL NOT NULL,
        PRIMARY KEY(principal, label)) STRICT, WITHOUT ROWID;
    CREATE TABLE memory_log(
        n INTEGER PRIMARY KEY, principal TEXT NOT NULL, op TEXT NOT NULL, id TEXT NOT NULL, at REAL NOT NULL,
        trust INTEGER, run_id TEXT, step ANY) STRICT;
    CREATE INDEX memory_log_id ON memory_log(id);
    CREATE TRIGGER memory_log_kept BEFORE DELETE ON memory_log BEGIN SELECT raise(ABORT, 'the log is append-only'); END;
    CREATE TRIGGER memory_log_fixed BEFORE UPDATE ON memory_log BEGIN SELECT raise(ABORT, 'the log is append-only'); END;
    """,
}

BRIEF = 160
"""Least bytes of a hit's text in a reply; when not even that fits, the rest is on the next page."""


@dataclass(frozen=True, slots=True)
class Similar:
    id: str
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Added:
    id: str
    duplicate: bool
    superseded: tuple[str, ...]
    similar: tuple[Similar, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    id: str
    text: str
    score: float | None
    """Share of the best hit's score; None without a query. Absolute scores would tell how often other principals use a word."""
    time: str
    conversation: str | None
    speaker: str | None
    key: str | None
    tags: tuple[str, ...]
    trust: str
    source: str | None
    run_id: str | None
    step: str | int | None
    retired: str | None
    """None for what is live; else why it is not: superseded by ..., retracted, expired."""


@dataclass(frozen=True, slots=True)
class Hits:
    hits: tuple[Hit, ...]
    more: bool
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Forgotten:
    ids: tuple[str, ...]
    """At most 100 of them."""
    count: int
    mode: str
    proof: Proof | None = None
    elsewhere: tuple[Elsewhere, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    label: str
    text: str
    version: int
    chars_left: int


@dataclass(frozen=True, slots=True)
class _Author:
    """Who acts, through which channel, when: what every row and every line of the log carries."""

    principal: str
    trust: int
    run_id: str | None
    step: str | int | None
    now: float


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

    async def add(
        self,
        items: Sequence[Mapping[str, Any]],
        *,
        principal: str = LOCAL,
        trust: str = "user",
        run_id: str | None = None,
        step: str | int | None = None,
    ) -> list[Added]:
        return await self._store.write(
            lambda tx: self.add_in(tx, items, principal=principal, trust=trust, run_id=run_id, step=step)
        )

    def add_in(
        self,
        tx: Transaction,
        items: Sequence[Mapping[str, Any]],
        *,
        principal: str = LOCAL,
        trust: str = "user",
        run_id: str | None = None,
        step: str | int | None = None,
    ) -> list[Added]:
        """All of `items` or none."""
        if len(items) > self._limits.memory_items_max:
            raise LimitExceeded(
                "limit.exceeded",
                f"{len(items)} items in one call; at most {self._limits.memory_items_max}. Split them.",
            )
        author = _Author(principal, _trust(trust), run_id, step, self._now())
        parsed = [item_of(item, number, self._limits) for number, item in enumerate(items)]
        row = tx.execute("SELECT items FROM memory_count WHERE principal=?", (principal,)).fetchone()
        if (row[0] if row else 0) + len(parsed) > self._limits.memory_rows_max:
            raise LimitExceeded(
                "memory.full", f"{self._limits.memory_rows_max} memories are kept at most. Erase what is not needed."
            )
        return [self._add_one(tx, item, author) for item in parsed]

    def _add_one(self, tx: Transaction, item: Item, author: _Author) -> Added:
        live, _ = _scopes(author.principal)
        digest = _digest(item)
        equal = tx.execute(
            "SELECT n, id, trust, expires_at FROM memory WHERE scope=? AND digest=? AND (expires_at IS NULL OR expires_at>?)",
            (live, digest, author.now),
        ).fetchone()
        if equal is not None:
            self._confirm(tx, equal, item, author)
            return Added(equal[1], duplicate=True, superseded=(), similar=())
        similar = _similar(tx, live, item)
        valid_from = author.now if item.time is None else item.time
        new_id = self._ports.new_id("mem")
        replaced = [self._row_of(tx, author.principal, old) for old in item.supersedes]
        later = None
        if item.key is not None:
            rivals = tx.execute(
                "SELECT n, id, scope, speaker, text, valid_from, dated FROM memory"
                " WHERE principal=? AND key=? AND retracted_at IS NULL ORDER BY valid_from, n",
                (author.principal, item.key),
            ).fetchall()
            if item.time is not None:
                later = next((r for r in rivals if r[6] and r[5] > valid_from), None)
            if later is None:
                replaced += [r for r in rivals if r[2] == live]
        before = None
        if item.conversation is not None:
            before = tx.execute(
                "SELECT max(n) FROM memory WHERE principal=? AND conversation=?", (author.principal, item.conversation)
            ).fetchone()[0]
        n = _insert(tx, new_id, item, author, digest, before, valid_from)
        _log(tx, author, "add", new_id)
        superseded = []
        for row in {row[0]: row for row in replaced}.values():
            if row[2] == live:
                _close(tx, author, row, valid_to=max(valid_from, row[5]), by=new_id)
                superseded.append(row[1])
        if later is not None:
            row = (n, new_id, live, item.speaker or "", item.text)
            _close(tx, author, row, valid_to=later[5], by=later[1])
        gone = set(superseded)
        return Added(
            new_id, duplicate=False, superseded=tuple(superseded), similar=tuple(s for s in similar if s.id not in gone)
        )

    def _confirm(self, tx: Transaction, equal: tuple[Any, ...], item: Item, author: _Author) -> None:
        n, known_id, trust, ends = equal
        longer = ends is not None and (item.expires_at is None or item.expires_at > ends)
        if author.trust > trust or longer:
            tx.execute(
                "UPDATE memory SET trust=?, expires_at=? WHERE n=?",
                (max(trust, author.trust), item.expires_at if longer else ends, n),
            )
        _log(tx, author, "confirm", known_id)

    def _row_of(self, tx: Transaction, principal: str, memory_id: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = tx.execute(
            "SELECT n, id, scope, speaker, text, valid_from FROM memory WHERE id=? AND principal=?",
            (memory_id, principal),
        ).fetchone()
        if row is None:
            raise _unknown([memory_id])
        return row

    # --- search

    async def search(
        self,
        query: str | None = None,
        key: str | None = None,
        conversation: str | None = None,
        tags: Sequence[str] | None = None,
        since: str | float | None = None,
        until: str | float | None = None,
        as_of: str | float | None = None,
        limit: int = 10,
        cursor: str | None = None,
        ids: Sequence[str] | None = None,
        kind: str | None = None,
        known_at: str | float | None = None,
        min_trust: str | None = None,
        include_retired: bool = False,  # noqa: FBT001, FBT002  (the contract's name, given by keyword)
        *,
        principal: str = LOCAL,
        reply_bytes: int | None = None,
    ) -> Hits:
        return await self._store.read(
            lambda db: self.search_in(
                db,
                query,
                key,
                conversation,
                tags,
                since,
                until,
                as_of,
                limit,
                cursor,
                ids,
                kind,
                known_at,
                min_trust,
                include_retired,
                principal=principal,
                reply_bytes=reply_bytes,
            )  # fmt: skip
        )

    def search_in(
        self,
        db: sqlite3.Connection,
        query: str | None = None,
        key: str | None = None,
        conversation: str | None = None,
        tags: Sequence[str] | None = None,
        since: str | float | None = None,
        until: str | float | None = None,
        as_of: str | float | None = None,
        limit: int = 10,
        cursor: str | None = None,
        ids: Sequence[str] | None = None,
        kind: str | None = None,
        known_at: str | float | None = None,
        min_trust: str | None = None,
        include_retired: bool = False,  # noqa: FBT001, FBT002
        *,
        principal: str = LOCAL,
        reply_bytes: int | None = None,
    ) -> Hits:
        """What matches, best first; without a query newest first. Pages of one search see no item added after its first page."""
        if not 1 <= limit <= self._limits.memory_items_max:
            raise ArgumentError("argument.invalid", f"limit is {limit}; give 1 to {self._limits.memory_items_max}.")
        asked = (query, key, conversation, tags, since, until, as_of, ids, kind, known_at, min_trust, include_retired)
        mark = hashlib.sha256(json.dumps([principal, *asked]).encode()).hexdigest()[:12]
        offset, newest = _resume(cursor, mark)
        if newest is None:
            newest = db.execute("SELECT coalesce(max(n), 0) FROM memory").fetchone()[0]
        now = self._now()
        view = _view(principal, now, as_of=as_of, known_at=known_at, include_retired=include_retired)
        view = _narrowed(
            view, newest, key=key, conversation=conversation, kind=kind, tags=tags, ids=ids, since=since, until=until,
            min_trust=None if min_trust is None else _trust(min_trust),
        )  # fmt: skip
        if query is not None and query.strip():
            found = _ranked(db, view, principal, ranking.search_terms(query), offset + limit + 1)
        else:
            found = _newest(db, view, offset + limit + 1)
        best = found[0][1] if found else None
        page = found[offset : offset + limit]
        hits = _shown(db, page, best, now, reply_bytes or self._limits.reply_bytes_max)
        reached = offset + len(hits)
        more = reached < len(found)
        return Hits(hits, more, _cursor(reached, newest, mark) if more else None)

    async def text(self, memory_id: str, *, principal: str = LOCAL) -> str:
        """The whole text behind `memory://<id>`, live or history."""
        return str((await self._store.read(lambda db: self._row_of(db, principal, memory_id)))[4])

    # --- forget

    async def forget(
        self,
        ids: Sequence[str] | None = None,
        source: str | None = None,
        conversation: str | None = None,
        mode: str = "retract",
        reason: str = "",
        expect_count: int | None = None,
        *,
        principal: str = LOCAL,
        trust: str = "user",
        run_id: str | None = None,
        step: str | int | None = None,
    ) -> Forgotten:
        if mode != "erase":
            return await self._store.write(
                lambda tx: self.forget_in(
                    tx,
                    ids,
                    source,
                    conversation,
                    mode,
                    reason,
                    expect_count,
                    principal=principal,
                    trust=trust,
                    run_id=run_id,
                    step=step,
                )  # fmt: skip
            )

        def erase(tx: Transaction) -> tuple[Erased, ...]:
            author = _Author(principal, _trust(trust), run_id, step, self._now())
            return _erase(tx, author, _chosen(tx, principal, ids, source, conversation, expect_count))

        gone = await self._store.write(erase)
        proof, elsewhere = await prove(self._store, principal, gone)
        return Forgotten(tuple(row.id for row in gone)[:100], len(gone), "erase", proof, elsewhere)

    def forget_in(
        self,
        tx: Transaction,
        ids: Sequence[str] | None = None,
        source: str | None = None,
        conversation: str | None = None,
        mode: str = "retract",
        reason: str = "",
        expect_count: int | None = None,
        *,
        principal: str = LOCAL,
        trust: str = "user",
        run_id: str | None = None,
        step: str | int | None = None,
    ) -> Forgotten:
        """Withdraw what was wrong: no longer found, still history. Everything that several filters together select.

        `erase` is refused here: it has to empty the log of the file, which no open transaction can do.
        """
        if mode != "retract":
            raise ArgumentError(
                "argument.invalid", f"mode is {mode!r}; here it is 'retract'. Erasing is `await forget(...)`."
            )
        author = _Author(principal, _trust(trust), run_id, step, self._now())
        sane(reason, "reason", self._limits.memory_label_chars_max * 4)
        done = []
        for row in _chosen(tx, principal, ids, source, conversation, expect_count):
            if row[6] is None:
                tx.execute("UPDATE memory SET retracted_at=?, reason=? WHERE n=?", (author.now, reason or None, row[0]))
                _shelve(tx, row)
                _log(tx, author, "retract", row[1])
                done.append(row[1])
        return Forgotten(tuple(done[:100]), len(done), "retract")

    # --- standing notes

    async def blocks(self, label: str | None = None, *, principal: str = LOCAL) -> list[Block]:
        return await self._store.read(lambda db: self.blocks_in(db, label, principal=principal))

    def blocks_in(self, db: sqlite3.Connection, label: str | None = None, *, principal: str = LOCAL) -> list[Block]:
        """All notes that have a text, by label; or the one, which must exist."""
        rows = db.execute(
            "SELECT label, text, version FROM block WHERE principal=? AND (label=? OR (? IS NULL AND text<>'')) ORDER BY label",
            (principal, label, label),
        ).fetchall()
        if label is not None and not rows:
            raise NotFound("memory.unknown", f"There is no standing note {label!r}. memory_edit makes one.")
        return [Block(name, text, version, self._limits.block_chars_max - len(text)) for name, text, version in rows]

    async def edit(
        self,
        label: str,
        text: str,
        old: str | None = None,
        if_version: int | None = None,
        *,
        principal: str = LOCAL,
        trust: str = "user",
        run_id: str | None = None,
        step: str | int | None = None,
    ) -> Block:
        return await self._store.write(
            lambda tx: self.edit_in(
                tx, label, text, old, if_version, principal=principal, trust=trust, run_id=run_id, step=step
            )
        )

    def edit_in(
        self,
        tx: Transaction,
        label: str,
        text: str,
        old: str | None = None,
        if_version: int | None = None,
        *,
        principal: str = LOCAL,
        trust: str = "user",
        run_id: str | None = None,
        step: str | int | None = None,
    ) -> Block:
        """Set the whole note, or replace `old`, which must occur exactly once; an empty `old` appends. An empty note is not listed."""
        author = _Author(principal, _trust(trust), run_id, step, self._now())
        sane(label, "label", self._limits.memory_label_chars_max)
        if not label.strip():
            raise ArgumentError("argument.invalid", "label is empty. Name the note.")
        row = tx.execute("SELECT text, version FROM block WHERE principal=? AND label=?", (principal, label)).fetchone()
        present, version = row or ("", 0)
        if if_version is not None and if_version != version:
            raise Conflict(
                "memory.version_conflict",
                f"The note {label!r} has version {version}, not {if_version}. Read it with memory_blocks and edit what is there now.",
            )
        new = text if old is None else _replaced(present, old, text, label)
        sane(new, "text", None)
        if len(new) > self._limits.block_chars_max:
            raise LimitExceeded(
                "memory.block_full",
                f"The note {label!r} would have {len(new)} characters, {self._limits.block_chars_max} fit. Nothing was changed."
                " Shorten it, or put the details into memory_add.",
            )
        if not present and new:
            notes = tx.execute("SELECT count(*) FROM block WHERE principal=? AND text<>''", (principal,)).fetchone()[0]
            if notes >= self._limits.blocks_max:
                raise LimitExceeded(
                    "memory.block_full", f"There are {notes} notes, the most there may be. Empty one first."
                )
        tx.execute(
            "INSERT INTO block VALUES(?,?,?,?,?) ON CONFLICT(principal, label) DO UPDATE SET text=excluded.text,"
            " version=excluded.version, updated_at=excluded.updated_at",
            (principal, label, new, version + 1, author.now),
        )
        _log(tx, author, "edit", label)
        return Block(label, new, version + 1, self._limits.block_chars_max - len(new))

    def _now(self) -> float:
        """Whole milliseconds, rounded down: a time that was shown and is given back must still include what it was shown for."""
        return math.floor(self._ports.clock.now() * 1000) / 1000


# --- writing rows. A row is (n, id, scope, speaker, text, ...)


def _scopes(principal: str) -> tuple[str, str]:
    """The index terms of a principal's live items and of its history. Digits, because the stemmer leaves those alone."""
    number = int.from_bytes(hashlib.sha256(principal.encode("utf8", "surrogatepass")).digest()) % 10**24
    return f"1{number:024d}", f"0{number:024d}"


def _digest(item: Item) -> bytes:
    same = json.dumps([item.key, item.conversation, item.speaker, item.text])
    return hashlib.sha256(same.encode()).digest()[:16]


def _insert(
    tx: Transaction, new_id: str, item: Item, author: _Author, digest: bytes, before: int | None, valid_from: float
) -> int:
    live, _ = _scopes(author.principal)
    speaker = item.speaker or ""
    values = {
        "principal": author.principal, "scope": live, "conversation": item.conversation, "before": before,
        "words": len(item.text.split()), "trust": author.trust, "id": new_id, "kind": item.kind, "key": item.key,
        "tags": json.dumps(item.tags, ensure_ascii=False), "source": item.source, "run_id": author.run_id, "step": author.step,
        "dated": item.time is not None, "valid_from": valid_from, "recorded_at": author.now, "expires_at": item.expires_at,
        "digest": digest, "speaker": speaker, "text": item.text,
    }  # fmt: skip
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    n = tx.execute(f"INSERT INTO memory({names}) VALUES({marks})", tuple(values.values())).lastrowid  # noqa: S608
    assert n is not None
    tx.execute("INSERT INTO memory_fts(rowid, scope, speaker, text) VALUES(?,?,?,?)", (n, live, speaker, item.text))
    tx.execute(
        "INSERT INTO memory_count VALUES(?,1) ON CONFLICT(principal) DO UPDATE SET items = items + 1",
        (author.principal,),
    )
    return n


def _close(tx: Transaction, author: _Author, row: tuple[Any, ...], *, valid_to: float, by: str) -> None:
    tx.execute(
        "UPDATE memory SET valid_to=?, closed_at=?, superseded_by=? WHERE n=?", (valid_to, author.now, by, row[0])
    )
    _shelve(tx, row)
    _log(tx, author, "supersede", row[1])


def _shelve(tx: Transaction, row: tuple[Any, ...]) -> None:
    """Move a row from the live items to history, in the table and in the index, which must be told the old values."""
    n, _, scope, speaker, text = row[:5]
    if scope[0] == "0":
        return
    shelved = "0" + scope[1:]
    tx.execute("UPDATE memory SET scope=? WHERE n=?", (shelved, n))
    _unindex(tx, row)
    tx.execute("INSERT INTO memory_fts(rowid, scope, speaker, text) VALUES(?,?,?,?)", (n, shelved, speaker, text))


def _unindex(tx: Transaction, row: tuple[Any, ...]) -> None:
    n, _, scope, speaker, text = row[:5]
    tx.execute(
        "INSERT INTO memory_fts(memory_fts, rowid, scope, speaker, text) VALUES('delete',?,?,?,?)",
        (n, scope, speaker, text),
    )


def _erase(tx: Transaction, author: _Author, rows: Iterable[tuple[Any, ...]]) -> tuple[Erased, ...]:
    gone = []
    for row in rows:
        n, memory_id, _, _, text, before, _, run_id, step = row
        _unindex(tx, row)
        now_before = tx.execute("SELECT before FROM memory WHERE n=?", (n,)).fetchone()[0]
        tx.execute("UPDATE memory SET before=? WHERE before=?", (now_before, n))
        tx.execute("DELETE FROM memory WHERE n=?", (n,))
        _log(tx, author, "erase", memory_id)
        gone.append(Erased(memory_id, text, run_id, step))
    if gone:
        # A deleted entry stays in its index segment beside a tombstone until segments are merged.
        tx.execute("INSERT INTO memory_fts(memory_fts) VALUES('optimize')")
        tx.execute("UPDATE memory_count SET items = items - ? WHERE principal=?", (len(gone), author.principal))
    return tuple(gone)


def _chosen(
    tx: Transaction,
    principal: str,
    ids: Sequence[str] | None,
    source: str | None,
    conversation: str | None,
    expect_count: int | None,
) -> list[tuple[Any, ...]]:
    """Rows for `forget`: live and history, whatever all the given filters select."""
    if ids is None and source is None and conversation is None:
        raise ArgumentError("argument.missing", "Say what to forget: ids, source or conversation.")
    where, args = ["principal=?"], [principal]
    for column, value in (("source", source), ("conversation", conversation)):
        if value is not None:
            where.append(f"{column}=?")
            args.append(value)
    if ids is not None:
        where.append("id IN (SELECT value FROM json_each(?))")
        args.append(json.dumps(list(ids)))
    rows = tx.execute(
        "SELECT n, id, scope, speaker, text, before, retracted_at, run_id, step FROM memory"  # noqa: S608
        f" WHERE {' AND '.join(where)} ORDER BY n",
        args,
    ).fetchall()
    # An id that was erased before is no mistake: the caller may be repeating itself after a crash.
    known = {row[1] for row in rows}
    missing = [i for i in dict.fromkeys(ids or ()) if i not in known and not _was_erased(tx, principal, i)]
    if missing and source is None and conversation is None:
        raise _unknown(missing)
    if expect_count is not None and expect_count != len(rows):
        raise Conflict(
            "memory.count_conflict",
            f"{len(rows)} memories match, not {expect_count}. Nothing was forgotten. Search first, then say the right count.",
        )
    return rows


def _was_erased(tx: Transaction, principal: str, memory_id: str) -> bool:
    asked = "SELECT 1 FROM memory_log WHERE id=? AND principal=? AND op='erase'"
    return tx.execute(asked, (memory_id, principal)).fetchone() is not None


def _log(tx: Transaction, author: _Author, op: str, what: str) -> None:
    tx.execute(
        "INSERT INTO memory_log(principal, op, id, at, trust, run_id, step) VALUES(?,?,?,?,?,?,?)",
        (author.principal, op, what, author.now, author.trust, author.run_id, author.step),
    )


def _similar(tx: Transaction, live: str, item: Item) -> tuple[Similar, ...]:
    """Live texts that share at least half of their words with the new one; the three closest of the newest few candidates.

    A near-duplicate shares the rarest words, and the longest are likely to be them: two of the four longest must be there.
    """
    words = ranking.words_of(item.text[:1000])
    terms = sorted(ranking.search_terms(item.text[:1000]), key=len, reverse=True)[:4]
    if not terms:
        return ()
    if len(terms) < 4:
        match = ranking.any_of(terms)
    else:
        match = " OR ".join(f'("{a}" AND "{b}")' for i, a in enumerate(terms) for b in terms[i + 1 :])
    rows = tx.execute(
        "SELECT m.id, substr(m.text, 1, 1000) FROM memory_fts f CROSS JOIN memory m ON m.n=f.rowid"
        " WHERE memory_fts MATCH ? AND m.scope=? ORDER BY f.rowid DESC LIMIT 12",
        (f'scope : "{live}" AND text : ({match})', live),
    ).fetchall()
    scored = [Similar(i, text[:200], round(ranking.alike(words, ranking.words_of(text)), 2)) for i, text in rows]
    return tuple(sorted((s for s in scored if s.score >= 0.5), key=lambda s: -s.score)[:3])


# --- reading


def _view(
    principal: str, now: float, *, as_of: str | float | None, known_at: str | float | None, include_retired: bool
) -> _View:
    scopes = _scopes(principal)
    if as_of is None and known_at is None and not include_retired:
        return _View(scopes[:1], "m.scope=? AND (m.expires_at IS NULL OR m.expires_at>?)", (scopes[0], now))
    where, args = "m.scope IN (?,?)", list[Any](scopes)
    known = now if known_at is None else moment(known_at, "known_at", end=True)
    if known_at is not None:
        where += " AND m.recorded_at<=?"
        args.append(known)
    if include_retired:
        return _View(scopes, where, tuple(args))
    at = known if as_of is None else moment(as_of, "as_of", end=True)
    where += " AND (m.retracted_at IS NULL OR m.retracted_at>?) AND (m.expires_at IS NULL OR m.expires_at>?)"
    args += [known, at]
    if as_of is None:
        where += " AND (m.closed_at IS NULL OR m.closed_at>?)"
        args.append(known)
        return _View(scopes, where, tuple(args))
    # A value that was put into the middle of a slot's past hides the one it divides, whose own end was never rewritten.
    where += (
        " AND m.valid_from<=? AND (m.valid_to IS NULL OR m.closed_at>? OR m.valid_to>?)"
        " AND (m.key IS NULL OR NOT EXISTS (SELECT 1 FROM memory k WHERE k.principal=m.principal AND k.key=m.key"
        " AND k.valid_from<=? AND (k.valid_from, k.n)>(m.valid_from, m.n) AND k.recorded_at<=?"
        " AND (k.retracted_at IS NULL OR k.retracted_at>?)))"
    )
    args += [at, known, at, at, known, known]
    return _View(scopes, where, tuple(args))


def _narrowed(
    view: _View,
    newest: int,
    *,
    key: str | None,
    conversation: str | None,
    kind: str | None,
    tags: Sequence[str] | None,
    ids: Sequence[str] | None,
    since: str | float | None,
    until: str | float | None,
    min_trust: int | None,
) -> _View:
    conditions: list[tuple[str, Any]] = [("m.n<=?", newest)]
    for column, value in (("key", key), ("conversation", conversation), ("kind", kind)):
        if value is not None:
            conditions.append((f"m.{column}=?", value))
    conditions += [("EXISTS (SELECT 1 FROM json_each(m.tags) WHERE value=?)", tag) for tag in tags or ()]
    if ids is not None:
        conditions.append(("m.id IN (SELECT value FROM json_each(?))", json.dumps(list(ids))))
    if since is not None:
        conditions.append(("m.valid_from>=?", moment(since, "since")))
    if until is not None:
        conditions.append(("m.valid_from<=?", moment(until, "until", end=True)))
    if min_trust is not None:
        conditions.append(("m.trust>=?", min_trust))
    where = " AND ".join([view.where, *(sql for sql, _ in conditions)])
    return _View(view.scopes, where, (*view.args, *(value for _, value in conditions)))


def _ranked(
    db: sqlite3.Connection, view: _View, principal: str, terms: Sequence[str], wanted: int
) -> list[tuple[int, float | None]]:
    """The first `wanted` of all hits: the neighbourhood order of the best, then the rest by their own score."""
    if not terms:
        return []
    match = f"{{speaker text}} : ({ranking.any_of(terms)})"
    owned = db.execute("SELECT items FROM memory_count WHERE principal=?", (principal,)).fetchone()
    total = db.execute("SELECT max(n) FROM memory").fetchone()[0]
    if owned is None:
        return []
    if owned[0] * 2 < total:
        # The scope term skips what others own. Who owns most of it is served faster by the join alone (docs/DECISIONS.md).
        match = f"scope : ({ranking.any_of(view.scopes)}) AND {match}"

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
    columns = (
        "n, id, text, valid_from, conversation, speaker, key, tags, trust, source, run_id, step,"
        " superseded_by, retracted_at, reason, expires_at"
    )
    rows = {
        row[0]: row
        for row in db.execute(
            f"SELECT {columns} FROM memory WHERE n IN (SELECT value FROM json_each(?))",  # noqa: S608
            (json.dumps([n for n, _ in page]),),
        )
    }
    hits = [_hit(rows[n][1:], None if score is None else round(score / (best or 1), 3), now) for n, score in page]
    room = budget - 512
    sizes: list[tuple[int, int]] = []
    for hit in hits:
        text = _weight(hit.text)
        rest = 240 + _weight(
            [hit.conversation, hit.speaker, hit.key, hit.tags, hit.source, hit.run_id, hit.step, hit.retired]
        )
        if sizes and room - rest - min(text, BRIEF) < 0:
            break
        room -= rest + min(text, BRIEF)
        sizes.append((text, rest))
    share = _share([text for text, _ in sizes], room + sum(min(text, BRIEF) for text, _ in sizes))
    return tuple(
        hit
        if text <= share
        else _with_text(hit, ranking.excerpt(hit.text, share * len(hit.text) // text - 80, f"memory://{hit.id}"))
        for hit, (text, _) in zip(hits, sizes, strict=False)
    )


def _hit(row: tuple[Any, ...], score: float | None, now: float) -> Hit:
    (
        memory_id,
        text,
        time,
        conversation,
        speaker,
        key,
        tags,
        trust,
        source,
        run_id,
        step,
        by,
        retracted,
        reason,
        ends,
    ) = row
    retired = None
    if retracted is not None:
        retired = f"retracted: {reason}" if reason else "retracted"
    elif by is not None:
        retired = f"superseded by {by}"
    elif ends is not None and ends <= now:
        retired = "expired"
    return Hit(
        id=memory_id, text=text, score=score, time=rfc3339(time), conversation=conversation, speaker=speaker or None, key=key,
        tags=tuple(json.loads(tags)), trust=TRUST[trust], source=source, run_id=run_id, step=step, retired=retired,
    )  # fmt: skip


def _with_text(hit: Hit, text: str) -> Hit:
    return dataclasses.replace(hit, text=text)


def _weight(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _share(sizes: Sequence[int], room: int) -> int:
    """The most that each may have so that all fit: what the short ones do not need goes to the long ones."""
    left = len(sizes)
    for size in sorted(sizes):
        if size * left > room:
            return max(room // left, BRIEF)
        room -= size
        left -= 1
    return max(sizes, default=0)


def _cursor(offset: int, newest: int, mark: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([offset, newest, mark]).encode()).decode()


def _resume(cursor: str | None, mark: str) -> tuple[int, int | None]:
    if cursor is None:
        return 0, None
    try:
        offset, newest, made_for = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        valid = type(offset) is int and type(newest) is int and offset >= 0 and made_for == mark
    except (binascii.Error, ValueError, TypeError):
        valid = False
    if not valid:
        raise ArgumentError(
            "argument.invalid", "cursor is not one of this search. Repeat the same arguments, or leave it out."
        )
    return offset, newest


# --- small print


def _replaced(present: str, old: str, text: str, label: str) -> str:
    if not old:
        return present + text
    times = present.count(old)
    if times != 1:
        raise Conflict(
            "memory.old_conflict",
            f"`old` occurs {times} times in the note {label!r}, it must be once. Read it with memory_blocks and quote more of it.",
        )
    return present.replace(old, text)


def _trust(name: str) -> int:
    if name not in TRUST:
        raise ArgumentError("argument.invalid", f"{name!r} is no level of trust. Known: {', '.join(TRUST)}.")
    return TRUST.index(name)


def _unknown(ids: Sequence[str]) -> NotFound:
    shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return NotFound("memory.unknown", f"There is no memory {shown}. Nothing was changed. memory_search gives the ids.")
