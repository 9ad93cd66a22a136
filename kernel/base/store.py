"""The one SQLite file: connections, transactions, group commit, migrations, the folder lock, artifacts.

A state folder holds `lock`, `kernel.db` (+ `-wal`, `-shm`) and what the parts above put beside it. One process owns it, by flock on
`lock`; in that process one connection writes and another reads. Every primitive owns its tables and its SQL; this file owns when
they become true.

    async def write(unit)     unit(tx) -> value runs on the writer's thread inside a transaction; when `write` returns, it is on disk
    async def read(query)     query(db) -> value on the reading connection, which cannot write

Guarantees
1. A unit is all or nothing. If it raises, exactly its own changes are undone and the caller gets the exception.
2. `write` returns after COMMIT under WAL with synchronous=FULL: a step that was acknowledged survives power loss.
3. Group commit has no timer: while a batch commits the next one gathers, and then goes as a whole (at most `batch_units_max`).
4. A commit that fails (disk full, I/O error) fails every unit of its batch; nothing of it is acknowledged. The connection is
   thrown away and opened again, since after a failed fsync nothing may be retried on it.
5. One process per folder. The lock is on a CLOEXEC descriptor, so no child can keep it alive; the refusal names the owner's pid.
6. Refused by name: a folder on a network file system, one that others may write, one that is a link; a file or log that is damaged; a
   file whose schema is newer than this program. An older file is copied to `kernel.db.v<N>` before it is migrated.

What may be lost when the process dies: units whose `write` had not returned. They are gone as a whole, or there as a whole.

A waiter that is cancelled does not undo its unit: it may commit. That is aiosqlite's nature, and why callers never assume otherwise.

aiosqlite: a whole batch is one callable on its thread (`Connection._execute`); three awaits a batch cost a quarter more.
"""

import asyncio
import contextlib
import hashlib
import os
import shlex
import sqlite3
import stat
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import aiosqlite

from . import system
from .errors import HostError, KernelError
from .limits import Limits
from .ports import Ports
from .stamps import with_stamp

__all__ = ["Artifact", "Migrations", "Read", "Spawn", "Store", "Transaction", "file_system_of", "look"]

T = TypeVar("T")
Transaction: TypeAlias = sqlite3.Connection
Step: TypeAlias = Callable[[Transaction], None]
Migrations: TypeAlias = Mapping[int, str | Step]
"""Schema version -> what leads to it: an SQL script, or a function where SQL does not reach. Each primitive has one, and need not change
with every version; equal numbers are run together in one transaction.
"""
Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None], str], object]
"""How a task is made here: scheduler.py's, handed in, because tasks come from there only."""


class Read(Protocol):
    async def __call__(self, query: Callable[[sqlite3.Connection], T], /) -> T: ...


NETWORK_FILE_SYSTEMS = (
    "nfs",
    "9p",
    "drvfs",
    "cifs",
    "smb",
    "afs",
    "ceph",
    "gluster",
    "lustre",
    "fuse.sshfs",
    "virtiofs",
)
"""No WAL shared memory and no trustworthy flock there. By prefix of the type that mountinfo names."""

COMMITS_TIMED = 256

MIGRATIONS: Migrations = {
    1: """
    CREATE TABLE blob(
        principal TEXT NOT NULL, digest TEXT NOT NULL, data BLOB NOT NULL, expires_at REAL,
        PRIMARY KEY(principal, digest)) STRICT, WITHOUT ROWID;
    CREATE INDEX blob_expiry ON blob(expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE artifact(
        principal TEXT NOT NULL, uri TEXT NOT NULL, digest TEXT NOT NULL, mime TEXT NOT NULL, size INTEGER NOT NULL,
        expires_at REAL NOT NULL, PRIMARY KEY(principal, uri)) STRICT, WITHOUT ROWID;
    CREATE INDEX artifact_expiry ON artifact(expires_at);
    """,
}


class Artifact(NamedTuple):
    """Bytes that a uri names: a file that a sandbox made, an output too long to be shown."""

    uri: str
    mime: str
    data: bytes
    expires_at: float


@dataclass(slots=True)
class _Pending:
    unit: Callable[[Transaction], Any]
    done: "asyncio.Future[Any]"


