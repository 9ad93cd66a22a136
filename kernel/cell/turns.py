"""A durable program's life inside the wall: its event loop, whose only blocking point is the kernel's descriptor.

The kernel sends deliveries (answers, ticks of the clock, a cancel), each with the run's clock T. The loop takes exactly one, runs until
nothing is ready, then takes the next; started again with the same deliveries, a program goes the same way, whatever its tasks do among
themselves. Recorded deliveries come first and are taken in the same manner, so a replay is not a mode of this file: only steps that
have a recorded answer are not forked, and what is printed or noted is dropped until the past is over.

Guarantees
1. One delivery per turn; how deliveries were framed cannot be seen by the program.
2. Timers due at or before a delivery's T fire before it, each at its own time, in order of (when, creation). T never falls.
3. A call's number is its place in the order in which the program made its calls; CALL frames leave with the IDLE that follows them.
4. Sets of tasks, futures and calls are iterated in an order that does not depend on addresses.
5. A program that can never go on ends with `guest.deadlock` and the stacks of its tasks.
6. When main ends, other tasks are cancelled and awaited, and their calls count; then END is sent, and nothing after it.
7. Calls at import, in finalisers, in foreign threads and in forked children are refused before they use a number.

    run -> load the program -> main on the loop -> cancel the rest -> END
    turn: ready callbacks ... -> due timers -> next delivery | IDLE and wait

Not here: the names that programs call (kernel_api.py), forked step functions (steps.py), sources of chance (determinism.py), the wire
(frames.py), who executes calls and holds them back during a replay (the kernel). Standard library only; runs behind the wall.
If this process dies: nothing is lost, the kernel has every delivery; a program that is lost without END is run again.
"""

import asyncio
import base64
import collections
import gc
import inspect
import os
import select
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn

from . import determinism, frames, kernel_api, program, steps
from .fibers import Fibers
from .loop import Future, Loop, Task, as_completed, ordinal_hash
from .values import Error, decode, encode

__all__ = ["Runtime", "run"]

COLLECT_EVERY = 1000
"""Deliveries between two collections of garbage: at fixed places of the history, since finalisers are code of the program."""
STEPS_OPEN_MAX = 16
"""Each open step is a process that holds the variables of its call; more steps wait in the program."""
CLEANUP_CALLS_MAX = 100
PATH_BYTES_MAX = 256
WARNINGS_MAX = 50
SEND_AT_BYTES = 1 << 18
NOT_WHILE_CANCELLED = frozenset({"spawn", "approve", "ask"})


class Over(BaseException):
    """END is sent. Unwinds whatever of the program is on the stack; nothing it does can be seen any more."""


class Delivery:
    __slots__ = ("at", "kind", "ordinal", "value")

    def __init__(self, payload: bytes) -> None:
        kind, self.at, self.ordinal = frames.DELIVER_HEAD.unpack_from(payload)
        self.kind = frames.KINDS[kind]
        self.value = payload[frames.DELIVER_HEAD.size :]


class Request:
    """A call, from the moment it is made. Its ordinal is given when its frame is written."""

    __slots__ = ("arguments", "decode", "effect", "future", "label", "method", "ordinal", "path", "step")

    def __init__(
        self,
        method: str,
        arguments: bytes,
        decode: Callable[[bytes], Any],
        *,
        effect: int = 0,
        step: "steps.Step | None" = None,
        label: str = "",
    ) -> None:
        self.method = method
        self.label = label
        self.arguments = arguments
        self.decode = decode
        self.effect = effect
        self.step = step
        self.path = ""
        self.ordinal: int | None = None
        self.future: asyncio.Future[Any] = None  # type: ignore[assignment]  # made when the call is issued


# --- the runtime


