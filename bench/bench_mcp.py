"""MCP on stdio, as a host sees it: what a call takes, how soon the first result comes, what a host more costs in memory.

    mcp.call            one tools/call, answered before the next one
    mcp.call32          32 at once on one connection
    mcp.first           exec, handshake, first result, with a kernel that runs already
    mcp.first_started   the same where the kernel has to be started too
    mcp.memory          what processes hold, with one host and with eight

The client is the same for all: a process's pipes and lines of JSON, so that its own cost stays small beside what is measured. The tools are
like: a short text comes back. Ours reads the standing notes from SQLite for it; the others' return a number they add up.

Controls: a loop in Python that answers each line with a fixed reply, which is the least that a Python server on pipes can cost.
Base: the SDK's own MCPServer over its own stdio transport.
"""

import asyncio
import contextlib
import importlib.metadata
import itertools
import json
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from .interleave import Absent, Case, Contender
from .peers import Pin, installed, interpreter_of
from .survey import Table

__all__ = ["PINS", "cases"]

FASTMCP = Pin("FastMCP", "PyPI", "fastmcp", "4.1.2")
PINS = (FASTMCP,)

STOCK = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("stock")
@server.tool()
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b
server.run()
"""
LOW = """
import anyio, mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
async def listed(ctx, params):
    return types.ListToolsResult(tools=[types.Tool(name="add", description="Add.", input_schema={"type": "object"})])
async def called(ctx, params):
    given = params.arguments or {}
    return types.CallToolResult(content=[types.TextContent(type="text", text=str(given["a"] + given["b"]))])
server = Server("low", on_list_tools=listed, on_call_tool=called)
async def main():
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
anyio.run(main)
"""
FAST = """
from fastmcp import FastMCP
server = FastMCP("fast")
@server.tool
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b
server.run(show_banner=False)
"""
LOOP = """
import json, sys
for line in sys.stdin.buffer:
    asked = json.loads(line)
    if "id" in asked:
        told = {"jsonrpc": "2.0", "id": asked["id"], "result": {"content": [{"type": "text", "text": "3"}]}}
        sys.stdout.buffer.write(json.dumps(told).encode() + b"\\n")
        sys.stdout.buffer.flush()
