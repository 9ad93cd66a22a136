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
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from . import ranking
from .facts import TRUST, Hit, moment, sane, trust_of
from .pages import fitting, share, weight
from .ports import rfc3339
from .ranking import Place, Text
from .store import Transaction

__all__ = [
    "SCHEMA", "Filters", "View", "count", "index", "lookalikes", "newest_first", "ranked", "scopes_of", "shown", "unindex",
    "view_of",
]  # fmt: skip

SCHEMA = """
    CREATE VIRTUAL TABLE memory_fts USING fts5(
        scope, speaker, text, content='memory', content_rowid='n', tokenize='porter unicode61 remove_diacritics 2');
    INSERT INTO memory_fts(memory_fts, rank) VALUES('rank', 'bm25(0.0, 1.0, 1.0)');
"""

NAMES_BYTES = 210
"""Names of a hit's fields, as JSON."""
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


@functools.lru_cache(maxsize=1024)
def scopes_of(principal: str) -> tuple[str, str]:
    """The index terms of a principal's live items and of its history. Digits, because the stemmer leaves those alone."""
    number = int.from_bytes(hashlib.sha256(principal.encode("utf8", "surrogatepass")).digest()) % 10**24
    return f"1{number:024d}", f"0{number:024d}"


def count(db: sqlite3.Connection, principal: str) -> int:
    row = db.execute("SELECT items FROM memory_count WHERE principal=?", (principal,)).fetchone()
    return int(row[0]) if row else 0


def view_of(principal: str, now: float, newest: int, filters: Filters) -> View:
    """What the filters leave of the principal's rows up to its `newest`."""
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
    return View(view.scopes, where, (*view.args, *(value for _, value in wanted)))


def ranked(
    db: sqlite3.Connection, view: View, principal: str, terms: Sequence[str], wanted: int
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
    return match if count(db, principal) * 2 >= total else f"scope : ({ranking.any_of(scopes)}) AND {match}"


def newest_first(db: sqlite3.Connection, view: View, wanted: int) -> list[tuple[int, float | None]]:
    rows = db.execute(
        f"SELECT m.n FROM memory m WHERE {view.where} ORDER BY m.valid_from DESC, m.n DESC LIMIT ?",  # noqa: S608
        (*view.args, wanted),
    )
    return [(row[0], None) for row in rows]


def shown(
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
    fit, room = fitting(rests, texts, budget - FRAME_BYTES, BRIEF)
    size = share(texts[:fit], room, BRIEF)
    return tuple(
        hit if text <= size else _cut(hit, size * len(hit.text) // text)
        for hit, text in zip(hits[:fit], texts, strict=False)
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
    told = {name: row[name] for name in ("id", "text", "conversation", "key", "source", "client", "run_id", "step")}
    tags, speaker = tuple(json.loads(row["tags"])), row["speaker"] or None
    time, trust = rfc3339(row["valid_from"]), TRUST[row["trust"]]
    learnt = rfc3339(row["recorded_at"]) if row["dated"] else None
    return Hit(
        **told, score=score, time=time, recorded_at=learnt, speaker=speaker, tags=tags, trust=trust, retired=retired,
        confirmed=row["confirmed"] or None,
    )  # fmt: skip


def index(tx: Transaction, n: int, scope: str, speaker: str, text: str) -> None:
    tx.execute("INSERT INTO memory_fts(rowid, scope, speaker, text) VALUES(?,?,?,?)", (n, scope, speaker, text))


def unindex(tx: Transaction, n: int, scope: str, speaker: str, text: str) -> None:
    """The index must be told what it was given."""
    entry = (n, scope, speaker, text)
    tx.execute("INSERT INTO memory_fts(memory_fts, rowid, scope, speaker, text) VALUES('delete',?,?,?,?)", entry)


def lookalikes(db: sqlite3.Connection, principal: str, text: Text) -> list[Text]:
    """The newest few live texts that have rare words in common with this one."""
    live, _ = scopes_of(principal)
    match = ranking.some_of(text.rare())
    if not match:
        return []
    rows = db.execute(
        "SELECT m.id, substr(m.text, 1, 500) FROM memory_fts f CROSS JOIN memory m ON m.n=f.rowid"
        " WHERE memory_fts MATCH ? AND m.scope=? ORDER BY f.rowid DESC LIMIT 10",
        (_scoped(db, principal, (live,), f"text : ({match})"), live),
    )
    return [Text.of(*row) for row in rows]
