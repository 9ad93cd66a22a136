"""A disk that loses power: what SQLite asks of the system is written down, and any state that a crash could leave is built from it.

    with Disk() as disk: ...            SQLite's files in this process go through it; disk.acted("ack", n) adds a mark
    for image in disk.images(...): image.lay(folder)

Between SQLite and its own VFS stands one of ours, in the library that Python's sqlite3 has loaded: it calls the real one, and logs writes,
truncations, syncs and deletions. It is found by ctypes, so the modules under test are those that users run.

What a crash leaves of a file: all up to its last sync; of what came later each write wholly, not at all, or torn at a sector of 512 bytes,
in any combination, since neither the system nor the drive promises an order. A truncation or deletion without a sync may be undone.
Source of the structures: sqlite3.h (sqlite3_vfs version 3, sqlite3_io_methods version 3).
"""

import _sqlite3
import ctypes
import ctypes.util
import itertools
import random
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

SECTOR = 512
EVEN = 0.5
IOERR_FSYNC, IOERR_WRITE, FULL = 10 | 4 << 8, 10 | 3 << 8, 13

P, I, L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
OPEN = ctypes.CFUNCTYPE(I, P, ctypes.c_char_p, P, I, P)
DELETE = ctypes.CFUNCTYPE(I, P, ctypes.c_char_p, I)
WRITE = ctypes.CFUNCTYPE(I, P, P, I, L)
TRUNCATE = ctypes.CFUNCTYPE(I, P, L)
SYNC = ctypes.CFUNCTYPE(I, P, I)


class Vfs(ctypes.Structure):
    _fields_ = [
        ("version", I), ("file_bytes", I), ("path_max", I), ("next", P), ("name", ctypes.c_char_p), ("data", P),
        ("open", P), ("delete", P), *((f"other{n}", P) for n in range(14)),
    ]  # fmt: skip


class Methods(ctypes.Structure):
    _fields_ = [
        ("version", I), ("close", P), ("read", P), ("write", P), ("truncate", P), ("sync", P), *((f"other{n}", P) for n in range(13)),
    ]  # fmt: skip


class Act(NamedTuple):
    kind: str
    """write | truncate | sync | delete, or a mark of the test's own."""
    file: str
    at: int = 0
    data: bytes = b""


@dataclass(slots=True)
class Image:
    """What lies on the disk after a crash, and how many acts had been begun."""

    acts: int
    files: dict[str, bytes] = field(default_factory=dict)

    def lay(self, folder: Path) -> None:
        for name, data in self.files.items():
            (folder / name).write_bytes(data)


