"""The guest's first lines: in a child that is already locked, wait for START, do what it says, end.

START is JSON: {"v": 1, "mode": "code", "language": "python" | "bash", "code": str, "argv": [str], "files": {path: str | {"base64": str}}}
or {"v": 1, "mode": "program", ...}, which cell/turns.py runs; in both {"bounds": {"memory_bytes", "processes", "cpu_s": int | null}}, this
call's limits. Beside its first byte comes the descriptor of stdin, if there is one.

Guarantees
1. Nothing of a guest runs before START: a child that waits here can be parked. Before it waits it may have rehearsed: run a few lines of its
   own, so that the pages which every guest writes to are its own already (a fifth of the time of a short call goes there else).
2. Python code runs as `__main__` of a fresh module, with the workspace as current folder and first on sys.path; the repr of a last expression
   is `value`. Threads that are not daemons are waited for, exit functions run, both streams are flushed, then END is sent:
   {"exit_code": int, "value"?: str, "error"?: {"type", "message", "traceback"}}.
3. After END the process lingers until the kernel kills its tree: the reply need not wait for the teardown.
4. bash replaces the process: its exit status is what the init reports, and there is no END.
5. A process that the code forked never sends END by falling out of the end of the code.
6. The limits of START are taken on before a byte of the guest's is written or run; they can only be lower than those of the lock.

What is sent from here is the guest's own claim about itself; the kernel takes nothing else from it. The layers hold, not this file.
"""

import _thread
import ast
import atexit
import base64
import builtins
import contextlib
import gc
import importlib
import itertools
import json
import linecache
import logging
import os
import platform
import signal
import socket
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from . import atfork, frames, layers, turns

__all__ = ["DEVICES", "ETC", "FRAMES", "RUNTIME", "Place", "begin", "main", "prefixes", "warm_up"]

FRAMES = 3
RUNTIME = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32")
"""What a program needs to start, read-only, besides the interpreter's own prefix."""
ETC = ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives", "/etc/ssl/openssl.cnf", "/etc/ssl/certs")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/dev/full")
VALUE_CHARS_MAX = 2000
TRACEBACK_CHARS_MAX = 16_000
CODE_NAME = "<code>"

WARM = """
    asyncio bisect collections copy csv dataclasses datetime decimal enum fractions functools glob hashlib heapq inspect io itertools json math
    operator pathlib random re shutil statistics string struct subprocess tempfile textwrap typing urllib.parse uuid zlib
"""
"""What nearly every guest imports: loaded once in the zygote, shared by all."""

PYTHON_FATAL = (signal.SIGXFSZ,)
"""Ignored by the interpreter; put back to their default so that a file past the limit ends the guest by name and not by an errno."""
SHELL_FATAL = (signal.SIGXFSZ, signal.SIGPIPE)


class Place(NamedTuple):
    """Where things are for this guest: fixed paths in tier full, folders of the host in tier confined."""

    workspace: str
    tmp: str
    skill: str | None

    def environment(self) -> dict[str, str]:
        own = os.path.join(sys.base_prefix, "bin")
        path = "/usr/local/bin:/usr/bin:/bin" if own == "/usr/bin" else f"{own}:/usr/local/bin:/usr/bin:/bin"
        found = {
            "PATH": path, "HOME": self.workspace, "TMPDIR": self.tmp, "LANG": "C.UTF-8", "TZ": "UTC", "WORKSPACE": self.workspace,
        }  # fmt: skip
        return found | ({"SKILL": self.skill} if self.skill else {})


def prefixes() -> list[str]:
    """Where this interpreter's library lies, when that is not beneath /usr."""
    found = {os.path.normpath(path) for path in (sys.base_prefix, sys.base_exec_prefix)}
    return sorted(path for path in found if path != "/usr" and not path.startswith("/usr/"))


