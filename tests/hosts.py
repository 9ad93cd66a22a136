"""Hosts for tests: real clients over the bridge, on a state folder whose kernel is ended with the test, and what is left is looked for."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from agent_kernel_mcp.control import ask
from mcp import Client, StdioServerParameters

COMMAND = [sys.executable, "-m", "agent_kernel_mcp"]
PATIENCE_S = 60


def bounded(main):
    return asyncio.run(asyncio.wait_for(main, 150))


@contextlib.asynccontextmanager
async def host(state, *options, mode="auto", env=None, **more):
    """An MCP client whose server is `agent-kernel mcp` on that folder."""
    arguments = [*COMMAND[1:], "mcp", "--state", str(state), *map(str, options)]
    server = StdioServerParameters(command=COMMAND[0], args=arguments, env=env)
    async with Client(server, mode=mode, cache=None, read_timeout_seconds=90, **more) as connected:
        yield connected


async def ok(client, tool, **arguments):
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content[0].text
    return result.structured_content


def bridge(state, *options, python=sys.executable, **more):
    """The bridge itself, for tests that speak its lines."""
    return subprocess.Popen(
        [python, *COMMAND[1:], "mcp", "--state", str(state), *map(str, options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **more,
    )  # fmt: skip


def kernel_pid(state):
    """Of the kernel that runs on the folder; None when none does."""
    found = ask(Path(state), "status")
    return None if found is None else found["pid"]


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_gone(pid):
    """Until the process has ended."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            assert select.select([fd], [], [], PATIENCE_S)[0], f"{pid} is still there"
        finally:
            os.close(fd)


def kill_kernel(state):
    pid = kernel_pid(state)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    return pid


def left_of(state):
    """Processes that name the folder in their command line or hold a file of it: the kernel, bridges."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if str(state).encode() in (entry / "cmdline").read_bytes():
                    found.append((int(entry.name), (entry / "cmdline").read_bytes()))
    return found


def end_kernel(state):
    """Whatever the test left, also a kernel that is just coming up."""
    until = time.monotonic() + PATIENCE_S
    while left_of(state) and time.monotonic() < until:
        subprocess.run([*COMMAND, "stop", "--state", str(state)], timeout=PATIENCE_S, capture_output=True)
    found = left_of(state)
    for pid, _ in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not found, "processes were left"
