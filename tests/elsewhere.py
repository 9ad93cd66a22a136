"""Makes this interpreter look like one on macOS or Windows to what is imported after `pretend`: what those lack is taken away.

The standard library and other people's packages are imported before, since they choose their own parts for the real system.
"""

import asyncio
import importlib
import io
import os
import signal
import socket
import sys
import types

BEFORE = (
    "aiosqlite orjson yaml argparse asyncio concurrent.futures.thread ctypes difflib encodings.idna importlib.metadata json logging mimetypes"
    " platform shlex shutil signal socket sqlite3 ssl subprocess tempfile textwrap tomllib traceback urllib.parse"
)
BEFORE_SERVING = (
    "anyio mcp.server.lowlevel mcp.server.request_state mcp.shared.message mcp.shared.exceptions mcp_types pydantic rich.console rich.table"
    " rich.text"
)

LINUX_MODULES = {"pyseccomp", "seccomp"}
LINUX_ONLY = {
    os: "O_PATH O_TMPFILE eventfd getxattr memfd_create pidfd_open pipe2 posix_fadvise sched_getaffinity sched_setaffinity setns unshare"
    " MFD_CLOEXEC MFD_ALLOW_SEALING",
    signal: "pidfd_send_signal",
    socket: "SO_PEERCRED SOCK_CLOEXEC SOCK_NONBLOCK",
}
POSIX_MODULES = {"fcntl", "grp", "pwd", "pty", "resource", "termios", "tty", "uvloop"}
POSIX_ONLY = {
    os: "O_CLOEXEC O_DIRECTORY O_NOCTTY O_NOFOLLOW O_NONBLOCK chown fchmod fchown fork getegid geteuid getgid getpgid getuid killpg lchown"
    " major mkfifo pread pwrite setsid statvfs fstatvfs sysconf waitid",
    signal: "SIGHUP SIGKILL SIGXCPU SIGXFSZ SIGCHLD",
    socket: "AF_UNIX send_fds recv_fds",
}  # fmt: skip


class _Absent:
    def __init__(self, names):
        self.names = names

    def find_spec(self, name, *_):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def pretend(platform, *, serving=False):
    """`darwin` or `win32`, for what is imported from now on."""
    for name in f"{BEFORE} {BEFORE_SERVING if serving else ''}".split():
        importlib.import_module(name)
    absent = set(LINUX_MODULES)
    _take(LINUX_ONLY)
    opens = io.open
    io.open = lambda path, *given, **named: opens(_no_proc(path), *given, **named)
    real = importlib.import_module("fcntl")
    if hasattr(real, "F_ADD_SEALS"):
        del real.F_ADD_SEALS
    if platform == "win32":
        absent |= POSIX_MODULES
        _windows(real)
    for name in absent:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Absent(absent))
    sys.platform = platform


def _no_proc(path):
    if str(path).startswith("/proc/"):
        raise FileNotFoundError(2, "No such file or directory", path)
    return path


def _take(lists):
    for module, names in lists.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)


def _windows(real):
    """Locks by bytes, a loop that takes neither pipes nor signals nor unix sockets."""

    def locking(descriptor, mode, count):
        real.flock(descriptor, real.LOCK_EX | real.LOCK_NB)

    sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=locking)
    pair, family = socket.socketpair, socket.AF_UNIX
    socket.socketpair = lambda *given: pair(*(given or (family,)))  # the loop's own, which is a TCP pair there
    _take(POSIX_ONLY)
    loop = asyncio.SelectorEventLoop
    for name in ("add_signal_handler", "create_unix_server", "create_unix_connection"):
        setattr(loop, name, _not_there)
    inner = loop.add_reader
    loop.add_reader = lambda self, fd, *given: inner(self, fd, *given) if _is_socket(fd) else _not_there()
    loop.add_writer = _not_there


def _is_socket(fd):
    return hasattr(fd, "getsockname")


def _not_there(*_):
    raise NotImplementedError
