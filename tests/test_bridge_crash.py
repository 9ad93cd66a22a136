"""Many hosts on one kernel that is killed again and again: every call is answered once, every effect there at most once."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from agent_kernel.base.store import look

sys.path.insert(0, str(Path(__file__).parent))
from hosts import COMMAND, end_kernel, kernel_pid, left_of, wait_gone

END = "<end>"
AT_ONCE = 4
"""Calls of one host that are open together."""
LABELS = 4
"""Notes of one host; a note has room for some hundred tokens."""


class Host:
    """A client that writes its own lines, so that ten thousand calls cost the bridge and not the client."""

    def __init__(self, name, state):
        self.name, self.state = name, state
        self.answers = {}
        self.waiting = {}
        self.last = 0

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            *COMMAND, "mcp", "--state", str(self.state), "--idle-exit", "1",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20,
        )  # fmt: skip
        self.reading = asyncio.ensure_future(self.read())
        await self.ask(
            "initialize",
            {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": self.name, "version": "1"}},
        )
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    async def __aexit__(self, *_):
        self.process.stdin.close()
        assert await asyncio.wait_for(self.process.wait(), 60) == 0
        await self.reading

    def say(self, message):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def read(self):
        async for line in self.process.stdout:
            heard = json.loads(line)
            if "method" not in heard:
                assert heard["id"] not in self.answers, f"{self.name}: {heard['id']} was answered twice"
                self.answers[heard["id"]] = heard
                self.waiting.pop(heard["id"]).set_result(heard)

    async def ask(self, method, params):
        self.last += 1
        number = self.last
        self.waiting[number] = asyncio.get_running_loop().create_future()
        self.say({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return await asyncio.wait_for(self.waiting[number], 120)

    async def call(self, tool, **arguments):
        heard = await self.ask("tools/call", {"name": tool, "arguments": arguments})
        assert "result" in heard, heard
        return heard["result"]


def outcome(result):
    """`done`, or the code of an error that may be repeated."""
    if not result.get("isError"):
        return "done"
    error = result["structuredContent"]["error"]
    assert error["retryable"], error
    return error["code"]


async def work(host, calls, told, counted):
    """Of ten calls seven write, one adds, one reads, one runs code."""

    async def one(n):
        token = f"{host.name}.{n};"
        match n % 10:
            case 0:
                said = outcome(await host.call("memory_add", items=[{"text": f"fact {token}"}]))
                told["facts"][f"fact {token}"] = said
            case 1:
                outcome(await host.call("memory_search", query="fact", limit=1))
            case 2 if n % 100 == 2:
                outcome(await host.call("sandbox_run", code=f"print({n})"))
            case _:
                label = f"{host.name}-{n % LABELS}"
                said = outcome(await host.call("memory_edit", label=label, text=token + END, old=END))
                told["tokens"][token] = said
        counted()

    for label in range(LABELS):
        assert outcome(await host.call("memory_edit", label=f"{host.name}-{label}", text=END)) == "done"
    pending = set()
    for n in range(calls):
        pending.add(asyncio.ensure_future(one(n)))
        if len(pending) >= AT_ONCE:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    await asyncio.gather(*pending)


async def storm(state, hosts, calls, kills):
    """(what callers were told, how often the kernel was killed)."""
    told = {"facts": {}, "tokens": {}}
    total, done, killed = hosts * calls, 0, []
    due = [total * (n + 1) // (kills + 1) for n in range(kills)]
    moved = asyncio.Event()

    def counted():
        nonlocal done
        done += 1
        if due and done >= due[0]:
            moved.set()

    async def killer():
        while due:
            await moved.wait()
            moved.clear()
            due.pop(0)
            pid = await asyncio.to_thread(kernel_pid, state)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    everybody = [Host(f"h{n}", state) for n in range(hosts)]
    killing = asyncio.ensure_future(killer())
    async with contextlib.AsyncExitStack() as open_hosts:
        await asyncio.gather(*(open_hosts.enter_async_context(host) for host in everybody))
        await asyncio.gather(*(work(host, calls, told, counted) for host in everybody))
        await killing
    assert done == total
    return told, killed


@pytest.mark.parametrize(("hosts", "calls", "kills"), [(8, 60, 2), pytest.param(8, 1250, 5, marks=pytest.mark.long)])
def test_every_call_is_answered_once_and_applied_at_most_once(tmp_path, hosts, calls, kills):
    state = tmp_path / "state"
    try:
        told, killed = asyncio.run(storm(state, hosts, calls, kills))
        assert len(set(killed)) == kills, "each kill met another kernel"
        last = kernel_pid(state)
        if last is not None:
            wait_gone(last)
        assert left_of(state) == [], "nobody is left when the idle time is over"
    finally:
        end_kernel(state)
    notes = "".join(text for (text,) in look(state, lambda db: db.execute("SELECT text FROM block").fetchall()))
    facts = [text for (text,) in look(state, lambda db: db.execute("SELECT text FROM memory").fetchall())]
    for token, said in told["tokens"].items():
        times = notes.count(token)
        assert times <= 1, f"{token} was applied {times} times"
        assert times == 1 or said != "done", f"{token} was acknowledged and is lost"
    for fact, said in told["facts"].items():
        assert facts.count(fact) <= 1
        assert facts.count(fact) == 1 or said != "done", f"{fact} was acknowledged and is lost"
    outcomes = [*told["tokens"].values(), *told["facts"].values()]
    assert outcomes.count("done") == len(outcomes), "calls with a commit of their own are answered, not refused"
