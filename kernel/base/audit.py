"""The audit: what was asked of the sandbox, for whom, and what became of it. One chained table that grows at its end.

    op          run (one-shot code), program (a held cell), read (bytes that a sandbox left); open, close, retention, lost of the kernel itself
    outcome     ended | refused (nothing was run; the error's code says why) | failed (later) | cancelled | started (of what was at work at
                a flush: another event follows)
    who         principal; client, run_id, step where they are known
    facts       JSON: language, limits asked, tier, digests of layers, code, argv and names of files; what stopped it, exit code, time,
                memory, bytes and files that came out. Digests and numbers: no code, no names of files, no output.
    digest      SHA-256 over the digest of the event before and all fields of this one

Guarantees
1. Beside, not before: a call waits for no disk. Its event is in memory when the call is answered and committed `FLUSH_S` later; work that
   takes longer has an event `started` by then. A kill of this process loses at most what happened since the flush before; `close` loses
   nothing. The next `open` says whether the last one was closed (`unclean`), and from which event on some may be missing.
2. Append-only: UPDATE is refused by the table, DELETE of all but what a `retention` event names. When more than `audit_events_max` are
   kept the oldest go, with such an event in the same transaction: how far, and the digest that the chain goes on from.
3. What cannot be written is not lost silently: events wait in memory, and when `audit_waiting_max` of them do, nothing more is started
   (`sandbox.audit_behind`). Refusals past that are counted; their number is the event `lost`.
4. `page` gives a principal its own events only. Numbers are those of the whole chain: it can tell how many others there were.

What the chain proves: that nothing was damaged, edited, removed or put in between by accident or a clumsy hand. Whoever can write the
file can also compute the chain anew: only a head that `verify` printed and that somebody kept elsewhere tells of that. A digest hides
what cannot be guessed; short code can be.

Not here: what a durable run did, step by step (journal.py); what memory was changed by whom (memory.py).
If this process dies inside a flush its transaction is there as a whole or not at all. Numbers are given before the flush, and what has
one that the file has already is not written twice.
"""

import asyncio
import functools
import hashlib
import sqlite3
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias

import orjson

from .cell import Cell
from .errors import HostError, KernelError, KernelFault
from .limits import Limits
from .output import harmless
from .ports import LOCAL, Ports, rfc3339
from .store import Migrations, Store, Transaction

__all__ = [
    "MIGRATIONS",
    "Audit",
    "Event",
    "Operation",
    "Origin",
    "Verdict",
    "digest_of",
    "layers_digest",
    "select",
    "shown",
    "verify",
]

FLUSH_S = 0.2
RETRY_S = 1.0
"""After a flush that failed."""
REMOVED_AT_ONCE = 1024
"""Events that one flush removes: the writer's thread is everybody's."""
TEXT_CHARS_MAX = 100
LIST_MAX = 16
NOBODY = ""
"""The principal of the kernel's own events; no client has an empty name."""
BEGINNING = bytes(32)
BIGGEST = 2**53

MIGRATIONS: Migrations = {
    2: """
    CREATE TABLE audit(
        n INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, principal TEXT NOT NULL, agent TEXT, op TEXT NOT NULL, outcome TEXT NOT NULL,
        sandbox_id TEXT, run_id TEXT, step INTEGER, facts TEXT NOT NULL, digest BLOB NOT NULL) STRICT;
    CREATE INDEX audit_of ON audit(principal);
    CREATE INDEX audit_retention ON audit(op) WHERE op = 'retention';
    CREATE TRIGGER audit_fixed BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'the audit is append-only'); END;
    CREATE TRIGGER audit_kept BEFORE DELETE ON audit
        WHEN OLD.n > coalesce((SELECT json_extract(facts, '$.through') FROM audit WHERE op = 'retention' ORDER BY n DESC LIMIT 1), 0)
        BEGIN SELECT raise(ABORT, 'the audit is append-only'); END;
    """,
    3: "ALTER TABLE audit RENAME COLUMN agent TO client;",
}
"""AUTOINCREMENT: the file remembers the highest number, so that events cut off at the end are missed too."""

_COLUMNS = "n, at, principal, client, op, outcome, sandbox_id, run_id, step, facts, digest"
_INSERT = f"INSERT INTO audit({_COLUMNS}) VALUES(?,?,?,?,?,?,?,?,?,?,?)"

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
Facts: TypeAlias = dict[str, Any]


