"""A kernel in this process, behind one MCP connection on stdio and the control socket of its folder.

Order of a start: the wire is claimed (stdio.py, before this file is imported), the kernel opens (lock, config, store: whatever is
wrong there ends the process with one line on stderr), the control socket, then the first message is read. Order of an end: no more
input, open requests answered, socket gone, kernel closed, lock free.

Guarantees
1. End of input, the end of the process that started us, SIGTERM, SIGINT and SIGHUP all end the server the same way, with status 0.
2. The control socket exists only while this process holds the folder's lock.

If the process dies instead, the lock falls with it, the socket file is stale, and runs go on at the next start.
"""

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent_kernel import Kernel
from agent_kernel.base import system
from agent_kernel.base.errors import ArgumentError
from agent_kernel.base.policy import Grants, load_policy

from . import importing, quarantine, resources, skill_cli
from .control import Control
from .stdio import watch_parent
from .values import wire

__all__ = ["Options", "answer", "serve_shared", "serve_stdio"]

STOP_S = 0.05
"""For the answer to whoever asked it to stop."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator said on the command line."""

    state: Path
    grants: Grants = field(default_factory=Grants)
    agent: str | None = None
    tier: str | None = None
    memory_profiles: tuple[str, ...] = ()
    toolsets: tuple[str, ...] = ()


async def serve_stdio(options: Options, source: int, sink: int, parent: int) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="agent-kernel: %(levelname)s %(name)s: %(message)s"
    )
    grants = load_policy(options.state / "config.toml").granted(options.grants, options.state)
    # The SDK takes half a second to import, the kernel's children some time to come up: at the same time.
    importing = asyncio.ensure_future(asyncio.to_thread(_import_face))
    async with Kernel.open(options.state, grants=grants, tier=options.tier) as kernel:
        build, wire_of = await importing
        control = None
        if system.CONTROL_SOCKETS:
            control = await Control.open(
                kernel.store.folder, lambda op, request: answer(kernel, op, request, options.agent)
            )
        connection = wire_of(source, sink, kernel.policy.limits)
        stop_watching = watch_parent(parent, connection.ended)
        for number in system.END_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, connection.ended)
        profiles = (*kernel.policy.memory.profiles, *options.memory_profiles)
        server = build(kernel, profiles, options.agent, toolsets=options.toolsets)
        try:
            await server.run(connection.incoming, connection.outgoing, server.create_initialization_options())
        finally:
            stop_watching()
            await connection.close()
            if control is not None:
                control.close()


async def serve_shared(options: Options, idle_exit_s: float, ready: Callable[[dict[str, Any]], None]) -> None:
    """The kernel of all hosts of the folder; `ready` is told once, when they may come."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    )
    importing = asyncio.ensure_future(asyncio.to_thread(importlib.import_module, "agent_kernel_mcp.shared"))
    async with Kernel.open(options.state, tier=options.tier) as kernel:
        shared = (await importing).Shared(kernel, idle_exit_s)

        async def asked(op: str, request: Mapping[str, Any]) -> Any:
            if op == "stop":
                asyncio.get_running_loop().call_later(STOP_S, shared.leave)
                return {"pid": os.getpid()}
            told = await answer(kernel, op, request)
            return {**told, "clients": shared.clients()} if op == "status" else told

        for number in system.END_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, shared.leave)
        control = await Control.open(kernel.store.folder, asked, shared.join)
        try:
            ready({"ok": os.getpid()})
            await shared.over()
        finally:
            control.close()
            await shared.close()


def _import_face() -> tuple[Any, Any]:
    server = importlib.import_module("agent_kernel_mcp.server")
    return server.build, importlib.import_module("agent_kernel_mcp.transport").Wire


async def answer(kernel: Kernel, op: str, request: Mapping[str, Any], agent: str | None = None) -> Any:
    """One request of a person at a terminal, by the control socket or with the kernel opened for it."""
    match op:
        case "status":
            return {**await resources.status(kernel), **({"agent": agent} if agent else {})}
        case "items":
            return [item for item in wire(await kernel.runs.items()) if item["answer_by"] == "person"]
        case "approve" | "deny":
            return wire(await kernel.runs.answer_item(str(request.get("item_id")), op, note=request.get("note")))
        case "memory_quarantine" | "memory_release" | "memory_refuse":
            return await quarantine.answer(kernel.memory, op, request)
        case "memory_stats":
            return wire(await kernel.memory.stats())
        case "memory_import":
            return await importing.take(kernel.store, kernel.memory, kernel.limits, request)
        case _ if op in skill_cli.OPERATIONS:
            return await skill_cli.answer(kernel.skills, op, request)
    raise ArgumentError("control.protocol", f"There is no operation {op!r}. Use the agent-kernel of the same version.")
