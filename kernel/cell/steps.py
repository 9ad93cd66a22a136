"""Step functions: each runs once, in a forked child, and leaves behind its return value and the files it changed.

The child is forked at the call, so the function sees the variables of that moment, and waits until the kernel says RUN. What it changes
in memory dies with it, live as in a replay, where there is no child at all. Files are put back as they were when the function ends; the
parent writes them when the answer is delivered, so they appear at the same place of the program in every life.

Guarantees
1. The function sees the system's own clock and randomness, and cannot reach the kernel: its descriptor is closed.
2. One step of a run is at work at a time, in the order in which the kernel said RUN.
3. Retries and the timeout (of each attempt) happen inside the step: one call, one answer.
4. Files created, changed or removed by a successful step are in its answer; a failed one leaves none (contents above 1 MiB a file and
   16 MiB in all are not kept for putting back).
5. Whatever the function does to its process, the parent has an answer: `step.died` when it left without one.

    parent -> child   one byte: run
    child -> parent   NOTE frames, then one RESULT frame

Not here: modes, links and empty folders made by a step; who decides when a step runs (the kernel). Standard library only.
If the parent dies: a child that waits sees the end of its socket and leaves; one that runs finishes into the void.
"""

import asyncio
import base64
import collections
import inspect
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn, Protocol

from . import frames, program
from .values import Error, encode

__all__ = ["Quiet", "Retry", "Step", "Steps", "flush_output", "restore"]

KEPT_FILE_BYTES_MAX = 1 << 20
KEPT_BYTES_MAX = 16 << 20
STOP_MS = 2000
"""A process that was told to stop gets this long to put the files back."""


class _Runtime(Protocol):
    forked: str
    step_socket: socket.socket | None
    step_ordinal: int
    value_bytes_max: int
    workspace: str

    def speak(self) -> None: ...


class Quiet:
    """While it lasts, what the process prints goes nowhere: it was printed in an earlier life."""

    def __init__(self) -> None:
        self._saved: list[int] = []
        flush_output()
        with suppress(OSError):  # no /dev/null behind this wall: the output is then there twice, which harms nobody
            null = os.open("/dev/null", os.O_WRONLY)
            self._saved = [os.dup(1), os.dup(2)]
            os.dup2(null, 1)
            os.dup2(null, 2)
            os.close(null)

    def end(self) -> None:
        flush_output()
        for descriptor, saved in zip((1, 2), self._saved, strict=False):
            os.dup2(saved, descriptor)
            os.close(saved)
        self._saved = []


class Retry:
    """`3`, or `{"attempts": 3, "delay_s": 1, "backoff": 2, "delay_max_s": 60}`: how often in all, and how long between."""

    def __init__(self, given: Any) -> None:
        fields = {"attempts": 1} if given is None else {"attempts": given} if isinstance(given, int) else dict(given)
        unknown = set(fields) - {"attempts", "delay_s", "backoff", "delay_max_s"}
        if unknown:
            raise TypeError(f"retry has no {min(unknown)!r}; it has attempts, delay_s, backoff, delay_max_s")
        self.attempts = int(fields.get("attempts", 3))
        self.delay_s = float(fields.get("delay_s", 1.0))
        self.backoff = float(fields.get("backoff", 2.0))
        self.delay_max_s = float(fields.get("delay_max_s", 60.0))
        if self.attempts < 1 or self.delay_s < 0 or self.backoff < 1:
            raise TypeError("retry needs attempts >= 1, delay_s >= 0, backoff >= 1")

    def to_wire(self) -> dict[str, Any]:
        names = ("attempts", "delay_s", "backoff", "delay_max_s")
        return {name: getattr(self, name) for name in names}


