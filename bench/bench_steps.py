"""Durable steps: what it costs to have one on disk before its caller goes on, beside the least that the machine asks for.

    one at a time      Store.write of a journal-like row beside a raw append + fdatasync and a bare SQLite commit
    64 at once         the same with 64 callers: group commit shares the sync among them
    a program          a whole durable run of 50 calls in its sandbox, from start to output, beside 50 raw appends and one python start

All sides mean the same by done: the bytes are in the file and fdatasync (SQLite: WAL with synchronous=FULL, one sync a commit) has
returned. Rows are 256 bytes. All files lie in the folder of the run, so on the same disk.

Peer, with --peers: DBOS on SQLite with the settings it has by default (rollback journal, synchronous=FULL: as safe, more syncs).
Its workflow runs in this process, without a sandbox; ours in one.
"""

import asyncio
import importlib
import importlib.metadata
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

from agent_kernel import Kernel
from agent_kernel.base.limits import Limits
from agent_kernel.base.ports import LOCAL, Ports
from agent_kernel.base.store import Migrations, Store, Transaction
from agent_kernel.scheduler import Scheduler

from .controls import ROW_BYTES, empty_commit, nothing, plain_python, raw_append, raw_log
from .interleave import Absent, Case, Contender
from .questions import fresh
from .survey import Table

__all__ = ["cases"]

SCHEMA: Migrations = {
    1: """
    CREATE TABLE bench_row(
        run INTEGER NOT NULL, n INTEGER NOT NULL, principal TEXT NOT NULL, kind INTEGER NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY(run, n)) STRICT, WITHOUT ROWID;
    """
}
CALLS = 50

PROGRAMS = {
    "program, no call": "async def main(input):\n    return input['calls']\n",
    "program, 50 effects": """\
async def main(input):
    for number in range(input["calls"]):
        await kernel.memory.edit("bench", "row " + str(number))
    return number + 1
""",
    "program, 50 steps": """\
async def main(input):
    total = 0
    for number in range(input["calls"]):
        total += await kernel.step("one", lambda: 1)
    return total
""",
}
ABOUT = {
    "program, no call": "sandbox, start, output: what a run costs before its first call",
    "program, 50 effects": "a note of the kernel rewritten 50 times, each in one commit with the record of its call",
    "program, 50 steps": "a function run 50 times, each in a forked child, its result on disk before the next",
}


@asynccontextmanager
async def cases(folder: Path, *, peers: Path | None) -> AsyncIterator[list[Case | Table]]:
    """DBOS is looked for where this Python finds its packages, not in the folder of peers: it has many of its own."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(_store(folder))
        append = stack.enter_context(raw_append(folder))
        group = stack.enter_context(raw_log(folder))
        commit = stack.enter_context(empty_commit(folder))
        peer = [stack.enter_context(_dbos(folder))] if peers is not None else []
        kernel = await stack.enter_async_context(Kernel.open(folder / "kernel"))
        write = _store_write(store)
        yield [
            Case(
                "steps.alone",
                "One durable row, one caller: time until it is on disk",
                [write, append, commit, nothing()],
                base=append.name,
                passes=60,
            ),
            Case(
                "steps.together",
                "One durable row each for 64 callers at the same moment: time until each is on disk",
                [write, append, group, commit],
                base=append.name,
                passes=8,
                at_once=64,
                note="Without group commit the 64 callers wait for 64 syncs, one after another.",
            ),
            Case(
                "steps.program",
                f"A whole durable program of {CALLS} calls, from its start until its output is here",
                [
                    *(_program(kernel, name) for name in PROGRAMS),
                    _least(append),
                    *(one for one in peer if isinstance(one, Contender)),
                ],
                base="50 appends + python",
                passes=3,
                pause_s=0.05,
                absent=[one for one in peer if isinstance(one, Absent)],
            ),
        ]


@asynccontextmanager
async def _store(folder: Path) -> AsyncIterator[Store]:
    limits = Limits()
    scheduler = Scheduler(slots=limits.slots, queue_max=limits.queue_max)
    store = await Store.open(
        folder / "store", ports=Ports.real(), limits=limits, migrations=(SCHEMA,), spawn=scheduler.spawn
    )
    try:
        yield store
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


def _program(kernel: Kernel, name: str) -> Contender:
    async def once() -> Any:
        run = await kernel.runs.start(program=PROGRAMS[name], input={"calls": CALLS})
        return await run.result()

    return Contender(name, "subject", ABOUT[name], once, _not_all_calls)


def _least(append: Contender) -> Contender:
    """The floor of a durable program: as many syncs as it has calls, and one interpreter to run it."""
    python = plain_python()

    async def once() -> int:
        await python.alone(fresh())
        for _ in range(CALLS):
            await append.once()
        return CALLS

    about = f"{CALLS} x ({append.about}), and {python.about}"
    return Contender("50 appends + python", "control", about, once, _not_all_calls)


@contextmanager
def _dbos(folder: Path) -> Iterator[Contender | Absent]:
    try:
        dbos = importlib.import_module("dbos")
    except ImportError:
        yield Absent("DBOS", "it is not installed", "pip install dbos")
        return
    file = folder / "dbos.sqlite"
    dbos.DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{file}",
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )

    @dbos.DBOS.step()  # type: ignore[untyped-decorator]
    async def one() -> int:
        return 1

    @dbos.DBOS.workflow()  # type: ignore[untyped-decorator]
    async def workflow(calls: int) -> int:
        return sum([await one() for _ in range(calls)])

    async def once() -> Any:
        return await workflow(CALLS)

    dbos.DBOS.launch()
    # It makes its own threads the loop's default; the kernel beside it gets the ordinary ones back.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
    try:
        with closing(sqlite3.connect(file)) as db:
            mode = db.execute("PRAGMA journal_mode").fetchone()[0]
        version = importlib.metadata.version("dbos")
        about = f"DBOS {version}, SQLite journal_mode={mode}, its defaults; {CALLS} steps in this process, no sandbox"
        yield Contender("DBOS, 50 steps", "peer", about, once, _not_all_calls)
    finally:
        dbos.DBOS.destroy()
        logging.getLogger("dbos").handlers.clear()


def _not_all_calls(output: Any) -> str | None:
    return None if output == CALLS else f"{output!r}, not {CALLS}"
