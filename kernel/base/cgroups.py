"""Control groups: totals that the system itself keeps over all processes of a sandbox, where the machine lets us make a group.

    groups = Groups.open(entropy)                    raises Unavailable with one reason
    group = groups.make("sbx_...", Most(memory, tasks)); group.adopt(pid, uid); group.count(); group.kill(); groups.retire(group)

                     v2                                          v1
    memory           memory.max, memory.swap.max 0, oom.group    memory.limit_in_bytes, memory.memsw the same
    tasks            pids.max                                    pids.max
    cpu              cpu.stat                                    cpuacct.usage
    kill             cgroup.kill                                 every process in turn, after pids.max 0

A hybrid machine has both: each total is taken from where it is. Our groups lie beneath the group that this process is in, so that every
limit of the operator's stays above them:

    <our own group>/agent-kernel-<random>/<sandbox>        the middle one is locked (flock) as long as its kernel lives

In v2 a group that holds processes cannot give `memory` and `pids` to groups below it, and we hold one, ourselves. Nobody is moved for
that: those two are had at the top of the machine, or from a delegated group above ours that is empty and that no systemd manages
(systemd's `Delegate=yes` with `DelegateSubgroup=`). Else the v2 groups still count CPU and kill.

Guarantees
1. Nothing but folders named agent-kernel-* is ever written to, but for subtree_control of a group that is ours to divide.
2. Where memory is counted, what a sandbox holds of it is never above `Most.memory_bytes`: pages, tmpfs, sockets, pipes, page tables.
3. `sweep` removes, and kills what lives in, groups whose kernel is dead: their lock is free. A living kernel's are left alone.
4. A group that still drains is removed later; nothing here waits.

Moving a process costs about 10 ms (all forks of the machine wait for one grace period), so it is done before a child is needed.
Everything here blocks: not for the event loop.

If this process dies the groups stay, empty when the leashes have ended the sandboxes; the next kernel beneath the same group sweeps them.
"""

import contextlib
import errno
import os
import re
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

from .owned import Owned, abandoned

__all__ = ["Counted", "Group", "Groups", "Most", "Unavailable"]

PREFIX = "agent-kernel-"
V1_TOTALS = {"memory": "memory", "pids": "processes", "cpuacct": "cpu"}
V2_TOTALS = {"memory": "memory", "pids": "processes"}
NO_LIMIT = "-1"
KILL_ROUNDS = 64


class Unavailable(Exception):
    """No group can be made here; the text says why, and what would change that."""


class Most(NamedTuple):
    memory_bytes: int
    tasks: int


class Counted(NamedTuple):
    """What a group has used; None where nobody counts it."""

    memory_bytes: int | None
    peak_bytes: int | None
    """File cache included: on the high side of what the processes asked for."""
    cpu_s: float | None
    """Also of processes that nobody waited for."""
    out_of_memory: bool
    """Something in it was killed for memory."""
    too_many_tasks: bool
    """A fork or a thread was refused."""


class _Tree(NamedTuple):
    """One hierarchy: the folder beneath which we make ours, and what is counted there."""

    version: int
    above: Path
    totals: frozenset[str]
    own: Path
    """The group that this process is in."""


