"""The journal: runs, their deliveries, and what they wait for, as records. The second primitive.

A run is a program, its input, and a dense sequence of deliveries: answers to the program's calls, ticks of its clock, a cancellation.
A delivery is in the journal before the program can see it, so a program that is started again meets the same past. A call has no
record of its own; its ordinal, method, effect, label, the digest of its arguments (and up to 4 KiB of them) stand beside its answer.

    run        one row a run: the program and input it began with, how it stands, how it ended
    delivery   (rid, dseq): kind ok | error | tick | cancel, the run clock T, the call it answers (-1: none), the value
    intent     a call with effect at_most_once, before its body starts; gone with its answer
    timer      when a sleep, a waiting message or an item is due, on the run's clock; so that it is due then after a restart too
    item       what a person or a model is asked; message: topic and content sent to a run; log, event: what is shown, never replayed

Guarantees
1. The line `INSERT INTO delivery` is the one where a step becomes true. What the call did in this file (memory, messages, children,
   items) is in the same transaction: it happened with the answer or not at all.
2. Per run, delivery numbers have no hole, T never falls, and a call has at most one answer; the last two hold by query and index.
3. Nothing is added to a run that has ended.
4. A key is a run's for ever: the same key with the same arguments is the same run, with other arguments a conflict.
5. Whatever gives a parked run something to do clears `parked` in the same transaction, so that the next open finds it.

Not here: what a call does (orchestration.py), when a program lives (programs.py), comparison with the past (base/replay.py).
If the process dies between any two lines: a transaction is there as a whole or not at all; there is no second file.
"""
# ruff: noqa: S608  (only constants of this file are put into SQL text; values are always bound)

import hashlib
import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from .base import items, tombstones
from .base.errors import ArgumentError, Conflict, LimitExceeded, NotFound, Overloaded
from .base.limits import Limits
from .base.ports import Ports, rfc3339
from .base.replay import Made
from .base.shown import base36, clean, filled, loads, shown_step
from .base.store import Migrations, Store, Transaction, put_blob

__all__ = ["MIGRATIONS", "Delivery", "Item", "Journal", "NewRun", "RunRow"]

ARGUMENT_BYTES_KEPT = 4096
"""Of each call, so that a divergence can show what differs."""
LOG_ROWS_MAX = 2000
CURSOR_CHARS_MAX = 12
"""Of base 36: what a 64-bit key can need, and no more than SQLite can hold."""
LOG_CHARS_MAX = 2000

