"""Memory's index and its reading: which rows a question may see, which of them match, in which order, and as much of each as fits a reply.

    view     what is live, or was true then, or was believed then; narrowed by the filters: one WHERE over `memory m`
    match    full-text search inside the view, through the index `memory_fts`
    order    base/ranking.py
    reply    the hits of one page, long texts cut in the middle

Guarantees
1. No statement here returns a row of another principal: the condition on `m.scope` stands in every one of them.
2. A reply never exceeds the room it was given, and always has at least one hit when there is one.
3. Functions here take an open connection and commit nothing; only `index` and `unindex` write.

Format: `memory` is the content table of `memory_fts`, whose column `scope` holds one term, `1` or `0` (live or history) and 24 digits
of the principal's hash: a small principal's search never walks through another's postings.

Not here: the formula of the order (ranking.py), cursors and shares of room (pages.py), who may ask (memory.py).
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

from . import ranking
from .facts import TRUST, Hit, check_names, check_texts, moment, sane, trust_of
from .pages import fitting, share, weight
from .ports import rfc3339
from .ranking import Parts, Place, Ranked, Text
from .store import Transaction
from .wording import Asked, any_of, asks, pieces_of, said

__all__ = [
    "SCHEMA", "Filters", "Found", "View", "counts", "index", "lookalikes", "newest_first", "ranked", "scopes_of", "shown", "unindex",
    "upgrade", "view_of",
]  # fmt: skip

WORDS = "scope, speaker, text, pieces"
SCHEMA = """
    CREATE VIRTUAL TABLE memory_fts USING fts5(
        scope, speaker, text, content='memory', content_rowid='n', tokenize='porter unicode61 remove_diacritics 2');
    INSERT INTO memory_fts(memory_fts, rank) VALUES('rank', 'bm25(0.0, 1.0, 1.0)');
"""


def upgrade(tx: Transaction) -> None:
    """To schema 4: the pieces of words, and which items ask; old rows are indexed again."""
    tx.execute("ALTER TABLE memory ADD COLUMN asks INTEGER NOT NULL DEFAULT 0")
    tx.execute("ALTER TABLE memory ADD COLUMN pieces TEXT NOT NULL DEFAULT ''")
    tx.create_function("pieces_of", 1, pieces_of, deterministic=True)
    tx.create_function("asks", 1, asks, deterministic=True)
    tx.execute("UPDATE memory SET asks=asks(text), pieces=pieces_of(speaker || ' ' || text)")
    tx.execute("DROP TABLE memory_fts")
    tx.execute(
        f"CREATE VIRTUAL TABLE memory_fts USING fts5({WORDS}, content='memory', content_rowid='n',"
        " tokenize='porter unicode61 remove_diacritics 2')"
    )
    tx.execute("INSERT INTO memory_fts(memory_fts, rank) VALUES('rank', 'bm25(0.0, 1.0, 1.0, 1.0)')")
    tx.execute("INSERT INTO memory_fts(memory_fts) VALUES('rebuild')")


FIELDS = tuple(field.name for field in dataclasses.fields(Hit))
NAMES_BYTES = 230
"""Names of a hit's fields and blanks between them, as JSON."""
FRAME_BYTES = 256
"""What is around the hits of a reply."""
BRIEF = 160
"""Least bytes of a hit's text in a reply; when not even that fits, the rest is on the next page."""


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


