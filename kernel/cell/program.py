"""A program's source: compiled, its main found; and its failures as the reports that people and models read.

Guarantees
1. A source that does not compile is reported with its line (`program.syntax`), one without main as `program.no_main`.
2. A traceback holds the program's own lines, never the kernel's.
3. Every way of ending has one code: `guest.exception` (or the code of an uncaught kernel.Error), `guest.exit`, `guest.result`,
   `guest.deadlock`, `run.cancelled`.

The module's name is `program`, not `__main__`: the usual last lines that start a script by themselves do nothing here.
Not here: running it (turns.py). Standard library only.
"""

import asyncio
import linecache
import os
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

from .values import Error

__all__ = ["FILE", "Refused", "as_step_error", "deadlock", "load", "report", "where", "wire"]

FILE = "program.py"
STACK_TASKS_MAX = 20


class Refused(Exception):
    """The source is not a program."""

    def __init__(self, code: str, kind: str, message: str) -> None:
        super().__init__(code, message)
        self.wire = wire(code, kind, message)


def load(source: str, kernel: types.ModuleType) -> Callable[..., Any]:
    """`main` of the source. Raises Refused, or whatever the source's own top level raises."""
    try:
        code = compile(source, FILE, "exec", dont_inherit=True)
    except SyntaxError as error:
        text = (error.text or "").strip()
        message = f"line {error.lineno}: {error.msg}" + (f": {text}" if text else "")
        raise Refused("program.syntax", type(error).__name__, message) from None
    except ValueError as error:  # a NUL in the source
        raise Refused("program.syntax", "SyntaxError", f"line 1: {error}") from None
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    module = types.ModuleType("program")
    module.__file__ = FILE
    module.__dict__["kernel"] = kernel
    sys.modules["program"] = module
    exec(code, module.__dict__)
    main = module.__dict__.get("main")
    if not callable(main):
        lines = len(source.splitlines())
        message = f"no function main in {lines} lines. Write `async def main(input):`, or `def main(input):` with blocking calls."
        raise Refused("program.no_main", "NameError", message)
    return main  # type: ignore[no-any-return]


def report(error: BaseException) -> dict[str, Any]:
    """The `error` of END for what came out of the program."""
    if isinstance(error, Refused):
        return error.wire
    kind = type(error).__name__
    if isinstance(error, SystemExit):
        return wire("guest.exit", kind, f"the program left with exit status {error.code!r}", _traceback(error))
    if isinstance(error, Error):
        return wire(error.code, "kernel.Error", error.message, _traceback(error))
    return wire("guest.exception", kind, _text(error), _traceback(error))


def as_step_error(error: BaseException) -> Error:
    if isinstance(error, Error):
        return error
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE]
    at = f" (line {lines[-1]} of the program)" if lines else ""
    return Error("step.failed", f"{type(error).__name__}: {_text(error)}{at}")


def deadlock(loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    """The report of a program in which everybody waits for somebody inside it."""
    stacks = []
    for task in sorted(asyncio.all_tasks(loop), key=hash)[:STACK_TASKS_MAX]:
        lines = [
            f"  line {frame.f_lineno} in {frame.f_code.co_name}: {linecache.getline(FILE, frame.f_lineno).strip()}"
            for frame in task.get_stack()
            if frame.f_code.co_filename == FILE
        ]
        stacks.append("\n".join([f"{getattr(task, 'path', task.get_name())} waits at", *lines]))
    message = "every task waits, and no call, timer or message is there that could wake one"
    if stacks:
        message += ": " + "; ".join(stack.replace("\n  ", " ").replace("\n", ", ") for stack in stacks)
    return wire("guest.deadlock", "Deadlock", message, "\n".join(stacks))


def where(depth: int) -> str:
    """`line 12` of the program's frame nearest to the caller, for messages."""
    frame = sys._getframe(depth)  # noqa: SLF001 - there is no other way to the caller's line
    found: types.FrameType | None = frame
    while found is not None and found.f_code.co_filename != FILE:
        found = found.f_back
    return "somewhere" if found is None else f"line {found.f_lineno}"


def wire(code: str, kind: str, message: str, trace: str = "") -> dict[str, Any]:
    return {"code": code, "type": kind, "message": _printable(message), "traceback": _printable(trace)}


def _text(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return f"{error.message}: " + "; ".join(f"{type(e).__name__}: {_text(e)}" for e in error.exceptions)
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - __str__ is the program's code
        return f"<its text raised {type(broken).__name__}>"


def _traceback(error: BaseException) -> str:
    here = os.path.dirname(__file__)
    library = os.path.dirname(os.__file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if os.path.dirname(frame.filename) != here and not frame.filename.startswith((library, "<"))
    ]
    parts = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
    parts.append(f"{type(error).__name__}: {_text(error)}")
    if error.__cause__ is not None:
        parts.insert(0, _traceback(error.__cause__) + "\n\nThe above was the direct cause of:\n\n")
    return "".join(parts)


def _printable(text: str) -> str:
    return text[:20_000].encode(errors="replace").decode()