class Store:
    def __init__(self, folder: Path, ports: Ports, limits: Limits, lock: int, version: int) -> None:
        self.folder = folder
        self._ports = ports
        self._limits = limits
        self._lock = lock
        self._version = version
        self._pending: list[_Pending] = []
        self._wake = asyncio.Event()
        self._stopped = asyncio.Event()
        self._closing = False
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self.commits = 0
        """Batches committed since open; with the number of units it tells how well commits are shared."""
        self._commits_s: deque[float] = deque(maxlen=COMMITS_TIMED)

    @classmethod
    async def open(
        cls, folder: Path, *, ports: Ports, limits: Limits, migrations: Sequence[Migrations], spawn: Spawn
    ) -> Self:
        """Take the folder (created when missing), bring its file to the newest schema, start the writer."""
        steps = _merge((MIGRATIONS, *migrations))
        folder = _checked_folder(folder)
        lock = _take_lock(folder)
        try:
            await asyncio.to_thread(_migrate, folder / "kernel.db", steps)
            store = cls(folder, ports, limits, lock, max(steps))
            await store._connect()
        except BaseException:
            os.close(lock)
            raise
        spawn(store._commit_forever(), "store")
        return store

    async def write(self, unit: Callable[[Transaction], T]) -> T:
        if self._closing:
            raise HostError(
                "state.closed", "The kernel is closing; nothing was written. Open it again.", retryable=True
            )
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(with_stamp(unit, self._ports.clock.now()), done))
        self._wake.set()
        return await done

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        if self._reader is None:
            raise HostError("state.closed", "The kernel is closed. Open it again.", retryable=True)
        return await _on_thread(self._reader, query)

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Read]:
        """Reads that all see this moment, however long they take, while others write."""
        async with snapshot(self.folder, self._version) as read:
            yield read

    def latency_ms(self) -> dict[str, float]:
        """How long the last COMMITS_TIMED batches took until they were on disk; empty before the first."""
        took = sorted(self._commits_s)
        return {f"p{n}": round(took[len(took) * n // 100] * 1000, 3) for n in (50, 99)} if took else {}

    async def scrub(self) -> bool:
        """Empty the WAL into the file, so that bytes deleted under secure_delete are gone from both. False: somebody still reads in it."""
        return await self._between_batches(lambda db: _checkpoint(db, "TRUNCATE"))

    async def close(self) -> None:
        """Finish what waits, fold the WAL into the file, give the folder back."""
        if self._closing:
            return
        self._closing = True
        self._wake.set()
        await self._stopped.wait()
        for connection in (self._reader, self._writer):
            if connection is not None:
                await connection.close()
        self._reader = self._writer = None
        os.close(self._lock)

    # --- artifacts: bytes with a uri and an end

    def keep(self, tx: Transaction, principal: str, uri: str, data: bytes, mime: str) -> None:
        """Store `data` under `uri` for `artifact_ttl_s`; equal bytes of one principal are stored once."""
        now = self._ports.clock.now()
        ends = now + self._limits.artifact_ttl_s
        digest = hashlib.sha256(data).hexdigest()
        tx.execute("DELETE FROM artifact WHERE expires_at < ?", (now,))
        tx.execute("DELETE FROM blob WHERE expires_at < ?", (now,))
        put_blob(tx, principal, digest, data, ends)
        tx.execute(
            "INSERT INTO artifact VALUES(?,?,?,?,?,?)"
            " ON CONFLICT(principal, uri) DO UPDATE SET digest=excluded.digest, mime=excluded.mime,"
            " size=excluded.size, expires_at=excluded.expires_at",
            (principal, uri, digest, mime, len(data), ends),
        )

    def unkeep(self, tx: Transaction, principal: str, prefix: str, names: Collection[str]) -> None:
        """Remove what is kept under uris that begin so and holds one of these names."""
        kept = tx.execute(
            "SELECT a.uri, a.digest, b.data FROM artifact a JOIN blob b USING(principal, digest)"
            " WHERE a.principal=? AND substr(a.uri, 1, ?)=?",
            (principal, len(prefix), prefix),
        ).fetchall()
        for uri, digest, data in kept:
            if any(name.encode() in data for name in names):
                tx.execute("DELETE FROM artifact WHERE principal=? AND uri=?", (principal, uri))
                tx.execute(
                    "DELETE FROM blob WHERE principal=?1 AND digest=?2 AND expires_at IS NOT NULL"
                    " AND NOT EXISTS (SELECT 1 FROM artifact WHERE principal=?1 AND digest=?2)",
                    (principal, digest),
                )

    async def artifact(self, principal: str, uri: str) -> Artifact | None:
        row = await self.read(
            lambda db: db.execute(
                "SELECT a.uri, a.mime, b.data, a.expires_at FROM artifact a JOIN blob b USING(principal, digest)"
                " WHERE a.principal=? AND a.uri=? AND a.expires_at>=?",
                (principal, uri, self._ports.clock.now()),
            ).fetchone()
        )
        return None if row is None else Artifact(*row)

    # --- the writer

    async def _commit_forever(self) -> None:
        try:
            while self._pending or not self._closing:
                if not self._pending:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                batch = self._pending[: self._limits.batch_units_max]
                del self._pending[: len(batch)]
                await self._commit(batch)
            with contextlib.suppress(sqlite3.Error, HostError):
                await self._between_batches(lambda db: _checkpoint(db, "TRUNCATE"))
        finally:
            self._stopped.set()

    async def _commit(self, batch: list[_Pending]) -> None:
        try:
            if self._writer is None:
                self._writer = await _open(self.folder / "kernel.db", self._version, self._limits)
            began = self._ports.clock.monotonic()
            outcomes = await _on_thread(self._writer, lambda db: self._run_batch(db, batch))
            self._commits_s.append(self._ports.clock.monotonic() - began)
        except (sqlite3.Error, OSError, HostError) as error:
            failure = error if isinstance(error, KernelError) else _explained(error, self.folder)
            for item in batch:
                if not item.done.done():
                    item.done.set_exception(failure)
            await self._drop_writer()
            return
        for item, (value, problem) in zip(batch, outcomes, strict=True):
            if item.done.done():
                continue  # its waiter was cancelled
            if problem is None:
                item.done.set_result(value)
            else:
                item.done.set_exception(problem)

    def _run_batch(self, db: Transaction, batch: list[_Pending]) -> list[tuple[Any, BaseException | None]]:
        outcomes: list[tuple[Any, BaseException | None]] = []
        db.execute("BEGIN IMMEDIATE")
        for item in batch:
            db.execute("SAVEPOINT unit")
            try:
                outcomes.append((item.unit(db), None))
            except Exception as problem:  # the unit's own failure goes to its own waiter
                if not db.in_transaction:  # SQLite itself gave the whole transaction up: disk full, I/O error
                    raise
                db.execute("ROLLBACK TO unit")
                outcomes.append((None, problem))
            db.execute("RELEASE unit")
        if self._ports.probe is not None:
            self._ports.probe("store.before_commit")
        db.execute("COMMIT")  # the point at which everything in the batch becomes true
        self.commits += 1
        if self._ports.probe is not None:
            self._ports.probe("store.after_commit")
        wal = self.folder / "kernel.db-wal"
        if wal.exists() and wal.stat().st_size > self._limits.wal_bytes_checkpoint:
            _checkpoint(db, "PASSIVE")
        return outcomes

    async def _between_batches(self, act: Callable[[Transaction], T]) -> T:
        if self._writer is None:
            self._writer = await _open(self.folder / "kernel.db", self._version, self._limits)
        return await _on_thread(self._writer, act)

    async def _connect(self) -> None:
        self._writer = await _open(self.folder / "kernel.db", self._version, self._limits)
        self._reader = await _open(self.folder / "kernel.db", self._version, self._limits)
        await _on_thread(self._reader, lambda db: db.execute("PRAGMA query_only=1"))

    async def _drop_writer(self) -> None:
        broken, self._writer = self._writer, None
        if broken is not None:
            with contextlib.suppress(sqlite3.Error):
                await broken.close()


def put_blob(tx: Transaction, principal: str, digest: str, data: bytes, expires_at: float | None) -> None:
    """Content-addressed bytes; an end of None means they live as long as the row that names them. The later end wins."""
    tx.execute(
        "INSERT INTO blob VALUES(?,?,?,?) ON CONFLICT(principal, digest) DO UPDATE SET expires_at ="
        " CASE WHEN expires_at IS NULL OR excluded.expires_at IS NULL THEN NULL"
        " ELSE max(expires_at, excluded.expires_at) END",
        (principal, digest, data, expires_at),
    )


def look(folder: Path, query: Callable[[sqlite3.Connection], T]) -> T:
    """Read the file of a folder that another process may own, or nobody. Nothing is made, changed or locked; blocking."""
    path = folder.absolute() / "kernel.db"
    if not path.exists():
        raise HostError("state.missing", f"There is no kernel state in {folder}. Name its folder with --state.")
    log = Path(f"{path}-wal")
    # Without a log nobody has the file open, and as immutable SQLite makes no log beside it; one that came meanwhile makes us look again.
    for mode in ("ro", "ro") if log.exists() else ("ro&immutable=1", "ro"):
        try:
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, timeout=5.0)) as db:
                found = query(db)
            if mode == "ro" or not log.exists():
                return found
        except sqlite3.Error as error:
            failure = error
    raise _explained(failure, folder) from failure


# --- opening


def _merge(all_migrations: Sequence[Migrations]) -> dict[int, list[str | Step]]:
    steps: dict[int, list[str | Step]] = {}
    for migrations in all_migrations:
        for version, step in migrations.items():
            steps.setdefault(version, []).append(step)
    return {version: steps.get(version, []) for version in range(1, max(steps) + 1)}


def _checked_folder(folder: Path) -> Path:
    folder = folder.absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.lstat()
    except FileExistsError:
        raise HostError("state.not_a_folder", f"{folder} is a file. Name a folder with --state.") from None
    except OSError as error:
        raise HostError(
            "state.read_only", f"{folder} cannot be made: {error.strerror}. Name another folder with --state."
        ) from error
    if stat.S_ISLNK(facts.st_mode):
        raise HostError("state.link", f"{folder} is a symbolic link. Name the real folder with --state.")
    if not stat.S_ISDIR(facts.st_mode):
        raise HostError("state.not_a_folder", f"{folder} is not a folder. Name a folder with --state.")
    if not system.ours(facts):
        raise HostError(
            "state.not_ours", f"{folder} belongs to uid {facts.st_uid}, not to us. Name another with --state."
        )
    if system.open_to_others(facts) & 0o022:
        raise HostError("state.not_private", f"Others may write {folder}. Run: chmod 700 {folder}")
    kind = file_system_of(folder)
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        raise HostError(
            "state.network_file_system",
            f"{folder} is on {kind}, which has no reliable locks and no shared memory for SQLite's log."
            " Name a folder on a local disk with --state.",
        )
    if system.open_to_others(facts):
        folder.chmod(0o700)
    return folder


def file_system_of(folder: Path, mountinfo: str | None = None) -> str:
    """The type of file system under `folder` as mountinfo names it (`ext4`, `nfs4`, `9p`); empty where there is none to read.

    Source of the format: proc_pid_mountinfo(5); field 3 is major:minor, the type follows the field `-`.
    """
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf8", errors="replace")
        except OSError:
            return ""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mountinfo.splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1].lower()
    return ""


