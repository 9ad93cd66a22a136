"""Which sandboxes are in a control group: those that were parked while it was quiet.

To move a process into a group the system holds up every fork of the machine for about 10 ms, longer than most calls take. So nobody is
moved on the way of a call, nor while calls come fast: once nobody has taken a child for QUIET_S, all that are parked are moved, one after
the other, in a thread. A child that is taken before that has no group. The watchdog holds it as it holds every other, and its `layers`
say nothing of a group.

    joining = await Joining.open(...)           .layer and .lacks say what there is, for doctor and status
    joining.stir()                              a child was taken or parked

Guarantees
1. A sandbox whose `layers` name a group was in it, with its limits, before its START.
2. What cannot be joined goes on without: a group is a second wall, no tier needs it.

In tier full the workspace is memory, and its pages count for the group: the ceiling is the call's memory and all that the workspace may
hold, and the watchdog judges the memory alone. In tier confined the ceiling is the memory.

If this process dies, its groups stay until the next kernel sweeps them (cgroups.py).
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, Self

from .cgroups import Group, Groups, Most, Unavailable
from .ports import Clock, Ports

__all__ = ["Joinable", "Joining"]

QUIET_S = 0.1
CLOSE_LOOKS, CLOSE_LOOK_S = 100, 0.02

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class Joinable(Protocol):
    id: str

    @property
    def alive(self) -> bool: ...
    @property
    def guest(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def group(self) -> Group | None: ...
    def join(self, group: Group, most: Most, layer: str, on_group: Callable[[Group], None]) -> bool: ...


class Joining:
    def __init__(
        self, groups: Groups | None, lacks: str, *, parked: Callable[[], Iterable[Joinable]], most: Most, spawn: Spawn, clock: Clock
    ) -> None:  # fmt: skip
        self._groups, self.lacks = groups, lacks
        """Why there are no groups, or why they do not count memory and tasks; empty when nothing is lacking."""
        self.layer = "" if groups is None else groups.layer
        self._parked, self._most, self._spawn, self._clock = parked, most, spawn, clock
        self._timer: asyncio.TimerHandle | None = None
        self._moving: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(cls, ports: Ports, *, parked: Callable[[], Iterable[Joinable]], most: Most, spawn: Spawn) -> Self:
        groups, lacks = None, ""
        try:
            groups = await asyncio.to_thread(Groups.open, ports.entropy)
            lacks = groups.lacks
        except Unavailable as unavailable:
            lacks = str(unavailable)
        return cls(groups, lacks, parked=parked, most=most, spawn=spawn, clock=ports.clock)

    def stir(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._groups is not None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._quiet)

    async def close(self) -> None:
        """After the last sandbox was reaped."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._moving is not None:
            await asyncio.wait((self._moving,))
        for _ in range(CLOSE_LOOKS):
            if self._groups is None or await asyncio.to_thread(self._groups.close):
                return
            await self._clock.sleep(CLOSE_LOOK_S)

    def _quiet(self) -> None:
        self._timer = None
        if self._moving is None or self._moving.done():
            self._moving = self._spawn(self._move(), "parked sandboxes into their groups")

    async def _move(self) -> None:
        groups = self._groups
        assert groups is not None
        for cell in [cell for cell in self._parked() if cell.group is None]:
            if self._timer is not None or self._closed:
                return  # not quiet any more: the rest at the next time
            if not cell.alive:
                continue
            group = await asyncio.to_thread(self._joined, groups, cell.id, cell.guest, cell.uid)
            if group is not None and not cell.join(group, self._most, groups.layer, groups.retire):
                await asyncio.to_thread(groups.retire, group)

    def _joined(self, groups: Groups, name: str, pid: int, uid: int) -> Group | None:
        try:
            group = groups.make(name, self._most)
        except Unavailable:
            return None
        try:
            if group.adopt(pid, uid):
                return group
        except OSError:
            pass
        groups.retire(group)
        return None
