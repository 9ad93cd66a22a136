"""The event loop of a program: the stock one with another clock, another selector, and nothing of the system beneath it.

All of asyncio that is written in terms of the loop (gather, TaskGroup, timeout, queues, locks, shield) works on it unchanged. What is
replaced is what would differ between two lives of a program: where it blocks, what time it is, and the order of sets.

Guarantees
1. `select` is the only blocking point, and is reached only when no callback is ready and no timer is due.
2. Timers fire in the order of (when, creation).
3. Tasks, futures and generators are iterated in an order that does not depend on addresses.
4. Executors run functions on fibers, in the loop's order. Sockets, processes and signals are refused with a text that says what to use.

Uses names of BaseEventLoop that are its own: _selector, _process_events, _scheduled, _ready, _clock_resolution, _write_to_self,
_asyncgens; the same from 3.11 to 3.13, and tests/test_turns.py fails on a Python where they are not.
Not here: where deliveries come from (turns.py). Standard library only.
"""

import asyncio
import collections
import heapq
import itertools
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from . import determinism
from .fibers import Fibers

__all__ = ["Future", "Loop", "Task", "as_completed", "ordinal_hash"]


class Driver(Protocol):
    """What the loop needs of the runtime."""

    clock: determinism.Clock
    fibers: Fibers
    children: "collections.Counter[str]"

    def turn(self) -> None: ...

    def current_task(self) -> "Task | None": ...


def ordinal_hash(self: Any) -> int:
    """The order in which objects were first asked for their hash: the same in every replay, unlike their addresses."""
    try:
        return self._ordinal  # type: ignore[no-any-return]
    except AttributeError:
        self._ordinal = next(_ordinals)
        return self._ordinal  # type: ignore[no-any-return]


_ordinals = itertools.count(1)


class _Like(type):
    """`isinstance(x, asyncio.Future)` stays what it was although the name holds a subclass."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__mro__[1])


class Future(asyncio.Future, metaclass=_Like):  # type: ignore[type-arg]
    __hash__ = ordinal_hash


class Task(asyncio.Task, metaclass=_Like):  # type: ignore[type-arg]
    __hash__ = ordinal_hash
    path = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.children: collections.Counter[str] = collections.Counter()
        super().__init__(*args, **kwargs)


class Timer(asyncio.TimerHandle):
    """Equal times fire in the order of their creation; a heap alone would shuffle them."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._ordinal = next(_ordinals)

    __hash__ = ordinal_hash

    def __lt__(self, other: Any) -> bool:
        return (self._when, self._ordinal) < (other._when, other._ordinal)  # type: ignore[attr-defined]


class _Generators:
    """The asynchronous generators that are being iterated, in order: the stock loop keeps them in a set."""

    def __init__(self) -> None:
        self._entries: dict[int, weakref.ref[Any]] = {}

    def add(self, generator: Any) -> None:
        key = id(generator)
        self._entries[key] = weakref.ref(generator, lambda _: self._entries.pop(key, None))

    def discard(self, generator: Any) -> None:
        self._entries.pop(id(generator), None)

    def clear(self) -> None:
        self._entries.clear()

    def __iter__(self) -> Iterator[Any]:
        return iter([found for entry in self._entries.values() if (found := entry()) is not None])

    def __len__(self) -> int:
        return len(self._entries)


class Loop(asyncio.BaseEventLoop):
    _ready: "collections.deque[asyncio.Handle]"
    _scheduled: list[Timer]

    def __init__(self, runtime: Driver) -> None:
        super().__init__()
        self._runtime = runtime
        self._selector = self
        self._asyncgens = _Generators()
        self._names: collections.Counter[str] = collections.Counter()

    def select(self, timeout: float | None) -> list[Any]:
        if timeout != 0:  # 0: a callback is ready, a timer is due, or the loop is to stop
            self._runtime.turn()
            self._clock_resolution = self._runtime.clock.resolution()
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def time(self) -> float:
        return self._runtime.clock.now

    def next_timer(self) -> float | None:
        when = self._scheduled[0].when() if self._scheduled else math.inf
        return None if when == math.inf else when

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Timer:  # type: ignore[override]
        self._check_closed()  # type: ignore[attr-defined]
        timer = Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]  # noqa: SLF001
        return timer

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Timer:  # type: ignore[override]
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        return self.call_soon(callback, *args, context=context)

    def create_future(self) -> Future:
        return Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None, **options: Any) -> Task:  # type: ignore[override]
        self._check_closed()  # type: ignore[attr-defined]
        parent = self._runtime.current_task()
        path, above = ("main", self._runtime.children) if parent is None else (parent.path, parent.children)
        self._names["task"] += 1
        task = Task(coro, loop=self, name=name or f"Task-{self._names['task']}", context=context, **options)
        if getattr(
            coro, "is_call", False
        ):  # a task that is one call only: the call has the label that it has without the task
            task.path, task.children = path, above
        else:
            label = getattr(coro, "__name__", "task")
            task.path = f"{path}/{label}[{above[label]}]"
            above[label] += 1
        return task

    def set_task_factory(self, factory: Any) -> None:
        raise NotImplementedError(
            "A program's tasks are made by the loop, so that they replay; there is no task factory."
        )

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]  # noqa: ARG002 - one executor for all: fibers
        """On a fiber: one at a time, in the order of the loop, with blocking calls of the kernel allowed."""
        return self.create_task(self._runtime.fibers.run(lambda: func(*args)))


def _outside(name: str) -> Callable[..., Any]:
    def refused(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(
            f"{name} is not there in a program: its loop knows no sockets, processes and signals. Use kernel.sandbox.run, kernel.tool, "
            "or do it inside a function given to kernel.step."
        )

    return refused


for _name in (
    "subprocess_exec", "subprocess_shell", "create_connection", "create_server", "create_unix_connection", "create_unix_server",
    "create_datagram_endpoint", "connect_read_pipe", "connect_write_pipe", "add_reader", "add_writer", "add_signal_handler",
    "sock_recv", "sock_sendall", "sock_connect", "sock_accept", "getaddrinfo", "getnameinfo", "start_tls", "sendfile",
):  # fmt: skip
    setattr(Loop, _name, _outside(_name))


_stock_as_completed = asyncio.as_completed


def as_completed(fs: Any, *, timeout: float | None = None) -> Any:
    """The stock one makes tasks in the order of a set of coroutines, which is that of their addresses."""
    if asyncio.isfuture(fs) or asyncio.iscoroutine(fs):
        return _stock_as_completed(fs, timeout=timeout)  # type: ignore[arg-type]  # its own refusal
    return _stock_as_completed([asyncio.ensure_future(f) for f in dict.fromkeys(fs)], timeout=timeout)