class Groups:
    """The groups of one kernel."""

    def __init__(self, trees: list[_Tree], roots: list[Owned], reasons: str) -> None:
        self._trees = trees
        self._roots = roots
        self._draining: set[Group] = set()
        self._stale = False
        """Groups of the dead are left that could not be removed yet."""
        self.totals = tuple(sorted(frozenset[str]().union(*(tree.totals for tree in trees))))
        """Some of cpu, kill, memory, processes."""
        self.lacks = "" if {"memory", "processes"} <= set(self.totals) else reasons
        """Why memory or processes are not among them; empty when they are."""
        self.layer = f"cgroup: {', '.join(self.totals)}"

    @classmethod
    def open(cls, entropy: Callable[[int], bytes], *, proc: Path = Path("/proc/self")) -> Self:
        """Find a place, sweep what the dead left there, and make the folder that holds this kernel's groups."""
        trees, reasons = _places(proc)
        made: list[_Tree] = []
        roots: list[Owned] = []
        for tree in trees:
            try:
                root = _root(tree, entropy)
            except OSError as error:
                reasons.append(f"no group can be made in {tree.above}: {error.strerror}")
                continue
            made.append(tree._replace(above=root.path))
            roots.append(root)
        if not made:
            raise Unavailable("; ".join(reasons) or "no cgroup file system is mounted")
        self = cls(made, roots, "; ".join(reasons))
        self.sweep()
        return self

    def make(self, name: str, most: Most) -> "Group":
        """An empty group with its limits set. Raises Unavailable, and then nothing is left of it."""
        self._drain()
        group = Group([tree._replace(above=tree.above / name) for tree in self._trees])
        try:
            for folder in group.folders:
                folder.mkdir()
            group.limit(most)
        except OSError as error:
            self.retire(group)
            raise Unavailable(f"{error.filename or name}: {error.strerror}") from error
        return group

    def retire(self, group: "Group") -> None:
        """It is not used any more: removed now, or when its last process is reaped."""
        if not group.remove():
            self._draining.add(group)

    def sweep(self) -> None:
        """Kill and remove what kernels that are dead have left; what drains is looked at again when the next group is made."""
        self._stale = sum(_swept(tree.above.parent) for tree in self._trees) < len(self._trees)

    def close(self) -> bool:
        """Whether everything is gone. What is left, another kernel sweeps."""
        for group in list(self._draining):
            group.kill()
        self._drain()
        gone = not self._draining
        for tree in self._trees:
            try:
                tree.above.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        for root in self._roots:
            root.release()
        return gone

    def _drain(self) -> None:
        if self._stale:
            self.sweep()
        for group in list(self._draining):
            if group.remove():
                self._draining.discard(group)


class Group:
    """One sandbox's. Its descriptors are none: every call opens what it needs, so many parked ones cost nothing."""

    def __init__(self, trees: list[_Tree]) -> None:
        self._trees = trees
        self.folders = [tree.above for tree in trees]

    def limit(self, most: Most) -> None:
        """May be said again while it runs, for more or for less."""
        for version, folder, totals, _ in self._trees:
            if "memory" in totals:
                (_limit_memory_v1 if version == 1 else _limit_memory_v2)(folder, most.memory_bytes)
            if "processes" in totals:
                _write(folder / "pids.max", str(most.tasks))

    def try_limit(self, most: Most) -> None:
        """For one that may be gone by now."""
        with contextlib.suppress(OSError):
            self.limit(most)

    def add(self, pid: int) -> None:
        """`pid`, and every process that it starts from now on. One that is dead already is no error."""
        for folder in self.folders:
            with contextlib.suppress(ProcessLookupError):
                _write(folder / "cgroup.procs", str(pid))

    def adopt(self, pid: int, uid: int) -> bool:
        """`add`, if `pid` is a process of `uid` and lives. One that died meanwhile may have left its number to another, which goes back."""
        try:
            process = os.pidfd_open(pid)
        except OSError:
            return False
        try:
            if Path(f"/proc/{pid}").stat().st_uid != uid:
                return False
            self.add(pid)
            if not select.select([process], [], [], 0)[0]:
                return True
            self._send_back()
            return False
        except FileNotFoundError:
            return False
        finally:
            os.close(process)

    def _send_back(self) -> None:
        for _, folder, _, own in self._trees:
            for pid in _words(folder / "cgroup.procs"):
                with contextlib.suppress(OSError):
                    _write(own / "cgroup.procs", pid)

    def count(self) -> Counted:
        memory = peak = cpu_s = None
        out_of_memory = too_many = False
        for version, folder, totals, _ in self._trees:
            if "memory" in totals:
                now, most, events = _MEMORY_FILES[version]
                memory, peak = _number(folder / now), _number(folder / most)
                out_of_memory = _field(folder / events, "oom_kill") > 0
            if "processes" in totals:
                too_many = _field(folder / "pids.events", "max") > 0
            if "cpu" in totals:
                cpu_s = _cpu_s(version, folder)
        return Counted(memory, peak, cpu_s, out_of_memory, too_many)

    def kill(self) -> None:
        """Everything in it, also what is being forked at this moment."""
        for _, folder, totals, _ in self._trees:
            with contextlib.suppress(OSError):
                if "kill" in totals:
                    _write(folder / "cgroup.kill", "1")
                    return
        for _, folder, totals, _ in self._trees:
            with contextlib.suppress(OSError):
                if "processes" in totals:
                    _write(folder / "pids.max", "0")
        _kill_listed(self.folders[0])

    def remove(self) -> bool:
        """False while a process in it is not reaped."""
        gone = True
        for folder in self.folders:
            gone = _removed(folder) and gone
        return gone


