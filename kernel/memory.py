"""Long-term memory: facts that are added and never overwritten, found by their words and their neighbourhood; and standing notes.

A fact is a text with provenance: who wrote it (principal, client, run, step, source), through which channel (trust), about when (`time`)
and when we learnt it (`recorded_at`). Two things end one: a newer fact takes its place (`superseded_by`, `valid_to`), or it is withdrawn
because it was wrong (`retracted_at`). Both stay readable as history. Only `erase` destroys. What comes through a channel that the
operator does not believe waits in quarantine (base/quarantine.py) until a person releases it.

    as_of T        what was true in the world at T, by what is known now
    known_at S     what this memory believed at S
    both           what it believed at S about T

Guarantees
1. memory.add.only: a text, once stored, never changes. An equal live text (same key, conversation, speaker) gives the old id back
   with `duplicate`, counts as a confirmation and ends what it supersedes; from a more trusted channel, or with a later end, it lifts the
   old one's trust and end.
2. memory.key.supersedes: a new value of a `key` closes the live one in the same transaction. One that is dated before a live value
   that is dated too goes into the past of the slot and closes nothing.
3. memory.scope: no statement here reads or changes a row of another principal; an id of another one answers as an unknown id.
4. memory.trust: the channel decides it (web < tool < guest < agent < user), never the item.
5. memory.erase: afterwards no byte of the text is in the database or its log, nor in what runs recorded of it; the reply says what was
   scanned and which other places hold the words still.
6. memory.block: a standing note has a size limit and a version. Full means refused, never cut; a stale version is a conflict.
7. memory.secrets: what looks like a key, password or card number is left out and named by kind and place, or refused, as the
   operator's rule says; never stored because nobody looked.
8. memory.quarantine: what is held there is in no search, page, count or look-alike, whatever the filters; nothing that a client or a
   program can call releases it. Such a channel writes no standing note either: those are read unasked.
9. Replies are bounded: long texts are cut in the middle, and what does not fit is on the next page. So is what a principal can store:
   items and bytes.

Not here: the tables and what writes there (base/records.py), the index, and what a search sees and shows (base/recall.py), the order of
hits (base/ranking.py), the file scan behind the proof (base/erasure.py), commits (base/store.py).

If the process dies: before COMMIT nothing of an add or forget is there, after it all. Between an erasure's COMMIT and its scrub the
bytes may still lie in the WAL; the next open folds the WAL into the file, where the same pages are zeroed.
"""

import dataclasses
import itertools
import math
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypedDict, Unpack

from .base import notes, quarantine, ranking, recall, records, transfer
from .base.erasure import Elsewhere, Erased, Proof, prove
from .base.errors import ArgumentError, Denied, LimitExceeded
from .base.facts import TRUST, Added, Hit, Hits, Item, Masked, Similar, item_of, sane, screened, screened_item, trust_of
from .base.limits import Limits
from .base.live import Live, Place, live
from .base.notes import Block
from .base.pages import Cursor, mark_of, resumed
from .base.policy import MemoryRules
from .base.ports import LOCAL, Ports
from .base.quarantine import Held, Waiting
from .base.ranking import Text
from .base.recall import Filters
from .base.records import Author, Choice, Row
from .base.store import Migrations, Read, Store, Transaction
from .base.tombstones import ERASED, Scrubbed
from .base.wording import asked_of

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
    "Quarantine",
    "Question",
    "Similar",
    "Stats",
    "exported",
]

MIGRATIONS: Migrations = {
    1: records.SCHEMA + recall.SCHEMA + notes.SCHEMA,
    3: records.SCHEMA_3 + quarantine.SCHEMA,
    4: recall.upgrade,
}