def warm_up() -> None:
    """In the zygote: load what a guest uses first, let the interpreter specialise what runs for each, and take ourselves out of sight."""
    for name in WARM.split():
        importlib.import_module(name)
    for number in PYTHON_FATAL:
        signal.signal(number, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a guest that is stopped has shown its lines
    for name in [name for name in sys.modules if name.split(".")[0] == __package__]:
        del sys.modules[name]  # a file of the guest may have that name
    sys.modules["kernel"] = _notes()
    for _ in range(8):
        _rehearse()
    platform._uname_cache = None  # type: ignore[attr-defined]  # noqa: SLF001  importing uuid fills it: the host's name


def dress(place: Place) -> None:
    """Environment and search path; once in the zygote where they are the same for all guests."""
    os.environ.clear()
    os.environ.update(place.environment())
    sys.path.insert(0, place.workspace)


def begin(place: Place, *, rehearse: bool) -> socket.socket:
    """In the child, once it is locked: what need not wait for START. Returns the channel."""
    atfork.give_back()
    os.chdir(place.workspace)
    channel = socket.socket(fileno=FRAMES)
    if rehearse:
        _rehearse()
    return channel


def _rehearse() -> None:
    """The way of a short call with a channel and an output of its own, without a trace."""
    kept = sys.modules["__main__"], sys.argv
    stdout, null = os.dup(1), os.open("/dev/null", os.O_WRONLY)
    ours, theirs = socket.socketpair()
    os.dup2(null, 1)
    try:
        ours.sendall(frames.encode(frames.START, 0, _SAMPLE))
        start = _started(theirs)
        _write_files(start["files"])
        outcome = _Outcome()
        _execute(start["code"], ["main.py", *start["argv"]], outcome)
        _wind_up(outcome, logging.shutdown)
        theirs.sendall(_ending(outcome))
    finally:
        os.dup2(stdout, 1)
        for descriptor in (stdout, null):
            os.close(descriptor)
        ours.close()
        theirs.close()
    sys.modules["__main__"], sys.argv = kept
    linecache.cache.pop(CODE_NAME, None)
    gc.disable()
    assert outcome.exit_code == 0, outcome.error


_SAMPLE = json.dumps({
    "v": 1, "mode": "code", "language": "python", "argv": ["a"], "files": {}, "bounds": {"memory_bytes": -1, "processes": -1, "cpu_s": -1},
    "code": "import os, sys\nx = [str(n) + 'a' for n in range(3)]\nprint(x, len(x))\nf'{x}'",
}).encode()  # fmt: skip
"""Bounds that change nothing, and lines that many begin with."""


def main(place: Place, channel: socket.socket) -> NoReturn:
    start = _started(channel)
    if start["mode"] == "program":
        turns.run(channel, start)
        os._exit(0)
    try:
        _write_files(start["files"])
        if start["language"] == "bash":
            _bash(start, place)
    except OSError as error:
        print(f"What was given cannot be written: {error}", file=sys.stderr, flush=True)
        os._exit(126)
    _python(channel, start)


def _started(channel: socket.socket) -> dict[str, Any]:
    """START, taken on: stdin and the limits of this call."""
    frame, stdin = frames.receive_start(channel)
    if frame is None:
        os._exit(0)
    start: dict[str, Any] = json.loads(frame.payload)
    if stdin >= 0:
        os.dup2(stdin, 0)
        os.close(stdin)
    layers.lower_limits(**start["bounds"])
    gc.enable()
    return start


def _write_files(files: dict[str, Any]) -> None:
    for path, content in files.items():
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        data = content.encode() if isinstance(content, str) else base64.b64decode(content["base64"])
        with open(path, "wb") as file:
            file.write(data)


def _bash(start: dict[str, Any], place: Place) -> NoReturn:
    """A script file and not `-c`: one argument of a process may be 128 KiB long at most, and stdin is the caller's."""
    script = os.path.join(place.tmp, "script.sh")
    with open(script, "w", encoding="utf8") as file:
        file.write(start["code"])
    for number in SHELL_FATAL:
        signal.signal(number, signal.SIG_DFL)
    argv = ["bash", "--noprofile", "--norc", script, *start["argv"]]
    try:
        os.execve("/bin/bash", argv, dict(os.environ))  # noqa: S606  (there is no shell between: this is the shell)
    except OSError as error:
        print(f"bash cannot be started: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)


# --- python


class _Outcome:
    def __init__(self) -> None:
        self.exit_code = 0
        self.value: str | None = None
        self.error: dict[str, str] | None = None

    def to_wire(self) -> dict[str, Any]:
        fields = {"exit_code": self.exit_code, "value": self.value, "error": self.error}
        return {name: value for name, value in fields.items() if value is not None}


def _python(channel: socket.socket, start: dict[str, Any]) -> NoReturn:
    born = os.getpid()
    outcome = _Outcome()
    _execute(start["code"], ["main.py", *start["argv"]], outcome)
    _wind_up(outcome, atexit._run_exitfuncs)  # noqa: SLF001
    if os.getpid() == born:
        with contextlib.suppress(OSError):
            channel.sendall(_ending(outcome))
            while channel.recv(65536):  # until the kernel closes its end, which it does after the kill
                pass
    os._exit(outcome.exit_code & 0xFF)


def _ending(outcome: _Outcome) -> bytes:
    return frames.encode(frames.END, 0, json.dumps(outcome.to_wire()).encode())


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _execute(code: str, argv: list[str], outcome: _Outcome) -> None:
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    sys.argv = argv
    # mtime None: linecache keeps the entry, and tracebacks show the guest's own lines
    linecache.cache[CODE_NAME] = (len(code), None, code.splitlines(keepends=True), CODE_NAME)
    try:
        tree = ast.parse(code, CODE_NAME)
        last = tree.body[-1] if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        if last is not None:
            del tree.body[-1]
        exec(compile(tree, CODE_NAME, "exec"), module.__dict__)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), CODE_NAME, "eval"), module.__dict__)  # noqa: S307
            outcome.value = None if value is None else _shown(value)
    except SystemExit as ending:
        outcome.exit_code = _exit_code(ending)
    except BaseException as error:  # noqa: BLE001  whatever the guest raised is its result
        outcome.exit_code = 130 if isinstance(error, KeyboardInterrupt) else 1
        outcome.error = _told(error)