def _take_lock(folder: Path) -> int:
    path = folder / "lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | system.flags("O_CLOEXEC", "O_NOFOLLOW"), 0o600)
    except OSError as error:
        raise HostError(
            "state.read_only", f"{path} cannot be written: {error.strerror}. Name another folder with --state."
        ) from error
    try:
        system.lock(lock)
    except OSError:
        os.lseek(lock, 0, os.SEEK_SET)
        owner = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise HostError(
            "state.locked",
            f"{folder} is in use by the agent kernel with pid {owner}. Stop that one, or name another folder with --state.",
            retryable=True,
        ) from None
    os.ftruncate(lock, 0)
    os.lseek(lock, 0, os.SEEK_SET)
    os.write(lock, str(os.getpid()).encode())
    return lock


def _migrate(path: Path, steps: Mapping[int, Sequence[str | Step]]) -> None:
    newest = max(steps)
    try:
        _check_log(path)
        db = sqlite3.connect(path, isolation_level=None)
        try:
            found = int(db.execute("PRAGMA user_version").fetchone()[0])
            if found > newest:
                raise HostError(
                    "state.newer",
                    f"{path} has schema {found}, this agent kernel knows up to {newest}. Install the newer version.",
                )
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise HostError("state.damaged", f"{path} is damaged: {verdict}. {_RESTORE}")
            if found == newest:
                return
            db.execute(
                "PRAGMA synchronous=EXTRA"
            )  # a rollback journal whose removal is lost would undo all that came after
            db.execute("PRAGMA journal_mode=WAL")
            if found:
                with contextlib.closing(sqlite3.connect(f"{path}.v{found}")) as copy:
                    db.backup(copy)
            for version in range(found + 1, newest + 1):
                _bring_to(db, version, steps[version])
            path.chmod(0o600)
        finally:
            db.close()
    except (sqlite3.Error, OSError) as error:
        raise _explained(error, path.parent) from error