@dataclass(frozen=True, slots=True)
class Forgotten:
    ids: tuple[str, ...]
    """At most 100 of them."""
    count: int
    mode: str
    steps: int | None = None
    """Recorded calls of runs in which the text was replaced."""
    proof: Proof | None = None
    elsewhere: tuple[Elsewhere, ...] = ()


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What waits for a person: how much, and the oldest of it."""

    count: int
    waiting: tuple[Waiting, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """One principal's memory at a glance."""

    live: int
    history: int
    size_bytes: int
    size_bytes_max: int
    quarantined: int
    notes: int


class Provenance(TypedDict, total=False):
    """Who acts, through which channel, in which step of which run. Set by whoever holds the channel, never by an argument of a tool."""

    principal: str
    trust: str
    client: str | None
    run_id: str | None
    step: str | int | None


class Question(Filters, total=False):
    limit: int
    cursor: str | None
    principal: str
    reply_bytes: int | None
    """Room for the hits as JSON; `limits.reply_bytes_max` unless said."""
    explain: bool
    """Say with each hit what its score was made of."""


class _New(NamedTuple):
    item: Item
    author: Author
    id: str


REPLIES = "sandbox://replies/"
"""Where replies that were too long are kept for a while."""
WAITING_SHOWN = 100
EXPORT_LINES = 200
"""Read at a time."""

Scrub: TypeAlias = Callable[[Transaction, str, Mapping[str, str]], Scrubbed]
"""Erases the copies that runs recorded of these facts, id and text, in the same transaction. The journal's; handed in, as primitives do not meet."""


def _nothing_recorded(_tx: Transaction, _principal: str, _gone: Mapping[str, str]) -> Scrubbed:
    """Of a memory that stands without a journal."""
    return Scrubbed(0, ())


