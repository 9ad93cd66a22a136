"""Children kept ready: locked, rehearsed, and silent until their one call. Nothing of a child is ever used twice.

    cell = await parking.take(kind)      a parked one; else one that is being born; else one born for this call
    await rooms.enter() ... rooms.leave()

A kind is what a child must have been given at its birth: None, which code and programs share, or a view of the host's folders (a skill's,
shared ones). None is parked from the start; another kind is parked when it comes often (OFTEN takes in LATELY_S), at most KINDS_MAX of them,
the one not asked for longest goes.

How many: as many as were taken between two moments at which the pool was full, between the operator's limits; half of that after SHRINK_S
without such a burst. A birth costs two cores a few milliseconds, so a refill waits until nobody has taken one for QUIET_S, and makes one at a
time. Under a load that never pauses there are no refills: then every call forks its own, which costs no more than to fork it ahead.

Guarantees
1. Taking a parked child awaits nothing. No refill begins within QUIET_S of a take.
2. A parked child that dies is noticed and replaced; one that cannot be born is tried again at the next take.
3. `close` lets go of every child, also of those that are being born.
4. Past the waiters that a `Rooms` allows, callers are refused at once with `sandbox.overloaded`; nobody who waits is dropped.

If this process dies, every parked child dies as a busy one does (pool.py).
"""

import asyncio
import collections
import contextlib
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

from .cell import Spawn
from .errors import HostError, Overloaded

__all__ = ["Parkable", "Parking", "Rooms"]

QUIET_S = 0.003
SHRINK_S = 30.0
LATELY_S, OFTEN = 60.0, 3
KINDS_MAX = 8
"""Hosts of one person with folders of their own."""

Kind = Hashable


class Parkable(Protocol):
    on_lost: Callable[[], None] | None

    @property
    def usable(self) -> bool: ...
    def abandon(self) -> None: ...


class Bear(Protocol):
    def __call__(self, kind: Kind, *, rehearse: bool) -> Awaitable[Parkable]: ...


@dataclass(slots=True)
class _Kind:
    wanted: int
    parked: "collections.deque[Parkable]" = field(default_factory=collections.deque)
    unborn: "collections.deque[asyncio.Future[Parkable | None]]" = field(default_factory=collections.deque)
    """Births that nobody has claimed; None comes of one that fails."""
    taken: int = 0
    """Since it was full."""
    lately: "collections.deque[float]" = field(default_factory=lambda: collections.deque(maxlen=OFTEN))

    @property
    def lacks(self) -> bool:
        return len(self.parked) + len(self.unborn) < self.wanted