MIGRATIONS: Migrations = {
    1: """
    CREATE TABLE run(
        rid INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, principal TEXT NOT NULL, name TEXT,
        program TEXT NOT NULL, code_hash TEXT NOT NULL, runtime TEXT NOT NULL, path_version INTEGER NOT NULL,
        input BLOB NOT NULL, files BLOB, packages TEXT NOT NULL, memory_mb INTEGER NOT NULL, seed BLOB NOT NULL, epoch REAL NOT NULL,
        budget TEXT NOT NULL, capabilities TEXT, parent_rid INTEGER, idempotency_key TEXT, arguments_hash TEXT NOT NULL,
        status TEXT NOT NULL, detail TEXT, output BLOB, error TEXT, warnings TEXT, progress TEXT,
        parked INTEGER NOT NULL, wake_at REAL, paused INTEGER NOT NULL, cancelled INTEGER NOT NULL,
        consumed INTEGER NOT NULL, lives INTEGER NOT NULL, reruns INTEGER NOT NULL, calls INTEGER NOT NULL, tool_calls INTEGER NOT NULL, cpu_s REAL NOT NULL,
        created_at REAL NOT NULL, updated_at REAL NOT NULL, ended_at REAL) STRICT;
    CREATE UNIQUE INDEX run_key ON run(principal, idempotency_key) WHERE idempotency_key IS NOT NULL;
    CREATE INDEX run_active ON run(rid) WHERE ended_at IS NULL;
    CREATE INDEX run_of ON run(principal, rid);
    CREATE INDEX run_child ON run(parent_rid) WHERE parent_rid IS NOT NULL;
    CREATE TABLE delivery(
        principal TEXT NOT NULL, rid INTEGER NOT NULL, dseq INTEGER NOT NULL, kind TEXT NOT NULL, t REAL NOT NULL,
        cseq INTEGER NOT NULL, started_t REAL NOT NULL, method TEXT NOT NULL, effect TEXT NOT NULL, path TEXT NOT NULL,
        args_hash BLOB NOT NULL, args BLOB, attempts INTEGER NOT NULL, value BLOB, blob TEXT,
        PRIMARY KEY(rid, dseq)) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX delivery_call ON delivery(rid, cseq) WHERE cseq >= 0;
    CREATE TABLE intent(
        principal TEXT NOT NULL, rid INTEGER NOT NULL, cseq INTEGER NOT NULL, started_at REAL NOT NULL,
        PRIMARY KEY(rid, cseq)) STRICT, WITHOUT ROWID;
    CREATE TABLE timer(
        principal TEXT NOT NULL, rid INTEGER NOT NULL, cseq INTEGER NOT NULL, due_t REAL NOT NULL,
        PRIMARY KEY(rid, cseq)) STRICT, WITHOUT ROWID;
    CREATE TABLE item(
        item_id TEXT PRIMARY KEY, principal TEXT NOT NULL, rid INTEGER NOT NULL, cseq INTEGER NOT NULL, kind TEXT NOT NULL,
        method TEXT NOT NULL,
        effect TEXT NOT NULL, path TEXT NOT NULL, args_hash BLOB NOT NULL, args BLOB,
        answer_by TEXT NOT NULL, reason TEXT NOT NULL, prompt TEXT NOT NULL, details TEXT, schema TEXT, digest TEXT NOT NULL,
        deadline REAL, status TEXT NOT NULL, answer BLOB, note TEXT, channel TEXT, created_at REAL NOT NULL, answered_at REAL) STRICT;
    CREATE UNIQUE INDEX item_waiting ON item(rid, cseq, kind, reason) WHERE status = 'waiting';
    CREATE INDEX item_of ON item(principal) WHERE status = 'waiting';
    CREATE TABLE message(
        principal TEXT NOT NULL, rid INTEGER NOT NULL, seq INTEGER NOT NULL, topic TEXT NOT NULL, content BLOB NOT NULL,
        sender TEXT, at REAL NOT NULL, taken_by INTEGER, PRIMARY KEY(rid, seq)) STRICT, WITHOUT ROWID;
    CREATE INDEX message_waiting ON message(rid, topic, seq) WHERE taken_by IS NULL;
    CREATE TABLE log(
        principal TEXT NOT NULL, rid INTEGER NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL, text TEXT NOT NULL,
        PRIMARY KEY(rid, seq)) STRICT, WITHOUT ROWID;
    CREATE TABLE event(
        principal TEXT NOT NULL, rid INTEGER NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, text TEXT,
        PRIMARY KEY(rid, seq)) STRICT, WITHOUT ROWID;
    """,
    3: tombstones.SCHEMA,
    5: "ALTER TABLE run ADD COLUMN grants TEXT;",
}


def _kept(call: Made) -> bytes | None:
    return call.arguments if 0 < len(call.arguments) <= ARGUMENT_BYTES_KEPT else None


@dataclass(frozen=True, slots=True)
class NewRun:
    run_id: str
    principal: str
    program: str
    runtime: str
    path_version: int
    input: bytes
    seed: bytes
    name: str | None = None
    files: bytes | None = None
    packages: str = "[]"
    memory_mb: int = 512
    budget: str = "{}"
    capabilities: str | None = None
    parent_rid: int | None = None
    idempotency_key: str | None = None
    grants: str | None = None
    """Of the starter, as JSON; None: those of the kernel."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """A row of `run`; the fields are its columns, in order."""

    rid: int
    run_id: str
    principal: str
    name: str | None
    program: str
    code_hash: str
    runtime: str
    path_version: int
    input: bytes
    files: bytes | None
    packages: str
    memory_mb: int
    seed: bytes
    epoch: float
    budget: str
    capabilities: str | None
    parent_rid: int | None
    idempotency_key: str | None
    arguments_hash: str
    status: str
    detail: str | None
    output: bytes | None
    error: str | None
    warnings: str | None
    progress: str | None
    parked: int
    wake_at: float | None
    paused: int
    cancelled: int
    consumed: int
    lives: int
    reruns: int
    calls: int
    tool_calls: int
    cpu_s: float
    created_at: float
    updated_at: float
    ended_at: float | None
    grants: str | None


_RUN = ", ".join(field.name for field in fields(RunRow))


class Delivery(NamedTuple):
    dseq: int
    kind: str
    t: float
    cseq: int
    value: bytes


class Past(NamedTuple):
    """What replay compares with: a delivery without its value."""

    dseq: int
    cseq: int
    method: str
    effect: str
    args_hash: bytes
    kind: str
    t: float


class Item(NamedTuple):
    item_id: str
    rid: int
    run_id: str
    cseq: int
    kind: str
    answer_by: str
    reason: str
    prompt: str
    details: str | None
    schema: str | None
    digest: str
    deadline: float | None
    status: str
    method: str
    effect: str
    path: str
    args_hash: bytes
    args: bytes | None

    @property
    def call(self) -> Made:
        """The call that waits, as far as an answer's record needs it."""
        return Made(self.cseq, self.method, self.effect, self.path, self.args or b"", self.args_hash)

    def wire(self) -> dict[str, Any]:
        return filled(
            item_id=self.item_id,
            kind=self.kind,
            answer_by=self.answer_by,
            prompt=self.prompt,
            schema=None if self.schema is None else loads(self.schema),
            details=None if self.details is None else loads(self.details),
            digest=self.digest[: items.DIGEST_CHARS],
            deadline=None if self.deadline is None else rfc3339(self.deadline),
        )


