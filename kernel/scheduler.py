"""Who runs next: fairness, priorities, deadlines, quotas. The only creator of tasks.

Work waits in two levels of heaps. Each principal has a queue ordered by (priority class, deadline, arrival); the principals that have
work wait in a heap ordered by virtual time. The one with the least virtual time goes next and pays its cost divided by its weight
(start-time fair queueing: Goyal, Vin, Cheng 1996). A principal that was idle starts at the present virtual time, so it gains nothing
by having slept. Priorities order the work of one principal only; they never take another's share.

Guarantees
1. At most `slots` admitted pieces of work run at once.
2. While two principals both have work waiting, the service each got differs from its weighted share by at most one piece of work.
3. Every admitted piece of work starts after finitely many others: a principal waits for at most one piece of each other one per share.
4. A full queue refuses at once with Overloaded and a time to come back; nothing admitted is ever dropped.
5. A waiter that is cancelled leaves the queue; work that is cancelled frees its slot when it has ended.
6. `close` cancels every task made here and returns when the last one has ended.

O(log principals + log queue) per piece of work. Not here: CPU shares inside sandboxes (limits), budgets of runs (base/budgets.py).
"""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .base.errors import Overloaded

__all__ = ["PRIORITIES", "Load", "Scheduler"]

T = TypeVar("T")

PRIORITIES = {"high": 0, "normal": 1, "low": 2}


@dataclass(frozen=True, slots=True)
class Load:
    """A look at the scheduler: pieces of work that run, that wait, and principals that have some waiting."""

    running: int
    waiting: int
    principals: int


@dataclass(slots=True)
class _Queue:
    weight: float
    served: float = 0.0  # virtual time
    waiting: list[tuple[int, float, int, float, "asyncio.Future[None]"]] = field(default_factory=list)
    active: bool = False


class Scheduler:
    def __init__(self, *, slots: int, queue_max: int) -> None:
        self._slots = slots
        self._queue_max = queue_max
        self._queues: dict[str, _Queue] = {}
        self._active: list[tuple[float, int, str]] = []
        self._arrivals = itertools.count()
        self._virtual_time = 0.0
        self._running = 0
        self._waiting = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
        """A task that belongs to the kernel: kept alive until it ends, cancelled by `close`."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def run(
        self,
        principal: str,
        work: Callable[[], Awaitable[T]],
        *,
        cost: float = 1.0,
        weight: float = 1.0,
        priority: str = "normal",
        deadline: float = float("inf"),
    ) -> T:
        """Wait for a slot by the fairness rule, then await `work()` in it.

        `cost` is in any unit that all callers share (expected slot seconds); `weight` is the principal's, the last one given counts;
        `deadline` only orders, on the clock of the caller's choice. Raises Overloaded when `queue_max` pieces of work wait already.
        """
        await self._admit(principal, cost, weight, PRIORITIES[priority], deadline)
        try:
            return await work()
        finally:
            self._running -= 1
            self._dispatch()

    def load(self) -> Load:
        return Load(self._running, self._waiting, sum(queue.active for queue in self._queues.values()))

    async def close(self) -> None:
        """Cancel every task made by `spawn` but the one that calls, and wait for them."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, Exception):  # its own waiter has its own view of the failure
                await task

    async def _admit(self, principal: str, cost: float, weight: float, priority: int, deadline: float) -> None:
        if self._waiting >= self._queue_max:
            raise Overloaded(
                f"{self._waiting} pieces of work wait already, the limit is {self._queue_max}. Try again in a second.",
                retry_after_s=1.0,
            )
        queue = self._queues.setdefault(principal, _Queue(weight))
        queue.weight = weight
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(queue.waiting, (priority, deadline, next(self._arrivals), cost, turn))
        self._waiting += 1
        if not queue.active:
            queue.active = True
            queue.served = max(queue.served, self._virtual_time)
            heapq.heappush(self._active, (queue.served, next(self._arrivals), principal))
        self._dispatch()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the slot came in the same moment: pass it on
                self._running -= 1
                self._dispatch()
            raise

    def _dispatch(self) -> None:
        while self._running < self._slots and self._active:
            served, _, principal = heapq.heappop(self._active)
            queue = self._queues[principal]
            _, _, _, cost, turn = heapq.heappop(queue.waiting)
            self._waiting -= 1
            if not turn.cancelled():
                self._virtual_time = max(self._virtual_time, served)
                queue.served = served + cost / queue.weight
                self._running += 1
                turn.set_result(None)
            if queue.waiting:
                heapq.heappush(self._active, (queue.served, next(self._arrivals), principal))
            else:
                queue.active = False
                if queue.served <= self._virtual_time:
                    del self._queues[principal]  # nothing to remember: it would start at the present anyhow
