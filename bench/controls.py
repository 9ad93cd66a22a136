"""Controls: what the machine itself costs. Every case has some, so that a number of ours can be read as a ratio.

    nothing            an awaited no-op: the cost of the frame, to be subtracted in thought
    empty process      posix_spawn of `true` and its reaping: the least that any program start can cost
    python             `python3 -I -S -c PROGRAM`: the interpreter without a sandbox
    raw append         write 256 bytes at the end of a file, fdatasync: the least that 'on disk' can mean
    empty commit       SQLite, WAL, synchronous=FULL, one row of 256 bytes: what the library costs without us

The blocking ones are called straight from the loop: that is their best case, no thread and no wake-up is charged to them.
If the process dies, files of the run's temporary folder stay; nothing else does.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .interleave import Contender
from .ways import Way, bare_python, command, interpreter

__all__ = ["ROW_BYTES", "empty_commit", "empty_process", "nothing", "plain_python", "raw_append", "raw_log"]

ROW_BYTES = 256


def nothing() -> Contender:
    async def once() -> None:
        return None

    return Contender("nothing", "control", "an awaited no-op: what the frame itself costs", once, lambda _: None)


def empty_process() -> Contender:
    true = shutil.which("true") or "/bin/true"

    def spawn_and_reap() -> int:
        pid = os.posix_spawn(true, [true], {})
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    async def once() -> int:
        return spawn_and_reap()

    def wrong(code: int) -> str | None:
        return f"exit {code}" if code else None

    return Contender("empty process", "control", f"posix_spawn of {true}, reaped", once, wrong)


def plain_python() -> Way:
    about = f"{interpreter()} -I -S -c PROGRAM, until output and status are here; no sandbox"
    return command("python3 -I -S", "control", about, bare_python)


@contextmanager
def raw_append(folder: Path, name: str = "append + fdatasync") -> Iterator[Contender]:
    """One record, one sync. n at once wait for each other, as they do on one file without group commit."""
    with _log(folder / "raw.log") as append:

        async def once() -> int:
            return append(1)

        yield Contender(
            name, "control", f"write {ROW_BYTES} bytes at the end of a file, fdatasync", once, _not_positive
        )


@contextmanager
def raw_log(folder: Path) -> Iterator[Contender]:
    """Many records, one sync: the limit of any group commit."""
    with _log(folder / "group.log") as append:

        async def once() -> int:
            return append(1)

        async def together(count: int) -> list[int]:
            return [append(count)] * count

        about = f"n x {ROW_BYTES} bytes in one write, one fdatasync: the limit of any group commit"
        yield Contender("group append + fdatasync", "control", about, once, _not_positive, together)


@contextmanager
def empty_commit(folder: Path) -> Iterator[Contender]:
    # A control must not go through our store: it is what SQLite costs without it.
    db = sqlite3.connect(folder / "control.db", isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("CREATE TABLE row(n INTEGER PRIMARY KEY, value BLOB NOT NULL) STRICT")
        value = bytes(ROW_BYTES)

        async def once() -> int | None:
            return db.execute("INSERT INTO row(value) VALUES(?)", (value,)).lastrowid

        about = f"stdlib sqlite3 {sqlite3.sqlite_version} on the calling thread, WAL, synchronous=FULL, one row of {ROW_BYTES} bytes"
        yield Contender("SQLite commit", "control", about, once, _not_positive)
    finally:
        db.close()


@contextmanager
def _log(path: Path) -> Iterator[Callable[[int], int]]:
    record = bytes(ROW_BYTES)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    sync = getattr(os, "fdatasync", os.fsync)
    try:

        def append(count: int) -> int:
            written = os.write(file, record * count)
            sync(file)
            return written

        yield append
    finally:
        os.close(file)


def _not_positive(value: Any) -> str | None:
    return None if isinstance(value, int) and value > 0 else f"{value!r}"