def _exit_code(ending: SystemExit) -> int:
    if ending.code is None:
        return 0
    if isinstance(ending.code, int):
        return ending.code & 0xFF
    with contextlib.suppress(Exception):
        print(ending.code, file=sys.stderr)
    return 1


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "…"


def _told(error: BaseException) -> dict[str, str]:
    """The traceback without the frames of this file, printed as the interpreter would."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != CODE_NAME:
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    text = "".join(lines)
    with contextlib.suppress(Exception):
        sys.stderr.write(text)
    try:
        message = str(error)
    except Exception:  # noqa: BLE001  the guest's own __str__
        message = ""
    return {
        "type": type(error).__name__,
        "message": message[:VALUE_CHARS_MAX],
        "traceback": text[-TRACEBACK_CHARS_MAX:],
    }


def _wind_up(outcome: _Outcome, exit_functions: Callable[[], None]) -> None:
    """What the interpreter does at its end: threads, exit functions, streams."""
    try:
        if _thread._count():  # noqa: SLF001  threads there are, or were a moment ago
            threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
        exit_functions()
        _flush()
    except BaseException as error:  # noqa: BLE001
        outcome.exit_code = outcome.exit_code or 1
        outcome.error = outcome.error or _told(error)


def _notes() -> types.ModuleType:
    """`import kernel` in plain code: log and progress, nothing else; a program (cell/turns.py) gets the whole module."""
    module = types.ModuleType("kernel", "Notes to whoever started this sandbox.")
    counter = itertools.count()

    def send(note: dict[str, Any]) -> None:
        left = memoryview(frames.encode(frames.NOTE, next(counter), json.dumps(note).encode()))
        while left:
            left = left[os.write(FRAMES, left) :]

    def log(*parts: Any) -> None:
        send({"log": " ".join(map(str, parts))})

    def progress(done: float, total: float | None = None, message: str = "") -> None:
        send({"progress": [done, total, message]})

    module.__dict__.update(log=log, progress=progress)
    return module
