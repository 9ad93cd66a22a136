"""The clock of one run, and the one alarm of its program.

Guarantees
1. T, seconds since the run began, never falls: not with the machine's clock, and not over restarts, since it begins at least at the T
   of the last recorded delivery.
2. An alarm rings at the earliest of the moments it was asked for, or before; whoever hears it looks at what is due.

If the process dies: T goes on from what is recorded; alarms are asked for again by the next life.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

from .ports import Clock

__all__ = ["Alarm", "RunClock"]

LONGEST_SLEEP_S = 3600.0


class RunClock:
    def __init__(self, clock: Clock, epoch: float) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._began_t = max(0.0, clock.now() - epoch)
        self._floor = 0.0

    def at_least(self, t: float) -> None:
        self._floor = max(self._floor, t)

    def t(self) -> float:
        self._floor = max(self._floor, self._began_t + self._clock.monotonic() - self._began)
        return self._floor

    async def until(self, due_t: float) -> None:
        while (left := due_t - self.t()) > 0:
            await self._clock.sleep(min(left, LONGEST_SLEEP_S))


class Alarm:
    def __init__(self, clock: Clock, spawn: Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]) -> None:
        self._clock = clock
        self._spawn = spawn
        self._at = math.inf
        self._task: asyncio.Task[None] | None = None

    def within(self, delay_s: float, ring: Callable[[], None], name: str) -> None:
        at = self._clock.monotonic() + delay_s
        if delay_s == math.inf or (self._at <= at and self._task is not None and not self._task.done()):
            return
        self.stop()
        self._at = at
        self._task = self._spawn(self._ring(min(max(delay_s, 0.0), LONGEST_SLEEP_S), ring), name)

    def stop(self) -> None:
        self._at = math.inf
        if self._task is not None:
            self._task.cancel()

    async def _ring(self, delay_s: float, ring: Callable[[], None]) -> None:
        await self._clock.sleep(delay_s)
        self._at = math.inf
        ring()
