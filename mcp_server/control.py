"""The control socket: how `agent-kernel items`, `approve`, `deny` and `status` reach a kernel that is running.

    STATE/control    unix stream socket, 0600, in a folder that is 0700
    request          one JSON line {"v": 1, "op": "items" | "approve" | "deny" | "status" | "memory_import" | ..., ...}
    reply            one JSON line {"ok": value} or {"error": {code, message, fault, retryable}}

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

    def __init__(self, folder: Path, server: asyncio.Server) -> None:
        self._folder = folder
        self._server = server

    @classmethod
    async def open(cls, folder: Path, serve: Serve) -> "Control":
        """`serve(op, request)` gives the value of one request, or raises KernelError."""
        (folder / NAME).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _address(folder) as path:
                listener.bind(path)
                os.chmod(path, 0o600)  # noqa: PTH101  (the path may go through a descriptor)
            listener.listen(16)
            listener.setblocking(False)  # noqa: FBT003
            server = await asyncio.start_unix_server(_connection(serve), sock=listener, limit=LINE_BYTES_MAX)
        except OSError as error:
            listener.close()
            raise HostError(
                "state.control", f"{folder / NAME} cannot be made: {error}. Name another folder with --state."
            ) from error
        return cls(folder, server)

    def close(self) -> None:
        self._server.close()
        (self._folder / NAME).unlink(missing_ok=True)


def _connection(serve: Serve) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if _peer_uid(writer) == system.uid():
                async with asyncio.timeout(PATIENCE_S):
                    line = await reader.readline()
                async with asyncio.timeout(ANSWER_S):
                    writer.write(await _reply(serve, line))
                    await writer.drain()
        except (OSError, ValueError, TimeoutError) as error:  # ValueError: a line past the limit
            log.warning("a control connection ended early: %s", error)
        finally:
            writer.close()

    return connected


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


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    return system.peer_uid(writer.get_extra_info("socket"))


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