class Origin(NamedTuple):
    """For whom a sandbox works, as far as it is known."""

    principal: str = LOCAL
    client: str | None = None
    run_id: str | None = None
    step: int | None = None


class Event(NamedTuple):
    n: int
    at: float
    principal: str
    client: str | None
    op: str
    outcome: str
    sandbox_id: str | None
    run_id: str | None
    step: int | None
    facts: Facts


@dataclass(slots=True, eq=False)
class Operation:
    """One call to the sandbox until its event. As a context it takes the outcome from how it is left; else call `leave`."""

    audit: "Audit"
    op: str
    origin: Origin
    facts: Facts
    sandbox_id: str | None = None
    told: bool = False
    """Its start is an event already."""
    left: bool = False

    def given(self, code: bytes, argv: Sequence[str], files: Iterable[str]) -> None:
        """What it works on, by digest."""
        facts = self.facts
        facts["code_sha256"], facts["code_bytes"] = hashlib.sha256(code).hexdigest(), len(code)
        for name, words in (("argv", argv), ("files", sorted(files))):
            if words:
                facts[f"{name}_sha256"] = digest_of(words)
                facts[f"{name}_count"] = len(words)

    def became(self, **facts: Any) -> None:
        self.facts |= facts

    def ran(self, cell: Cell, tier: str, claimed: int | None) -> None:
        """What became of the cell, as far as it has come; the exit code is the guest's claim here too."""
        self.facts |= {"tier": tier, "layers_sha256": layers_digest(cell.layers), "output_bytes": cell.output_bytes}
        if (ended := cell.ended) is not None:
            used = ended.usage
            self.facts |= {
                "exit_code": ended.exit_code if claimed is None or ended.stopped_by else claimed,
                "stopped_by": ended.stopped_by,
                "wall_s": round(used.wall_s, 6),
                "cpu_s": round(used.cpu_s, 6),
                "peak_memory_bytes": used.peak_memory_bytes,
                "files_out": len(ended.files),
                "files_out_bytes": sum(len(file.data or b"") for file in ended.files),
            }

    def leave(self, outcome: str = "ended", **facts: Any) -> None:
        """The first time counts."""
        if not self.left:
            self.left = True
            self.facts |= facts
            self.audit.left(self, outcome)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.leave()
        else:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            self.leave("cancelled")
            return
        if not isinstance(error, KernelError):
            error = KernelFault.of(error)
        self.leave("refused" if self.sandbox_id is None else "failed", error=error.code, fault=error.fault)