SCORED = "SELECT rowid, -rank FROM memory_fts WHERE memory_fts MATCH ? ORDER BY 2 DESC"
MATCHING = "SELECT rowid FROM memory_fts WHERE memory_fts MATCH ?"
PLACE = "m.conversation, m.before, m.words, m.asks, m.speaker, m.valid_from"
SHOWN = (
    "n", "id", "text", "valid_from", "conversation", "speaker", "key", "tags", "trust", "source", "run_id", "step",
    "superseded_by", "retracted_at", "reason", "expires_at", "client", "dated", "recorded_at", "confirmed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """Which rows a search may see, as SQL over `memory m`; and the scope terms that select the same ones inside the index."""

    scopes: tuple[str, ...]
    where: str
    args: tuple[Any, ...]


class Found(NamedTuple):
    n: int
    score: float | None
    why: Mapping[str, Mapping[str, float]] | None


@functools.lru_cache(maxsize=1024)
def scopes_of(principal: str) -> tuple[str, str]:
    """The index terms of a principal's live items and of its history. Digits, because the stemmer leaves those alone."""
    number = int.from_bytes(hashlib.sha256(principal.encode("utf8", "surrogatepass")).digest()) % 10**24
    return f"1{number:024d}", f"0{number:024d}"


def counts(db: sqlite3.Connection, principal: str) -> tuple[int, int, int]:
    """Items that are kept and their bytes; and how many were ever added, which is the ordinal of the newest."""
    row = db.execute("SELECT items, octets, added FROM memory_count WHERE principal=?", (principal,)).fetchone()
    return (0, 0, 0) if row is None else tuple(row)


def view_of(principal: str, now: float, newest: int, filters: Filters) -> View:
    """What the filters leave of the principal's rows up to its `newest`."""
    check_names(filters, tuple(Filters.__annotations__), "A search has no filter")
    return _narrowed(_seen(principal, now, filters), newest, filters)


def _seen(principal: str, now: float, filters: Filters) -> View:
    scopes = scopes_of(principal)
    as_of, known_at = filters.get("as_of"), filters.get("known_at")
    everything = filters.get("include_retired", False)
    if as_of is None and known_at is None and not everything:
        return View(scopes[:1], "m.scope=? AND (m.expires_at IS NULL OR m.expires_at>?)", (scopes[0], now))
    where, args = "m.scope IN (?,?)", list[Any](scopes)
    known = now if known_at is None else moment(known_at, "known_at", end=True)
    if known_at is not None:
        where += " AND m.recorded_at<=?"
        args.append(known)
    if everything:
        return View(scopes, where, tuple(args))
    at = known if as_of is None else moment(as_of, "as_of", end=True)
    where += " AND (m.retracted_at IS NULL OR m.retracted_at>?) AND (m.expires_at IS NULL OR m.expires_at>?)"
    args += [known, at]
    if as_of is None:
        return View(scopes, where + " AND (m.closed_at IS NULL OR m.closed_at>?)", (*args, known))
    # A value that was put into the middle of a slot's past hides the one it divides, whose own end was never rewritten.
    where += (
        " AND m.valid_from<=? AND (m.valid_to IS NULL OR m.closed_at>? OR m.valid_to>?)"
        " AND (m.key IS NULL OR NOT EXISTS (SELECT 1 FROM memory k WHERE k.principal=m.principal AND k.key=m.key"
        " AND k.valid_from<=? AND (k.valid_from, k.n)>(m.valid_from, m.n) AND k.recorded_at<=?"
        " AND (k.retracted_at IS NULL OR k.retracted_at>?)))"
    )
    return View(scopes, where, (*args, at, known, at, at, known, known))


def _narrowed(view: View, newest: int, filters: Filters) -> View:
    wanted: list[tuple[str, Any]] = [("m.ordinal<=?", newest)]
    named = {"key": filters.get("key"), "conversation": filters.get("conversation"), "kind": filters.get("kind")}
    wanted += [(f"m.{name}=?", value) for name, value in named.items() if value is not None]
    for _, value in wanted[1:]:
        sane(value, "a filter", None)
    if (tags := filters.get("tags")) is not None:
        check_texts(tags, "tags")
        wanted += [("EXISTS (SELECT 1 FROM json_each(m.tags) WHERE value=?)", tag) for tag in tags]
    if (ids := filters.get("ids")) is not None:
        check_texts(ids, "ids")
        wanted.append(("m.id IN (SELECT value FROM json_each(?))", json.dumps(list(ids))))
    if (since := filters.get("since")) is not None:
        wanted.append(("m.valid_from>=?", moment(since, "since")))
    if (until := filters.get("until")) is not None:
        wanted.append(("m.valid_from<=?", moment(until, "until", end=True)))
    if (trust := filters.get("min_trust")) is not None:
        wanted.append(("m.trust>=?", trust_of(trust)))
    where = " AND ".join([view.where, *(sql for sql, _ in wanted)])
    return View(view.scopes, where, (*view.args, *(value for _, value in wanted)))


def ranked(
    db: sqlite3.Connection, view: View, principal: str, asked: Asked, wanted: int, *, explain: bool = False
) -> list[Found]:
    """The first `wanted` of all hits: the neighbourhood order of the best, then the rest by their own score."""
    scope, total = _scope(db, principal, view.scopes)
    sought = asked.terms + asked.phrases
    items = [[row[0] for row in db.execute(MATCHING, (_match(scope, term),))] for term in sought]
    rows = [len(numbers) for numbers in items]
    chosen = [sought[index] for index in ranking.rarest(rows)]
    if not chosen:
        return []
    own, places = _pool(db, view, _match(scope, any_of(chosen)), ranking.POOL)
    if len(own) < ranking.POOL and len(chosen) < sum(map(bool, rows)):
        own, places = _pool(db, view, _match(scope, any_of(sought)), ranking.POOL)
    places.update(_beside(db, view, list(own)[: ranking.LENDERS], places))
    terms = [ranking.Term(ranking.weight_of(len(numbers), total), numbers) for numbers in items]
    phrased = set(items[-1]).intersection(*items[len(asked.terms) :]) if asked.phrases else None
    found = ranking.order(own, terms, places, asked, phrased=phrased, explain=explain)
    if len(own) == ranking.POOL and wanted > len(found):
        rest, _ = _pool(db, view, _match(scope, any_of(sought)), wanted + len(found))
        found += [Ranked(n, score, None) for n, score in rest.items() if n not in places]
    return [Found(one.n, one.score, _why(one.parts, sought) if one.parts else None) for one in found[:wanted]]


def _pool(db: sqlite3.Connection, view: View, match: str, limit: int) -> tuple[dict[int, float], dict[int, Place]]:
    """The best `limit` by their own score, best first.

    Sorted by an expression, since `ORDER BY rank` has FTS5 compute each score twice; and seen through the view in ever larger lots,
    since joining every match costs as much again.
    """
    scored = db.execute(SCORED, (match,))
    own: dict[int, float] = {}
    places: dict[int, Place] = {}
    size = limit
    while len(own) < limit and (lot := dict(scored.fetchmany(size))):
        seen = _places(db, view, "n", lot)
        places.update(seen)
        own.update((n, score) for n, score in lot.items() if n in seen)
        size *= 4
    kept = dict(itertools.islice(own.items(), limit))
    return kept, {n: places[n] for n in kept}


def _beside(
    db: sqlite3.Connection, view: View, lenders: Sequence[int], places: Mapping[int, Place]
) -> dict[int, Place]:
    """The items said right before and right after the lenders, as far as they may be seen."""
    before = {places[n].before for n in lenders} - places.keys() - {None}
    said_before = {place.before for place in places.values()}
    after = [n for n in lenders if n not in said_before]
    return _places(db, view, "n", before) | _places(db, view, "before", after)


def _places(db: sqlite3.Connection, view: View, column: str, numbers: Iterable[int | None]) -> dict[int, Place]:
    asked = f"SELECT m.n, {PLACE} FROM json_each(?) j CROSS JOIN memory m ON m.{column}=j.value WHERE {view.where}"  # noqa: S608
    return {row[0]: Place(*row[1:]) for row in db.execute(asked, (json.dumps(list(numbers)), *view.args))}


def _scope(db: sqlite3.Connection, principal: str, scopes: Sequence[str]) -> tuple[str, int]:
    """What narrows a match to the scopes where that saves work, and how many rows that leaves.

    The join on `m.scope` is the wall, the term in the index a short cut. The term skips what others own. For who owns most of it,
    walking the postings of his own scope costs more than the join.
    """
    total = int(db.execute("SELECT coalesce(max(n), 0) FROM memory").fetchone()[0])
    own, _, _ = counts(db, principal)
    if own * 2 >= total:
        return "", total
    return f"scope : ({any_of(f'{chr(34)}{scope}{chr(34)}' for scope in scopes)}) AND ", own


def _match(scope: str, sought: str) -> str:
    return f"{scope}{{speaker text pieces}} : ({sought})"


def _why(parts: Parts, sought: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
    terms = {said(sought[term]): value for term, value in parts.terms.items()}
    return {"terms": terms, "times": parts.times}


def newest_first(db: sqlite3.Connection, view: View, wanted: int) -> list[Found]:
    rows = db.execute(
        f"SELECT m.n FROM memory m WHERE {view.where} ORDER BY m.valid_from DESC, m.n DESC LIMIT ?",  # noqa: S608
        (*view.args, wanted),
    )
    return [Found(row[0], None, None) for row in rows]


def shown(
    db: sqlite3.Connection, page: Sequence[Found], best: float | None, now: float, budget: int
) -> tuple[Hit, ...]:
    """As many hits of the page as fit, each with as much of its text as an equal share of the room allows."""
    asked = f"SELECT {', '.join(SHOWN)} FROM memory WHERE n IN (SELECT value FROM json_each(?))"  # noqa: S608
    rows = {
        row[0]: dict(zip(SHOWN, row, strict=True)) for row in db.execute(asked, (json.dumps([one.n for one in page]),))
    }
    hits = [_hit(rows[one.n], one, best or 1, now) for one in page]
    texts = [weight(hit.text) for hit in hits]
    rests = [
        weight([getattr(hit, name) for name in FIELDS]) + NAMES_BYTES - text
        for hit, text in zip(hits, texts, strict=True)
    ]
    fit, room = fitting(rests, texts, budget - FRAME_BYTES, BRIEF)
    size = share(texts[:fit], room, BRIEF)
    return tuple(
        hit if text <= size else _cut(hit, size * len(hit.text) // text)
        for hit, text in zip(hits[:fit], texts, strict=False)
    )


def _cut(hit: Hit, chars: int) -> Hit:
    return dataclasses.replace(hit, text=ranking.excerpt(hit.text, max(chars - 80, 40), f"memory://{hit.id}"))


def _hit(row: Mapping[str, Any], found: Found, best: float, now: float) -> Hit:
    score = None if found.score is None else round(found.score / best, 3)
    why = found.why and {
        "terms": {term: round(value / best, 3) for term, value in found.why["terms"].items()},
        "times": {name: round(value, 3) for name, value in found.why["times"].items() if value != 1},
    }
    retired = None
    if row["retracted_at"] is not None:
        retired = f"retracted: {row['reason']}" if row["reason"] else "retracted"
    elif row["superseded_by"] is not None:
        retired = f"superseded by {row['superseded_by']}"
    elif row["expires_at"] is not None and row["expires_at"] <= now:
        retired = "expired"
    told = {name: row[name] for name in ("id", "text", "conversation", "key", "source", "client", "run_id", "step")}
    tags, speaker = tuple(json.loads(row["tags"])), row["speaker"] or None
    time, trust = rfc3339(row["valid_from"]), TRUST[row["trust"]]
    learnt = rfc3339(row["recorded_at"]) if row["dated"] else None
    return Hit(
        **told, score=score, time=time, recorded_at=learnt, speaker=speaker, tags=tags, trust=trust, retired=retired,
        confirmed=row["confirmed"] or None, why=why,
    )  # fmt: skip


def index(tx: Transaction, n: int) -> None:
    """Once the row is there: its words as they stand in it."""
    tx.execute(f"INSERT INTO memory_fts(rowid, {WORDS}) SELECT n, {WORDS} FROM memory WHERE n=?", (n,))  # noqa: S608


def unindex(tx: Transaction, n: int) -> None:
    """Before the row changes or goes: the index must be told what it was given."""
    gone = f"INSERT INTO memory_fts(memory_fts, rowid, {WORDS}) SELECT 'delete', n, {WORDS} FROM memory WHERE n=?"  # noqa: S608
    tx.execute(gone, (n,))


def lookalikes(db: sqlite3.Connection, principal: str, text: Text) -> list[Text]:
    """The newest few live texts that have rare words in common with this one."""
    live, _ = scopes_of(principal)
    match = ranking.some_of(text.rare())
    if not match:
        return []
    rows = db.execute(
        "SELECT m.id, substr(m.text, 1, 500) FROM memory_fts f CROSS JOIN memory m ON m.n=f.rowid"
        " WHERE memory_fts MATCH ? AND m.scope=? ORDER BY f.rowid DESC LIMIT 10",
        (f"{_scope(db, principal, (live,))[0]}{{text pieces}} : ({match})", live),
    )
    return [Text.of(*row) for row in rows]
