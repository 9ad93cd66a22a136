"""What can be seen of a process from outside, in /proc: its layers and its memory. Nothing here is told by the process itself.

    find_by_threads(program)   the process that runs a holding program (questions.py): a descendant of ours with its number of threads
    look(pid)                  seccomp, no_new_privs, capabilities, uid, namespaces, limits, cgroup; each beside our own
    whole_of(pid, before)      all processes of its sandbox
    weigh(pids)                PSS and private dirty memory, summed

Guarantees
1. Each line was read from /proc while the program ran. What cannot be read is said to be unreadable, never left out or assumed.
2. A namespace counts as its own only if its inode differs from ours.

Not here: Landlock, which /proc does not show; a report names it as what the contender says of itself. Linux only.
"""

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .questions import Program

__all__ = [
    "Memory",
    "Seen",
    "descendants",
    "find_by_name",
    "find_by_threads",
    "look",
    "seen_while",
    "weigh",
    "whole_of",
    "worlds",
]

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
LOOK_S = 0.005
FOUND_WITHIN_S = 10.0
LIMITS = {
    "Max address space": "memory",
    "Max processes": "processes",
    "Max open files": "files",
    "Max file size": "size",
    "Max cpu time": "cpu",
}

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Seen:
    pid: int
    seccomp: str
    """`none`, `strict`, `filter`, with how many filters; `unreadable`."""
    no_new_privs: bool | None
    capabilities: str
    """Effective ones, as the kernel's hexadecimal."""
    uid: int | None
    own: tuple[str, ...]
    """Namespaces that are not ours."""
    unreadable: tuple[str, ...]
    limits: tuple[str, ...]
    """Resource limits that are tighter than ours."""
    cgroup: bool | None
    """Whether it is in another cgroup than we."""


@dataclass(frozen=True, slots=True)
class Memory:
    processes: int
    pss_bytes: int
    private_dirty_bytes: int


def look(pid: int) -> Seen:
    status = _fields(_read(f"/proc/{pid}/status"))
    own, unreadable = [], []
    for name in NAMESPACES:
        ours, theirs = _inode("self", name), _inode(pid, name)
        if theirs is None:
            unreadable.append(f"{name} namespace")
        elif theirs != ours:
            own.append(name)
    mode = {"0": "none", "1": "strict", "2": "filter"}.get(status.get("Seccomp", ""), "unreadable")
    count = status.get("Seccomp_filters", "0")
    cgroup = _read(f"/proc/{pid}/cgroup")
    if not status:
        unreadable.append("status")
    return Seen(
        pid=pid,
        seccomp=f"{mode} x {count}" if mode == "filter" and count != "1" else mode,
        no_new_privs=None if "NoNewPrivs" not in status else status["NoNewPrivs"] == "1",
        capabilities=status.get("CapEff", "unreadable"),
        uid=int(status["Uid"].split()[1]) if "Uid" in status else None,
        own=tuple(own),
        unreadable=tuple(unreadable),
        limits=tuple(_tighter(pid)),
        cgroup=None if not cgroup else cgroup != _read("/proc/self/cgroup"),
    )


def weigh(pids: Collection[int]) -> Memory:
    """Raises OSError where the kernel does not let us read."""
    pss = dirty = 0
    for pid in pids:
        fields = _fields(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"))
        pss += _kib(fields["Pss"])
        dirty += _kib(fields["Private_Dirty"])
    return Memory(len(pids), pss, dirty)


def descendants(pid: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for each, parent in _parents().items():
        children.setdefault(parent, []).append(each)
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting += below
    return found


def whole_of(leaf: int, before: Collection[int]) -> set[int]:
    """A sandbox by one of its processes: what shares its pid namespace, and what was started for it (was not there before)."""
    parents = _parents()
    whole = {leaf, *descendants(leaf), *worlds().get(_inode(leaf, "pid") or "", ())}
    above = parents.get(leaf, 0)
    while above in parents and above != os.getpid() and above not in before:
        whole |= {above, *descendants(above)}
        above = parents[above]
    return whole


def worlds() -> dict[str, set[int]]:
    """Processes below ours in pid namespaces that are not ours, by namespace: each of ours is a sandbox, parked or running."""
    found: dict[str, set[int]] = {}
    ours = _inode("self", "pid")
    for pid in descendants(os.getpid()):
        inode = _inode(pid, "pid")
        if inode is not None and inode != ours:
            found.setdefault(inode, set()).add(pid)
    return found


def find_by_threads(program: Program) -> int | None:
    """The Python among our descendants that has as many threads as the program made."""
    return _newest(lambda status: status["Name"].startswith("python") and status["Threads"] == str(program.threads))


def find_by_name(name: str) -> int | None:
    return _newest(lambda status: status["Name"].startswith(name))


def _newest(fits: Callable[[dict[str, str]], bool]) -> int | None:
    statuses = {pid: _fields(_read(f"/proc/{pid}/status")) for pid in descendants(os.getpid())}
    return max((pid for pid, status in statuses.items() if status and fits(status)), key=_started, default=None)


async def seen_while(
    running: Awaitable[object], find: Callable[[], int | None], act: Callable[[int], Found | None]
) -> Found | None:
    """`act` on the process until it makes something of it, while the program runs; None if it ended unseen."""
    task = asyncio.ensure_future(running)
    found: Found | None = None
    try:
        while not task.done() and found is None:
            await asyncio.sleep(LOOK_S)
            pid = find()
            if pid is not None:
                found = act(pid)
        await asyncio.wait_for(task, FOUND_WITHIN_S)
    finally:
        task.cancel()
    return found


def _tighter(pid: int) -> Iterator[str]:
    ours, theirs = _limits("self"), _limits(pid)
    for name, short in LIMITS.items():
        if name in theirs and theirs[name] < ours.get(name, math.inf):
            yield short


def _limits(pid: int | str) -> dict[str, float]:
    found = {}
    for line in _read(f"/proc/{pid}/limits").splitlines():
        for name in LIMITS:
            if line.startswith(name):
                soft = line[len(name) :].split()[0]
                found[name] = float("inf") if soft == "unlimited" else float(soft)
    return found


def _parents() -> dict[int, int]:
    found = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  a thousand entries, many times a second
        if entry.isdigit() and (stat := _read(f"/proc/{entry}/stat")):
            found[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    return found


def _started(pid: int) -> int:
    stat = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(stat[19]) if len(stat) > 19 else 0


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, separator, value in pairs if separator}


def _kib(value: str) -> int:
    return int(value.split(maxsplit=1)[0]) * 1024


def _inode(pid: int | str, name: str) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/{name}")  # noqa: PTH115  a magic link
    except OSError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf8", errors="replace")
    except OSError:
        return ""