def _bring_to(db: sqlite3.Connection, version: int, steps: Sequence[str | Step]) -> None:
    """One transaction. Scripts come first: Python's `executescript` would commit what a function has begun."""
    scripts = "".join(step for step in steps if isinstance(step, str))
    db.executescript(f"BEGIN IMMEDIATE; {scripts}")
    for step in steps:
        if not isinstance(step, str):
            step(db)
    db.execute(f"PRAGMA user_version={version}")
    db.execute("COMMIT")


def _check_log(path: Path) -> None:
    """Refuse a WAL that is damaged before its end. SQLite takes it for one that ends there, and what was acknowledged after is gone.

    A crash can leave one commit behind a torn page, the one that was not yet synced; two are damage. The pages are counted as SQLite
    counts them: it leaves the number in the index (offset 16 of -shm); a connection that cannot write changes nothing when it closes.
    """
    log = Path(f"{path}-wal")
    if not log.exists() or log.stat().st_size <= _WAL_HEADER:
        return
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        page = int(db.execute("PRAGMA page_size").fetchone()[0])
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        read = struct.unpack_from("=I", Path(f"{path}-shm").read_bytes(), 16)[0]
    frame = _FRAME_HEADER + page
    with log.open("rb") as file:
        salt = file.read(_WAL_HEADER)[16:24]
        unread = 0
        for start in range(_WAL_HEADER + read * frame, log.stat().st_size - frame + 1, frame):
            file.seek(start)
            header = file.read(_FRAME_HEADER)
            unread += header[8:16] == salt and header[4:8] != bytes(4)  # a page of this log that ends a commit
    if unread > 1:
        raise HostError(
            "state.damaged",
            f"{log} is damaged: {unread} commits behind page {read} cannot be read. Nothing was changed. Restore a backup; or copy"
            f" the folder and go on without them: truncate -s {_WAL_HEADER + read * frame} {shlex.quote(str(log))}",
        )