class Runtime:
    """One program and its descriptor. There is one per process."""

    def __init__(self, sock: socket.socket, start: dict[str, Any]) -> None:
        self.run_id: str = start["run_id"]
        self.clock = determinism.Clock(float(start["epoch"]))
        self.value_bytes_max: int = start["limits"]["value_bytes_max"]
        self.warnings: list[str] = []
        self.fibers = Fibers()
        self.children: collections.Counter[str] = collections.Counter()
        self.phase = "import"
        self.forked = ""
        self.cancelled = False
        self.undone: list[tuple[str, Callable[[Any], Any], Any]] = []
        """Compensations of steps that succeeded, oldest first."""
        self.workspace = os.getcwd()
        self.ordinal_hash = ordinal_hash
        self.step_socket: socket.socket | None = None
        self.step_ordinal = -1

        self._sock = sock
        self._reader = frames.Reader(1 << 31)
        self._out = bytearray()
        self._inbox: collections.deque[Delivery] = collections.deque()
        self._consumed = 0
        self._reported = 0
        self._recorded: int = start["recorded"]
        self._answered_steps = {n for first, last in start["answered_steps"] for n in range(first, last + 1)}
        self._calls_max: int = start["limits"]["calls_max"]
        self._open_max: int = start["limits"]["calls_open_max"]
        self._notes = 0
        self._keys = 0
        self._next_ordinal = 0
        self._cleanup_calls = 0
        self._open: dict[int, Request] = {}
        self._open_steps = 0
        self._waiting: collections.deque[Request] = collections.deque()
        self._waiting_steps: collections.deque[Request] = collections.deque()
        self._collecting = False
        self._payload: dict[str, Any] | None = None
        self._main_thread = threading.get_ident()
        self._main: Task | None = None
        self._blocked_on: asyncio.Future[Any] | None = None
        rested = start.get("rested", self._recorded > 0)  # an earlier life was idle with all of these consumed
        self._quiet = steps.Quiet() if rested else None
        self.patches = determinism.Patches()
        self.loop = Loop(self)
        asyncio.set_event_loop(self.loop)
        self._seal(bytes.fromhex(start["seed"]))

    # --- the process

    def _seal(self, seed: bytes) -> None:
        patches = self.patches
        determinism.seal(patches, self.clock, determinism.Stream(seed), self.sleep)
        patches.set(asyncio, "Future", Future)
        patches.set(asyncio, "Task", Task)
        patches.set(asyncio.tasks, "as_completed", as_completed)
        patches.set(asyncio, "as_completed", as_completed)
        patches.set(asyncio.tasks._GatheringFuture, "__hash__", ordinal_hash)  # type: ignore[attr-defined]  # noqa: SLF001
        patches.set(asyncio, "run", self._asyncio_run)
        for owner in (asyncio, asyncio.events):
            determinism.refuse(
                patches, owner, "new_event_loop", "A program has one event loop, already running. Use `await`."
            )
        os.register_at_fork(after_in_child=self._after_fork)

    def _asyncio_run(self, main: Any, **_: Any) -> Any:
        """For blocking programs that start a coroutine; inside a coroutine it is the stock error with the remedy."""
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the one that does not raise
            main.close()
            raise RuntimeError("asyncio.run() cannot be called from a running event loop. In a program write `await`.")
        return self.wait(self.loop.create_task(main))

    def _after_fork(self) -> None:
        """In a child: no way to the kernel, and the system's own clock and chance again."""
        self.forked = self.forked or "fork"
        self._sock.close()
        asyncio._set_running_loop(None)  # noqa: SLF001
        determinism.unseal(self.patches)
        asyncio.set_event_loop(None)

    def _leave(self, status: int) -> NoReturn:
        """The kernel is gone, or this is a child that came to the end of the program: nobody is there to be told."""
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(status)

    # --- turns

    def turn(self) -> None:
        """Nothing is ready: take what comes next, a timer or a delivery."""
        if self.forked:
            self._leave(0)
        timer = self.loop.next_timer()
        if not self._inbox:
            if timer is None and not self._open and not self._waiting_any() and self._consumed >= self._recorded:
                self.end(self._payload or {"error": program.deadlock(self.loop)})
                raise Over
            self._receive(timer)
        delivery = self._inbox[0]
        if timer is not None and timer <= delivery.at:
            self.clock.advance(timer)
            return
        self._inbox.popleft()
        self.clock.advance(delivery.at)
        if self._consumed >= self._recorded:
            self.speak()
        self._consumed += 1
        self._apply(delivery)
        if self._consumed % COLLECT_EVERY == 0:
            self._collecting = True
            gc.collect()
            self._collecting = False

    def _apply(self, delivery: Delivery) -> None:
        if delivery.kind == "cancel":
            self.cancelled = True
            target = self._blocked_on if self._main is None else self._main
            if target is not None:
                target.cancel()
        elif delivery.kind != "tick":
            request = self._open.get(delivery.ordinal)
            if request is not None:  # else nobody waits for it any more
                self._close(request)
                self._resolve(request, delivery)
        self._admit()

    def _resolve(self, request: Request, delivery: Delivery) -> None:
        if request.future.done():
            return
        if delivery.kind == "error":
            request.future.set_exception(Error.from_wire(decode(delivery.value)))
            return
        try:
            request.future.set_result(request.decode(delivery.value))
        except Exception as error:  # noqa: BLE001 - an answer of another form than the method's is the caller's to see
            request.future.set_exception(error)

    def sleep(self, seconds: float) -> None:
        """`time.sleep`: a durable timer. On the loop's own thread everything stands still until it is due."""
        if self.forked or not self._here():
            determinism.real_sleep(seconds)
            return
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        if not self.blocking():
            wake = self.clock.now + seconds
            while not self._inbox or self._inbox[-1].at < wake:
                self._receive(wake)
            self.clock.advance(wake)
            return
        future = self.loop.create_future()
        timer = self.loop.call_later(seconds, _wake, future)
        try:
            self.wait(future)
        finally:
            timer.cancel()

    # --- calls

    def blocking(self) -> bool:
        """Whether the caller is ordinary blocking code (and not a coroutine or callback of the loop)."""
        return asyncio._get_running_loop() is None  # noqa: SLF001

    def current_task(self) -> Task | None:
        fiber = self.fibers.here()
        if fiber is not None:
            return fiber.task  # type: ignore[return-value]
        task = None if self.blocking() else asyncio.current_task(self.loop)
        return task if isinstance(task, Task) else None

    def wait_task(self, work: Any) -> Any:
        return self.wait(self.loop.create_task(work))

    def request(self, method: str, arguments: bytes, decode: Callable[[bytes], Any], **more: Any) -> Request:
        return Request(method, arguments, decode, **more)

    def check(self, name: str) -> None:
        """Refuse a call from where it could not be replayed."""
        if self.forked == "step":
            raise Error(
                "step.nested",
                f"{name} was called inside a step function, which runs in a process of its own. Return what the call needs from the "
                "function and make the call in main.",
            )
        if self.forked:
            raise Error(
                "kernel.forked",
                f"{name} was called in a forked process. Call it in main; use kernel.step for work in a process.",
            )
        if self.phase == "over":
            raise Over
        if not self._here():
            raise Error(
                "kernel.thread",
                f"{name} was called in a thread of the program. Use kernel.map or asyncio tasks instead of threads.",
            )
        if self.phase == "import":
            raise Error("kernel.import", f"{name} was called while the program was imported. Call it inside main.")
        if self._collecting or _in_finaliser():
            raise Error(
                "kernel.finaliser",
                f"{name} was called in a finaliser. Call it in main, in a `finally` or `async with` block.",
            )

    def _here(self) -> bool:
        return threading.get_ident() == self._main_thread or self.fibers.here() is not None

    def issue(self, request: Request) -> "asyncio.Future[Any]":
        """Make the call, or queue it behind those that are open; its future. The order of these is the order of ordinals."""
        if self.cancelled:
            self._cleanup_calls += 1
            if request.method in NOT_WHILE_CANCELLED or self._cleanup_calls > CLEANUP_CALLS_MAX:
                raise Error(
                    "run.cancelled",
                    f"{request.method} while the run is being cancelled: {CLEANUP_CALLS_MAX} calls are allowed, none of spawn, approve, ask.",
                )
        if self._next_ordinal + len(self._waiting) + len(self._waiting_steps) >= self._calls_max:
            raise Error(
                "limit.calls",
                f"The run made {self._calls_max} calls, which is the limit. Go on in a run of its own: kernel.spawn.",
            )
        request.path = self._path(f"{request.method}:{request.label}" if request.label else request.method)
        request.future = self.loop.create_future()
        (self._waiting if request.step is None else self._waiting_steps).append(request)
        self._admit()
        return request.future

    def _path(self, label: str) -> str:
        task = self.current_task()
        above, prefix = (self.children, "main") if task is None else (task.children, task.path)
        path = f"{prefix}/{label}#{above[label]}"
        above[label] += 1
        return path

    def _waiting_any(self) -> bool:
        return bool(self._waiting or self._waiting_steps)

    def _admit(self) -> None:
        while self._waiting and len(self._open) < self._open_max:
            self._send_call(self._waiting.popleft())
        while self._waiting_steps and len(self._open) < self._open_max and self._open_steps < STEPS_OPEN_MAX:
            self._send_call(self._waiting_steps.popleft())

    def _send_call(self, request: Request) -> None:
        ordinal = request.ordinal = self._next_ordinal
        self._next_ordinal += 1
        self._open[ordinal] = request
        path = request.path.encode(errors="replace")[:PATH_BYTES_MAX]
        head = frames.CALL_HEAD.pack(frames.METHODS.index(request.method), request.effect, len(path))
        self._put(frames.encode(frames.CALL, ordinal, head + path + request.arguments))
        if request.step is not None:
            self._open_steps += 1
            if ordinal not in self._answered_steps:
                request.step.fork(self, ordinal)

    def _close(self, request: Request) -> None:
        assert request.ordinal is not None
        del self._open[request.ordinal]
        if request.step is not None:
            self._open_steps -= 1
            request.step.stop()

    def drop(self, request: Request) -> None:
        """Nobody waits for the answer any more."""
        if request.ordinal is None:
            (self._waiting if request.step is None else self._waiting_steps).remove(request)
        elif request.ordinal in self._open:
            self._close(request)
            self._put(frames.encode(frames.DROP, request.ordinal))
            self._admit()

    async def answer(self, request: Request) -> Any:
        future = self.issue(request)
        try:
            return await future
        except asyncio.CancelledError:
            self.drop(request)
            raise

    def answer_blocking(self, request: Request) -> Any:
        future = self.issue(request)
        try:
            return self.wait(future)
        except asyncio.CancelledError:
            self.drop(request)
            raise

    def wait(self, future: "asyncio.Future[Any]") -> Any:
        """Blocking code waits: run the loop beneath it, or let the other fibers go on."""
        fiber = self.fibers.here()
        if fiber is not None:
            return fiber.wait(future)
        self._blocked_on = future
        try:
            return self.loop.run_until_complete(future)
        finally:
            self._blocked_on = None

    def next_key(self) -> str:
        if self.forked == "step":
            return f"{self.run_id}:{self.step_ordinal}"
        self._keys += 1
        return f"{self.run_id}:k{self._keys}"

    # --- the descriptor

    def note(self, note: dict[str, Any]) -> None:
        if self.forked:
            if self.step_socket is not None:
                self.step_socket.sendall(frames.encode(frames.NOTE, 0, encode(note, "the note")))
        elif self._quiet is None and self.phase != "over":
            self._notes += 1
            self._put(frames.encode(frames.NOTE, self._notes, encode(note, "the note")))

    def speak(self) -> None:
        """The past is over: what is printed from here on was not printed before."""
        if self._quiet is not None:
            self._quiet.end()
            self._quiet = None

    def _put(self, frame: bytes) -> None:
        self._out += frame
        if len(self._out) > SEND_AT_BYTES:
            self._flush()

    def _receive(self, timer: float | None) -> None:
        """Say that everything is consumed, and wait until a delivery is there. Serves the forked steps meanwhile."""
        self._reported = max(self._reported, self._consumed + len(self._inbox))
        if self._reported >= self._recorded:
            self.speak()
        if self._quiet is None:
            steps.flush_output()  # whoever waits may be killed: what was printed is out by then, once
        body = frames.IDLE_BODY.pack(float("nan") if timer is None else timer)
        self._put(frames.encode(frames.IDLE, self._reported, body))
        before = len(self._inbox)
        while len(self._inbox) == before:
            self._flush()
            if len(self._inbox) == before:  # flushing reads too
                self._wait_readable()

    def _wait_readable(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        children = {step.fileno(): step for step in self._forked_steps()}
        for descriptor in children:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll():
            if descriptor in children:
                self._pass_on(children[descriptor].read())
            else:
                self._read()

    def _forked_steps(self) -> "list[steps.Step]":
        if not self._open_steps:
            return []
        return [step for r in self._open.values() if (step := r.step) is not None and step.fileno() >= 0]

    def _pass_on(self, found: Iterable[frames.Frame]) -> None:
        """Frames of a step's child: its notes get numbers of ours."""
        for kind, number, payload in found:
            if kind == frames.NOTE:
                self._notes += 1
            self._put(frames.encode(kind, self._notes if kind == frames.NOTE else number, payload))

    def _read(self) -> None:
        try:
            data = self._sock.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._leave(1)
        for frame in self._reader.feed(data):
            if frame.type == frames.DELIVER:
                self._inbox.append(Delivery(frame.payload))
            elif frame.type == frames.RUN and frame.number in self._open:
                step = self._open[frame.number].step
                if step is not None:
                    self._pass_on(step.go())

    def _flush(self) -> None:
        """Write everything, and go on reading meanwhile: the kernel may be writing to us with its own buffer full."""
        while self._out:
            try:
                sent = self._sock.send(self._out, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._sock, select.POLLIN | select.POLLOUT)
                if any(events & select.POLLIN for _, events in poll.poll()):
                    self._read()
            except OSError:
                self._leave(1)
            else:
                del self._out[:sent]

    def end(self, payload: dict[str, Any]) -> None:
        """Send END, once."""
        if self.forked:
            self._leave(0)
        if self.phase == "over":
            return
        self.phase = "over"
        self.speak()
        steps.flush_output()  # who has read END may kill
        for request in self._open.values():
            if request.step is not None:
                request.step.stop()
        if self.warnings:
            payload["warnings"] = [warning[:500] for warning in self.warnings[:WARNINGS_MAX]]
        self._reported = max(self._reported, self._consumed)
        self._put(frames.encode(frames.END, self._reported, encode(payload, "the outcome")))
        self._flush()

    # --- the program

    def live(self, main: Callable[..., Any], argument: Any) -> dict[str, Any]:
        """What END says of `main(argument)`."""
        self.phase = "main"
        try:
            value = main(argument) if _takes_input(main) else main()
            if inspect.isawaitable(value):
                value = self._run_main(value)
        except SystemExit as error:
            return {"output": None} if error.code in (None, 0) else {"error": program.report(error)}
        except asyncio.CancelledError as error:
            wire = program.report(error)
            return {"error": {**wire, "code": "run.cancelled", "message": "cancelled"} if self.cancelled else wire}
        except Over:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a program ends with is its result
            return {"error": program.report(error)}
        return self._output(value)

    def _run_main(self, work: Any) -> Any:
        async def awaited() -> Any:
            return await work

        self._main = self.loop.create_task(work if asyncio.iscoroutine(work) else awaited())
        self._main.path = "main"
        return self.loop.run_until_complete(self._main)

    def _output(self, value: Any) -> dict[str, Any]:
        try:
            size = len(encode(value, "main's result"))
        except TypeError as error:
            return {"error": program.wire("guest.result", "TypeError", str(error))}
        if size > self.value_bytes_max:
            message = f"main's result has {size} bytes as JSON, the limit is {self.value_bytes_max}. Write it to a file or to memory."
            return {"error": program.wire("guest.result", "ValueError", message)}
        return {"output": value}

    def wind_up(self, payload: dict[str, Any]) -> None:
        """Main has ended with `payload`: cancel and await what is left, undo what a failed run did, send END."""
        self._payload = payload
        self._main = self._blocked_on = None
        self._attempt(self._cancel_rest)
        if "error" in payload:
            while self.undone:
                name, compensate, value = self.undone.pop()
                self._attempt(lambda: kernel_api.step(f"undo {name}", compensate, value))  # noqa: B023 - called at once
        self._attempt(lambda: self.loop.run_until_complete(self.loop.shutdown_asyncgens()))
        self._attempt(self._cancel_rest)
        self.end(payload)

    def _attempt(self, work: Callable[[], Any]) -> None:
        try:
            work()
        except Over:
            raise
        except BaseException as error:  # noqa: BLE001 - the outcome is known; what fails after it is a warning
            self.warnings.append(
                f"after main ended: {program.report(error)['type']}: {program.report(error)['message']}"
            )

    def _cancel_rest(self) -> None:
        while left := sorted(asyncio.all_tasks(self.loop), key=hash):
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(left))
            for task in left:
                if not task.cancelled() and (error := task.exception()) is not None:
                    wire = program.report(error)
                    self.warnings.append(
                        f"{getattr(task, 'path', 'a task')} failed after main ended: {wire['type']}: {wire['message']}"
                    )


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _in_finaliser() -> bool:
    frame: Any = sys._getframe(1)  # noqa: SLF001 - whether a __del__ is on the stack is written nowhere else
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def _takes_input(main: Callable[..., Any]) -> bool:
    try:
        return bool(inspect.signature(main).parameters)
    except (TypeError, ValueError):
        return True


