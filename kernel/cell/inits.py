"""Pid 1 of every sandbox in tier full: a process that reads one pipe to its end, and is nothing else.

    kernel ──life (a pipe that nobody writes to)──> zygote's stdin ──> nursery ──clone──> init, init, init ...

The nursery is forked from the zygote at its start. It has none of the zygote's descriptors, and lends nothing of its memory to its
children but libc and one stack: `clone` starts them in fgetc(stdin). An init is therefore 60 KiB, and there is no code in it that a guest
could talk to. It is born into fresh namespaces of every kind, which a guest then enters; its mount namespace is a copy of the stem's
(zygote.py). Orphans of a sandbox come to it and are reaped by the system, since it ignores SIGCHLD.

Guarantees
1. When the last writer of `life`, the kernel, is gone, every init ends, and with it its pid namespace: all of the sandbox.
2. SIGKILL to an init ends the sandbox; its pidfd is readable when every process of the sandbox is dead.
3. An init never has host uid 0, and no id of its own namespace: as root the nursery has a reserved uid that is no sandbox's.
4. An init is locked as its nursery is: no_new_privs, a Landlock domain without a single file, a filter of 35 system calls. What it has are the
   capabilities of its own user namespace, which nobody without code can use.

One init is made ahead, so that whoever forks a guest need not wait for it: a network namespace takes longer than all else. If the nursery dies, the zygote ends, and the kernel starts another.
"""

import ctypes
import mmap
import os
import signal
import socket
import struct
import sys
from typing import NoReturn

from . import layers

__all__ = ["Nursery"]

_PID = struct.Struct("=i")
_STACK_BYTES = 1 << 16
_STREAM_BYTES = 64
_DONTFORK, _FULLY_BUFFERED = 10, 0
_FLAGS = layers.FULL_NAMESPACES | signal.SIGCHLD


class Nursery:
    """The zygote's end."""

    def __init__(self, uid: int, gid: int, stem: int, program: bytes) -> None:
        """Forks it. `uid` and `gid` are its own; it keeps them when they are ours. `program`: its filter of system calls."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            _serve(theirs, uid, gid, stem, program)
        theirs.close()
        self.order()

    def order(self) -> None:
        """Have the next one made, for `take`."""
        self._socket.send(b"+")

    def take(self) -> tuple[int, int]:
        """Pid and pidfd of a fresh init, ordered before."""
        said, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 1)
        if not said:
            sys.exit("the nursery is gone")
        (pid,) = _PID.unpack_from(said)
        if pid < 0:
            self.order()
            raise layers.LayerError("init", said[_PID.size :].decode())
        return pid, descriptors[0]

    def close(self) -> None:
        """It leaves, and is waited for. Inits stay."""
        self._socket.close()
        os.waitpid(self._pid, 0)


def _serve(zygote: socket.socket, uid: int, gid: int, stem: int, program: bytes) -> NoReturn:
    try:
        try:
            birth = _settle_in(zygote, uid, gid, stem, program)
        except layers.LayerError as error:
            while zygote.recv(1):
                zygote.send(_PID.pack(-1) + str(error).encode())
            os._exit(1)
        while zygote.recv(1):
            try:
                pid = birth.make()
                pidfd = os.pidfd_open(pid)
            except (OSError, layers.LayerError) as error:
                zygote.send(_PID.pack(-1) + str(error).encode())
            else:
                socket.send_fds(zygote, [_PID.pack(pid)], [pidfd])
                os.close(pidfd)
        os._exit(0)
    finally:
        os._exit(1)


def _settle_in(zygote: socket.socket, uid: int, gid: int, stem: int, program: bytes) -> "_Birth":
    layers.enter(stem, "mount")
    layers.close_all_but((0, 1, 2, zygote.fileno()))
    if os.geteuid() != uid:
        layers.keep_capabilities()
        layers.become(uid, gid)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    birth = _Birth()
    layers.no_new_privileges()
    layers.confine_files((), tcp_denied=False)
    layers.filter_calls(program)
    return birth


class _Birth:
    """`clone` into a function of libc, on a stack of its own, with nothing else of ours mapped."""

    def __init__(self) -> None:
        libc = ctypes.PyDLL(None, use_errno=True)
        self._ground = mmap.mmap(-1, _STACK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._ground))
        stream = ctypes.c_void_p.in_dll(libc, "stdin")
        libc.setvbuf(stream, ctypes.c_void_p(address), _FULLY_BUFFERED, ctypes.c_size_t(_STREAM_BYTES))
        self._clone = libc.clone
        self._arguments = (
            libc.fgetc, ctypes.c_void_p(address + _STACK_BYTES), ctypes.c_int(_FLAGS), stream,
        )  # fmt: skip
        libc.pthread_self.restype = ctypes.c_ulong
        for low, high in _dispensable((address, libc.pthread_self())):
            libc.madvise(ctypes.c_ulong(low), ctypes.c_ulong(high - low), _DONTFORK)

    def make(self) -> int:
        pid: int = self._clone(*self._arguments)
        if pid < 0:
            raise layers.LayerError("user namespace", f"clone: {os.strerror(ctypes.get_errno())}")
        return pid


def _dispensable(wanted: tuple[int, ...]) -> list[tuple[int, int]]:
    """All of our memory but libc (its data and what follows them), the system's own pages, and where the addresses `wanted` lie."""
    spans: list[tuple[int, int]] = []
    of_libc, end = False, 0
    with open("/proc/self/maps", encoding="utf8") as maps:
        for line in maps:
            place, _, _, _, inode, *name = line.split()
            low, high = (int(number, 16) for number in place.split("-"))
            path = name[0] if name else ""
            file = path.rpartition("/")[2]
            of_libc = file.startswith(("libc.so", "libc-", "ld-musl")) or (of_libc and inode == "0" and low == end)
            end = high
            if of_libc or path.startswith("[v") or any(low <= address < high for address in wanted):
                continue
            if spans and spans[-1][1] == low:
                spans[-1] = (spans[-1][0], high)
            else:
                spans.append((low, high))
    return spans