_ITEM = (
    "SELECT i.item_id, i.rid, r.run_id, i.cseq, i.kind, i.answer_by, i.reason, i.prompt, i.details, i.schema, i.digest,"
    " i.deadline, i.status, i.method, i.effect, i.path, i.args_hash, i.args FROM item i JOIN run r USING(rid)"
)


class Journal:
    """SQL over an open transaction (`..._in(tx)`) or the reading connection (`db`); whoever calls decides what commits together."""

    def __init__(self, store: Store, ports: Ports, limits: Limits) -> None:
        self._store = store
        self._ports = ports
        self._limits = limits

    # --- runs

    def create_in(self, tx: Transaction, new: NewRun) -> tuple[RunRow, bool]:
        """The run, and whether it was there already under its key."""
        arguments = hashlib.blake2b(
            repr((new.program, new.input, new.files, new.packages, new.memory_mb, new.budget, new.name)).encode(),
            digest_size=16,
        ).hexdigest()
        if new.idempotency_key is not None:
            found = tx.execute(
                f"SELECT {_RUN} FROM run WHERE principal=? AND idempotency_key=?", (new.principal, new.idempotency_key)
            ).fetchone()
            if found is not None:
                row = RunRow(*found)
                if row.arguments_hash != arguments:
                    raise Conflict(
                        "key.conflict",
                        f"The key {new.idempotency_key!r} belongs to {row.run_id}, which was started with other arguments."
                        " Use a new key, or the same arguments.",
                    )
                return row, True
        (unended,) = tx.execute("SELECT count(*) FROM run WHERE ended_at IS NULL").fetchone()
        if unended >= self._limits.runs_open_max:
            raise Overloaded(
                f"{unended} runs have not ended, no more are begun. Wait for some, or cancel them.", retry_after_s=1.0
            )
        now = self._ports.clock.now()
        tx.execute(
            "INSERT INTO run(run_id, principal, name, program, code_hash, runtime, path_version, input, files, packages,"
            " memory_mb, seed, epoch, budget, capabilities, parent_rid, idempotency_key, arguments_hash, grants, status, detail, parked, paused,"
            " cancelled, consumed, lives, reruns, calls, tool_calls, cpu_s, created_at, updated_at)"
            " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,'working','queued',0,0,0,0,0,0,0,0,0,?,?)",
            (
                new.run_id, new.principal, new.name, new.program, hashlib.sha256(new.program.encode()).hexdigest(), new.runtime,
                new.path_version, new.input, new.files, new.packages, new.memory_mb, new.seed, now, new.budget, new.capabilities,
                new.parent_rid, new.idempotency_key, arguments, new.grants, now, now,
            ),
        )  # fmt: skip
        return self.run(tx, new.run_id, new.principal), False

    def run(self, db: sqlite3.Connection, run_id: str, principal: str) -> RunRow:
        found = db.execute(f"SELECT {_RUN} FROM run WHERE run_id=? AND principal=?", (run_id, principal)).fetchone()
        if found is None:
            raise NotFound("run.unknown", f"There is no run {run_id!r}. run_get without arguments lists them.")
        return RunRow(*found)

    def row(self, db: sqlite3.Connection, rid: int) -> RunRow:
        return RunRow(*db.execute(f"SELECT {_RUN} FROM run WHERE rid=?", (rid,)).fetchone())

    def due(self, db: sqlite3.Connection, now: float) -> list[tuple[int, str]]:
        """Runs that have something to do: not ended, not paused, and either not parked or their time has come."""
        return db.execute(
            "SELECT rid, run_id FROM run WHERE ended_at IS NULL AND paused=0 AND detail IS NOT 'diverged'"
            " AND (parked<=0 OR wake_at<=?) ORDER BY rid",
            (now,),
        ).fetchall()

    def next_wake(self, db: sqlite3.Connection, now: float) -> float | None:
        found: float | None = db.execute(
            "SELECT min(wake_at) FROM run WHERE ended_at IS NULL AND parked=1 AND paused=0 AND wake_at>?", (now,)
        ).fetchone()[0]
        return found

    def children(self, db: sqlite3.Connection, rid: int) -> list[str]:
        return [
            run_id for (run_id,) in db.execute("SELECT run_id FROM run WHERE parent_rid=? AND ended_at IS NULL", (rid,))
        ]

    def change_in(self, tx: Transaction, rid: int, **columns: Any) -> None:
        """Set columns of a run that has not ended; one that has stays as it is."""
        names = ", ".join(f"{name}=?" for name in columns)
        tx.execute(
            f"UPDATE run SET {names}, updated_at=? WHERE rid=? AND ended_at IS NULL",
            (*columns.values(), self._ports.clock.now(), rid),
        )

    def live_in(self, tx: Transaction, rid: int) -> None:
        """A process for the program is about to start."""
        self.change_in(tx, rid, parked=0, wake_at=None)
        tx.execute("UPDATE run SET lives=lives+1 WHERE rid=?", (rid,))
        tx.execute(
            "UPDATE run SET detail=NULL WHERE rid=? AND status='working' AND cancelled=0 AND ended_at IS NULL", (rid,)
        )
        self.event_in(tx, rid, "started")

    def lived_in(
        self, tx: Transaction, rid: int, principal: str, lines: Sequence[tuple[int, str]], cpu_s: float
    ) -> None:
        """A process for the program has gone: what it printed and used, also when the run has ended."""
        self.log_in(tx, rid, principal, lines, None)
        tx.execute("UPDATE run SET cpu_s=cpu_s+? WHERE rid=?", (cpu_s, rid))

    def rerun_in(self, tx: Transaction, rid: int) -> int:
        """The program's process was lost; how often by now."""
        found: int = tx.execute("UPDATE run SET reruns=reruns+1 WHERE rid=? RETURNING reruns", (rid,)).fetchall()[0][0]
        return found

    def park_in(self, tx: Transaction, rid: int, *, deliveries: int, wake_at: float | None) -> bool:
        """The process may go: nothing came since. False when something did; `parked` is -1 from whatever stirred the run."""
        self.change_in(tx, rid, consumed=deliveries)
        last = tx.execute("SELECT coalesce(max(dseq), -1) FROM delivery WHERE rid=?", (rid,)).fetchone()[0]
        stirred = tx.execute("SELECT parked FROM run WHERE rid=?", (rid,)).fetchone()[0] < 0
        if stirred or last + 1 != deliveries:
            self.change_in(tx, rid, parked=0)
            return False
        self.change_in(tx, rid, parked=1, wake_at=wake_at)
        tx.execute("UPDATE run SET detail='sleeping' WHERE rid=? AND status='working' AND ended_at IS NULL", (rid,))
        return True

    def end_in(
        self, tx: Transaction, rid: int, *, status: str, detail: str | None, output: bytes | None,
        error: Mapping[str, Any] | None, warnings: Sequence[str] = (),
    ) -> bool:  # fmt: skip
        """The run is over; False when it was before."""
        now = self._ports.clock.now()
        changed = tx.execute(
            "UPDATE run SET status=?, detail=?, output=?, error=?, warnings=?, parked=1, wake_at=NULL, paused=0,"
            " updated_at=?, ended_at=? WHERE rid=? AND ended_at IS NULL",
            (
                status, detail, output, None if error is None else json.dumps(error), json.dumps(list(warnings)) if warnings else None,
                now, now, rid,
            ),
        ).rowcount  # fmt: skip
        if not changed:
            return False
        for table in ("intent", "timer"):
            tx.execute(f"DELETE FROM {table} WHERE rid=?", (rid,))
        tx.execute("UPDATE item SET status='withdrawn', answered_at=? WHERE rid=? AND status='waiting'", (now, rid))
        tx.execute(
            "UPDATE run SET parked=-1 WHERE rid=(SELECT parent_rid FROM run WHERE rid=?) AND ended_at IS NULL", (rid,)
        )
        self.event_in(tx, rid, status, None if error is None else str(error.get("code")))
        return True

    def reopen_in(self, tx: Transaction, rid: int) -> None:
        """A run that the kernel gave up, not its program: it goes on from its journal."""
        now = self._ports.clock.now()
        tx.execute(
            "UPDATE run SET status='working', detail=NULL, error=NULL, ended_at=NULL, parked=0, reruns=0, updated_at=? WHERE rid=?",
            (now, rid),
        )

    # --- deliveries

    def deliver_in(
        self, tx: Transaction, rid: int, *, kind: str, t: float, value: bytes = b"null", call: Made | None = None,
        started_t: float | None = None, attempts: int = 1, counted: bool = False,
    ) -> Delivery:  # fmt: skip
        """Add the next delivery of a run. Conflict when the run has ended or the call has its answer already."""
        found = tx.execute(
            "UPDATE run SET parked=min(parked, 0), updated_at=?, calls=calls+?, tool_calls=tool_calls+? WHERE rid=? AND ended_at IS NULL"
            " RETURNING principal",
            (self._ports.clock.now(), int(call is not None), int(counted), rid),
        ).fetchall()
        if not found:
            raise Conflict("run.ended", "The run has ended; nothing can be delivered to it any more.")
        (principal,) = found[0]
        last = tx.execute("SELECT dseq, t FROM delivery WHERE rid=? ORDER BY dseq DESC LIMIT 1", (rid,)).fetchone()
        dseq, t = (0, max(t, 0.0)) if last is None else (last[0] + 1, max(t, last[1]))
        cseq = -1 if call is None else call.n
        digest = None
        if len(value) > self._limits.blob_inline_bytes_max:
            digest = hashlib.sha256(value).hexdigest()
            put_blob(tx, principal, digest, value, None)
        try:
            tx.execute(
                "INSERT INTO delivery VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    principal, rid, dseq, kind, t, cseq, t if started_t is None else min(started_t, t),
                    "" if call is None else call.method, "" if call is None else call.effect,
                    "" if call is None else clean(call.path), b"" if call is None else call.digest,
                    None if call is None else _kept(call), attempts,
                    None if digest else value, digest,
                ),
            )  # fmt: skip
        except sqlite3.IntegrityError:
            raise Conflict("call.answered", f"Call {cseq} has its answer already.") from None
        if call is not None:
            for table in ("intent", "timer"):
                tx.execute(f"DELETE FROM {table} WHERE rid=? AND cseq=?", (rid, cseq))
        return Delivery(dseq, kind, t, cseq, value)

    def past(self, db: sqlite3.Connection, rid: int) -> list[Past]:
        rows = db.execute(
            "SELECT dseq, cseq, method, effect, args_hash, kind, t FROM delivery WHERE rid=? ORDER BY dseq", (rid,)
        )
        return [Past(*row) for row in rows]

    def deliveries(self, db: sqlite3.Connection, rid: int, start: int, bytes_max: int) -> list[Delivery]:
        """From number `start` on, until `bytes_max` are passed; at least one when there is one."""
        result: list[Delivery] = []
        size = 0
        for row in db.execute(
            "SELECT d.dseq, d.kind, d.t, d.cseq, coalesce(d.value, b.data) FROM delivery d"
            " LEFT JOIN blob b ON b.principal=d.principal AND b.digest=d.blob WHERE d.rid=? AND d.dseq>=? ORDER BY d.dseq",
            (rid, start),
        ):
            result.append(Delivery(*row))
            size += len(row[4]) + 32
            if size >= bytes_max:
                break
        return result

    def recorded_call(self, db: sqlite3.Connection, rid: int, n: int) -> tuple[str, str, bytes | None] | None:
        """Method, path and arguments (None when they were too long to be kept) of an answered call."""
        found: tuple[str, str, bytes | None] | None = db.execute(
            "SELECT method, path, args FROM delivery WHERE rid=? AND cseq=?", (rid, n)
        ).fetchone()
        return found

    def answer(self, db: sqlite3.Connection, rid: int, n: int) -> Delivery | None:
        row = db.execute(
            "SELECT d.dseq, d.kind, d.t, d.cseq, coalesce(d.value, b.data) FROM delivery d"
            " LEFT JOIN blob b ON b.principal=d.principal AND b.digest=d.blob WHERE d.rid=? AND d.cseq=?",
            (rid, n),
        ).fetchone()
        return None if row is None else Delivery(*row)

    def erase_in(self, tx: Transaction, principal: str, gone: Mapping[str, str]) -> tombstones.Scrubbed:
        """Replace what is recorded of these memories, id and text; programs that are run again meet the same calls and answers of the same shape."""
        return tombstones.erase(tx, principal, gone, self._limits.blob_inline_bytes_max)

    # --- calls in flight

    def intent_in(self, tx: Transaction, rid: int, principal: str, n: int) -> bool:
        """The body of an at_most_once call is about to start; False when it was about to start before."""
        added = tx.execute(
            "INSERT OR IGNORE INTO intent VALUES(?,?,?,?)", (principal, rid, n, self._ports.clock.now())
        ).rowcount
        return bool(added)

    def forget_intent_in(self, tx: Transaction, rid: int, n: int) -> None:
        tx.execute("DELETE FROM intent WHERE rid=? AND cseq=?", (rid, n))

    def timer_in(self, tx: Transaction, rid: int, principal: str, n: int, due_t: float) -> float:
        """When call `n` is due on the run's clock; the first time counts."""
        tx.execute("INSERT OR IGNORE INTO timer VALUES(?,?,?,?)", (principal, rid, n, due_t))
        due: float = tx.execute("SELECT due_t FROM timer WHERE rid=? AND cseq=?", (rid, n)).fetchone()[0]
        return due

    # --- items

    def item_in(
        self, tx: Transaction, run: RunRow, call: Made, *, kind: str, prompt: str, details: Any = None, schema: Any = None,
        deadline: float | None = None, reason: str = "",
    ) -> Item:  # fmt: skip
        """The waiting item of this call; made when there is none."""
        found = tx.execute(
            f"{_ITEM} WHERE i.rid=? AND i.cseq=? AND i.kind=? AND i.reason=? AND i.status='waiting'",
            (run.rid, call.n, kind, reason),
        ).fetchone()
        if found is not None:
            return Item(*found)
        if not reason and tx.execute("SELECT 1 FROM delivery WHERE rid=? AND cseq=?", (run.rid, call.n)).fetchone():
            raise Conflict("call.answered", f"Call {call.n} has its answer already.")
        digest = items.digest(run_id=run.run_id, n=call.n, kind=kind, prompt=prompt, details=details, schema=schema)
        item_id = self._ports.new_id("itm")
        tx.execute(
            "INSERT INTO item VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,'waiting',NULL,NULL,NULL,?,NULL)",
            (
                item_id, run.principal, run.rid, call.n, kind, call.method, call.effect, clean(call.path), call.digest, _kept(call),
                items.ANSWER_BY[kind], reason, clean(prompt), None if details is None else json.dumps(details),
                None if schema is None else json.dumps(schema), digest, deadline, self._ports.clock.now(),
            ),
        )  # fmt: skip
        self._restate_in(tx, run.rid)
        return Item(*tx.execute(f"{_ITEM} WHERE i.item_id=?", (item_id,)).fetchone())

    def item(self, db: sqlite3.Connection, item_id: str, principal: str) -> Item:
        """Whatever its status; who answers looks at that."""
        found = db.execute(f"{_ITEM} WHERE i.item_id=? AND i.principal=?", (item_id, principal)).fetchone()
        if found is None:
            raise NotFound("item.unknown", f"There is no item {item_id!r}. `agent-kernel items` lists what waits.")
        return Item(*found)

    def waiting(self, db: sqlite3.Connection, *, principal: str | None = None, rid: int | None = None) -> list[Item]:
        if rid is not None:
            rows = db.execute(f"{_ITEM} WHERE i.rid=? AND i.status='waiting' ORDER BY i.created_at, i.cseq", (rid,))
        else:
            rows = db.execute(
                f"{_ITEM} WHERE i.principal=? AND i.status='waiting' ORDER BY i.created_at, i.cseq", (principal,)
            )
        return [Item(*row) for row in rows]

    def settle_item_in(
        self, tx: Transaction, item: Item, *, status: str, answer: bytes | None = None, note: str | None = None,
        channel: str | None = None,
    ) -> None:  # fmt: skip
        """Answered, expired or withdrawn; Conflict when it waits no more."""
        changed = tx.execute(
            "UPDATE item SET status=?, answer=?, note=?, channel=?, answered_at=? WHERE item_id=? AND status='waiting'",
            (status, answer, None if note is None else clean(note), channel, self._ports.clock.now(), item.item_id),
        ).rowcount
        if not changed:
            raise Conflict("item.closed", f"Item {item.item_id} waits no more. Read the run again.")
        self._restate_in(tx, item.rid)

    def withdraw_in(self, tx: Transaction, rid: int, *, n: int | None = None, waited_for: Collection[int] = ()) -> None:
        """Nobody waits for the answer to call `n`; without `n`, to any call but those."""
        waiting = tx.execute("SELECT cseq FROM item WHERE rid=? AND status='waiting'", (rid,)).fetchall()
        gone = {cseq for (cseq,) in waiting if (cseq not in waited_for if n is None else cseq == n)}
        for cseq in gone:
            tx.execute(
                "UPDATE item SET status='withdrawn', answered_at=? WHERE rid=? AND cseq=? AND status='waiting'",
                (self._ports.clock.now(), rid, cseq),
            )
        if gone:
            self._restate_in(tx, rid)

    def _restate_in(self, tx: Transaction, rid: int) -> None:
        """A run needs input exactly while an item of it waits."""
        found = tx.execute(
            "SELECT count(*), min(nullif(reason, '')) FROM item WHERE rid=? AND status='waiting'", (rid,)
        ).fetchone()
        if found[0]:
            self.change_in(tx, rid, status="input_required", detail=found[1])
        else:
            tx.execute(
                "UPDATE run SET detail=CASE WHEN status='input_required' THEN NULL ELSE detail END, status='working', parked=-1,"
                " updated_at=? WHERE rid=? AND ended_at IS NULL",
                (self._ports.clock.now(), rid),
            )

    # --- messages

    def send_in(self, tx: Transaction, run: RunRow, *, topic: str, content: bytes, sender: str | None) -> None:
        if run.ended_at is not None:
            raise Conflict("run.ended", f"{run.run_id} has ended ({run.status}); it reads no more messages.")
        if len(content) > (
            most := self._limits.value_bytes_max
        ):  # else it could never be received, nor what comes after it
            raise LimitExceeded("limit.value", f"The message has {len(content)} bytes, the limit is {most}. Send less.")
        seq = tx.execute("SELECT coalesce(max(seq)+1, 0) FROM message WHERE rid=?", (run.rid,)).fetchone()[0]
        tx.execute(
            "INSERT INTO message VALUES(?,?,?,?,?,?,?,NULL)",
            (run.principal, run.rid, seq, topic, content, sender, self._ports.clock.now()),
        )
        self.change_in(tx, run.rid, parked=-1)

    def next_message(self, db: sqlite3.Connection, rid: int, topic: str, held: Collection[int]) -> int | None:
        """The oldest message of the topic that nobody took or is about to take."""
        query = "SELECT seq FROM message WHERE rid=? AND topic=? AND taken_by IS NULL ORDER BY seq"
        return next((seq for (seq,) in db.execute(query, (rid, topic)) if seq not in held), None)

    def take_in(self, tx: Transaction, rid: int, seq: int, n: int) -> bytes:
        content: bytes = tx.execute(
            "UPDATE message SET taken_by=? WHERE rid=? AND seq=? AND taken_by IS NULL RETURNING content", (n, rid, seq)
        ).fetchall()[0][0]
        return content

    # --- what is shown

    def event_in(self, tx: Transaction, rid: int, kind: str, text: str | None = None) -> None:
        tx.execute(
            "INSERT INTO event SELECT principal, rid, (SELECT coalesce(max(seq)+1, 0) FROM event WHERE rid=?), ?, ?, ?"
            " FROM run WHERE rid=?",
            (rid, self._ports.clock.now(), kind, None if text is None else clean(text), rid),
        )

    def log_in(
        self, tx: Transaction, rid: int, principal: str, lines: Sequence[tuple[int, str]], progress: str | None
    ) -> None:
        """Lines carry the guest's sequence numbers, which are the same in every replay: a line is kept once."""
        now = self._ports.clock.now()
        tx.executemany(
            "INSERT OR IGNORE INTO log VALUES(?,?,?,?,?)",
            [(principal, rid, seq, now, clean(text)[:LOG_CHARS_MAX]) for seq, text in lines],
        )
        if lines:
            tx.execute("DELETE FROM log WHERE rid=? AND seq<=?", (rid, lines[-1][0] - LOG_ROWS_MAX))
        if progress is not None:
            self.change_in(tx, rid, progress=progress)

    def last_line(self, db: sqlite3.Connection, rid: int) -> int:
        found: int = db.execute("SELECT coalesce(max(seq), -1) FROM log WHERE rid=?", (rid,)).fetchone()[0]
        return found

    def summary(self, db: sqlite3.Connection, row: RunRow) -> dict[str, Any]:
        parent = None if row.parent_rid is None else self.row(db, row.parent_rid).run_id
        lived = (row.ended_at or self._ports.clock.now()) - row.created_at
        return filled(
            run_id=row.run_id,
            name=row.name,
            status=row.status,
            detail=row.detail,
            output=None if row.output is None else loads(row.output),
            error=None if row.error is None else loads(row.error),
            warnings=None if row.warnings is None else loads(row.warnings),
            waiting=[item.wire() for item in self.waiting(db, rid=row.rid)] if row.status == "input_required" else None,
            progress=None if row.progress is None else loads(row.progress),
            usage=filled(
                wall_s=round(max(lived, 0.0), 3), steps=row.calls, tool_calls=row.tool_calls, cpu_s=round(row.cpu_s, 3) or None,
                starts=row.lives, reruns=row.reruns or None,
            ),
            budget=loads(row.budget) or None,
            parent=parent,
            created_at=rfc3339(row.created_at),
            updated_at=rfc3339(row.updated_at),
        )  # fmt: skip

    def listing(
        self, db: sqlite3.Connection, principal: str, *, status: str | None, limit: int, cursor: str | None
    ) -> dict[str, Any]:
        try:
            before = 1 << 62 if cursor is None else int(cursor[:CURSOR_CHARS_MAX], 36)
        except ValueError:
            raise ArgumentError("argument.invalid", f"cursor {cursor!r} is none that was given out.") from None
        rows = db.execute(
            f"SELECT {_RUN} FROM run WHERE principal=? AND rid<? AND ifnull(status=?, 1) ORDER BY rid DESC LIMIT ?",
            (principal, before, status, limit + 1),
        ).fetchall()
        shown = [RunRow(*row) for row in rows[:limit]]
        result: dict[str, Any] = {"runs": [self.summary(db, row) for row in shown], "more": len(rows) > limit}
        if len(rows) > limit:
            result["cursor"] = base36(shown[-1].rid)
        return result

    def answers(self, db: sqlite3.Connection, row: RunRow) -> list[tuple[Any, ...]]:
        """Answered calls by ordinal: n, path, method, kind, arguments, attempts, started_t, t, value, effect."""
        return db.execute(
            "SELECT d.cseq, d.path, d.method, d.kind, d.args, d.attempts, d.started_t, d.t, coalesce(d.value, b.data), d.effect"
            " FROM delivery d LEFT JOIN blob b ON b.principal=d.principal AND b.digest=d.blob WHERE d.rid=? AND d.cseq>=0"
            " ORDER BY d.cseq",
            (row.rid,),
        ).fetchall()

    def steps(self, db: sqlite3.Connection, row: RunRow) -> list[dict[str, Any]]:
        """As they are shown. Those in flight have no record: orchestration adds them."""
        return [shown_step(row.epoch, record) for record in self.answers(db, row)]

    def events(self, db: sqlite3.Connection, row: RunRow) -> list[dict[str, Any]]:
        found: list[tuple[float, dict[str, Any]]] = []
        for dseq, kind, t, cseq, path, method in db.execute(
            "SELECT dseq, kind, t, cseq, path, method FROM delivery WHERE rid=? ORDER BY dseq", (row.rid,)
        ):
            entry = filled(
                at=rfc3339(row.epoch + t), event="delivery", delivery=dseq, kind=kind, n=None if cseq < 0 else cseq,
                path=path, method=method,
            )  # fmt: skip
            found.append((row.epoch + t, entry))
        for at, kind, text in db.execute("SELECT at, kind, text FROM event WHERE rid=? ORDER BY seq", (row.rid,)):
            found.append((at, filled(at=rfc3339(at), event=kind, text=text)))
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]

    def log(self, db: sqlite3.Connection, row: RunRow) -> list[dict[str, Any]]:
        rows = db.execute("SELECT at, text FROM log WHERE rid=? ORDER BY seq", (row.rid,))
        return [{"at": rfc3339(at), "text": text} for at, text in rows]
