"""Whether a file holds what the journal, the store and the audit promise of it; reads only.

    for problem in problems(db): ...        sentences for a person; none of them means that all of it is whole

Each query below is a guarantee turned round: it finds the rows that break it.
"""

import hashlib
import sqlite3
from collections.abc import Iterator

from . import audit

__all__ = ["problems"]

SHOWN_MAX = 20
"""Of one kind; the rest is counted."""
OF_A_RUN = ("delivery", "intent", "timer", "item", "message", "log", "event")

BROKEN = {
    "has a hole in its deliveries": "SELECT rid FROM delivery GROUP BY rid HAVING max(dseq) + 1 != count(*)",
    "has a clock that falls": """
        SELECT DISTINCT rid FROM (SELECT rid, t, lag(t) OVER (PARTITION BY rid ORDER BY dseq) AS before FROM delivery) WHERE t < before""",
    "lacks the value of a delivery": """
        SELECT DISTINCT rid FROM delivery d WHERE value IS NULL
        AND NOT EXISTS (SELECT 1 FROM blob b WHERE b.principal = d.principal AND b.digest = d.blob)""",
    "has ended and still waits": """
        SELECT rid FROM run r WHERE ended_at IS NOT NULL AND (EXISTS (SELECT 1 FROM timer t WHERE t.rid = r.rid)
        OR EXISTS (SELECT 1 FROM item i WHERE i.rid = r.rid AND i.status = 'waiting'))""",
    "is a child of a run that is not there": """
        SELECT rid FROM run r WHERE parent_rid IS NOT NULL AND NOT EXISTS (SELECT 1 FROM run p WHERE p.rid = r.parent_rid)""",
}
"""Of a run: what is said of it -> its rids."""


def problems(db: sqlite3.Connection) -> Iterator[str]:
    """May take a second for each few hundred megabytes. Raises sqlite3.Error where the file cannot be read at all."""
    verdicts = [verdict for (verdict,) in db.execute(f"PRAGMA integrity_check({SHOWN_MAX})")]
    if verdicts != ["ok"]:
        yield from (f"SQLite: {verdict}" for verdict in verdicts)
        return  # what the queries find in such a file means nothing
    yield from _of_runs(db)
    yield from _of_bytes(db)
    verdict = audit.verify(db)
    if verdict.problem is not None:
        yield f"audit event {verdict.broken_at}: {verdict.problem}"


def _of_runs(db: sqlite3.Connection) -> Iterator[str]:
    for what, query in BROKEN.items():
        found = [_name(db, rid) for (rid,) in db.execute(query)]
        yield from (f"{name} {what}" for name in found[:SHOWN_MAX])
        if len(found) > SHOWN_MAX:
            yield f"{len(found) - SHOWN_MAX} more runs: {what}"
    for table in OF_A_RUN:
        (count,) = db.execute(f"SELECT count(*) FROM {table} WHERE rid NOT IN (SELECT rid FROM run)").fetchone()  # noqa: S608
        if count:
            yield f"{count} rows of {table} belong to no run"
    for run_id, program, code_hash in db.execute("SELECT run_id, program, code_hash FROM run"):
        if hashlib.sha256(program.encode()).hexdigest() != code_hash:
            yield f"{run_id} has another program than it began with"


def _name(db: sqlite3.Connection, rid: int) -> str:
    found = db.execute("SELECT run_id FROM run WHERE rid=?", (rid,)).fetchone()
    return str(found[0]) if found else f"run number {rid}, which is not there,"


def _of_bytes(db: sqlite3.Connection) -> Iterator[str]:
    for digest, data in db.execute("SELECT digest, data FROM blob"):
        if hashlib.sha256(data).hexdigest() != digest:
            yield f"the bytes of {digest[:12]} are not those that were stored"
    missing = db.execute(
        "SELECT a.uri FROM artifact a WHERE NOT EXISTS (SELECT 1 FROM blob b WHERE b.principal=a.principal AND b.digest=a.digest)"
    )
    yield from (f"{uri} has lost its bytes" for (uri,) in missing)