_MEMORY_FILES = {
    1: ("memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    2: ("memory.current", "memory.peak", "memory.events"),
}


# --- finding a place


def _places(proc: Path) -> tuple[list[_Tree], list[str]]:
    """The hierarchies in which we may try to make a folder, and why others are none."""
    own = dict(_own_groups(proc / "cgroup"))
    trees: list[_Tree] = []
    reasons: list[str] = []
    seen: set[str] = set()
    for root, mountpoint, kind, options in _mounts(proc / "mountinfo"):
        wanted = {"": "kill"} if kind == "cgroup2" else {name: V1_TOTALS[name] for name in V1_TOTALS if name in options}
        wanted = {name: total for name, total in wanted.items() if name in own and total not in seen}
        if not wanted:
            continue
        here = _beneath(root, mountpoint, own[next(iter(wanted))])
        if here is None or not here.is_dir():
            reasons.append(f"{mountpoint} does not show the group that we are in")
            continue
        if kind == "cgroup2":
            tree, reason = _place_v2(here, Path(mountpoint))
            reasons += [reason] if reason else []
        else:
            tree = _Tree(1, here, frozenset(wanted.values()), here)
        trees.append(tree)
        seen |= tree.totals
    return _without_doubles(trees), reasons


def _without_doubles(trees: list[_Tree]) -> list[_Tree]:
    """Each total from one hierarchy: CPU from v2 where v2 has it, since its files are there in any case."""
    both = any(tree.version == 2 for tree in trees)
    kept = (tree._replace(totals=tree.totals - {"cpu"}) if both and tree.version == 1 else tree for tree in trees)
    return [tree for tree in kept if tree.totals]


def _place_v2(own: Path, top: Path) -> tuple[_Tree, str]:
    always = frozenset(total for name, total in (("cgroup.kill", "kill"), ("cpu.stat", "cpu")) if _offers(own, name))
    for place in (own, *(above for above in own.parents if above == top or top in above.parents)):
        totals = frozenset(V2_TOTALS[name] for name in _words(place / "cgroup.controllers") if name in V2_TOTALS)
        if totals and _may_divide(place, own):
            return _Tree(2, place, always | totals, own), ""
    if not frozenset(_words(own / "cgroup.controllers")) & frozenset(V2_TOTALS):
        return _Tree(2, own, always, own), f"{own} is not given `memory` and `pids`"
    return _Tree(2, own, always, own), (
        f"{own} holds processes, so it cannot give `memory` and `pids` to groups below it, and no group above it is empty and"
        " delegated. Run the kernel as a service with Delegate=yes and DelegateSubgroup=kernel"
    )


def _offers(own: Path, name: str) -> bool:
    """The top of the machine has no cgroup.kill; every group below it does, from Linux 5.14 on."""
    if (own / name).exists():
        return True
    return name == "cgroup.kill" and not (own / "cgroup.type").exists() and _linux() >= (5, 14)


def _may_divide(place: Path, own: Path) -> bool:
    if not (place / "cgroup.type").exists():  # the top of the machine: the only one that may hold processes and divide
        return place == own
    if _words(place / "cgroup.procs") or (place / "init.scope").exists():
        return False
    return any(_attribute(place, name) == b"1" for name in ("user.delegate", "trusted.delegate"))


def _attribute(place: Path, name: str) -> bytes:
    try:
        return os.getxattr(place, name)
    except OSError:
        return b""


def _linux() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])


