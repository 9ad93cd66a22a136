"""What the processes of one run hold, looked at from outside while it lives; a thread, so that a kernel that stands still is seen too.

A total counts as over its limit when it was so in every look for `sustained_s`, longer where there is a watchdog, which a busy machine may
keep waiting: what one needs to see it and to kill is the documented overshoot. Descriptors and set-uid files count at once. Nothing of the kernel's own code is used for looking.
"""

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 0.04
DISK_LOOK_S = 0.25
MIB = 1 << 20
PAGE = os.sysconf("SC_PAGESIZE")
ENTRIES_MAX = 8000


@dataclass(frozen=True)
class Bounds:
    memory_bytes: int
    tasks: int
    descriptors: int
    disk_bytes: int
    inodes: int


class Sampler(threading.Thread):
    def __init__(
        self,
        groups: Callable[[], list[list[int]]],
        bounds: Bounds,
        places: Iterable[Path],
        *,
        host_view: bool,
        sustained_s: float,
    ) -> None:
        super().__init__(daemon=True)
        self.groups, self.bounds, self.places, self.host_view = groups, bounds, tuple(places), host_view
        self.sustained_s = sustained_s
        self.found: dict[str, str] = {}
        self.seen: set[int] = set()
        self._scores: dict[int, int] = {}
        self._over_since: dict[str, float] = {}
        self._halt = threading.Event()
        self._disk_due = 0.0

    def stop(self) -> None:
        self._halt.set()
        self.join()

    def run(self) -> None:
        while not self._halt.wait(LOOK_S):
            groups = self.groups()
            now = time.monotonic()
            for pids in groups:
                self.seen.update(pids)
            self._total("tasks", max((tasks(pids) for pids in groups), default=0), self.bounds.tasks, now)
            self._total(
                "memory", max((self._memory(pids) for pids in groups), default=0), self.bounds.memory_bytes, now
            )
            for pids in groups:
                self._each(pids)
            if now >= self._disk_due:
                self._look_at_disks(groups, now)
                self._disk_due = time.monotonic() + DISK_LOOK_S

    def _total(self, name: str, value: int, limit: int, now: float) -> None:
        if value <= limit:
            self._over_since.pop(name, None)
        elif now - self._over_since.setdefault(name, now) >= self.sustained_s:
            self.found.setdefault(name, f"{value} held for {self.sustained_s} s, the limit is {limit}")

    def _memory(self, pids: list[int]) -> int:
        resident = 0
        for pid in pids:
            with contextlib.suppress(OSError, IndexError):
                resident += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
        if resident <= self.bounds.memory_bytes:
            return resident
        exact = 0
        for pid in pids:  # what is shared is divided among its holders
            with contextlib.suppress(OSError, ValueError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                        exact += int(line.split()[1]) << 10
        return exact

    def _each(self, pids: list[int]) -> None:
        for pid in pids:
            with contextlib.suppress(OSError):
                count = len(os.listdir(f"/proc/{pid}/fd"))
                if count > self.bounds.descriptors:
                    self.found.setdefault("descriptors", f"{count} in one process")
            with contextlib.suppress(OSError, ValueError):
                score = int(Path(f"/proc/{pid}/oom_score_adj").read_text())
                self._scores[pid] = max(score, self._scores.get(pid, 0))
                if score < self._scores[pid]:
                    self.found.setdefault("oom", f"a process made itself one of the last to go: {score}")

    def _look_at_disks(self, groups: list[list[int]], now: float) -> None:
        used, inodes = 0, 0
        for place in self.places:
            for name, facts in entries(place):
                used, inodes = used + facts.st_blocks * 512, inodes + 1
                if stat.S_ISREG(facts.st_mode) and facts.st_mode & 0o6000:
                    self.found.setdefault("setuid", f"{name} {facts.st_mode:o}")
        hidden = {}
        for pid in (pid for pids in groups for pid in pids):
            hidden.update(unnamed_files(pid))
            if not self.host_view:
                with contextlib.suppress(OSError):
                    room = os.statvfs(f"/proc/{pid}/root/workspace")
                    used = max(used, (room.f_blocks - room.f_bfree) * room.f_frsize)
                    inodes = max(inodes, room.f_files - room.f_ffree)
        self._total("disk", used + sum(hidden.values()), self.bounds.disk_bytes, now)
        self._total("inodes", inodes, self.bounds.inodes, now)


def entries(place: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below, as far as a path can say it and ENTRIES_MAX goes."""
    waiting, count = [str(place)], 0
    while waiting and count < ENTRIES_MAX:
        folder = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as scan:
            for entry in scan:
                count += 1
                with contextlib.suppress(OSError):
                    facts = entry.stat(follow_symlinks=False)
                    yield entry.name, facts
                    if stat.S_ISDIR(facts.st_mode):
                        waiting.append(entry.path)


def unnamed_files(pid: int) -> dict[tuple[int, int], int]:
    """Files without a name that `pid` keeps: open or mapped; on a disk, not in memory."""
    found = {}
    for folder in ("fd", "map_files"):
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/{folder}"):
                with contextlib.suppress(OSError):
                    facts = os.stat(f"/proc/{pid}/{folder}/{name}")
                    if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 0:
                        place = os.readlink(f"/proc/{pid}/{folder}/{name}")
                        if not place.startswith(("/memfd:", "/dev/zero", "/SYSV", "/dev/shm")):
                            found[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    return found


def tasks(pids: list[int]) -> int:
    count = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            count += len(os.listdir(f"/proc/{pid}/task"))
    return count


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def tree(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += children(one)
    return found


def processes_named(marker: str) -> list[int]:
    """Living processes of the whole machine with `marker` in their name or command line; not us."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{name}/comm").read_bytes() + Path(f"/proc/{name}/cmdline").read_bytes()
                if (
                    marker.encode() in text
                    and Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
                ):
                    found.append(int(name))
    return found
