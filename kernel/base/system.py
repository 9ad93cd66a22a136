"""The operating system: which one this is, and what stands in for what it has not. The only file that asks.

    Linux      everything
    macOS      no sandbox, hence no program; a network folder is not recognised as one; a control socket only where its path fits
    Windows    as macOS; no control socket, so that `approve` waits until the kernel has ended; who may enter the state folder is left
               to its access list; pipes are read by a thread and written on the loop; no uvloop

Guarantees
1. Every file of the kernel and of its MCP server can be imported on each of them. What needs Linux is refused when it is asked for,
   with `sandbox.unavailable` or `host.unsupported`, and nothing that waits for a sandbox is given up: it goes on where there is one.
2. On Linux nothing here makes a check weaker.

Not run on a real macOS or Windows machine: tests/test_system.py takes away on Linux what those lack, module by module.
"""

import contextlib
import errno
import importlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

__all__ = [
    "CONTROL_SOCKETS", "END_SIGNALS", "ISOLATES", "NAME", "NO_SANDBOX", "PACKAGES", "POLLS_PIPES", "SUN_PATH_MAX", "by_signal", "duplicate",
    "event_loop",    "fcntl", "flags", "lock", "open_to_others", "ours", "peer_uid", "pidfd", "sysconf", "uid",
]  # fmt: skip

NAME = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
ISOLATES = NAME == "Linux"
NO_SANDBOX = (
    f"Sandboxes need Linux, this is {NAME}. Memory, skills, the journal and what waits for a person work here; programs go on when the"
    " state folder is opened on Linux. Run Agent Kernel on a Linux machine or VM."
)
POLLS_PIPES = NAME != "Windows"
CONTROL_SOCKETS = hasattr(socket, "AF_UNIX") and NAME != "Windows"
SUN_PATH_MAX = 107 if ISOLATES else 103
END_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name) and POLLS_PIPES
)
"""Those that an event loop can hand over."""
PACKAGES = (
    "mcp",
    "pydantic",
    "aiosqlite",
    "orjson",
    "PyYAML",
    *(["uvloop"] if POLLS_PIPES else []),
    *(["pyseccomp"] if ISOLATES else []),
)
"""What pyproject.toml asks for here."""
SOL_LOCAL, LOCAL_PEERCRED, XUCRED_BYTES = 0, 1, 76
"""macOS: sys/un.h and sys/ucred.h; the uid follows four bytes of version."""
LOCK_AT = 1 << 30
"""Windows locks bytes and lets nobody read them: one far behind what the file says."""

fcntl: Any = None
with contextlib.suppress(ImportError):
    fcntl = importlib.import_module("fcntl")


def uid() -> int | None:
    return os.geteuid() if hasattr(os, "geteuid") else None


def ours(facts: os.stat_result) -> bool:
    return uid() is None or facts.st_uid == uid()


def open_to_others(facts: os.stat_result) -> int:
    """The bits of the mode that let others in."""
    return 0 if uid() is None else facts.st_mode & 0o077


def flags(*names: str) -> int:
    """Flags of os.open, without those that this system does not have."""
    found = 0
    for name in names:
        found |= getattr(os, name) if ISOLATES else getattr(os, name, 0)
    return found


def lock(descriptor: int) -> None:
    """Take the file for this process until the descriptor is closed; raises OSError when another has it."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    msvcrt: Any = importlib.import_module("msvcrt")
    os.lseek(descriptor, LOCK_AT, os.SEEK_SET)
    msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)


def duplicate(descriptor: int) -> int:
    """A copy that no child inherits and that is none of the standard ones."""
    if fcntl is None:
        return os.dup(descriptor)
    return int(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3))


def peer_uid(sock: Any) -> int:
    """Who is at the other end of a unix socket."""
    if ISOLATES:
        return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])
    return int(struct.unpack_from("I", sock.getsockopt(SOL_LOCAL, LOCAL_PEERCRED, XUCRED_BYTES), 4)[0])


def pidfd(pid: int) -> int:
    """A descriptor that can be read when the process has ended; raises OSError where there are none."""
    if not hasattr(os, "pidfd_open"):
        raise OSError(errno.ENOSYS, "no pidfds here")
    return os.pidfd_open(pid)


def sysconf(name: str) -> int:
    """1 where there is no such figure."""
    return os.sysconf(name) if hasattr(os, "sysconf") else 1


def by_signal(**words: str) -> dict[int | None, str]:
    """Words by the numbers of signals that exist."""
    return {getattr(signal, name): word for name, word in words.items() if hasattr(signal, name)}


def event_loop() -> Callable[[], Any] | None:
    """The maker of a faster loop; None for asyncio's own."""
    with contextlib.suppress(ImportError):
        made: Callable[[], Any] = importlib.import_module("uvloop").new_event_loop
        return made
    return None