class Memory:
    def __init__(
        self, *, store: Store, ports: Ports, limits: Limits, rules: MemoryRules | None = None, scrub: Scrub = _nothing_recorded
    ) -> None:  # fmt: skip
        self._store = store
        self._ports = ports
        self._limits = limits
        self._rules = rules or MemoryRules()
        self._scrub = scrub
        self.erasures = 0
        """Grows inside the transaction of every erasure: what was read before one must not be written down after it."""

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
        self._check_room(tx, author.principal, parsed)
        if TRUST[author.trust] in self._rules.quarantine:
            added = [self._hold(tx, item, author) for item in parsed]
        else:
            added = self._add_all(tx, [_New(item, author, self._ports.new_id("mem")) for item in parsed])
        return [
            dataclasses.replace(one, masked=masked) if masked else one
            for one, (_, masked) in zip(added, cleaned, strict=True)
        ]

    def _check_room(self, tx: Transaction, principal: str, items: Sequence[Item]) -> None:
        limits, (have, octets, _) = self._limits, recall.counts(tx, principal)
        if have + len(items) > limits.memory_rows_max:
            raise LimitExceeded(
                "memory.full", f"{limits.memory_rows_max} memories are kept at most. Erase what is not needed."
            )
        if octets + sum(map(records.octets_of, items)) > limits.memory_bytes_max:
            raise LimitExceeded(
                "memory.full",
                f"{limits.memory_bytes_max} bytes of memories are kept at most, {octets} are. Erase what is not needed.",
            )

    def _add_all(self, tx: Transaction, given: Sequence[_New]) -> list[Added]:
        # All the searches come before the first insert: one after it would write the index's pending words out as a segment.
        texts = [Text.of("", new.item.text) for new in given]
        stored = [recall.lookalikes(tx, new.author.principal, text) for new, text in zip(given, texts, strict=True)]
        batch: list[Text] = []
        ended: set[str] = set()
        added = []
        for new, text, others in zip(given, texts, stored, strict=True):
            live = [other for other in (*reversed(batch), *others) if other.id not in ended]
            one = self._add_one(tx, new, text, live)
            added.append(one)
            ended.update(one.superseded)
            if not one.duplicate:
                batch.append(text._replace(id=one.id))
        return added

    def _add_one(self, tx: Transaction, new: _New, text: Text, others: Sequence[Text]) -> Added:
        item, author, new_id = new
        live, _ = recall.scopes_of(author.principal)
        digest = records.digest_of(item)
        equal = records.equal_to(tx, live, digest, author.now)
        valid_from = author.now if item.time is None else item.time
        ended = [records.row_of(tx, author.principal, named) for named in item.supersedes]
        if equal is not None:
            records.confirm(tx, equal, item, author)
            gone = self._supersede(tx, author, [row for row in ended if row.id != equal[1]], valid_from, equal[1])
            return Added(equal[1], duplicate=True, superseded=gone, similar=())
        later = None
        if item.key is not None:
            slot = records.slot(tx, author.principal, item.key, dated=item.time is not None)
            if item.time is not None:
                later = next((row for row in slot if row.dated and row.valid_from > valid_from), None)
            if later is None:
                ended += slot
        row = records.insert(tx, new_id, item, author, digest)
        records.log(tx, author, "add", new_id)
        superseded = self._supersede(tx, author, ended, valid_from, new_id)
        if later is not None:
            records.close(tx, author, row, valid_to=later.valid_from, by=later.id)
        alike = ranking.near_duplicates(text, (other for other in others if other.id not in superseded))
        similar = tuple(Similar(other.id, other.text[:200], round(score, 2)) for other, score in alike)
        return Added(new_id, duplicate=False, superseded=superseded, similar=similar)

    def _supersede(
        self, tx: Transaction, author: Author, ended: Sequence[Row], valid_from: float, by: str
    ) -> tuple[str, ...]:
        """The ids of those that were live until now."""
        live, _ = recall.scopes_of(author.principal)
        closed = {row.id: row for row in ended if row.scope == live}
        for old in closed.values():
            records.close(tx, author, old, valid_to=max(valid_from, old.valid_from), by=by)
        return tuple(closed)

    # --- quarantine

    def _hold(self, tx: Transaction, item: Item, author: Author) -> Added:
        """What is known already is no news, and gains nothing by being said through a channel that is not believed."""
        live, _ = recall.scopes_of(author.principal)
        digest = records.digest_of(item)
        equal = records.equal_to(tx, live, digest, author.now)
        if equal is not None:
            return Added(equal[1], duplicate=True, superseded=(), similar=())
        waiting = quarantine.known(tx, author.principal, digest)
        if waiting is not None:
            return Added(waiting, duplicate=True, superseded=(), similar=(), quarantined=True)
        for old in item.supersedes:
            records.row_of(tx, author.principal, old)
        held = Held(
            self._ports.new_id("mem"), author.trust, author.client, author.run_id, author.step, author.now, item
        )
        quarantine.hold(tx, author.principal, held, digest, self._limits)
        records.log(tx, author, "hold", held.id)
        return Added(held.id, duplicate=False, superseded=(), similar=(), quarantined=True)

    async def quarantined(self, limit: int = WAITING_SHOWN, *, principal: str = LOCAL) -> Quarantine:
        """What waits for a person, oldest first."""
        return await self._store.read(
            lambda db: Quarantine(quarantine.count(db, principal), tuple(quarantine.listed(db, principal, limit)))
        )

    async def release(
        self, ids: Sequence[str] | None = None, *, source: str | None = None, principal: str = LOCAL
    ) -> list[Added]:
        """A person believes it: everything that `ids` and `source` select is stored, with the trust of its channel. Not a program's verb."""

        def unit(tx: Transaction) -> list[Added]:
            author = self._author(principal)
            waiting = records.waiting(tx, principal, Choice(ids, source, None, None))
            given = []
            for held in waiting:
                there = tuple(
                    old for old in held.item.supersedes if tx.execute(records.ONE, (old, principal)).fetchone()
                )
                by = Author(principal, held.trust, held.client, held.run_id, held.step, author.now)
                given.append(_New(dataclasses.replace(held.item, supersedes=there), by, held.id))
                records.log(tx, author, "release", held.id)
            quarantine.drop(tx, waiting)
            self._check_room(tx, principal, [new.item for new in given])
            return self._add_all(tx, given)

        return await self._store.write(unit)

    async def refuse(
        self, ids: Sequence[str] | None = None, *, source: str | None = None, principal: str = LOCAL
    ) -> list[str]:
        """A person does not: it is gone. The ids."""

        def unit(tx: Transaction) -> list[str]:
            waiting = records.waiting(tx, principal, Choice(ids, source, None, None))
            self._drop(tx, waiting, self._author(principal))
            return [held.id for held in waiting]

        return await self._store.write(unit)

    def _drop(self, tx: Transaction, waiting: Sequence[Held], author: Author) -> None:
        quarantine.drop(tx, waiting)
        for held in waiting:
            records.log(tx, author, "refuse", held.id)

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
        explain: bool = False,
        **filters: Unpack[Filters],
    ) -> Hits:
        """What matches, best first; without a query newest first. Later pages see no item that was added after the first one."""
        if not 1 <= limit <= self._limits.memory_items_max:
            raise ArgumentError("argument.invalid", f"limit is {limit}; give 1 to {self._limits.memory_items_max}.")
        given = {name: value for name, value in filters.items() if value is not None}
        here = resumed(cursor, mark_of([principal, query, sorted(given.items())]))
        newest = here.newest
        if newest is None:
            newest = recall.counts(db, principal)[2]
        now = self._now()
        view = recall.view_of(principal, now, newest, filters)
        wanted = here.offset + limit + 1
        if query is not None and query.strip():
            found = recall.ranked(db, view, principal, asked_of(query), wanted, explain=explain)
        else:
            found = recall.newest_first(db, view, wanted)
        page = found[here.offset : here.offset + limit]
        hits = recall.shown(
            db, page, found[0].score if found else None, now, reply_bytes or self._limits.reply_bytes_max
        )
        reached = here.offset + len(hits)
        more = reached < len(found)
        return Hits(hits, more, Cursor(reached, newest, here.mark).to_text() if more else None)

    async def text(self, memory_id: str, *, principal: str = LOCAL) -> str:
        """The whole text behind `memory://<id>`, live or history."""
        row = await self._store.read(lambda db: records.row_of(db, principal, memory_id))
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
        chosen = Choice(ids, source, conversation, expect_count)
        author = self._author(**by)
        if mode == "retract":
            return await self._store.write(lambda tx: self._retract(tx, chosen, reason, author))
        if mode != "erase":
            raise ArgumentError("argument.invalid", f"mode is {mode!r}; it is 'retract' (kept as history) or 'erase'.")
        gone, scrubbed = await self._store.write(lambda tx: self._erase(tx, chosen, author))
        proof, elsewhere = await prove(self._store, author.principal, gone)
        told = f"goes on; if it is run again it reads {ERASED!r}, and may stop there for a person"
        elsewhere += tuple(Elsewhere(f"run {run_id} under way", None, told) for run_id in scrubbed.under_way[:20])
        return Forgotten(tuple(row.id for row in gone)[:100], len(gone), "erase", scrubbed.steps, proof, elsewhere)

    def _erase(self, tx: Transaction, chosen: Choice, author: Author) -> tuple[tuple[Erased, ...], Scrubbed]:
        rows, waiting = records.chosen(tx, author.principal, chosen)
        records.delete(tx, author, rows)
        quarantine.drop(tx, waiting)
        gone = tuple(Erased(row.id, row.text, row.run_id, row.step) for row in rows)
        gone += tuple(Erased(held.id, held.item.text, held.run_id, held.step) for held in waiting)
        for one in gone:
            records.log(tx, author, "erase", one.id)
        self.erasures += 1
        texts = {one.id: one.text for one in gone}
        if not texts:
            return gone, Scrubbed(0, ())
        self._store.unkeep(tx, author.principal, REPLIES, texts.keys())
        return gone, self._scrub(tx, author.principal, texts)

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
        return self._retract(tx, Choice(ids, source, conversation, expect_count), reason, self._author(**by))

    def _retract(self, tx: Transaction, chosen: Choice, reason: str, author: Author) -> Forgotten:
        sane(reason, "reason", 4 * self._limits.memory_label_chars_max)
        reason, _ = screened(reason, "reason", self._rules.secrets)
        rows, waiting = records.chosen(tx, author.principal, chosen)
        done = [row for row in rows if row.retracted_at is None]
        for row in done:
            records.retract(tx, author, row, reason)
        self._drop(tx, waiting, author)  # what was never believed is no history
        ids = [row.id for row in done] + [held.id for held in waiting]
        return Forgotten(tuple(ids[:100]), len(ids), "retract")

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
        if TRUST[author.trust] in self._rules.quarantine:
            raise Denied(
                "memory.quarantine",
                f"What comes from a {TRUST[author.trust]} waits in quarantine here, and standing notes are read before anybody looked."
                " Nothing was changed. Use memory_add.",
            )
        sane(text, "text", None)
        text, masked = screened(text, "text", self._rules.secrets)
        block = notes.edited(
            tx, author.principal,
            label=label, text=text, old=old, if_version=if_version, now=author.now, limits=self._limits,
        )  # fmt: skip
        records.log(tx, author, "edit", label)
        return dataclasses.replace(block, masked=tuple(masked)) if masked else block

    # --- as lines

    async def export(self, *, principal: str = LOCAL) -> AsyncIterator[str]:
        """All that this memory is, history included, as lines of JSON (base/transfer.py): of one moment, however long it takes."""
        async with self._store.snapshot() as read:
            async for line in exported(read, principal):
                yield line

    def reader_in(
        self, tx: Transaction, before: transfer.Before, *, principal: str = LOCAL, trust: str = "user"
    ) -> transfer.Reader:
        """Takes such lines over, trusted at most so far; `before` as it was when the first of them was read."""
        return transfer.Reader(
            tx, principal, self._limits, before,
            trust_most=trust, new_id=self._ports.new_id, room=lambda item: self._check_room(tx, principal, [item]),
            screened=lambda item: screened_item(item, 0, self._rules.secrets)[0],
        )  # fmt: skip

    async def stats(self, *, principal: str = LOCAL) -> Stats:
        def query(db: sqlite3.Connection) -> Stats:
            live, _ = recall.scopes_of(principal)
            items, octets, _ = recall.counts(db, principal)
            (alive,) = db.execute("SELECT count(*) FROM memory WHERE scope=?", (live,)).fetchone()
            waiting, written = quarantine.count(db, principal), len(notes.listed(db, principal, None, self._limits))
            return Stats(alive, items - alive, octets, self._limits.memory_bytes_max, waiting, written)

        return await self._store.read(query)

    def _author(
        self, principal: str = LOCAL, trust: str = "user", client: str | None = None, run_id: str | None = None,
        step: str | int | None = None,
    ) -> Author:  # fmt: skip
        if client is not None:
            sane(client, "client", self._limits.memory_label_chars_max)
        return Author(principal, trust_of(trust), client, run_id, step, self._now())

    def _now(self) -> float:
        """Whole milliseconds, rounded down: a time that was shown and is given back must still include what it was shown for."""
        return math.floor(self._ports.clock.now() * 1000) / 1000


async def exported(read: Read, principal: str = LOCAL) -> AsyncIterator[str]:
    """The lines of a memory, from a snapshot of its file."""
    found = await read(lambda db: transfer.lines(db, principal))
    while some := await read(lambda _: list(itertools.islice(found, EXPORT_LINES))):
        for line in some:
            yield line
