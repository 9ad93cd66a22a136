"""Functions with blocking calls, many at once, one running: threads that pass a baton.

A blocking program has no `await` at which another piece of it could go on, so each concurrent piece gets a thread. A thread runs only
while it holds the baton; it gives it back when it waits for a future of the loop and gets it again from the task that stands for it.
So the order in which pieces go on is the loop's order, which is the order of deliveries, and never the scheduler's of the system.

Guarantees
1. At any instant one thread of loop and fibers runs.
2. A fiber whose task is cancelled sees CancelledError at the call it waits in.

Not here: threads a program starts by itself; they may compute, and may not call the kernel. Standard library only.
"""

import _thread
import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Fiber", "Fibers"]


class Fiber:
    def __init__(self, fibers: "Fibers", function: Callable[[], Any], task: "asyncio.Task[Any] | None") -> None:
        self.task = task
        self._fibers = fibers
        self._function = function
        self._context = contextvars.copy_context()
        self._mine = _thread.allocate_lock()
        self._loops = _thread.allocate_lock()
        self._mine.acquire()
        self._loops.acquire()
        self._thread: threading.Thread | None = None
        self._waits_for: asyncio.Future[Any] | None = None
        self._thrown: BaseException | None = None
        self.result: Any = None
        self.error: BaseException | None = None

    def go_on(self, thrown: BaseException | None) -> "asyncio.Future[Any] | None":
        """Let the fiber run until it waits or ends; what it waits for, None when it has ended."""
        self._thrown = thrown
        self._waits_for = None
        if self._thread is None:
            self._thread = threading.Thread(target=self._body, daemon=True)
            self._thread.start()
        else:
            self._mine.release()
        self._loops.acquire()
        return self._waits_for

    def wait(self, future: "asyncio.Future[Any]") -> Any:
        """Inside the fiber: give the baton back until `future` is done."""
        self._waits_for = future
        self._loops.release()
        self._mine.acquire()
        if self._thrown is not None:
            raise self._thrown
        return future.result()

    def _body(self) -> None:
        ident = threading.get_ident()
        self._fibers.running[ident] = self
        try:
            self.result = self._context.run(self._function)
        except BaseException as error:  # noqa: BLE001 - raised again in the task that stands for this fiber
            self.error = error
        finally:
            del self._fibers.running[ident]
            self._loops.release()


class Fibers:
    def __init__(self) -> None:
        self.running: dict[int, Fiber] = {}

    def here(self) -> Fiber | None:
        """The fiber of the calling thread."""
        return self.running.get(threading.get_ident())

    async def run(self, function: Callable[[], Any]) -> Any:
        """The result of `function`, which may make blocking calls."""
        fiber = Fiber(self, function, asyncio.current_task())
        thrown: BaseException | None = None
        while (future := fiber.go_on(thrown)) is not None:
            thrown = None
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError as error:
                    if not future.cancel():  # done already: then the cancel is for the fiber itself
                        thrown = error
        if fiber.error is not None:
            raise fiber.error
        return fiber.result