class Steps:
    """The children of a runtime, of which one at a time is at work: what changed in the folder is then that one's doing."""

    def __init__(self) -> None:
        self.alive: dict[int, Step] = {}
        """By descriptor, all that wait for their turn and the one at work."""
        self._told: collections.deque[Step] = collections.deque()
        self._at_work: Step | None = None

    def fork(self, step: "Step", runtime: "_Runtime", ordinal: int) -> None:
        step.fork(runtime, ordinal, list(self.alive.values()))
        if step.fileno() >= 0:
            self.alive[step.fileno()] = step

    def run(self, step: "Step") -> list[frames.Frame]:
        """RUN has come for `step`. Frames for the kernel."""
        self._told.append(step)
        return self._next()

    def serve(self, descriptor: int) -> list[frames.Frame]:
        """Its child has something to say. Frames for the kernel."""
        step = self.alive[descriptor]
        found = step.read()
        if step.fileno() < 0:
            del self.alive[descriptor]
            if step is self._at_work:
                self._at_work = None
                found += self._next()
        return found

    def stop(self, step: "Step") -> None:
        descriptor = step.fileno()
        step.stop()
        if step.fileno() < 0:
            self.alive.pop(descriptor, None)

    def patience_ms(self) -> int | None:
        """How long to wait for the one at work, if nobody wants its outcome."""
        return STOP_MS if self._at_work is not None and self._at_work.stopped else None

    def lose_patience(self) -> None:
        if self._at_work is not None and self._at_work.stopped:
            self._at_work.signal(signal.SIGKILL)

    def _next(self) -> list[frames.Frame]:
        found: list[frames.Frame] = []
        while self._at_work is None and self._told:
            step = self._told.popleft()
            if not step.stopped:
                found += step.go()
                self._at_work = step if step.at_work else None
        return found


class Step:
    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], retry: Retry, timeout_s: float | None
    ) -> None:
        self._function = function
        self._arguments = arguments
        self._retry = retry
        self._timeout_s = timeout_s
        self._ordinal = -1
        self._pid = 0
        self._socket: socket.socket | None = None
        self._reader = frames.Reader(1 << 30)
        self._failure: Error | None = None
        self.at_work = False
        self.stopped = False

    # --- in the parent

    def fork(self, runtime: _Runtime, ordinal: int, others: Iterable["Step"]) -> None:
        self._ordinal = ordinal
        _reap()
        ours, theirs = socket.socketpair()
        flush_output()
        runtime.forked = "step"  # before the fork: the hook that runs in the child reads it
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", DeprecationWarning
                )  # fibers are threads, and all but this one stand still
                self._pid = os.fork()
        except OSError as error:
            self._failure = Error("step.fork", f"no process for the step: {error.strerror}", "host", retryable=True)
            ours.close()
            theirs.close()
            runtime.forked = ""
            return
        if self._pid == 0:
            ours.close()
            for other in others:
                if other._socket is not None:  # noqa: SLF001
                    other._socket.close()  # noqa: SLF001 - else a sibling would never see the end of its parent
            self._child(runtime, theirs)
        runtime.forked = ""
        theirs.close()
        self._socket = ours

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def go(self) -> list[frames.Frame]:
        """Its turn has come. Frames for the kernel, when the outcome is known already."""
        if self._failure is not None:
            return [self._failed(self._failure)]
        if self._socket is not None:
            self.at_work = True
            with suppress(OSError):  # a child killed while it waited: `read` reports it
                self._socket.send(b"!")
        return []

    def read(self) -> list[frames.Frame]:
        """Frames for the kernel; called when the descriptor is readable."""
        assert self._socket is not None
        try:
            data = self._socket.recv(1 << 20)
        except OSError:
            data = b""
        found = list(self._reader.feed(data))
        if data and not any(frame.type == frames.RESULT for frame in found):
            return [] if self.stopped else found
        self._socket.close()
        self._socket = None
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if self.stopped:
            return []
        if not data:
            how = f"was killed by signal {-status}" if status < 0 else f"left with exit status {status}"
            self._failure = Error("step.died", f"the step's process {how} before its function returned")
            return [self._failed(self._failure)] if self.at_work else []
        return found

    def stop(self) -> None:
        """Nobody waits for the step. A process that is at work is told to put the files back; its end shows at the descriptor."""
        if self._socket is None or self.stopped:
            return
        self.stopped = True
        if self.at_work:
            self.signal(signal.SIGTERM)
        else:  # it waits for its turn: the end of its socket ends it
            self._socket.close()
            self._socket = None
            _leaving.append(self._pid)

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def _failed(self, error: Error) -> frames.Frame:
        return frames.Frame(frames.RESULT, self._ordinal, encode({"error": error.to_wire()}, "the error"))

    # --- in the child

    def _child(self, runtime: _Runtime, parent: socket.socket) -> NoReturn:
        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if parent.recv(1):
                runtime.speak()
                runtime.step_socket, runtime.step_ordinal = parent, self._ordinal
                payload = self._outcome(runtime)
                with suppress(OSError):
                    parent.sendall(frames.encode(frames.RESULT, self._ordinal, payload))
                status = 0
        finally:
            flush_output()
            os._exit(status)

    def _outcome(self, runtime: _Runtime) -> bytes:
        files = _Files(runtime.workspace)

        def leave(*_: object) -> None:
            files.put_back()
            os._exit(1)

        signal.signal(signal.SIGTERM, leave)
        try:
            payload = _success(self._attempts(), files.changed(), runtime.value_bytes_max)
        except BaseException as error:  # noqa: BLE001 - the outcome of the program's function, whatever it is
            payload = encode({"error": program.as_step_error(error).to_wire()}, "the error")
        files.put_back()
        return payload

    def _attempts(self) -> Any:
        delay_s = self._retry.delay_s
        for attempt in range(1, self._retry.attempts + 1):
            try:
                return self._attempt()
            except Exception as error:
                if attempt == self._retry.attempts or (isinstance(error, Error) and not error.retryable):
                    raise
                time.sleep(min(delay_s, self._retry.delay_max_s))
                delay_s *= self._retry.backoff
        raise AssertionError("attempts >= 1")

    def _attempt(self) -> Any:
        timeout_s = self._timeout_s
        if timeout_s is None:
            return self._called()

        def late(*_: object) -> None:
            raise Error("step.timeout", f"the function ran longer than {timeout_s} s", retryable=True)

        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        try:
            return self._called()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _called(self) -> Any:
        value = self._function(*self._arguments)
        if inspect.isawaitable(value):
            return asyncio.run(_awaited(value))
        return value