def _own_groups(path: Path) -> Iterator[tuple[str, str]]:
    """(controller, path) of this process; the v2 hierarchy has the controller ''."""
    for line in _lines(path):
        _, names, group = line.split(":", 2)
        for name in names.split(","):
            yield name, group


def _mounts(path: Path) -> Iterator[tuple[str, str, str, frozenset[str]]]:
    for line in _lines(path):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            root, mountpoint = (_plain(word) for word in before.split(" ")[3:5])
            yield root, mountpoint, kind, frozenset(options.split(","))


def _plain(word: str) -> str:
    """A path of mountinfo, which writes a space as an octal number."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word)


def _beneath(root: str, mountpoint: str, group: str) -> Path | None:
    """Where `group` is seen when `root` of its hierarchy is mounted at `mountpoint`."""
    if ".." in group.split("/"):  # outside our cgroup namespace
        return None
    if root == "/":
        return Path(mountpoint + group)
    if group == root or group.startswith(f"{root}/"):
        return Path(mountpoint + group[len(root) :])
    return Path(mountpoint) if group == "/" else None


# --- the folder of a kernel


def _root(tree: _Tree, entropy: Callable[[int], bytes]) -> Owned:
    root = Owned.make(tree.above, PREFIX, entropy, mode=0o755)
    try:
        _share_out(root.path, tree)
    except OSError:
        _removed(root.path)
        root.release()
        raise
    return root


def _share_out(root: Path, tree: _Tree) -> None:
    """v2 only: let groups below have the controllers; first the folder above ours, where nobody has yet."""
    if tree.version == 1:
        return
    given = [name for name, total in V2_TOTALS.items() if total in tree.totals]
    for place in (tree.above, root) if given else ():
        lacking = [name for name in given if name not in _words(place / "cgroup.subtree_control")]
        if lacking:
            _write(place / "cgroup.subtree_control", " ".join(f"+{name}" for name in lacking))


def _swept(above: Path) -> bool:
    """Whether nothing is left of kernels that are dead."""
    clean = True
    for root in abandoned(above, PREFIX):
        with contextlib.suppress(OSError):
            for folder in [*(path for path in root.iterdir() if path.is_dir()), root]:
                _empty(folder)
                clean = _removed(folder) and clean
    return clean


def _empty(folder: Path) -> None:
    if (folder / "cgroup.kill").exists():
        _write(folder / "cgroup.kill", "1")
    else:
        _kill_listed(folder)


def _kill_listed(folder: Path) -> None:
    """By descriptor, and looked for a second time: a number may be another's by now."""
    for _ in range(KILL_ROUNDS):
        pids = _words(folder / "cgroup.procs")
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(OSError):
                process = os.pidfd_open(int(pid))
                try:
                    if pid in _words(folder / "cgroup.procs"):
                        signal.pidfd_send_signal(process, signal.SIGKILL)
                finally:
                    os.close(process)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


# --- files


def _limit_memory_v1(folder: Path, most: int) -> None:
    """Memory and swap together may never be below memory, so their limit is lifted first; where swap is not counted there is no such file."""
    both = folder / "memory.memsw.limit_in_bytes"
    counted = both.exists()
    if counted:
        _write(both, NO_LIMIT)
    _write(folder / "memory.limit_in_bytes", str(most))
    if counted:
        _write(both, str(most))


def _limit_memory_v2(folder: Path, most: int) -> None:
    _write(folder / "memory.max", str(most))
    _write(folder / "memory.oom.group", "1")
    if (folder / "memory.swap.max").exists():
        _write(folder / "memory.swap.max", "0")


def _cpu_s(version: int, folder: Path) -> float:
    if version == 1:
        return (_number(folder / "cpuacct.usage") or 0) / 1e9
    return _field(folder / "cpu.stat", "usage_usec") / 1e6


def _write(path: Path, text: str) -> None:
    """One write: these files take a whole value or say what is wrong with it."""
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(file)


def _number(path: Path) -> int | None:
    """None where there is no such file: memory.peak is younger than the rest."""
    words = _words(path)
    return int(words[0]) if words else None


def _field(path: Path, name: str) -> int:
    for line in _lines(path):
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EACCES, errno.EOPNOTSUPP):
            return []
        raise
