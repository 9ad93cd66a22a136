"""kernel/base/system.py: what works where there are no sandboxes, in an interpreter from which tests/elsewhere.py takes what those lack."""

import asyncio
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

sys.path.insert(0, str(Path(__file__).parent))
from kernels import opened, program, rested, until

ELSEWHERE = pytest.mark.parametrize("platform", ["darwin", "win32"])
PRELUDE = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import elsewhere; elsewhere.pretend(sys.argv[1])\n"

SERVING = PRELUDE.replace("argv[1]", "argv[1], serving=True")


def there(platform, code, *arguments, status=0, before=PRELUDE):
    """What `code` prints in an interpreter of that platform."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", before + textwrap.dedent(code), platform, *map(str, arguments)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done.stdout


def command(platform, *arguments, status=0):
    return there(
        platform, "from agent_kernel_mcp.__main__ import main; sys.exit(main(sys.argv[2:]))", *arguments, status=status
    )


@ELSEWHERE
def test_every_file_of_the_kernel_and_of_its_server_can_be_imported(platform):
    """But what only Linux runs: the cell and the bridge."""
    code = """
        import importlib, pkgutil, agent_kernel, agent_kernel_mcp
        not_there = ("agent_kernel.cell.", "agent_kernel_mcp.bridge", "agent_kernel_mcp.__main__")
        for package in (agent_kernel, agent_kernel_mcp):
            for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
                if not found.name.startswith(not_there):
                    importlib.import_module(found.name)
        print(len([name for name in sys.modules if name.startswith("agent_kernel")]))
    """
    assert int(there(platform, code, before=SERVING)) > 50


@ELSEWHERE
def test_memory_skills_and_the_lock_work_and_code_is_refused_with_what_to_do(platform, tmp_path):
    code = """
        import asyncio, json
        from agent_kernel import Kernel, KernelError

        async def told(work):
            try:
                await work
            except KernelError as error:
                return error.to_wire()

        async def main():
            async with Kernel.open(sys.argv[2]) as k:
                await k.memory.add([{"text": "The cat is called Mikado"}])
                await k.memory.edit("note", "kept")
                print(json.dumps({
                    "run": await told(k.sandbox.run("print(1)")),
                    "start": await told(k.runs.start("async def main(input): pass")),
                    "second": await told(Kernel.open(sys.argv[2]).__aenter__()),
                    "runs": (await k.runs.list())["runs"],
                    "found": [hit.text for hit in (await k.memory.search("Mikado")).hits],
                    "skills": [skill.name for skill in await k.skills.search("durable programs")],
                    "audit": [(event.op, event.outcome) for event in await k.audit.page("local", before=None, limit=9)],
                    "status": (await k.status()).tier,
                }))

        asyncio.run(main())
    """
    for _ in range(2):
        said = json.loads(there(platform, code, tmp_path / "s"))
        for refusal in (said["run"], said["start"]):
            assert (refusal["code"], refusal["fault"]) == ("sandbox.unavailable", "host")
            assert {"darwin": "this is macOS", "win32": "this is Windows"}[platform] in refusal["message"]
            assert "Run Agent Kernel on a Linux machine or VM" in refusal["message"]
        assert said["second"]["code"] == "state.locked"
        assert said["runs"] == []
        assert said["found"] == ["The cat is called Mikado"]
        assert "durable-programs" in said["skills"]
        assert said["status"] == "none"
        assert said["audit"][-1] == ["run", "refused"]


@ELSEWHERE
def test_a_program_waits_where_it_cannot_run_and_goes_on_where_it_can(platform, tmp_path):
    body = """
        first = await kernel.step("one", lambda: 1)
        yes = await kernel.approve("Go on?")
        await kernel.sleep(0.01)
        return [first, yes]
    """

    async def begin(kernel):
        waiting = await kernel.runs.start(program(body))
        await until(kernel, waiting.id, lambda seen: seen.get("waiting"))
        working = await kernel.runs.start(program("await kernel.sleep(1)\nreturn 'slept'"))
        return waiting.id, working.id

    waiting, working = opened(tmp_path / "s", begin)
    code = """
        import asyncio, json
        from agent_kernel import Kernel

        async def main():
            async with Kernel.open(sys.argv[2]) as k:
                seen = await k.runs.view(sys.argv[3])
                item = seen["waiting"][0]
                await k.runs.approve(sys.argv[3], item["item_id"], item["digest"], "approve", channel="person")
                async with asyncio.timeout(60):
                    while k.runs._tasks:
                        await asyncio.sleep(0.01)
                seen = [await k.runs.view(run) for run in sys.argv[3:]]
                events = [await k.runs.view(run, "events") for run in sys.argv[3:]]
                print(json.dumps([(run["status"], run["detail"]) for run in seen]))
                assert '"lost"' not in json.dumps(events), events

        asyncio.run(main())
    """
    assert json.loads(there(platform, code, tmp_path / "s", waiting, working)) == [["working", "no_sandbox"]] * 2

    async def end(kernel):
        return [(await rested(kernel, run))["output"] for run in (waiting, working)]

    assert opened(tmp_path / "s", end) == [[1, True], "slept"]


@ELSEWHERE
def test_the_commands_say_what_this_system_can_do(platform, tmp_path):
    report = json.loads(command(platform, "doctor", "--json", "--state", tmp_path / "s", status=1))
    assert report["tier"] == "none"
    assert "Linux machine or VM" in report["sandbox"]["missing"][0]
    assert all(check["fine"] for check in report["checks"]), report["checks"]
    assert "Nothing waits" in command(platform, "items", "--state", tmp_path / "s")
    command(platform, "demo", status=1)


@ELSEWHERE
def test_mcp_is_served(platform, tmp_path):
    code = SERVING + "from agent_kernel_mcp.__main__ import main; sys.exit(main(sys.argv[2:]))"
    server = StdioServerParameters(
        command=sys.executable, args=["-c", code, platform, "mcp", "--state", str(tmp_path / "s")]
    )

    async def main():
        async with Client(server, cache=None, read_timeout_seconds=90) as client:
            await client.call_tool("memory_add", {"items": [{"text": "Port 7 is blue"}]})
            found = await client.call_tool("memory_search", {"query": "blue"})
            ran = await client.call_tool("sandbox_run", {"code": "1"})
            started = await client.call_tool("run_start", {"program": "async def main(input): pass"})
            status = await client.read_resource("kernel://status")
            return found, ran, started, status

    found, ran, started, status = asyncio.run(asyncio.wait_for(main(), 120))
    assert "Port 7 is blue" in found.content[0].text
    for refused in (ran, started):
        assert refused.is_error
        assert refused.content[0].text.startswith("sandbox.unavailable: ")
    assert json.loads(status.contents[0].text)["tier"] == "none"
    again = there(platform, "import os; print(os.listdir(sys.argv[2]))", tmp_path / "s")
    assert "kernel.db" in again


def test_who_asks_on_macos_is_read_from_its_own_record():
    """struct xucred of sys/ucred.h: four bytes of version, then the uid."""
    code = """
        import struct
        from agent_kernel.base import system

        class Socket:
            def getsockopt(self, level, option, size):
                assert (level, option, size) == (0, 1, 76)
                return struct.pack("=IIhh", 0, 501, 1, 0) + bytes(64)

        print(system.peer_uid(Socket()))
    """
    assert there("darwin", code) == "501\n"