class Parking:
    def __init__(
        self, bear: Bear, *, least: int, most: int, monotonic: Callable[[], float], spawn: Spawn
    ) -> None:  # fmt: skip
        """`bear` makes a child, or raises HostError."""
        self._bear, self._now, self._spawn = bear, monotonic, spawn
        self._least, self._most = min(least, most), most
        self._kinds: collections.OrderedDict[Kind, _Kind] = collections.OrderedDict({None: _Kind(self._least)})
        self._taken_at = -QUIET_S
        self._refill: asyncio.TimerHandle | None = None
        self._shrink: asyncio.TimerHandle | None = None
        self._failing = False
        self._closed = False

    @property
    def parked(self) -> int:
        return sum(len(kind.parked) for kind in self._kinds.values())

    @property
    def cells(self) -> list[Parkable]:
        """Those that are parked at this moment, the next to be taken first."""
        return [cell for kind in self._kinds.values() for cell in kind.parked]

    def open(self) -> None:
        """Fill it, behind everybody's back."""
        self.look_after()

    async def take(self, name: Kind) -> Parkable:
        self._taken_at = self._now()
        self._failing = False
        kind = self._known(name)
        kind.taken += 1
        while kind.parked:
            cell = kind.parked.popleft()
            cell.on_lost = None
            if cell.usable:
                return cell
            cell.abandon()
        if kind.unborn:
            birth = kind.unborn.popleft()
            try:
                born = await asyncio.shield(birth)
            except asyncio.CancelledError:
                birth.add_done_callback(_unwanted)
                raise
            if born is not None and born.usable:
                return born
            if born is not None:
                born.abandon()
        return await self._bear(name, rehearse=False)

    def close(self) -> None:
        self._closed = True
        for timer in (self._refill, self._shrink):
            if timer is not None:
                timer.cancel()
        for kind in self._kinds.values():
            self._let_go(kind, 0)

    # --- behind the calls

    def _known(self, name: Kind) -> _Kind:
        kind = self._kinds.get(name)
        if kind is None:
            kind = self._kinds[name] = _Kind(0)
            if len(self._kinds) > KINDS_MAX:
                oldest = next(other for other in self._kinds if other is not None)
                self._let_go(self._kinds.pop(oldest), 0)
        if name is not None:
            self._kinds.move_to_end(name)
            kind.lately.append(self._taken_at)
            if len(kind.lately) == OFTEN and self._taken_at - kind.lately[0] <= LATELY_S:
                kind.wanted = max(kind.wanted, min(1, self._most))
        return kind

    def look_after(self) -> None:
        """To be called after a take, when there is time: begins to make up for it."""
        if self._refill is None and not self._closed:
            self._refill = asyncio.get_running_loop().call_later(QUIET_S, self._tend)

    def _tend(self) -> None:
        """One birth when it is quiet; the next when that one is over."""
        self._refill = None
        if self._closed or self._failing:
            return
        if self._now() - self._taken_at < QUIET_S:
            self.look_after()
            return
        if any(kind.unborn for kind in self._kinds.values()):
            return  # it comes back here when it is born
        for name, kind in self._kinds.items():
            if kind.taken > kind.wanted and kind.wanted:
                kind.wanted = min(self._most, kind.taken)
                self._shrink_later()
            if kind.lacks:
                birth: asyncio.Future[Parkable | None] = asyncio.get_running_loop().create_future()
                kind.unborn.append(birth)
                self._spawn(self._born(name, kind, birth), "a sandbox to park")
                return
            kind.taken = 0

    async def _born(self, name: Kind, kind: _Kind, birth: "asyncio.Future[Parkable | None]") -> None:
        """A claimed one is its claimer's."""
        cell: Parkable | None = None
        try:
            cell = await self._bear(name, rehearse=True)
        except HostError:
            self._failing = True
        finally:
            birth.set_result(cell)
            if birth in kind.unborn:
                kind.unborn.remove(birth)
                if cell is not None:
                    self._park(kind, cell)
            self.look_after()

    def _park(self, kind: _Kind, cell: Parkable) -> None:
        if self._closed or kind not in self._kinds.values():
            cell.abandon()
            return
        cell.on_lost = lambda: self._lost(kind, cell)
        kind.parked.append(cell)

    def _lost(self, kind: _Kind, cell: Parkable) -> None:
        if cell in kind.parked:
            kind.parked.remove(cell)
        cell.abandon()
        self.look_after()

    def _shrink_later(self) -> None:
        if self._shrink is not None:
            self._shrink.cancel()
        self._shrink = asyncio.get_running_loop().call_later(SHRINK_S, self._smaller)

    def _smaller(self) -> None:
        self._shrink = None
        for name, kind in self._kinds.items():
            least = self._least if name is None else 0
            kind.wanted = max(least, kind.wanted // 2)
            self._let_go(kind, kind.wanted)
        if any(kind.wanted > (self._least if name is None else 0) for name, kind in self._kinds.items()):
            self._shrink_later()

    def _let_go(self, kind: _Kind, keep: int) -> None:
        while len(kind.parked) > keep:
            cell = kind.parked.popleft()
            cell.on_lost = None
            cell.abandon()


def _unwanted(birth: "asyncio.Future[Parkable | None]") -> None:
    if (cell := birth.result()) is not None:
        cell.abandon()


class Rooms:
    """So many at once, and so many who wait for that, first come first served."""

    def __init__(self, count: int, waiting_max: int) -> None:
        self._free = count
        self._count, self._waiting_max = count, waiting_max
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()

    @property
    def taken(self) -> int:
        return self._count - self._free

    async def enter(self) -> None:
        if self._free > 0:
            self._free -= 1
            return
        if len(self._waiting) >= self._waiting_max:
            raise Overloaded(
                f"{self._count} sandboxes run and {len(self._waiting)} calls wait for one, which is the limit. Call again in a second.",
                retry_after_s=1.0,
                code="sandbox.overloaded",
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came in the same moment: pass it on
                self.leave()
            else:
                with contextlib.suppress(ValueError):  # `leave` may have stepped over it
                    self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
