"""Where sandboxes of one tier live on this side of the wall: the interpreter, the uids, the folders, and what a zygote is told of them.

    tier full       a uid as root, nothing else: the guest's folders are a tmpfs of its own mount namespace
    tier confined   a uid as root, and a folder of the host with `workspace`, `tmp` and a copy of the skill

Guarantees
1. A uid is one sandbox's until its `Place` is cleared, machine-wide (reserve.py). As root the inits have one of their own.
2. `clear` removes the files before the uid is given back: a uid that returns owns nothing.

3. What a kernel that was killed left of folders is removed by the next one: as root by any of this machine, since they lie in the temporary
   folder; else by the next of the same state folder, in which they lie.

If the process dies: uids return by themselves, groups and folders are swept (cgroups.py, owned.py).
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from . import workspace
from .census import tasks_of_uid
from .cgroups import Group
from .errors import HostError
from .limits import MIB, Limits
from .owned import Owned, abandoned
from .pool import interpreters, reachable_by_others
from .ports import Ports
from .reserve import Reserved, reserve_uid

__all__ = ["NOTHING", "Place", "Places", "View", "address_space_bytes"]

TASKS_ABOVE = 16
"""RLIMIT_NPROC is this much above the limit, so that the watchdog sees a fork bomb go over it and can name it."""
TASKS_FREE = 4096
"""For what else a shared uid may start between the lock of a parked child and its call."""
ADDRESS_SPACE_EXTRA = 512 * MIB
SCRATCH = "agent-kernel-scratch-"


def address_space_bytes(memory_bytes: int) -> int:
    """RLIMIT_AS: interpreters and threads reserve far more than they touch."""
    return 2 * memory_bytes + ADDRESS_SPACE_EXTRA


class View(NamedTuple):
    """What of the host a sandbox is born with, to see and not to change."""

    skill: Path | None = None
    folders: tuple[str, ...] = ()
    """Shared ones, at their own path."""


NOTHING = View()


@dataclass(slots=True)
class Place:
    """What a sandbox owns here until it is reaped."""

    reserved: Reserved | None = None
    scratch: Path | None = None
    group: Group | None = None
    on_group: Callable[[Group], None] | None = None
    """Takes the group back."""

    @property
    def slow(self) -> bool:
        """To clear it takes longer than others should wait."""
        return self.scratch is not None or self.group is not None

    def clear(self) -> None:
        if self.group is not None and self.on_group is not None:
            self.on_group(self.group)
        if self.scratch is not None:
            workspace.clear(self.scratch)
        if self.reserved is not None:
            self.reserved.release()


class Places:
    def __init__(self, tier: str, *, state: Path, ports: Ports, limits: Limits) -> None:
        """Raises HostError where this tier has no interpreter. Blocking: it removes what an earlier kernel left."""
        self.tier = tier
        self._ports, self._limits = ports, limits
        self._root = os.geteuid() == 0
        self._tasks_elsewhere = 0
        """Of the uid that guests share with us, as they were at the last birth."""
        self.interpreter = _interpreter_for(tier)
        self._owned = _scratch(ports) if tier != "full" and self._root else None
        self.scratch = None if tier == "full" else self._owned.path if self._owned else _private_scratch(state)
        self._inits = reserve_uid(ports.entropy) if self._root else None

    def hello(self) -> dict[str, Any]:
        """What all children of a zygote have in common."""
        uid, gid = os.geteuid(), os.getegid()
        return {"tier": self.tier, "uid": uid, "gid": gid, "init_uid": self._inits.uid if self._inits else uid}

    def nproc(self) -> int:
        """RLIMIT_NPROC of a call."""
        return self._limits.processes_max + TASKS_ABOVE + self._tasks_elsewhere

    async def make(self, sandbox: str, view: View = NOTHING) -> tuple[Place, dict[str, Any]]:
        """The place, and the zygote's request for it. Its limits are the operator's; those of a call come with START and can only be lower."""
        if self.scratch is None:
            return self._make(sandbox, view)
        making = asyncio.get_running_loop().run_in_executor(None, self._make, sandbox, view)
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:  # the thread goes on and makes a place that nobody will use
            making.add_done_callback(lambda made: made.result()[0].clear())
            raise

    def _make(self, sandbox: str, view: View) -> tuple[Place, dict[str, Any]]:
        reserved = reserve_uid(self._ports.entropy) if self._root else None
        uid, gid = (reserved.uid, reserved.uid) if reserved else (os.geteuid(), os.getegid())
        if reserved is None and self.scratch is not None:
            self._tasks_elsewhere = tasks_of_uid(uid)
        request: dict[str, Any] = {
            "filter": "shared" if self.scratch is not None else "visiting" if view.folders else "full",
            "uid": uid, "gid": gid, "own_uid": self._root, "skill": str(view.skill) if view.skill else None,
            "folders": list(view.folders),
            "bytes_max": self._limits.workspace_bytes_max, "inodes_max": self._limits.workspace_inodes_max,
            "limits": {
                "memory_bytes": address_space_bytes(self._limits.memory_mb_max * MIB),
                "file_bytes": self._limits.file_bytes_max,
                "descriptors": self._limits.descriptors_max,
                "processes": self.nproc() + (TASKS_FREE if self._tasks_elsewhere else 0),
            },
        }  # fmt: skip
        place = Place(reserved)
        if self.scratch is not None:
            place.scratch = self.scratch / sandbox
            request |= _make_scratch(place.scratch, uid, gid, view.skill)
        return place, request

    async def close(self) -> None:
        if self._inits is not None:
            self._inits.release()
        if self.scratch is not None:
            await asyncio.to_thread(workspace.clear, self.scratch)
        if self._owned is not None:
            self._owned.release()


def _interpreter_for(tier: str) -> str:
    """In tier full the interpreter is bound into the guest's root. Without that, the guest's uid must be able to walk to it."""
    found = interpreters()
    if tier == "full" or os.geteuid() != 0:
        return found[0]
    reachable = [path for path in found if reachable_by_others(path)]
    if not reachable:
        raise HostError(
            "sandbox.unavailable",
            f"No Python of at least 3.11 that other users may run: {', '.join(found)} lie under a private folder."
            " Install one for all users: `apt-get install python3` or `dnf install python3`.",
        )
    return reachable[0]


def _private_scratch(state: Path) -> Path:
    """We hold the state folder's lock, so what an earlier kernel of it left there belongs to nobody."""
    root = state / "scratch"
    workspace.clear(root)
    root.mkdir(mode=0o700)
    return root


def _scratch(ports: Ports) -> Owned:
    """As root outside the private state folder, which the uids of guests cannot pass."""
    above = Path(tempfile.gettempdir())
    for stale in abandoned(above, SCRATCH):
        workspace.clear(stale)
    return Owned.make(above, SCRATCH, ports.entropy, mode=0o711)


def _make_scratch(scratch: Path, uid: int, gid: int, skill: Path | None) -> dict[str, Any]:
    scratch.mkdir()
    scratch.chmod(0o711)  # whatever umask we were started with
    for name in ("workspace", "tmp"):
        (scratch / name).mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(scratch / name, uid, gid)
    copy = scratch / "skill"
    if skill is not None:
        shutil.copytree(skill, copy, symlinks=True)
        for path in (copy, *copy.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return {
        "workspace": str(scratch / "workspace"),
        "tmp": str(scratch / "tmp"),
        "skill": str(copy) if skill is not None else None,
    }
