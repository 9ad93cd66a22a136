"""The module `kernel` as programs see it: every awaited call is a durable step of the run.

In `async def main` a call is awaited; in `def main`, and in functions given to `kernel.map` there, the same name blocks. Whether a loop
runs in the calling thread decides, so there is one set of names.

Guarantees
1. Arguments that are not JSON raise TypeError at the call, before it has a number.
2. A call that nobody awaits is not made, and the run's warnings name its line.
3. A failure raises `kernel.Error` with code, message, fault, retryable; the same in a replay.
4. `now`, `random`, `uuid`, `log`, `progress` and `idempotency_key` are no calls and use no number.

Not here: order, time and frames (turns.py), what the calls do (the kernel). Standard library only.
"""

import asyncio
import base64
import collections.abc
import inspect
import os
import random as _random
import uuid as _uuid
from collections.abc import Callable, Generator, Iterable
from typing import Any

from . import frames, program
from .steps import Retry, Step, restore
from .values import Error, Record, decode, encode

__all__ = [
    "Error", "approve", "ask", "idempotency_key", "log", "map", "memory", "model", "now", "progress", "race", "random", "receive",
    "sandbox", "send", "skill", "sleep", "spawn", "step", "tool", "tools", "uuid",
]  # fmt: skip

MAP_LIMIT = 16

_bound: list[Any] = []


def bind(runtime: Any) -> None:
    _bound[:] = [runtime]


def _runtime(name: str) -> Any:
    if not _bound:
        raise Error("kernel.outside", f"kernel.{name} works inside a run only. Start the program with run_start.")
    return _bound[0]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(f"kernel has no {name!r}; it has: {', '.join(__all__)}")


# --- one call


class Call(collections.abc.Coroutine[Any, Any, Any]):
    """A call that was written down and not yet made: awaiting it, or giving it to a task, makes it."""

    __slots__ = ("__weakref__", "_coroutine", "_name", "_ordinal", "_request", "_runtime", "_where")

    def __init__(self, runtime: Any, name: str, request: Any) -> None:
        self._runtime = runtime
        self._name = name
        self._request = request
        self._where = program.where(2)
        self._coroutine: Any = None

    is_call = True

    def _begun(self) -> Any:
        if self._coroutine is None:
            self._coroutine = self._runtime.answer(self._request)
        return self._coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        if self._coroutine is not None:
            raise RuntimeError(
                f"{self._name}(...) of {self._where} was awaited before; keep its value, or make the call again"
            )
        return self._begun().__await__()  # type: ignore[no-any-return]

    def send(self, value: Any) -> Any:
        return self._begun().send(value)

    def throw(self, *error: Any) -> Any:
        return self._begun().throw(*error)

    def close(self) -> None:
        if self._coroutine is not None:
            self._coroutine.close()
        self._coroutine = _CLOSED

    def __hash__(self) -> int:
        return int(self._runtime.ordinal_hash(self))

    def __del__(self) -> None:
        if self._coroutine is None and not self._runtime.forked:
            self._runtime.warnings.append(f"{self._where}: {self._name}(...) was never awaited, so it was not made")


class _Closed:
    def close(self) -> None:
        pass


_CLOSED = _Closed()


def _request(name: str, method: str, arguments: dict[str, Any], decoded: Callable[[bytes], Any], **more: Any) -> Any:
    """Checks and encodes now, at the caller's line: later changes of the arguments do not count."""
    runtime = _runtime(name)
    runtime.check(f"kernel.{name}")
    payload = encode({key: value for key, value in arguments.items() if value is not None}, f"kernel.{name}")
    if len(payload) > runtime.value_bytes_max:
        raise Error(
            "argument.too_large",
            f"the arguments of kernel.{name} have {len(payload)} bytes as JSON, the limit is {runtime.value_bytes_max}",
        )
    return runtime.request(method, payload, decoded, **more)


def _call(
    name: str, method: str, arguments: dict[str, Any], decoded: Callable[[bytes], Any] = decode, **more: Any
) -> Any:
    request = _request(name, method, arguments, decoded, **more)
    runtime = _bound[0]
    if runtime.blocking():
        return runtime.answer_blocking(request)
    return Call(runtime, f"kernel.{name}", request)


def _record(data: bytes) -> Any:
    return decode(data, Record)