@dataclass(slots=True)
class Audit:
    store: Store
    ports: Ports
    limits: Limits
    _waiting: list[Event] = field(default_factory=list)
    _open: set[Operation] = field(default_factory=set)
    _first: int = 1
    _next: int = 1
    _refused: int = 0
    """Refusals since the buffer was full."""
    failure: KernelError | None = None
    """Why the last flush failed; None when it did not."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _task: "asyncio.Task[None] | None" = None

    async def open(self, spawn: Spawn, **facts: Any) -> None:
        """The kernel's own first event, on disk when this returns: whatever ends this process now, the next `open` will see it."""
        self._first, self._next, last = await self.store.read(_state)
        if last is not None and last[1] != "close":
            facts |= {"unclean": True, "missing_after": last[0]}
        self._record("open", "ended", Origin(NOBODY), None, facts)
        await self.flush()
        self._task = spawn(self._flush_forever(), "audit")

    async def close(self) -> None:
        """What is still open is killed by whoever closes the sandbox; nothing is recorded after this."""
        for operation in list(self._open):
            operation.leave("cancelled")
        self._record("close", "ended", Origin(NOBODY), None, {})
        try:
            await self.flush()
        finally:
            if self._task is not None:
                self._task.cancel()

    # --- the path of a call: no await, no disk

    def begin(self, op: str, origin: Origin, **facts: Any) -> Operation:
        """Raises `sandbox.audit_behind` where what happens could not be recorded."""
        if len(self._waiting) + len(self._open) >= self.limits.audit_waiting_max:
            self._refused += 1
            why = "" if self.failure is None else f" The last write failed: {self.failure}"
            raise HostError(
                "sandbox.audit_behind",
                f"{len(self._waiting)} events of the audit wait to be written, so no sandbox is started or read.{why}"
                " Try again in a second; if it stays, see to the disk of the state folder.",
                retryable=True,
            )
        operation = Operation(self, op, origin, facts)
        self._open.add(operation)
        self._wake.set()
        return operation

    def left(self, operation: Operation, outcome: str) -> None:
        self._open.discard(operation)
        self._record(operation.op, outcome, operation.origin, operation.sandbox_id, operation.facts)

    def _record(self, op: str, outcome: str, origin: Origin, sandbox_id: str | None, facts: Facts) -> None:
        who = origin
        event = Event(
            self._next, float(self.ports.clock.now()), who.principal, who.client, op, outcome, sandbox_id, who.run_id, who.step, facts
        )  # fmt: skip
        self._next += 1
        self._waiting.append(event)
        self._wake.set()

    # --- to disk

    async def _flush_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.ports.clock.sleep(RETRY_S if self.failure else FLUSH_S)
            try:
                await self.flush()
            except Exception:  # noqa: BLE001  `failure` has it, and refuses new work in time; the events wait
                self._wake.set()

    async def flush(self) -> None:
        """Everything that has happened so far is on disk, or this raises and it waits for the next time."""
        async with self._writing:
            for operation in self._open:
                if not operation.told:
                    operation.told = True
                    self._record(operation.op, "started", operation.origin, operation.sandbox_id, dict(operation.facts))
            if self._refused:
                self._record("lost", "ended", Origin(NOBODY), None, {"refusals": self._refused})
                self._refused = 0
            batch = list(self._waiting)
            if not batch:
                return
            try:
                await self.store.write(lambda tx: _append(tx, batch))
            except Exception as error:
                self.failure = error if isinstance(error, KernelError) else KernelFault.of(error)
                raise
            del self._waiting[: len(batch)]
            self.failure = None
            most = self.limits.audit_events_max
            if self._next - self._first > most:
                self._first += max(1, min(REMOVED_AT_ONCE, most // 8))
                self._record("retention", "ended", Origin(NOBODY), None, {"through": self._first - 1})

    # --- for people and clients

    async def page(self, principal: str, *, before: int | None, limit: int) -> list[Event]:
        """The newest events of that principal before number `before`, oldest first, up to this moment."""
        await self.flush()
        return await self.store.read(lambda db: select(db, principal=principal, before=before, limit=limit))


def digest_of(words: Iterable[str]) -> str:
    """Of the words with a NUL between them, which none of them holds."""
    return hashlib.sha256("\0".join(words).encode(errors="replace")).hexdigest()


@functools.lru_cache(64)
def layers_digest(layers: tuple[str, ...]) -> str:
    """The layers that a sandbox reported; few sets of them exist on a host."""
    return digest_of(layers)


# --- in the file


def _state(db: sqlite3.Connection) -> tuple[int, int, tuple[int, str] | None]:
    """The first event's number, the one that the next gets, and the last event."""
    first = db.execute("SELECT min(n) FROM audit").fetchone()[0]
    highest = db.execute("SELECT seq FROM sqlite_sequence WHERE name='audit'").fetchone()
    last = db.execute("SELECT n, op FROM audit ORDER BY n DESC LIMIT 1").fetchone()
    following = 1 if highest is None else highest[0] + 1
    return first or following, following, last


def _append(tx: Transaction, batch: list[Event]) -> None:
    last = tx.execute("SELECT n, digest FROM audit ORDER BY n DESC LIMIT 1").fetchone()
    number, digest = last or (0, BEGINNING)
    through = 0
    rows = []
    for event in batch:
        if event.n <= number:
            continue
        facts = event.facts
        if event.op == "retention":
            through = facts["through"]
            anchor = tx.execute("SELECT digest FROM audit WHERE n=?", (through,)).fetchone()
            facts = {**facts, "digest": anchor[0].hex() if anchor else ""}
        row = (
            event.n, event.at, event.principal, _text(event.client), event.op, event.outcome, _text(event.sandbox_id), _text(event.run_id),
            event.step, orjson.dumps(_plain(facts)).decode(),
        )  # fmt: skip
        digest = _link(digest, row)
        rows.append((*row, digest))
    tx.executemany(_INSERT, rows)
    if through:
        tx.execute("DELETE FROM audit WHERE n<=?", (through,))


def _link(before: bytes, row: Sequence[Any]) -> bytes:
    return hashlib.sha256(before + orjson.dumps(row)).digest()


def _plain(facts: Facts) -> Facts:
    """What any JSON reader can hold, and no more of it than says what it was: arguments are hostile. Empty ones are left out."""
    plain = {}
    for name, value in facts.items():
        kind = type(value)
        if kind is str:
            value = _text(value)  # noqa: PLW2901  the same fact, bounded
        elif kind is int or kind is float:
            value = value if -BIGGEST <= value <= BIGGEST else "past 2^53"  # noqa: PLW2901
        elif kind in (list, tuple):
            value = [_text(part) for part in value[:LIST_MAX]]  # noqa: PLW2901
        elif kind is not bool and value is not None:
            value = kind.__name__  # noqa: PLW2901
        if value is not None and value not in ("", []):
            plain[name] = value
    return plain


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value[:TEXT_CHARS_MAX] if isinstance(value, str) else type(value).__name__
    return text if text.isascii() and text.isprintable() else harmless(text.encode(errors="replace").decode())


# --- reading


def select(
    db: sqlite3.Connection,
    *,
    principal: str | None = None,
    before: int | None = None,
    since: float | None = None,
    until: float | None = None,
    sandbox_id: str | None = None,
    run_id: str | None = None,
    limit: int,
) -> list[Event]:
    """The newest events that fit, oldest first. Without `principal` those of all, which is for the operator."""
    wanted = {
        "principal = ?": principal, "n < ?": before, "at >= ?": since, "at <= ?": until, "sandbox_id = ?": sandbox_id, "run_id = ?": run_id,
    }  # fmt: skip
    given = {condition: value for condition, value in wanted.items() if value is not None}
    where = " AND ".join(given) or "1"
    found = db.execute(
        f"SELECT {_COLUMNS} FROM audit WHERE {where} ORDER BY n DESC LIMIT ?",  # noqa: S608  (conditions are ours)
        (*given.values(), limit),
    ).fetchall()
    return [Event._make((*row[:9], orjson.loads(row[9]))) for row in reversed(found)]


def shown(event: Event, *, digest_chars: int | None = None) -> dict[str, Any]:
    """An event as it leaves the kernel: its fields and facts in one object, without the empty ones."""
    named = event._asdict()
    facts = named.pop("facts")
    named["at"] = rfc3339(event.at)
    whole = {name: value for name, value in (*named.items(), *facts.items()) if value not in (None, "")}
    return {name: value[:digest_chars] if name.endswith("_sha256") else value for name, value in whole.items()}


class Verdict(NamedTuple):
    events: int
    first: int | None
    last: int | None
    head: str
    """The digest of the last event. Kept elsewhere, it tells later whether the past was written anew."""
    unclean: int
    """Times that a kernel ended without closing: a flush's worth of events may be missing before each."""
    lost: int
    broken_at: int | None
    """The number of the first event that is not what the chain says."""
    problem: str | None


def verify(db: sqlite3.Connection) -> Verdict:
    """Walk the chain from its first event; stops at the first break."""
    through, anchor = 0, BEGINNING.hex()
    newest = db.execute("SELECT facts FROM audit WHERE op='retention' ORDER BY n DESC LIMIT 1").fetchone()
    problem = None
    try:
        if newest is not None:
            through, anchor = (orjson.loads(newest[0])[name] for name in ("through", "digest"))
        number, digest = int(through), bytes.fromhex(anchor)
    except (ValueError, KeyError, TypeError):
        return Verdict(0, None, None, "", 0, 0, 1, "the newest event `retention` is not what was written")
    count = unclean = lost = 0
    for row in db.execute(f"SELECT {_COLUMNS} FROM audit ORDER BY n"):  # noqa: S608  (a constant)
        if row[0] != number + 1:
            problem = f"event {number + 1} is not there; after {number} comes {row[0]}"
        elif row[10] != _link(digest, row[:10]):
            problem = f"event {row[0]} is not what was written, or was not written after {number}"
        if problem:
            break
        number, digest, count = row[0], row[10], count + 1
        if row[2] == NOBODY:
            facts = orjson.loads(row[9])
            unclean += "unclean" in facts
            lost += facts.get("refusals", 0)
    highest = db.execute("SELECT seq FROM sqlite_sequence WHERE name='audit'").fetchone()
    if problem is None and highest is not None and highest[0] > number:
        problem = f"events {number + 1} to {highest[0]} were written and are not there"
    broken_at = None if problem is None else number + 1
    return Verdict(count, through + 1 if count else None, number if count else None, digest.hex(), unclean, lost, broken_at, problem)  # fmt: skip