def _write_files(files: dict[str, Any]) -> None:
    for name, content in files.items():
        if os.path.isabs(name) or ".." in name.split("/"):
            raise program.Refused("path.outside", "ValueError", f"the input file {name!r} lies outside the workspace")
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else base64.b64decode(content["base64"]))


def _warned(runtime: Runtime) -> Callable[..., None]:
    show = warnings.showwarning

    def shown(message: Any, category: Any, filename: str, lineno: int, *rest: Any) -> None:
        if "never awaited" in str(message):
            runtime.warnings.append(f"line {lineno}: {message}" if filename == program.FILE else str(message))
        else:
            show(message, category, filename, lineno, *rest)

    return shown


def run(sock: socket.socket, start: dict[str, Any]) -> None:
    """Live the program that `start` describes, to its END. The caller flushes and leaves the process; nothing may follow."""
    runtime = Runtime(sock, start)
    kernel_api.bind(runtime)
    sys.modules["kernel"] = kernel_api
    runtime.patches.set(warnings, "showwarning", _warned(runtime))
    if runtime.workspace not in sys.path:
        sys.path.insert(0, runtime.workspace)
    with suppress(Over):
        try:
            _write_files(start.get("files") or {})
            main = program.load(start["program"], kernel_api)
        except BaseException as error:  # noqa: BLE001 - the top level of a program may raise anything
            runtime.end({"error": program.report(error)})
        else:
            runtime.wind_up(runtime.live(main, start["input"]))
    steps.flush_output()