def _result(data: bytes) -> Any:
    """Empty fields are left out on the wire; a program may ask for them."""
    empty: dict[str, Any] = {
        "exit_code": None,
        "stdout": "",
        "stderr": "",
        "value": None,
        "outputs": [],
        "files": [],
        "stopped_by": None,
    }
    return Record({**empty, **_record(data)})


# --- calls


def step(
    name: str,
    fn: Callable[..., Any],
    /,
    *args: Any,
    retry: Any = None,
    effect: str = "at_least_once",
    timeout_s: float | None = None,
    compensate: Callable[[Any], Any] | None = None,
    **unknown: Any,
) -> Any:
    """The result of `fn(*args)`, run once in a process of its own and recorded with the files it changed."""
    if unknown:
        raise TypeError(
            f"kernel.step gives positional arguments to the function; write lambda: fn({next(iter(unknown))}=...)"
        )
    if not callable(fn):
        raise TypeError(
            f"kernel.step needs a function, not {type(fn).__name__}; write kernel.step(name, fn, arg), without calling fn"
        )
    if effect not in frames.EFFECTS:
        raise TypeError(f"effect is {effect!r}; it can be {' or '.join(frames.EFFECTS)}")
    runtime = _runtime("step")
    tries = Retry(retry)
    arguments = {
        "name": name,
        "retry": None if retry is None else tries.to_wire(),
        "timeout_s": timeout_s,
        "args_repr": _shown(args) if args else None,
    }

    def decoded(data: bytes) -> Any:
        recorded = decode(data)
        restore(runtime.workspace, recorded.get("files") or {})
        value = recorded["value"]
        if compensate is not None:
            runtime.undone.append((name, compensate, value))
        return value

    forked = Step(fn, args, tries, timeout_s)
    return _call("step", "step", arguments, decoded, effect=frames.EFFECTS.index(effect), step=forked, label=name)


def _shown(args: tuple[Any, ...]) -> str:
    """For people. A repr can hold addresses, which differ in every life, so only plain values are written out."""
    return ", ".join(_shown_one(arg) for arg in args)[:200]


def _shown_one(arg: Any) -> str:
    try:
        return encode(arg, "").decode()[:100]
    except TypeError:
        return f"<{type(arg).__name__}>"