class Disk:
    def __init__(self) -> None:
        self.acts: list[Act] = []
        self.fails: Callable[[str, str], int] = lambda _kind, _file: 0
        """(act, file) -> the error code that SQLite gets in its place, 0 for none."""
        self._names: dict[int, str] = {}
        self._tables: dict[int, Methods] = {}
        self._kept: list[Any] = []

    def __enter__(self) -> Self:
        self._library = ctypes.CDLL(_shared_library())
        self._library.sqlite3_vfs_find.restype = P
        self._below = ctypes.cast(self._library.sqlite3_vfs_find(None), ctypes.POINTER(Vfs)).contents
        self._vfs = Vfs.from_buffer_copy(self._below)
        self._vfs.name = b"disk"
        self._vfs.open = self._address(OPEN(self._open))
        self._vfs.delete = self._address(DELETE(self._delete))
        assert self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1) == 0
        return self

    def __exit__(self, *_: object) -> None:
        self._library.sqlite3_vfs_register(ctypes.byref(self._below), 1)
        self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))

    def acted(self, kind: str, at: int) -> None:
        self.acts.append(Act(kind, "", at))

    # --- what SQLite calls

    def _address(self, callback: Any) -> int | None:
        self._kept.append(callback)
        return ctypes.cast(callback, P).value

    def _open(self, vfs: int, name: bytes | None, file: int, flags: int, out: int) -> int:
        code = OPEN(self._below.open)(vfs, name, file, flags, out)
        if code == 0 and name is not None:
            self._names[file] = Path(name.decode()).name
            methods = ctypes.cast(file, ctypes.POINTER(P))
            methods[0] = ctypes.addressof(self._table(methods[0]))
        return int(code)

    def _table(self, below: int) -> Methods:
        if below not in self._tables:
            real = Methods.from_address(below)
            table = self._tables[below] = Methods.from_buffer_copy(real)
            write, truncate, sync = WRITE(real.write), TRUNCATE(real.truncate), SYNC(real.sync)

            def on_write(file: int, data: int, size: int, at: int) -> int:
                return self._do(
                    "write", file, lambda: write(file, data, size, at), at, lambda: ctypes.string_at(data, size)
                )

            table.write = self._address(WRITE(on_write))
            table.truncate = self._address(
                TRUNCATE(lambda file, size: self._do("truncate", file, lambda: truncate(file, size), size))
            )
            table.sync = self._address(SYNC(lambda file, how: self._do("sync", file, lambda: sync(file, how))))
        return self._tables[below]

    def _do(
        self, kind: str, file: int, act: Callable[[], int], at: int = 0, data: Callable[[], bytes] = lambda: b""
    ) -> int:
        name = self._names[file]
        if code := self.fails(kind, name):
            return code
        self.acts.append(Act(kind, name, at, data()))
        return act()

    def _delete(self, vfs: int, name: bytes, synced: int) -> int:
        self.acts.append(Act("delete", Path(name.decode()).name, synced))
        return int(DELETE(self._below.delete)(vfs, name, synced))

    # --- what a crash can leave

    def images(self, seed: int, number: int) -> Iterator[Image]:
        """At moments spread over all that was done: nothing of what was not synced, all of it, then torn and dropped at random."""
        chance = random.Random(seed)
        ways = itertools.cycle(("none", "all", "some", "some"))
        moments = sorted(chance.randrange(1, len(self.acts) + 1) for _ in range(number))
        synced: dict[str, bytearray] = {}
        unsynced: dict[str, list[Act]] = {}
        done = 0
        for moment in moments:
            for act in self.acts[done:moment]:
                _take(act, synced, unsynced)
            done = moment
            files = {name: bytearray(data) for name, data in synced.items()}
            _crash(next(ways), files, unsynced, chance)
            yield Image(moment, {name: bytes(data) for name, data in files.items()})


def _take(act: Act, synced: dict[str, bytearray], unsynced: dict[str, list[Act]]) -> None:
    waiting = unsynced.setdefault(act.file, [])
    waiting.append(act)
    if act.kind == "sync" or (act.kind == "delete" and act.at):
        for one in waiting:
            _apply(one, synced)
        waiting.clear()


def _crash(way: str, files: dict[str, bytearray], unsynced: dict[str, list[Act]], chance: random.Random) -> None:
    for waiting in unsynced.values():
        for act in waiting:
            happened = way == "all" or (way == "some" and chance.random() < EVEN)
            if act.kind == "delete" and not happened:
                break  # what came after is another file of that name, and has no name either
            if happened:
                torn = way == "some" and act.kind == "write" and chance.random() < EVEN
                _apply(_torn(act, chance) if torn else act, files)


def _apply(act: Act, files: dict[str, bytearray]) -> None:
    if act.kind == "delete":
        files.pop(act.file, None)
    elif act.kind == "truncate":
        del files.setdefault(act.file, bytearray())[act.at :]
    elif act.kind == "write":
        data = files.setdefault(act.file, bytearray())
        data.extend(bytes(max(0, act.at - len(data))))
        data[act.at : act.at + len(act.data)] = act.data


def _torn(act: Act, chance: random.Random) -> Act:
    """Some whole sectors of it from its beginning or its end."""
    middle = act.at + chance.randrange(len(act.data) + 1)
    cut = max(0, middle // SECTOR * SECTOR - act.at)
    return (
        act._replace(data=act.data[:cut])
        if chance.random() < EVEN
        else act._replace(at=act.at + cut, data=act.data[cut:])
    )


def _shared_library() -> str:
    """The file that holds the SQLite of Python's sqlite3. Where it is not a library of its own there is nothing to stand in."""
    assert _sqlite3.__file__
    for line in Path("/proc/self/maps").read_text(encoding="utf8").splitlines():
        path = line.rpartition(" ")[2]
        if Path(path).name.startswith("libsqlite3.so"):
            library = ctypes.CDLL(path)
            library.sqlite3_libversion.restype = ctypes.c_char_p
            assert library.sqlite3_libversion().decode() == sqlite3.sqlite_version
            return path
    raise RuntimeError(
        "This Python has its SQLite built in; these tests need one that links libsqlite3 (Debian's, pyenv's)."
    )
