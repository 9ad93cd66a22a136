"""Finding a skill by what it is for: a full-text index of names and descriptions, and how often each was used.

    skill         the content table of skill_fts, one row for each skill of each place
    skill_use     how often a skill was loaded or run, and when last; a use of `HALF_LIFE_S` ago counts half

    score = bm25 over stemmed words, those that are in few skills, x (1 + PRIOR x uses / (uses + USES_HALF))

Guarantees
1. Only skills of the places that are asked for are found: what another connection shared is not.
2. A skill that was often used stands before one that fits as well, never before one that fits a fifth better.

Functions take the open transaction or connection and commit nothing. If the process dies: the index is as it was after some change of the
folders, and is brought up to date before the next search.
"""

import sqlite3
from collections.abc import Collection, Sequence
from typing import NamedTuple

from . import wording
from .store import Transaction

__all__ = ["SCHEMA", "Hit", "Row", "count_use", "reindex", "search"]

SCHEMA = """
    DROP TABLE skill_fts;
    DROP TABLE skill;
    CREATE TABLE skill(
        n INTEGER PRIMARY KEY, principal TEXT NOT NULL, place TEXT NOT NULL, key TEXT NOT NULL, uri TEXT NOT NULL, name TEXT NOT NULL,
        description TEXT NOT NULL, UNIQUE(principal, place, key)) STRICT;
    CREATE VIRTUAL TABLE skill_fts USING fts5(
        name, description, content='skill', content_rowid='n', tokenize='porter unicode61 remove_diacritics 2');
    CREATE TABLE skill_use(
        principal TEXT NOT NULL, key TEXT NOT NULL, uses REAL NOT NULL, used_at REAL NOT NULL,
        PRIMARY KEY(principal, key)) STRICT, WITHOUT ROWID;
"""
"""Of schema 6: the index before it knew no places. It is filled anew by the first search."""

PRIOR, USES_HALF = 0.2, 4.0
HALF_LIFE_S = 30 * 86400.0
RANKED_MAX = 1500
"""Skills that bm25 is worked out for: two microseconds each."""
ALL = 1_000_000
AHEAD = 4
"""Times `limit`: how deep the prior looks for skills that it may lift."""


class Row(NamedTuple):
    place: str
    key: str
    uri: str
    name: str
    description: str


class _Ranked(NamedTuple):
    key: str
    score: float
    uses: float
    used_at: float


class Hit(NamedTuple):
    key: str
    score: float


def reindex(tx: Transaction, principal: str, places: Collection[str], rows: Sequence[Row]) -> None:
    """Make the index hold exactly `rows` of those places; what stayed the same is not touched."""
    wanted = {(row.place, row.key): row for row in rows}
    marks = ",".join("?" * len(places))
    asked = f"SELECT n, place, key, uri, name, description FROM skill WHERE principal=? AND place IN ({marks})"  # noqa: S608
    for n, *known in tx.execute(asked, (principal, *places)).fetchall():
        row = Row(*known)
        if wanted.get((row.place, row.key)) == row:
            del wanted[row.place, row.key]
            continue
        tx.execute(
            "INSERT INTO skill_fts(skill_fts, rowid, name, description) VALUES('delete',?,?,?)",
            (n, row.name, row.description),
        )
        tx.execute("DELETE FROM skill WHERE n=?", (n,))
    for row in wanted.values():
        n = tx.execute(
            "INSERT INTO skill(principal, place, key, uri, name, description) VALUES(?,?,?,?,?,?)", (principal, *row)
        ).lastrowid
        tx.execute("INSERT INTO skill_fts(rowid, name, description) VALUES(?,?,?)", (n, row.name, row.description))


def search(
    db: sqlite3.Connection, principal: str, places: Collection[str], query: str, *, limit: int, now: float
) -> list[Hit]:
    """Best first, the best with score 1; by any of the words that tell something."""
    words = [f'"{word}"' for word in wording.kept_of(query)]
    telling = _telling(db, words)
    rows: list[_Ranked] = []
    for some, most in ((telling, RANKED_MAX), (words, RANKED_MAX), (words, ALL)):
        if len(rows) < limit and some:
            known = {row.key for row in rows}
            found = _ranked(db, principal, places, wording.any_of(some), most=most, limit=limit * AHEAD)
            rows += [row for row in found if row.key not in known]
    weighed = sorted(
        ((row.score * _prior(_uses(row.uses, row.used_at, now)), row.key) for row in rows), key=lambda hit: -hit[0]
    )
    return [Hit(key, round(score / weighed[0][0], 3)) for score, key in weighed[:limit]]


def _ranked(
    db: sqlite3.Connection, principal: str, places: Collection[str], match: str, *, most: int, limit: int
) -> list[_Ranked]:
    marks = ",".join("?" * len(places))
    rows = db.execute(
        "SELECT s.key, -f.rank, coalesce(u.uses, 0), coalesce(u.used_at, 0) FROM"  # noqa: S608  (marks only)
        " (SELECT rowid, rank FROM skill_fts WHERE skill_fts MATCH ? LIMIT ?) f"
        " CROSS JOIN skill s ON s.n=f.rowid LEFT JOIN skill_use u ON u.principal=s.principal AND u.key=s.key"
        f" WHERE s.principal=? AND s.place IN ({marks}) ORDER BY f.rank, s.n LIMIT ?",
        (match, most, principal, *places, limit),
    )
    return [_Ranked(*row) for row in rows]


def _telling(db: sqlite3.Connection, words: Sequence[str]) -> list[str]:
    """The words that are in few skills, as long as these are at most `RANKED_MAX` together: what is in every other skill tells nothing, and
    to rank all that have it would be most of the work.
    """
    kept: list[str] = []
    left = RANKED_MAX
    for count, word in sorted((_count(db, word), word) for word in words):
        left -= count
        if count and left >= 0:
            kept.append(word)
    return kept


def _count(db: sqlite3.Connection, match: str) -> int:
    return int(db.execute("SELECT count(*) FROM skill_fts WHERE skill_fts MATCH ?", (match,)).fetchone()[0])


def count_use(tx: Transaction, principal: str, key: str, now: float) -> None:
    row = tx.execute("SELECT uses, used_at FROM skill_use WHERE principal=? AND key=?", (principal, key)).fetchone()
    uses = 1.0 + (_uses(row[0], row[1], now) if row else 0.0)
    tx.execute("INSERT OR REPLACE INTO skill_use VALUES(?,?,?,?)", (principal, key, uses, now))


def _uses(uses: float, used_at: float, now: float) -> float:
    return float(uses * 0.5 ** (max(0.0, now - used_at) / HALF_LIFE_S))


def _prior(uses: float) -> float:
    return 1.0 + PRIOR * uses / (uses + USES_HALF)
