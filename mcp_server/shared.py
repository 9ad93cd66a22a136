"""The kernel that hosts share: who is connected, who may come, and when it may leave.

    bridge --hello--> join: protocol, version, tier, grants are checked -> an MCP server of its own on that connection -> gone

Guarantees
1. Grants, folders, profiles and the label belong to a connection: each has a `Face` of its own, and nothing that one says about itself is
   seen by another. Of its environment nothing arrives.
2. It leaves by itself when for `idle_exit_s` nobody was connected and no run had work to do; a run that sleeps longer than that, or waits
   for a person, does not hold it: it goes on at the next start. The same at once when its installation was removed (`uvx` cleans up).
3. A newer version takes its place only when it is idle: it lets the newer bridge know, and leaves. An older bridge is served.
4. On its way out nobody is let in, then connections end as by an end of input, then the kernel closes.

If it dies instead, bridges start another and send again what was not answered (bridge.py, once.py).
"""

import asyncio
import contextlib
import json
import logging
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_kernel import Kernel
from agent_kernel.base.errors import ArgumentError, HostError, KernelError
from agent_kernel.base.policy import MEMORY_PROFILES, TOOLSETS, Folder, Grants

from . import hello
from .numbers import Numbers
from .server import build
from .transport import Wire

__all__ = ["Shared"]

log = logging.getLogger("agent_kernel.shared")

LOOK_S = 5.0
"""How often it is asked whether there is still a reason to stay."""


@dataclass(eq=False, slots=True)
class Connection:
    wire: Wire
    said: Mapping[str, Any]
    since: float

    def shown(self, now: float) -> dict[str, Any]:
        """For the person at a terminal."""
        return {
            "agent": self.said.get("agent"), "version": self.said.get("version"), "cwd": self.said.get("cwd"),
            "calls": len(self.wire.open_requests), "connected_s": round(now - self.since, 1),
        }  # fmt: skip


class Shared:
    def __init__(self, kernel: Kernel, idle_exit_s: float) -> None:
        """`idle_exit_s` 0: it stays."""
        self._kernel, self._idle_exit_s = kernel, idle_exit_s
        self._connections: set[Connection] = set()
        self._served: set[asyncio.Task[None]] = set()
        self._life = kernel.ports.entropy(6).hex()
        self._over = asyncio.Event()
        self._idle_since = kernel.ports.clock.monotonic()

    def leave(self) -> None:
        self._over.set()

    async def over(self) -> None:
        """Until there is a reason to leave."""
        look_s = min(LOOK_S, self._idle_exit_s / 4) if self._idle_exit_s else LOOK_S
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(look_s):
                    await self._over.wait()
            if await self._at_work():
                self._idle_since = self._now()
                continue
            if not await asyncio.to_thread(_installed):
                log.warning("its installation was removed: it leaves")
                return
            if self._idle_exit_s and self._now() - self._idle_since >= self._idle_exit_s:
                log.warning("idle for %g s: it leaves", self._idle_exit_s)
                return

    async def close(self) -> None:
        for connection in self._connections:
            connection.wire.ended()
        if self._served:
            await asyncio.wait(self._served)

    def clients(self) -> list[dict[str, Any]]:
        now = self._now()
        return [connection.shown(now) for connection in self._connections]

    # --- who comes

    async def join(self, said: dict[str, Any], sock: socket.socket) -> None:
        """The whole life of one connection."""
        with sock:
            try:
                answer, grants = await self._welcome(said)
            except KernelError as error:
                answer, grants = {"error": str(error)}, None
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, json.dumps(answer).encode() + b"\n")
            if grants is None:
                return
            numbers = Numbers(str(said.get("bridge"))[:64], self._life)
            wire = Wire(sock.dup().detach(), sock.dup().detach(), self._kernel.policy.limits, numbers)
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(wire, said, self._now())
        self._connections.add(connection)
        self._served.add(task)
        try:
            profiles = (*self._kernel.policy.memory.profiles, *said.get("memory_profiles", ()))
            server = build(self._kernel, profiles, said.get("agent"), grants, toolsets=said.get("toolsets", ()))
            await server.run(wire.incoming, wire.outgoing, server.create_initialization_options())
        except Exception:  # one host's connection, not the kernel
            log.exception("a connection ended by a fault of ours")
        finally:
            await wire.close()
            self._connections.discard(connection)
            self._served.discard(task)
            self._idle_since = self._now()

    async def _welcome(self, said: Mapping[str, Any]) -> tuple[dict[str, Any], Grants | None]:
        protocol, version = said.get("protocol"), str(said.get("version"))
        if self._over.is_set():
            return {"replace": True}, None
        ahead = isinstance(protocol, int) and protocol > hello.PROTOCOL
        comes_newer = ahead or (protocol == hello.PROTOCOL and hello.newer(version, hello.VERSION))
        if comes_newer and not await self._at_work():
            log.warning("version %s comes, %s leaves", version, hello.VERSION)
            self.leave()
            return {"replace": True}, None
        if protocol != hello.PROTOCOL:
            text = (
                f"The kernel that runs has version {hello.VERSION} and protocol {hello.PROTOCOL}, this host's agent-kernel {version} and protocol {protocol}."
                f" {'End the older with `agent-kernel stop` when its hosts are done' if ahead else 'Install the newer version for this host too'}."
            )
            raise HostError("kernel.protocol", text)
        wanted, tier = said.get("tier"), self._kernel.sandbox.tier
        if wanted is not None and wanted != tier:
            raise HostError(
                "sandbox.tier",
                f"--tier {wanted} was asked for, the kernel that runs has tier {tier}. Stop it with `agent-kernel stop`, or leave --tier out.",
            )
        return {"ok": {"protocol": hello.PROTOCOL, "version": hello.VERSION}}, self._granted(said)

    def _granted(self, said: Mapping[str, Any]) -> Grants:
        asked, profiles = said.get("grants"), said.get("memory_profiles", [])
        lists = ("folders", "hosts")
        fits = isinstance(asked, dict) and all(
            isinstance(asked.get(name), list) and all(isinstance(item, str) for item in asked[name]) for name in lists
        )
        for name in said.get("toolsets", ()):
            if name not in TOOLSETS:
                raise HostError("config.invalid", f"--toolsets {name!r}: there are {', '.join(TOOLSETS)}.")
        if not fits or not isinstance(profiles, list) or not set(profiles) <= set(MEMORY_PROFILES):
            raise ArgumentError(
                "kernel.protocol", "The hello of the bridge is not understood. Install one version for all hosts."
            )
        assert isinstance(asked, dict)
        grants = Grants(
            folders=tuple(Folder.parse(text) for text in asked["folders"]),
            hosts=tuple(asked["hosts"]),
            packages=asked.get("packages") is True,
            approve_in_host=asked.get("approve_in_host") is True,
        )
        return self._kernel.policy.granted(grants, self._kernel.store.folder)

    # --- whether there is a reason to stay

    def _now(self) -> float:
        return self._kernel.ports.clock.monotonic()

    def _calls(self) -> bool:
        return any(connection.wire.open_requests for connection in self._connections)

    async def _at_work(self) -> bool:
        if self._connections:
            return True
        return self._kernel.sandbox.tier != "none" and bool(await self._kernel.runs.due(self._idle_exit_s))


def _installed() -> bool:
    """Whether this program is still there: `uvx` removes environments that somebody runs from."""
    return Path(sys.prefix).exists() and Path(__file__).exists()
