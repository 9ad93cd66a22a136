"""What the processes of a sandbox use now, read from /proc: the watchdog's eyes, where no cgroup counts for us.

`census(top, guest)` walks the tree below the guest and what has come to `top`, which is ours and is not counted: in tier full the init, to
which orphans of its pid namespace come and nothing else; in tier confined the keeper, the guest's parent and the subreaper of the rest.

Memory is the sum of resident pages of all processes, less the first FILE_PAGES_FREE pages of each that belong to files: libraries and the
interpreter are shared. Pages shared after a fork are counted for each process that maps them: on the high side, never on the low.
`exact_memory` divides those among their holders, for the moment when the estimate is over a limit: it walks page tables.

`unseen` is host memory that no figure of a process shows: what sockets and pipes may hold (the most that each may, since what it does hold
is nowhere to be read), watches of epoll, locks of files, mappings and page tables. One process has little of it; sixty have gigabytes.

CPU is the sum over processes that live, what their reaped children used, and what a keeper reaped. Orphans in tier full and children of
who ignores SIGCHLD take their time with them when they end: `Spent` remembers what was seen of them. Those that began and ended between
two looks only a cgroup counts (cgroups.py).

A process that dies while it is read counts as nothing.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from .system import sysconf

__all__ = [
    "Census", "LastLook", "Now", "Spent", "census", "children", "exact_memory", "few_descriptors", "tasks_of_uid", "unseen",
]  # fmt: skip

PAGE = sysconf("SC_PAGESIZE")
TICKS = sysconf("SC_CLK_TCK")
FILE_PAGES_FREE, FILE_PAGES_FREE_SUM = (24 << 20) // PAGE, (64 << 20) // PAGE
"""Of one process, and of a tree before it is asked whether those are files at all."""
PIPE_BYTES = 64 << 10
CHANNELS_FREE = 128
"""So many sockets and pipes of a tree are not counted: their bytes are in the noise, and a pool of workers has them."""
DESCRIPTORS_FREE, PROCESSES_FREE, SOCKETS_FREE = 8, 4, 8
"""Trees so small are not looked into: most have one process and four descriptors, and cannot hold much through them."""
WATCH_BYTES, LOCK_BYTES, MAPPING_BYTES = 192, 256, 320
DESCRIBED_BYTES_MAX, LOCKS_TEXT_BYTES_MAX = 1 << 20, 1 << 18
"""Of what the system writes about one descriptor. Four thousand locks of one file write more; a database holds five."""
NO_END = 1 << 60
UNREADABLE_BYTES = 64 << 20
"""Of a process that has made itself unreadable to its own user, by running a file that nobody may read."""


class Census(NamedTuple):
    tasks: int
    memory_bytes: int
    cpu_s: float
    pages: dict[int, int]
    """pid -> its part of `memory_bytes`, in pages."""
    ticks: dict[int, int]
    """pid -> CPU of its own."""


class Now(NamedTuple):
    """One process, as the system knows it."""

    waited_cpu_s: float
    """Of children that it has waited for; its own is to be had exactly, from its clock."""
    peak_bytes: int


class LastLook:
    """The files of one process, opened before they are needed: to open one costs more than to read it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stat, self._status = (
            os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("stat", "status")
        )

    def read(self, *, short: bool) -> Now:
        """All zero when it is gone. After a short life what it holds now is taken for its peak: that is had for a third of the price."""
        try:
            after_name = os.pread(self._stat, 1024, 0).rpartition(b")")[2].split()
            waited = (int(after_name[13]) + int(after_name[14])) / TICKS
            if short:
                return Now(waited, int(after_name[21]) * PAGE)
            return Now(waited, int(os.pread(self._status, 4096, 0).partition(b"VmHWM:")[2].split(None, 1)[0]) << 10)
        except (OSError, ValueError, IndexError):
            return Now(0.0, 0)

    def alone(self, top: int) -> bool:
        """Whether it is one thread, with no children and no orphans beside it."""
        try:
            own, beside = (_children(pid) for pid in (self._pid, top))
        except (OSError, ValueError):
            return False
        return own == (1, []) and set(beside[1]) <= {self._pid}

    def close(self) -> None:
        os.close(self._stat)
        os.close(self._status)


