"""What the processes of a sandbox use now, read from /proc: the watchdog's eyes, where no cgroup counts for us.

`census(init)` walks the tree below `init` (which is ours and is not counted). In tier full nobody can leave that tree, since its top
is pid 1 of a pid namespace; in tier confined orphans return to it, since it is their subreaper.

Memory is the sum of resident pages of all processes, less the first FILE_PAGES_FREE pages of each that belong to files: libraries and the
interpreter are shared. Pages shared after a fork are counted for each process that maps them: on the high side, never on the low.
`exact_memory` divides those among their holders, for the moment when the estimate is over a limit: it walks page tables.

`channels` is what sockets and pipes may hold of the host's memory: no figure of a process counts that. It is the most that each may
hold, since what it does hold is nowhere to be read.

A process that dies while it is read counts as nothing.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from .system import sysconf

__all__ = ["Census", "census", "channels", "exact_memory", "tasks_of_uid"]

PAGE = sysconf("SC_PAGESIZE")
TICKS = sysconf("SC_CLK_TCK")
FILE_PAGES_FREE = (24 << 20) // PAGE
PIPE_BYTES = 64 << 10
CHANNELS_FREE = 128
"""So many descriptors of a tree are not looked at one by one."""


class Census(NamedTuple):
    tasks: int
    memory_bytes: int
    cpu_s: float
    pages: dict[int, int]
    """pid -> its part of `memory_bytes`, in pages."""


def census(init: int) -> Census:
    tasks, ticks = 0, 0
    pages: dict[int, int] = {}
    waiting = _children(init)[1]
    while waiting:
        pid = waiting.pop()
        count, children = _children(pid)
        waiting += children
        with suppress(OSError, ValueError, IndexError):
            resident, of_files = _fields(f"/proc/{pid}/statm")[1:3]
            stat = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
            pages[pid] = int(resident) - min(int(of_files), FILE_PAGES_FREE)
            ticks += sum(map(int, stat[11:15]))  # own and reaped children's, user and system
            tasks += count
    return Census(tasks, sum(pages.values()) * PAGE, ticks / TICKS, pages)


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


def channels(pids: Iterable[int]) -> int:
    names: list[str] = []
    for pid in pids:
        with suppress(OSError):
            names += (f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd"))
    if len(names) <= CHANNELS_FREE:
        return 0
    held = set()
    for name in names:
        with suppress(OSError):
            held.add(os.readlink(name))
    sockets, pipes = (sum(one.startswith(kind) for one in held) for kind in ("socket:", "pipe:"))
    return sockets * _socket_bytes() + pipes * PIPE_BYTES


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


def _fields(path: str) -> list[bytes]:
    return _read(path).split()


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)