_WAL_HEADER, _FRAME_HEADER = 32, 24
"""Bytes, as sqlite.org/walformat.html has them."""


async def _open(path: Path, version: int, limits: Limits) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(path, isolation_level=None)

    def prepare(db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")  # NORMAL loses acknowledged commits at power loss
        db.execute("PRAGMA fullfsync=1")  # macOS: a plain fsync stops at the drive's cache
        db.execute("PRAGMA checkpoint_fullfsync=1")
        db.execute("PRAGMA wal_autocheckpoint=0")  # the writer does it between batches, where nobody waits
        db.execute(
            f"PRAGMA journal_size_limit={limits.wal_bytes_checkpoint}"
        )  # a log that began anew must be seen to be short
        db.execute("PRAGMA secure_delete=ON")  # erased memories leave no bytes in free pages
        db.execute("PRAGMA foreign_keys=ON")
        db.execute("PRAGMA busy_timeout=5000")
        assert db.execute("PRAGMA user_version").fetchone()[0] == version

    try:
        await _on_thread(connection, prepare)
    except BaseException:
        await connection.close()
        raise
    return connection


async def _on_thread(connection: aiosqlite.Connection, act: Callable[[sqlite3.Connection], T]) -> T:
    on_its_thread: Callable[[Callable[[], T]], Awaitable[T]] = connection._execute  # noqa: SLF001  (see the docstring)
    return await on_its_thread(lambda: act(connection._conn))  # noqa: SLF001


@contextlib.asynccontextmanager
async def snapshot(folder: Path, version: int) -> AsyncIterator[Read]:
    """Reads of the file of a kernel that may be running, in this process or another; all of them see one moment."""
    connection = await aiosqlite.connect(f"{(folder / 'kernel.db').as_uri()}?mode=ro", uri=True, isolation_level=None)

    def begin(db: sqlite3.Connection) -> None:
        db.execute("BEGIN")
        found = db.execute("PRAGMA user_version").fetchone()[0]  # the first read fixes what all others see
        if found != version:
            raise HostError(
                "state.newer" if found > version else "state.older",
                f"{folder} has schema {found}, this agent kernel writes {version}. Use the agent-kernel that runs there.",
            )

    try:
        await _on_thread(connection, begin)
        yield lambda query: _on_thread(connection, query)
    finally:
        await connection.close()


def _checkpoint(db: sqlite3.Connection, mode: str) -> bool:
    """Whether nobody was in the way."""
    return bool(db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[0] == 0)


_RESTORE = "Restore a backup, or move the file away to begin anew."


def _explained(error: sqlite3.Error | OSError, folder: Path) -> HostError:
    text = str(error)
    match text:
        case _ if "full" in text or getattr(error, "errno", None) == 28:
            return HostError(
                "state.disk_full",
                f"The disk under {folder} is full; nothing was written. Free some space.",
                retryable=True,
            )
        case _ if "readonly" in text or "unable to open" in text or isinstance(error, PermissionError):
            return HostError(
                "state.read_only", f"{folder} cannot be written: {text}. Name another folder with --state."
            )
        case _ if "malformed" in text or "not a database" in text:
            return HostError("state.damaged", f"{folder / 'kernel.db'} is damaged: {text}. {_RESTORE}")
        case _:
            return HostError(
                "state.failed", f"The store in {folder} failed: {text}. Nothing was written.", retryable=True
            )