class _Sandbox:
    def run(self, code: str, language: str = "python", **options: Any) -> Any:
        """Code in a fresh sandbox: exit_code, stdout, stderr, value, outputs, files, stopped_by."""
        return _call("sandbox.run", "sandbox.run", {"code": code, "language": language, **options}, _result)

    def export(self, files: Any, to: str, overwrite: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Copy files into a folder of the user's that is shared as :rw: entries of a result's `files`, their uris, or names of files here."""
        given = [files] if isinstance(files, str | dict) else list(files)
        arguments = {"files": [_leaving(file) for file in given], "to": to, "overwrite": overwrite}
        return _call("sandbox.export", "sandbox.export", arguments, _record)


def _leaving(file: Any) -> dict[str, str]:
    """Of a file in the current folder the bytes: its name means nothing outside."""
    if isinstance(file, dict):
        return {"uri": file["uri"]}
    if "://" in file:
        return {"uri": file}
    with open(file, "rb") as opened:
        return {"name": os.path.basename(file), "base64": base64.b64encode(opened.read()).decode()}


class _Memory:
    def add(self, items: Any = None, /, **fields: Any) -> Any:
        """A list of facts, one fact, or the fields of one as keywords."""
        if isinstance(items, str):
            items = [{"text": items, **fields}]
        elif isinstance(items, dict):
            items = [{**items, **fields}]
        elif items is None:
            items = [fields]
        return _call("memory.add", "memory.add", {"items": items}, _record)

    def search(self, query: str | None = None, **filters: Any) -> Any:
        return _call("memory.search", "memory.search", {"query": query, **filters}, _record)

    def forget(self, ids: Iterable[str] | None = None, **options: Any) -> Any:
        return _call("memory.forget", "memory.forget", {"ids": None if ids is None else list(ids), **options}, _record)

    def edit(self, label: str, text: str, old: str | None = None, if_version: int | None = None) -> Any:
        return _call(
            "memory.edit", "memory.edit", {"label": label, "text": text, "old": old, "if_version": if_version}, _record
        )

    def blocks(self, label: str | None = None) -> Any:
        return _call("memory.blocks", "memory.blocks", {"label": label}, _record)


sandbox = _Sandbox()
memory = _Memory()


def tool(name: str, /, **arguments: Any) -> Any:
    """A tool of a connected server, by the operator's policy."""
    return _call("tool", "tool", {"name": name, "arguments": arguments}, label=name)


class _Tools:
    """`kernel.tools.server.name(...)` is `kernel.tool("server.name", ...)`."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def __getattr__(self, name: str) -> "_Tools":
        if name.startswith("_"):
            raise AttributeError(name)
        return _Tools(f"{self._prefix}.{name}".lstrip("."))

    def __call__(self, **arguments: Any) -> Any:
        return tool(self._prefix, **arguments)


tools = _Tools()


def skill(name: str, /, script: str | None = None, *, args: Iterable[str] | None = None, **input: Any) -> Any:  # noqa: A002
    """A script of a skill: the fields of sandbox.run."""
    arguments = {"name": name, "script": script, "input": input, "args": None if args is None else list(args)}
    return _call("skill", "skill", arguments, _result, label=name)


def sleep(seconds: float) -> Any:
    return _call("sleep", "sleep", {"seconds": seconds})


def approve(question: str, details: Any = None, timeout_s: float | None = None) -> Any:
    """Whether a person said yes. No answer in time is a no."""
    arguments = {"question": question, "details": details, "timeout_s": timeout_s}
    return _call("approve", "approve", arguments, lambda data: decode(data) is True)


def ask(question: str, schema: dict[str, Any]) -> Any:
    return _call("ask", "ask", {"question": question, "schema": schema})


def model(prompt: str, schema: dict[str, Any] | None = None) -> Any:
    return _call("model", "model", {"prompt": prompt, "schema": schema})


def send(run_id: str, topic: str, content: Any) -> Any:
    return _call("send", "send", {"run_id": run_id, "topic": topic, "content": content})


def receive(topic: str, timeout_s: float | None = None) -> Any:
    return _call("receive", "receive", {"topic": topic, "timeout_s": timeout_s})


# --- child runs


class Child:
    """A run that was started here. `await child`, or `child.result()` in blocking code, is its output; any number of times."""

    def __init__(self, runtime: Any, start: Any) -> None:
        self._runtime = runtime
        self._started = runtime.issue(start)
        self._started.add_done_callback(_seen)
        self._joining: Any = None
        self._waiters = 0
        if runtime.blocking():
            runtime.wait(self._started)

    def __hash__(self) -> int:
        return int(self._runtime.ordinal_hash(self))

    @property
    def run_id(self) -> str:
        """Known once the start is recorded: after `await child.started()`; at once in blocking code."""
        if not self._started.done():
            raise Error(
                "spawn.starting", "the child's run_id is not known yet. Write `await child.started()`, which gives it."
            )
        return str(self._started.result()["run_id"])

    def started(self) -> Any:
        return self.run_id if self._runtime.blocking() else self._start()

    def result(self) -> Any:
        return self._joined_blocking() if self._runtime.blocking() else self._joined()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._joined().__await__()

    async def _start(self) -> str:
        await asyncio.shield(self._started)
        return self.run_id

    def _join(self) -> Any:
        if self._joining is None:
            request = _request("spawn", "join", {"run_id": self.run_id}, decode)
            self._runtime.issue(request).add_done_callback(_seen)
            self._joining = request
        return self._joining

    async def _joined(self) -> Any:
        await asyncio.shield(self._started)
        request = self._join()
        self._waiters += 1
        try:
            return await asyncio.shield(request.future)
        except asyncio.CancelledError:
            if self._waiters == 1 and not request.future.done():
                self._joining = None
                self._runtime.drop(request)
            raise
        finally:
            self._waiters -= 1

    def _joined_blocking(self) -> Any:
        request = self._join()
        return request.future.result() if request.future.done() else self._runtime.wait(request.future)


def _seen(future: "asyncio.Future[Any]") -> None:
    """Reads the exception, so that a child nobody waits for is not reported as a lost error."""
    if not future.cancelled():
        future.exception()


def spawn(
    program_or_skill: str,
    input: Any = None,  # noqa: A002 - the contract's name
    budget: Any = None,
    capabilities: Iterable[str] | None = None,
) -> Child:
    """Start another run at once: a program's source, or the name of a skill."""
    source = "\n" in program_or_skill or "def main" in program_or_skill
    arguments = {
        "program": program_or_skill if source else None,
        "skill": None if source else program_or_skill,
        "input": {} if input is None else input,
        "budget": budget,
        "capabilities": None if capabilities is None else list(capabilities),
    }
    return Child(_runtime("spawn"), _request("spawn", "spawn", arguments, decode))


# --- many at once


def map(fn: Callable[[Any], Any], items: Iterable[Any], limit: int = MAP_LIMIT) -> Any:  # noqa: A001 - the contract's name
    """Results in the order of items, `limit` at a time; the first error cancels the rest and is raised."""
    if limit < 1:
        raise TypeError(f"limit is {limit}; at least one piece of work must go on")
    runtime = _runtime("map")
    runtime.check("kernel.map")
    mapped = _mapped(runtime, fn, list(items), limit, blocking=runtime.blocking())
    return runtime.wait_task(mapped) if runtime.blocking() else mapped


async def _mapped(runtime: Any, fn: Callable[[Any], Any], items: list[Any], limit: int, *, blocking: bool) -> list[Any]:
    results: list[Any] = [None] * len(items)
    errors: list[BaseException] = []
    rest = iter(enumerate(items))

    async def worker() -> None:
        for i, item in rest:
            try:
                if blocking:
                    results[i] = await runtime.fibers.run(lambda item=item: fn(item))
                else:
                    value = fn(item)
                    results[i] = await value if inspect.isawaitable(value) else value
            except Exception as error:
                errors.append(error)
                raise

    await _together([runtime.loop.create_task(worker()) for _ in range(min(limit, len(items)))], until=errors)
    if errors:
        raise errors[0]
    return results


_mapped.__name__, _mapped.__qualname__ = "map", "kernel.map"  # what labels and warnings show


def race(*calls: Any) -> Any:
    """The value of the first to succeed; the others are cancelled and awaited. All fail: the first error is raised.

    Calls and other awaitables, or functions: blocking code gives functions, `race(lambda: kernel.tool("a"), ...)`.
    """
    if not calls:
        raise TypeError("kernel.race needs at least one call")
    runtime = _runtime("race")
    runtime.check("kernel.race")
    if runtime.blocking() and not all(callable(call) for call in calls):
        raise TypeError(
            "in blocking code kernel.race needs functions: kernel.race(lambda: kernel.tool(...), lambda: ...)"
        )
    raced = _raced(runtime, calls, blocking=runtime.blocking())
    return runtime.wait_task(raced) if runtime.blocking() else raced


async def _raced(runtime: Any, calls: tuple[Any, ...], *, blocking: bool) -> Any:
    won: list[Any] = []
    errors: list[BaseException] = []

    async def runner(call: Any) -> None:
        try:
            if blocking:
                value = await runtime.fibers.run(call)
            else:
                value = call() if callable(call) and not inspect.isawaitable(call) else call
                value = await value if inspect.isawaitable(value) else value
        except Exception as error:  # noqa: BLE001 - a racer that fails leaves the race
            errors.append(error)
        else:
            won.append(value)

    await _together([runtime.loop.create_task(runner(call)) for call in calls], until=won)
    if won:
        return won[0]
    raise errors[0]


_raced.__name__, _raced.__qualname__ = "race", "kernel.race"


async def _together(tasks: list[Any], *, until: list[Any]) -> None:
    """Wait for all; once `until` holds something, or this is cancelled, cancel those that are left and wait for them."""
    left = list(tasks)
    try:
        while left and not until:
            await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            left = [task for task in left if not task.done()]
    finally:
        for task in left:
            task.cancel()
        while any(not task.done() for task in left):
            await asyncio.wait(left)
        for task in tasks:
            _seen(task)


# --- no calls


def now() -> float:
    """Unix seconds of the last delivery; the same in a replay."""
    runtime = _runtime("now")
    return float(runtime.clock.epoch + runtime.clock.now)


def random() -> float:
    """In [0, 1); seeded by the run, as all of `random` and `secrets` is."""
    return _random.random()  # noqa: S311 - chance that repeats is the purpose


def uuid() -> str:
    return str(_uuid.uuid4())


def idempotency_key() -> str:
    """A key for one effect outside, the same in every attempt; inside a step function the step's own."""
    return str(_runtime("idempotency_key").next_key())


def log(*values: Any) -> None:
    """A line in the run's log. May be lost; is not shown again by a replay."""
    _runtime("log").note({"log": " ".join(str(value) for value in values).encode(errors="replace").decode()})


def progress(done: float, total: float | None = None, message: str = "") -> None:
    _runtime("progress").note({"progress": [done, total, str(message)]})