"""
INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
ADD: dict[str, Any] = {"name": "add", "arguments": {"a": 1, "b": 2}}
NOTES: dict[str, Any] = {"name": "memory_blocks", "arguments": {}}
HOSTS = 8


class _Client:
    """One server process and the lines to it."""

    def __init__(self, command: Sequence[str], call: dict[str, Any]) -> None:
        self._command, self._call = command, call
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def open(self) -> "_Client":
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )  # fmt: skip
        self._reading = asyncio.ensure_future(self._read())
        await self._ask("initialize", INITIALIZE)
        self._say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    async def call(self) -> Any:
        return await self._ask("tools/call", self._call)

    async def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()
        await self._reading

    def _say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _ask(self, method: str, params: dict[str, Any]) -> Any:
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._say({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return await answer

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            heard = json.loads(line)
            if "method" not in heard:
                self._waiting.pop(heard["id"]).set_result(heard)
        for answer in self._waiting.values():
            answer.set_exception(ConnectionError("the server left"))


def _wrong(answer: Any) -> str | None:
    result = answer.get("result") or {}
    return None if result.get("content") and not result.get("isError") else f"{answer}"


def _mcp(state: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "agent_kernel_mcp", "mcp", "--state", str(state), *options]


@asynccontextmanager
async def cases(folder: Path, *, peers: Path | None, smoke: bool = False) -> AsyncIterator[list[Case | Table]]:
    """The cases, with the servers of the first two open."""
    sdk = f"mcp {importlib.metadata.version('mcp')}"
    servers: list[tuple[str, Any, str, list[str], dict[str, Any]]] = [
        (
            "bridge",
            "subject",
            "agent-kernel mcp; the kernel is another process, shared by all hosts",
            _mcp(folder / "shared"),
            NOTES,
        ),
        ("standalone", "subject", "agent-kernel mcp --standalone", _mcp(folder / "alone", "--standalone"), NOTES),
        ("MCPServer", "peer", f"{sdk}, MCPServer.run()", [sys.executable, "-c", STOCK], ADD),
        ("low-level Server", "peer", f"{sdk}, Server over stdio_server()", [sys.executable, "-c", LOW], ADD),
        ("loop", "control", "for line in stdin: json.loads, json.dumps", [sys.executable, "-c", LOOP], ADD),
    ]
    absent = []
    if peers is not None and installed(peers, FASTMCP) == FASTMCP.version:
        command = [str(interpreter_of(peers)), "-c", FAST]
        servers.insert(4, (FASTMCP.peer, "peer", f"{FASTMCP.package} {FASTMCP.version}, FastMCP.run()", command, ADD))
    else:
        absent.append(Absent(FASTMCP.peer, "not installed", "agent-kernel bench mcp --peers"))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_stop, folder / "shared")
        open_clients = []
        for name, role, about, command, call in servers:
            client = await _Client(command, call).open()
            stack.push_async_callback(client.close)
            open_clients.append(Contender(name, role, about, client.call, _wrong))
        firsts = [
            Contender(n, role, about, _first(command, call), _wrong)
            for n, role, about, command, call in servers
            if n != "standalone"
        ]
        yield [
            Case("mcp.call", "One tools/call on stdio", open_clients, base="MCPServer", passes=200, absent=absent),
            Case("mcp.call32", "32 tools/call at once on one connection", open_clients, base="MCPServer", passes=20, at_once=32, absent=absent),
            Case("mcp.first", "Exec to first tool result, with a kernel that runs", firsts, base="MCPServer", passes=6, absent=absent),
            Case(
                "mcp.first_started", "Exec to first tool result, with the kernel to be started",
                [_started(folder), *firsts[1:]], base="MCPServer", passes=4, absent=absent,
            ),
            await _memory(folder, smoke=smoke),
        ]  # fmt: skip


def _first(command: list[str], call: dict[str, Any]) -> Any:
    closing: set[asyncio.Future[None]] = set()

    async def once() -> Any:
        client = await _Client(command, call).open()
        answer = await client.call()
        over = asyncio.ensure_future(client.close())  # outside the clock
        closing.add(over)
        over.add_done_callback(closing.discard)
        return answer

    return once


def _started(folder: Path) -> Contender:
    """A new folder each time, made before the clock; the kernel of the time before ends there too."""
    numbers, before = itertools.count(), [folder / "none"]

    async def ready() -> None:
        await _stop(before[0])
        shutil.rmtree(before[0], ignore_errors=True)
        before[0] = folder / f"started-{next(numbers)}"

    async def once() -> Any:
        return await _first(_mcp(before[0], "--idle-exit", "5"), NOTES)()

    return Contender(
        "bridge",
        "subject",
        "agent-kernel mcp on an empty folder: kernel started, schema made",
        once,
        _wrong,
        ready=ready,
    )


async def _stop(state: Path) -> None:
    stopping = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent_kernel_mcp", "stop", "--state", str(state), stderr=asyncio.subprocess.DEVNULL
    )
    await stopping.wait()


async def _memory(folder: Path, *, smoke: bool) -> Table:
    """PSS: what is shared among processes is counted once, in parts."""
    hosts = 2 if smoke else HOSTS
    rows = []
    for name, command, call in (
        ("bridge", _mcp(folder / "memory"), NOTES),
        ("MCPServer", [sys.executable, "-c", STOCK], ADD),
    ):
        held = []
        clients: list[_Client] = []
        for count in (1, hosts):
            while len(clients) < count:
                clients.append(await _Client(command, call).open())
                await clients[-1].call()
            pids = [client.process.pid for client in clients]
            if name == "bridge":
                pids.append(int((folder / "memory" / "lock").read_text()))
            held.append(sum(map(_pss_kb, pids)) / 1024)
        for client in clients:
            await client.close()
        rows.append((name, f"{held[0]:.0f}", f"{held[1]:.0f}", f"{(held[1] - held[0]) / (hosts - 1):.1f}"))
    await _stop(folder / "memory")
    note = "Bridges with their kernel, without its sandboxes, which are there once for all hosts. The kernel does more than the peer does."
    return Table(
        "mcp.memory", "MB of processes (PSS), by hosts", ("", "1 host", f"{hosts} hosts", "each more"), rows, note
    )


def _pss_kb(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
