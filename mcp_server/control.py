"""The control socket: how `agent-kernel items`, `approve`, `deny` and `status` reach a kernel that is running, and bridges join it.

    STATE/control    unix stream socket, 0600, in a folder that is 0700
    request          one JSON line {"v": 1, "op": "items" | "approve" | "deny" | "status" | "memory_import" | ..., ...}
    reply            one JSON line {"ok": value} or {"error": {code, message, fault, retryable}}
    a bridge         says hello instead (hello.py), and stays

It is the person's way in, beside the client that may have caused what is asked. Sandboxes cannot reach it: they may not create
AF_UNIX sockets, and the folder is not in their view.

Guarantees
1. Only the holder of the folder's lock makes or removes the socket, so one that is there without a listener is stale.
2. A peer of another uid gets no answer; root is refused too unless the kernel runs as root.
3. Any path length: past 107 bytes bind and connect go through a descriptor of the folder (/proc/self/fd/N/control).
4. One line of at most `LINE_BYTES_MAX` each way, within `PATIENCE_S`; a slow or broken peer costs one connection.

If the process dies the socket file stays; the next kernel of the folder replaces it, and callers are told that nothing runs.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agent_kernel.base import system
from agent_kernel.base.errors import ArgumentError, HostError, KernelError, KernelFault

__all__ = ["Control", "ask"]

log = logging.getLogger("agent_kernel.control")

NAME = "control"
VERSION = 1
LINE_BYTES_MAX = 4 << 20
"""A memory of 256 KiB takes six times that in JSON when it is all control characters."""
PATIENCE_S = 10.0
ANSWER_S = 60.0

Serve = Callable[[str, Mapping[str, Any]], Awaitable[Any]]
Join = Callable[[dict[str, Any], socket.socket], Awaitable[None]]


@contextlib.contextmanager
def _address(folder: Path) -> Iterator[str]:
    """A path to the socket that is short enough, valid inside the block."""
    path = str(folder / NAME)
    if len(os.fsencode(path)) <= system.SUN_PATH_MAX or not system.ISOLATES:
        yield path
        return
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{NAME}"
    finally:
        os.close(fd)


class Control:
    """The listening side; made and closed by whoever holds the folder's lock."""

    def __init__(self, folder: Path, listener: socket.socket, serve: Serve, join: Join | None) -> None:
        self._folder, self._listener, self._serve, self._join = folder, listener, serve, join
        self._open: set[asyncio.Task[None]] = set()
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept)

    @classmethod
    async def open(cls, folder: Path, serve: Serve, join: Join | None = None) -> "Control":
        """`serve(op, request)` gives the value of one request, or raises KernelError. `join(hello, socket)` takes a bridge over."""
        (folder / NAME).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _address(folder) as path:
                listener.bind(path)
                os.chmod(path, 0o600)  # noqa: PTH101  (the path may go through a descriptor)
            listener.listen(128)
            listener.setblocking(False)  # noqa: FBT003
        except OSError as error:
            listener.close()
            raise HostError(
                "state.control", f"{folder / NAME} cannot be made: {error}. Name another folder with --state."
            ) from error
        return cls(folder, listener, serve, join)

    def close(self) -> None:
        """Nobody is let in any more. Who is being answered is answered."""
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._listener.close()
        (self._folder / NAME).unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:  # it left again; or there are no descriptors: it waits in the queue
            log.warning("a connection could not be taken: %s", error)
            return
        sock.setblocking(False)  # noqa: FBT003
        task = asyncio.ensure_future(self._connected(sock))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _connected(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            if system.peer_uid(sock) != system.uid():
                return
            async with asyncio.timeout(PATIENCE_S):
                line = await _line(sock)
            said = _joins(line)
            if said is not None:
                taken, sock = sock, socket.socket()
                await (self._join or _alone)(said, taken)
                return
            async with asyncio.timeout(ANSWER_S):
                await loop.sock_sendall(sock, await _reply(self._serve, line))
        except (OSError, ValueError, TimeoutError) as error:  # ValueError: a line past the limit
            log.warning("a control connection ended early: %s", error)
        finally:
            sock.close()


async def _line(sock: socket.socket) -> bytes:
    """Up to the end of the line, or of what is sent. Who says more than one line has not understood."""
    data = bytearray()
    while not data.endswith(b"\n"):
        part = await asyncio.get_running_loop().sock_recv(sock, 65536)
        if not part:
            break
        data += part
        if len(data) > LINE_BYTES_MAX:
            raise ValueError(f"a line of more than {LINE_BYTES_MAX} bytes")
    return bytes(data)


def _joins(line: bytes) -> dict[str, Any] | None:
    """What a bridge says first; None for everything else, good or bad."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) and "protocol" in said else None


async def _alone(_: Mapping[str, Any], sock: socket.socket) -> None:
    """The owner of the folder serves one host in its own process."""
    refusal = HostError(
        "state.locked",
        f"The folder is in use by the agent kernel with pid {os.getpid()}, which was started for one host alone (--standalone)."
        " Stop that one, or name another folder with --state.",
    )
    with sock:
        await asyncio.get_running_loop().sock_sendall(sock, json.dumps({"error": str(refusal)}).encode() + b"\n")


async def _reply(serve: Serve, line: bytes) -> bytes:
    try:
        request = json.loads(line)
        if not isinstance(request, dict) or request.get("v") != VERSION or not isinstance(request.get("op"), str):
            answer = {"error": _not_understood(f"expected an object with v={VERSION} and op").to_wire()}
        else:
            answer = {"ok": await serve(request["op"], request)}
    except ValueError as error:
        answer = {"error": _not_understood(str(error)).to_wire()}
    except KernelError as error:
        answer = {"error": error.to_wire()}
    except Exception as error:  # the boundary of this door: a bug costs one answer, not the kernel
        log.exception("a control request failed")
        answer = {"error": KernelFault.of(error).to_wire()}
    return json.dumps(answer).encode() + b"\n"


def _not_understood(why: str) -> KernelError:
    return ArgumentError(
        "control.protocol", f"The request is not understood: {why}. Use the agent-kernel of the same version."
    )


def ask(folder: Path, op: str, **fields: Any) -> Any:
    """Ask the kernel that runs on `folder`; None when none listens there."""
    if not system.CONTROL_SOCKETS:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE_S + ANSWER_S)
        try:
            with _address(folder) as path:
                sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return None
        except OSError as error:
            raise HostError("state.control", f"{folder / NAME} cannot be reached: {error}.") from error
        try:
            sock.sendall(json.dumps({"v": VERSION, "op": op, **fields}).encode() + b"\n")
            reply = b"".join(iter(lambda: sock.recv(65536), b""))
            answer = json.loads(reply)
        except (OSError, ValueError) as error:
            raise HostError(
                "state.control",
                f"The kernel on {folder} did not answer: {error}. It may be ending; try again.",
                retryable=True,
            ) from error
    if "error" in answer:
        raise KernelError.from_wire(answer["error"])
    return answer["ok"]
