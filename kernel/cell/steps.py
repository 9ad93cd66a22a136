"""Step functions: each runs once, in a forked child, and leaves behind its return value and the files it changed.

The child is forked at the call and works in a copy of the folder, so the function sees the variables and the files of that moment; then
it waits until the kernel says RUN. What it changes in memory and in its copy dies with it, live as in a replay, where there is no child at
all. The parent writes the changed files when the answer is delivered: they appear at the same place of the program in every life, and
steps that run side by side do not see each other's.

Guarantees
1. The function sees the system's own clock and randomness, and cannot reach the kernel: its descriptor is closed.
2. Retries and the timeout (of each attempt) happen inside the step: one call, one answer.
3. Files created, changed or removed by a successful step are in its answer; a failed or dropped one leaves none.
4. Whatever the function does to its process, the parent has an answer: `step.died` when it left without one.
5. A step that is dropped ends with all processes of its group.

    child  -> parent   the copy's path and a line end, when it is made
    parent -> child    one byte: run
    child  -> parent   NOTE frames, then one RESULT frame

Files above COPIED_BYTES_MAX are links to the run's own and only to be read: an answer could not hold them. Python code that opens the
run's folder for writing by its absolute path is refused (an audit hook: it catches mistakes, not malice).
Not here: modes, links and empty folders made by a step; who decides when a step runs (the kernel). Standard library only.
If the parent dies: a child that waits sees the end of its socket and leaves; one that runs finishes into the void.
"""

import asyncio
import base64
import hashlib
import inspect
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, Protocol

from . import frames, program
from .values import Error, encode

__all__ = ["Quiet", "Retry", "Step", "flush_output", "restore"]

COPIED_BYTES_MAX = 2 << 20
RESULT = "the step's result"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


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
        self._folder = ""
        self._socket: socket.socket | None = None
        self._reader = frames.Reader(1 << 30)
        self._at_work = False
        self._failure: Error | None = None

    # --- in the parent

    def fork(self, runtime: _Runtime, ordinal: int) -> None:
        self._ordinal = ordinal
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
            self._child(runtime, theirs)
        runtime.forked = ""
        theirs.close()
        self._socket = ours
        with ours.makefile("rb", buffering=0) as line:  # nothing else is sent before RUN
            self._folder = line.readline().decode(errors="surrogateescape").rstrip("\n")

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def go(self) -> list[frames.Frame]:
        """RUN has come. Frames for the kernel, when the outcome is known already."""
        if self._failure is not None:
            return [self._failed(self._failure)]
        if self._socket is not None and not self._at_work:
            self._at_work = True
            with suppress(OSError):  # a child killed while it waited: `read` reports it
                self._socket.send(b"!")
        return []

    def read(self) -> list[frames.Frame]:
        """Frames for the kernel; called when the descriptor is readable."""
        if self._socket is None:
            return []
        try:
            data = self._socket.recv(1 << 20)
        except OSError:
            data = b""
        found = list(self._reader.feed(data))
        if data and not any(frame.type == frames.RESULT for frame in found):
            return found
        status = self._reaped()
        if not data:
            how = f"was killed by signal {-status}" if status < 0 else f"left with exit status {status}"
            self._failure = Error("step.died", f"the step's process {how} before its function returned")
            return [self._failed(self._failure)] if self._at_work else []
        return found

    def stop(self) -> None:
        """Nobody waits for the step: end its processes."""
        if self._socket is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
            self._reaped()

    def _reaped(self) -> int:
        assert self._socket is not None
        self._socket.close()
        self._socket = None
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        return status

    def _failed(self, error: Error) -> frames.Frame:
        return frames.Frame(frames.RESULT, self._ordinal, encode({"error": error.to_wire()}, "the error"))

    # --- in the child

    def _child(self, runtime: _Runtime, parent: socket.socket) -> NoReturn:
        status = 1
        files = _Copy(runtime.workspace)
        try:
            os.setpgid(0, 0)
            files.make()
            parent.sendall(os.fsencode(files.folder) + b"\n")
            if parent.recv(1):
                runtime.speak()
                runtime.step_socket, runtime.step_ordinal = parent, self._ordinal
                payload = self._outcome(files, runtime.value_bytes_max)
                with suppress(OSError):
                    parent.sendall(frames.encode(frames.RESULT, self._ordinal, payload))
            status = 0
        finally:
            flush_output()
            files.remove()
            os._exit(status)

    def _outcome(self, files: "_Copy", bytes_max: int) -> bytes:
        try:
            files.enter()
            return _success(self._attempts(), files, bytes_max)
        except BaseException as error:  # noqa: BLE001 - the outcome of the program's function, whatever it is
            return encode({"error": program.as_step_error(error).to_wire()}, "the error")

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


