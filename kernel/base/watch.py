"""One timer for all sandboxes that run: each is looked at when it is due, and says when it wants to be looked at next.

    watch.add(cell)      cell.look(now) -> the moment of the next look
    watch.discard(cell)

Guarantees
1. While nothing runs there is no timer. A sandbox that ends before its first look has cost one entry of a dictionary.
2. A look never waits: what takes long is a task of its own, so that one sandbox's size delays nobody else's bounds.
3. A look that raises ends the sandbox it was for, and no other.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

__all__ = ["Watch", "Watched"]

TICK_S = 0.002
"""Looks that are due within this are made together."""


class Watched(Protocol):
    def look(self, now: float) -> float: ...
    def stop(self, reason: str) -> None: ...


class Watch:
    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._now = monotonic
        self._due: dict[Watched, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def add(self, cell: Watched, due: float) -> None:
        self._due[cell] = due
        if self._timer is None or due < self._at - TICK_S:
            self._set(due)

    def discard(self, cell: Watched) -> None:
        self._due.pop(cell, None)

    def close(self) -> None:
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = due
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due - self._now()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._now()
        for cell, due in list(self._due.items()):
            if due > now + TICK_S:
                continue
            try:
                again = cell.look(now)
            except Exception:
                cell.stop("killed")
                raise
            finally:
                if cell in self._due:
                    self._due[cell] = now + 1.0
            if cell in self._due:
                self._due[cell] = again
        if self._due:
            self._set(min(self._due.values()))