def children(pid: int) -> list[int]:
    return _children(pid)[1]


def census(top: int, guest: int = 0) -> Census:
    tasks, ticks, given = 0, 0, 0
    pages: dict[int, int] = {}
    waiting = list({guest, *_children(top)[1]} - {0})  # the guest is a child of the keeper, and not of an init
    own: dict[int, int] = {}
    with suppress(OSError, ValueError, IndexError):
        ticks = sum(map(int, _after_name(top)[13:15]))
    while waiting:
        pid = waiting.pop()
        count, children = _children(pid)
        waiting += children
        with suppress(OSError, ValueError, IndexError):
            resident, of_files = _fields(f"/proc/{pid}/statm")[1:3]
            used = [int(field) for field in _after_name(pid)[11:15]]  # own and reaped children's, user and system
            ticks += sum(used)
            own[pid] = used[0] + used[1]
            free = min(int(of_files), FILE_PAGES_FREE)
            given += free
            pages[pid] = int(resident) - free
            tasks += count
    if given > FILE_PAGES_FREE_SUM:
        for pid in pages:
            pages[pid] += min(_shared_pages(pid), FILE_PAGES_FREE)
    return Census(tasks, sum(pages.values()) * PAGE, ticks / TICKS, pages, own)


class Spent:
    """CPU of a tree over many looks, which does not fall when processes are gone that nobody waited for."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._gone_ticks = 0
        self._most_s = 0.0

    def by(self, seen: Census) -> float:
        self._gone_ticks += sum(ticks for pid, ticks in self._last.items() if ticks > seen.ticks.get(pid, -1))
        self._last = seen.ticks
        ever = (self._gone_ticks + sum(seen.ticks.values())) / TICKS
        self._most_s = max(self._most_s, ever, seen.cpu_s)
        return self._most_s


def _shared_pages(pid: int) -> int:
    """Of shared anonymous memory and tmpfs, which statm takes for pages of files."""
    with suppress(OSError, ValueError, IndexError):
        return (int(_read(f"/proc/{pid}/status").partition(b"RssShmem:")[2].split(None, 1)[0]) << 10) // PAGE
    return 0


def exact_memory(seen: Census) -> int:
    """Proportional set size, anonymous and shared memory, of the processes that were seen; the estimate where it may not be read."""
    total = 0
    for pid, pages in seen.pages.items():
        try:
            rollup = dict(line.split(b":", 1) for line in _read(f"/proc/{pid}/smaps_rollup").splitlines()[1:])
            total += sum(int(rollup[name].split()[0]) << 10 for name in (b"Pss_Anon", b"Pss_Shmem"))
        except ProcessLookupError:
            continue
        except (OSError, KeyError, ValueError):
            total += pages * PAGE
    return total


def unseen(pids: Collection[int], most: int, *, own_network: bool) -> int:
    """Counting ends above `most`. With `own_network` the sockets of their network namespace are all theirs, and count also where no
    descriptor names them: a connection that nobody has accepted holds what was sent, and its sender may be gone.
    """
    sockets = _sockets_of_namespace(pids) if own_network else 0
    held: set[str] = set()
    names: list[str] = []
    total = _tcp_bytes(pids) if sockets > SOCKETS_FREE else 0
    for pid in pids:
        try:
            names += (f"{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd"))
        except PermissionError:
            total += UNREADABLE_BYTES if _lives(pid) else 0
        except OSError:
            continue
    if len(names) <= DESCRIPTORS_FREE and len(pids) <= PROCESSES_FREE:
        return total + _channels(sockets, 0)
    for name in names:
        with suppress(OSError):
            what = os.readlink(f"/proc/{name}")
            held.add(what)
            if what == "anon_inode:[eventpoll]" or (what[0] == "/" and not what.startswith("/dev/")):
                total += _described(f"/proc/{name.replace('/fd/', '/fdinfo/')}")
        if total > most:
            return total
    named, pipes = (sum(one.startswith(kind) for one in held) for kind in ("socket:", "pipe:"))
    total += _channels(max(sockets, named), pipes)
    for pid in pids if len(pids) > PROCESSES_FREE else ():
        if total > most:
            break
        total += _tables(pid)
    return total


def few_descriptors(pids: Iterable[int]) -> bool:
    """Whether `unseen` looks at none of them one by one, which can take seconds: nothing for the thread that serves everybody."""
    count = 0
    for pid in pids:
        with suppress(OSError):
            count += len(os.listdir(f"/proc/{pid}/fd"))
    return count <= DESCRIPTORS_FREE


def _channels(sockets: int, pipes: int) -> int:
    if sockets + pipes <= CHANNELS_FREE:
        return 0
    return sockets * _socket_bytes() + pipes * PIPE_BYTES


def _sockets_of_namespace(pids: Iterable[int]) -> int:
    """`sockets: used N`, read through whichever of them still lives."""
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            return int(_fields(f"/proc/{pid}/net/sockstat")[2])
    return 0


def _tcp_bytes(pids: Iterable[int]) -> int:
    """What waits in buffers of TCP, which grow far beyond what they begin with; twice, for what it takes to keep small pieces."""
    for pid in pids:
        queued = 0
        with suppress(OSError, ValueError, IndexError):
            for family in ("tcp", "tcp6"):
                for line in b"".join(_parts(f"/proc/{pid}/net/{family}")).splitlines()[1:]:
                    sent, _, received = line.split(None, 5)[4].partition(b":")
                    queued += int(sent, 16) + int(received, 16)
            return 2 * queued
    return 0


def _described(path: str) -> int:
    """Watches of an epoll, locks of a file. The list of a hoard costs the system as much as the hoard, so its end is not read."""
    text = _read(path, DESCRIBED_BYTES_MAX)
    locks = text.count(b"\nlock:")
    if locks and len(text) > LOCKS_TEXT_BYTES_MAX:
        return NO_END
    return locks * LOCK_BYTES + text.count(b"\ntfd:") * WATCH_BYTES


def _tables(pid: int) -> int:
    """Of a process: what its page tables and the list of its mappings take."""
    with suppress(OSError, ValueError, IndexError):
        tables = _read(f"/proc/{pid}/status").partition(b"VmPTE:")[2].split(None, 1)[0]
        return (int(tables) << 10) + _lines(f"/proc/{pid}/maps") * MAPPING_BYTES
    return 0


def _lines(path: str) -> int:
    return sum(part.count(b"\n") for part in _parts(path))


def _parts(path: str) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while part := os.read(descriptor, 1 << 16):
            yield part
    finally:
        os.close(descriptor)


def _socket_bytes() -> int:
    """The default of a socket's buffer, which base/filter.py makes the most, with what it costs to keep."""
    try:
        return int(_read("/proc/sys/net/core/wmem_default")) * 5 // 4
    except (OSError, ValueError):
        return 256 << 10


def tasks_of_uid(uid: int) -> int:
    """How many tasks the whole machine runs for `uid`: what RLIMIT_NPROC compares itself with."""
    found = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == uid:
                    found += len(os.listdir(f"/proc/{name}/task"))
    return found


def _children(pid: int) -> tuple[int, list[int]]:
    children: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return 0, children
    for task in tasks:
        with suppress(OSError):
            children += map(int, _fields(f"/proc/{pid}/task/{task}/children"))
    return len(tasks), children


def _lives(pid: int) -> bool:
    """What is ending has no memory any more, and its descriptors are root's to see long before it is a zombie."""
    with suppress(OSError):
        return not _read(f"/proc/{pid}/statm").startswith(b"0 ")
    return False


def _after_name(pid: int) -> list[bytes]:
    """Fields of stat from the third on; the second, the name, may hold anything."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _fields(path: str) -> list[bytes]:
    return _read(path).split()


def _read(path: str, most: int = 1 << 16) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)