def _success(value: Any, files: "_Copy", bytes_max: int) -> bytes:
    try:
        payload = encode({"ok": value, "files": files.changed(bytes_max)}, RESULT)
    except TypeError as error:  # named as the program knows it, without what is around it here
        raise Error("step.result", str(error).replace(f"{RESULT}['ok']", RESULT)) from None
    if len(payload) > bytes_max:
        raise Error("step.too_large", f"result and files have {len(payload)} bytes as JSON, the limit is {bytes_max}")
    return payload


async def _awaited(value: Any) -> Any:
    return await value


# --- files


class _Copy:
    """A copy of a folder for one step to work in, and what differs in it from the original as it was."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.folder = ""
        self._failure: OSError | None = None
        self._before: dict[str, bytes] = {}
        """By path: a digest of the content, or the target of the link that stands for a large file."""

    def make(self) -> None:
        try:
            self.folder = tempfile.mkdtemp(prefix=".step-")
            for folder, folders, names in os.walk(self._root):
                for name in folders:
                    os.mkdir(self._there(os.path.join(folder, name)))
                for name in names:
                    self._copy(os.path.join(folder, name))
        except OSError as error:
            self._failure = error  # told when the step runs

    def _there(self, path: str) -> str:
        return os.path.join(self.folder, os.path.relpath(path, self._root))

    def _copy(self, path: str) -> None:
        status = os.lstat(path)
        there = self._there(path)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(path), there)
        elif stat.S_ISREG(status.st_mode):
            if status.st_size > COPIED_BYTES_MAX:
                os.symlink(path, there)
            else:
                shutil.copy(path, there)
            self._before[os.path.relpath(path, self._root)] = _mark(there)

    def enter(self) -> None:
        if self._failure is not None:
            raise Error("step.files", f"the folder could not be copied for the step: {self._failure}", "host")
        os.chdir(self.folder)
        if "WORKSPACE" in os.environ:
            os.environ["WORKSPACE"] = self.folder
        sys.addaudithook(self._refuse)

    def _refuse(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, int) and isinstance(flags, int) and flags & WRITING:
                self._check(os.path.realpath(path))
        elif event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"):
            for path in arguments[:2]:
                if isinstance(path, str | bytes | os.PathLike):
                    self._check(os.path.abspath(path))

    def _check(self, path: str | bytes) -> None:
        if os.fsdecode(path).startswith(self._root + "/"):
            raise Error(
                "step.path",
                f"{os.fsdecode(path)} is in the run's folder. A step works in a copy and writes relative paths; files above "
                f"{COPIED_BYTES_MAX >> 20} MiB can only be read there.",
            )

    def changed(self, bytes_max: int) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        left = set(self._before)
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(folder, name)
                known = os.path.relpath(path, self.folder)
                left.discard(known)
                if stat.S_ISREG(os.lstat(path).st_mode) and _mark(path) != self._before.get(known):
                    if os.path.getsize(path) > bytes_max:
                        raise Error("step.too_large", f"the file {known} is over the limit of {bytes_max} bytes")
                    with open(path, "rb") as file:
                        found[known] = base64.b64encode(file.read()).decode()
        found.update((path, None) for path in sorted(left))
        return found

    def remove(self) -> None:
        if self.folder:
            os.chdir("/")
            shutil.rmtree(self.folder, ignore_errors=True)


def _mark(path: str) -> bytes:
    if os.path.islink(path):
        return os.fsencode(os.readlink(path))
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def restore(root: str, files: dict[str, str | None]) -> None:
    """Write the files that a step left, as its answer has them."""
    for name, data in files.items():
        path = os.path.join(root, name)
        if data is None:
            with suppress(FileNotFoundError):
                os.unlink(path)
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(base64.b64decode(data))


def flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
