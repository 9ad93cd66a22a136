"""Durable steps: what it costs to have one on disk before its caller goes on, beside the least that the machine asks for.

    one at a time      Store.write of a journal-like row beside a raw append + fdatasync and a bare SQLite commit
    64 at once         the same with 64 callers: group commit shares the sync among them

Both sides mean the same by done: the bytes are in the file and fdatasync (SQLite: WAL with synchronous=FULL, one sync a commit) has
returned. The rows are 256 bytes each. The store's own file and the raw file lie in the same folder, so on the same disk.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from agent_kernel.base.limits import Limits
from agent_kernel.base.ports import LOCAL, Ports
from agent_kernel.base.store import Migrations, Store, Transaction
from agent_kernel.scheduler import Scheduler

from .controls import ROW_BYTES, empty_commit, nothing, raw_append, raw_log
from .interleave import Case, Contender

__all__ = ["cases"]

SCHEMA: Migrations = {
    1: """
    CREATE TABLE bench_row(
        run INTEGER NOT NULL, n INTEGER NOT NULL, principal TEXT NOT NULL, kind INTEGER NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY(run, n)) STRICT, WITHOUT ROWID;
    """
}


@asynccontextmanager
async def cases(folder: Path, *, peers: bool) -> AsyncIterator[list[Case]]:  # noqa: ARG001  (no peer of this subject yet)
    limits = Limits()
    scheduler = Scheduler(slots=limits.slots, queue_max=limits.queue_max)
    store = await Store.open(
        folder / "store", ports=Ports.real(), limits=limits, migrations=(SCHEMA,), spawn=scheduler.spawn
    )
    try:
        with ExitStack() as open_files:
            alone = [
                _store_write(store),
                open_files.enter_context(raw_append(folder)),
                open_files.enter_context(empty_commit(folder)),
                nothing(),
            ]
            together = [alone[0], alone[1], open_files.enter_context(raw_log(folder)), alone[2]]
            yield [
                Case(
                    "steps.alone",
                    "One durable row, one caller: time until it is on disk",
                    alone,
                    base="append + fdatasync",
                    passes=60,
                ),
                Case(
                    "steps.together",
                    "One durable row each for 64 callers at the same moment: time until each is on disk",
                    together,
                    base="append + fdatasync",
                    passes=8,
                    at_once=64,
                    note="Without group commit the 64 callers wait for 64 syncs, one after another.",
                ),
            ]
    finally:
        await store.close()
        await scheduler.close()


def _store_write(store: Store) -> Contender:
    value = bytes(ROW_BYTES)
    count = 0

    async def once() -> int:
        nonlocal count
        count += 1
        number = count

        def unit(tx: Transaction) -> int:
            tx.execute("INSERT INTO bench_row VALUES(1,?,?,0,?)", (number, LOCAL, value))
            return number

        return await store.write(unit)

    about = f"one row of {ROW_BYTES} bytes through the kernel's group commit; SQLite {sqlite3.sqlite_version}, WAL, synchronous=FULL"
    return Contender("store.write", "subject", about, once, lambda n: None if isinstance(n, int) else f"{n!r}")
