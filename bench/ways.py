"""Ways to have a program run: each takes a program (questions.py) and gives its output; what makes it a contender stands here.

    command(argv_of, ...)    a process for each program: by a blocking call alone, by descriptors of the loop among others
    threaded(call)           a blocking call, for a caller who has others to serve

A way that blocks is called straight from the loop where it is alone, which is its best case: no thread and no wake-up is charged to it.

A command has answered when its output has ended and it was reaped. Its environment is PATH and what the way adds. If this process dies
while one runs, it goes on to its own end.
"""

import asyncio
import functools
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import outside
from .interleave import Contender, Role
from .questions import Language, Program, fresh, wrong

__all__ = ["Ask", "Failed", "Way", "bare_python", "command", "contender", "interpreter", "roots", "threaded"]

Ask = Callable[[Program], Awaitable[str]]

CROWD_THREADS = 100
ROOTS = ("/usr", "/bin", "/sbin", "/lib", "/lib64")


class Failed(Exception):
    """It ended with an error instead of an answer."""


@dataclass(frozen=True, slots=True)
class Way:
    name: str
    role: Role
    about: str
    """Version and settings."""
    alone: Ask
    crowd: Ask
    language: Language = "python"
    single: str = ""
    """Why several at once cannot be asked of it."""
    process: str = ""
    """Name of the process that runs the program, where it cannot make itself known by its threads."""
    reports: str = ""
    """Layers as it tells of itself; shown as such."""

    def find(self, program: Program) -> int | None:
        return outside.find_by_name(self.process) if self.process else outside.find_by_threads(program)


def contender(way: Way) -> Contender:
    inputs = functools.partial(fresh, way.language)
    return Contender(
        way.name, way.role, way.about, way.alone, wrong, crowd=way.crowd, alone=way.single, fresh=lambda: (inputs(),)
    )


def interpreter() -> str:
    """The one behind our venv: every row of Python runs the same."""
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def roots() -> list[str]:
    """Folders that this interpreter needs to start."""
    prefix = Path(sys.base_prefix).resolve()
    present = [root for root in ROOTS if Path(root).exists()]
    return present if prefix.is_relative_to("/usr") else [*present, str(prefix)]


def bare_python(program: Program) -> list[str]:
    return [interpreter(), "-I", "-S", "-c", program.text]


def command(
    name: str,
    role: Role,
    about: str,
    argv_of: Callable[[Program], Sequence[str]],
    *,
    environment: Mapping[str, str] | None = None,
    stdin: bool = False,
    **more: Any,
) -> Way:
    """`stdin`: the program's text is read from there."""
    env = {"PATH": os.environ.get("PATH", os.defpath), **(environment or {})}

    async def alone(program: Program) -> str:
        return _run(argv_of(program), env, program.text if stdin else "")

    async def crowd(program: Program) -> str:
        return await _watched(argv_of(program), env, program.text if stdin else "")

    return Way(name, role, about, alone, crowd, **more)


def threaded(call: Callable[[Program], str]) -> Ask:
    """Of a pool wide enough for every call of a burst to begin at once."""

    async def ask(program: Program) -> str:
        return await asyncio.get_running_loop().run_in_executor(_threads(), call, program)

    return ask


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CROWD_THREADS, "bench")


def _run(argv: Sequence[str], env: Mapping[str, str], text: str) -> str:
    done = subprocess.run(argv, input=text.encode(), capture_output=True, check=False, env=env)
    return _answer(done.returncode, done.stdout, done.stderr)


async def _watched(argv: Sequence[str], env: Mapping[str, str], text: str) -> str:
    loop = asyncio.get_running_loop()
    source, given = os.pipe() if text else (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1)
    if text:
        os.write(given, text.encode())
        os.close(given)
    output, theirs = os.pipe()
    try:
        process = subprocess.Popen(argv, stdin=source, stdout=theirs, stderr=theirs, env=env)  # noqa: ASYNC220  vfork
    finally:
        os.close(source)
        os.close(theirs)
    gone = os.pidfd_open(process.pid)
    ended, reaped = loop.create_future(), loop.create_future()
    parts: list[bytes] = []

    def readable() -> None:
        part = os.read(output, 1 << 16)
        parts.append(part)
        if not part:
            loop.remove_reader(output)
            ended.set_result(None)

    def exited() -> None:
        loop.remove_reader(gone)
        reaped.set_result(process.wait())

    loop.add_reader(output, readable)
    loop.add_reader(gone, exited)
    try:
        await asyncio.gather(ended, reaped)
    finally:
        for descriptor in (output, gone):
            loop.remove_reader(descriptor)
            os.close(descriptor)
    return _answer(process.returncode, b"".join(parts), b"")


def _answer(status: int, output: bytes, complaint: bytes) -> str:
    text = output.decode(errors="replace")
    if status:
        raise Failed(f"exit {status}: {(text + complaint.decode(errors='replace')).strip()[-300:]!r}")
    return text