def _success(value: Any, files: dict[str, str | None], bytes_max: int) -> bytes:
    try:
        payload = encode({"ok": value, "files": files}, "the step's result")
    except TypeError as error:
        raise Error("step.result", str(error)) from None
    if len(payload) > bytes_max:
        raise Error("step.too_large", f"result and files have {len(payload)} bytes as JSON, the limit is {bytes_max}")
    return payload


async def _awaited(value: Any) -> Any:
    return await value


# --- files


class _Files:
    """A folder as it was, to tell what changed and to put it back."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._before: dict[str, tuple[tuple[int, int, int], bytes | None]] = {}
        room = KEPT_BYTES_MAX
        for path, stamp in _regular(root):
            content = None
            if stamp[1] <= min(KEPT_FILE_BYTES_MAX, room):
                content = _content(root, path)
                room -= len(content)
            self._before[path] = stamp, content

    def _differences(self) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        now = dict(_regular(self._root))
        for path, stamp in now.items():
            before = self._before.get(path)
            if before is None or (before[1] is None and before[0] != stamp):
                found[path] = _content(self._root, path)
            elif before[1] is not None and (content := _content(self._root, path)) != before[1]:
                found[path] = content  # compared by content: two writes in one tick of the clock have equal stamps
        found.update((path, None) for path in self._before if path not in now)
        return found

    def changed(self) -> dict[str, str | None]:
        differences = self._differences().items()
        return {path: None if data is None else base64.b64encode(data).decode() for path, data in sorted(differences)}

    def put_back(self) -> None:
        for path in self._differences():
            before = self._before.get(path)
            if before is None:
                with suppress(FileNotFoundError):  # a process of the function's own may still be at it
                    os.unlink(os.path.join(self._root, path))
            elif before[1] is not None:
                _write(os.path.join(self._root, path), before[1])


def _regular(root: str) -> Iterable[tuple[str, tuple[int, int, int]]]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            with suppress(OSError):
                status = os.lstat(path)
                if status.st_mode & 0o170000 == 0o100000:
                    yield os.path.relpath(path, root), (status.st_mtime_ns, status.st_size, status.st_ino)


def _content(root: str, path: str) -> bytes:
    with open(os.path.join(root, path), "rb") as file:
        return file.read()


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def restore(root: str, files: dict[str, str | None]) -> None:
    """Write the files that a step left, as its answer has them."""
    for name, data in files.items():
        path = os.path.join(root, name)
        if data is None:
            with suppress(FileNotFoundError):
                os.unlink(path)
        else:
            _write(path, base64.b64decode(data))


_leaving: list[int] = []


def _reap() -> None:
    for pid in list(_leaving):
        with suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                continue
        _leaving.remove(pid)


def flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
