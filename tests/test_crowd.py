"""Many clients at once, a tenth of them hostile or dying: every request gets its own answer, and none another's.

Each request carries a nonce. What comes back, wherever a text can be, holds that nonce or none at all.
"""

import asyncio
import json
import random
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from agent_kernel.sandbox import Sandbox
from agent_kernel_mcp.values import wire
from boxes import BOTH, boxed

CLIENTS = 50
NONCE = re.compile(r"nonce-\d+-\d+-[0-9a-f]{8}")
Request = dict[str, Any]
Answer = dict[str, Any]
Call = Callable[[str, Request], Awaitable[Answer]]

FRAME = (
    "import os, struct\ndef frame(kind, payload): os.write(3, struct.pack('<IBI', len(payload), kind, 0) + payload)\n"
)

ORDINARY: list[tuple[Request, Callable[[Answer, str], bool]]] = [
    ({"code": "'NONCE'"}, lambda a, n: a["value"] == repr(n)),
    ({"code": "print('NONCE' * 3)"}, lambda a, n: a["stdout"] == n * 3 + "\n"),
    ({"code": "import sys; print(open('in').read(), file=sys.stderr)", "files": {"in": "NONCE"}}, lambda a, n: a["stderr"] == n + "\n"),
    ({"code": 'read -r x; echo "$x"; exit 3', "language": "bash", "stdin": "NONCE\n"}, lambda a, n: (a["stdout"], a["exit_code"]) == (n + "\n", 3)),
    ({"code": "raise ValueError('NONCE')"}, lambda a, n: a["error"]["message"] == n and n in a["stderr"]),
    ({"code": "import subprocess; print(subprocess.check_output(['echo', 'NONCE'], text=True))"}, lambda a, n: n in a["stdout"]),
    ({"code": "for k in range(3): open(f'NONCE-{k}', 'w').write('NONCE')"}, lambda a, n: [f["path"] for f in a["files"]] == [f"{n}-{k}" for k in range(3)]),
    ({"code": "print('x' * 9000 + 'NONCE')"}, lambda a, n: n not in a.get("stderr", "") and a["stdout_uri"].startswith("sandbox://")),
]  # fmt: skip
HOSTILE: list[tuple[Request, set[str | None]]] = [
    ({"code": "import os, signal; print('NONCE', flush=True); os.kill(os.getpid(), signal.SIGKILL)"}, {None, "killed"}),
    ({"code": FRAME + "os.write(3, struct.pack('<IBI', 1000, 10, 0) + b'NONCE'); os._exit(0)"}, {None, "killed"}),
    ({"code": FRAME + "os.write(3, b'\\xff' * 9 + b'NONCE'); hold()"}, {"killed"}),
    ({"code": FRAME + "frame(10, b'{\"exit_code\": 0, \"value\": \"NONCE\"}'); hold()"}, {None}),
    ({"code": "import os; os.close(3); hold()"}, {"killed", "timeout"}),
    ({"code": "hold()", "timeout_s": 0.2}, {"timeout"}),
    ({"code": "held = bytearray(b'NONCE' * (20 << 20)); hold()", "memory_mb": 64}, {"memory", None}),
    ({"code": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"}, {"processes"}),
    ({"code": "import os\nos.setsid()\nfor _ in range(4): os.fork()\nos._exit(7)"}, {None}),
    ({"code": "import os, signal\ntry: os.kill(os.getppid(), signal.SIGKILL)\nexcept OSError: pass\nos.kill(-1, 9)"}, {None, "killed"}),
]  # fmt: skip


async def crowd(call: Call, read: Callable[[str], Awaitable[str]], number: int) -> dict[str, int]:
    """Fifty clients share `number` requests; raises at the first answer that is not its own. Counts what they met."""
    met: dict[str, int] = {}
    pick = random.Random(number)
    todo = iter([(n, pick.random() < 0.1, pick.randrange(1000)) for n in range(number)])

    async def client(name: int) -> None:
        for n, hostile, which in todo:
            nonce = f"nonce-{name}-{n}-{pick.randrange(1 << 32):08x}"
            request, expected = (HOSTILE[which % len(HOSTILE)]) if hostile else ORDINARY[which % len(ORDINARY)]
            said = {"timeout_s": 45, **json.loads(json.dumps(request).replace("NONCE", nonce))}
            if hostile:
                said["code"] = "import time\ndef hold(): time.sleep(60)\n" + said["code"]
            answer = await call(nonce, said)
            found = set(NONCE.findall(json.dumps(answer)))
            assert found <= {nonce}, (nonce, answer)
            if hostile:
                assert answer.get("stopped_by") in expected, (request, answer)
                met["hostile"] = met.get("hostile", 0) + 1
            else:
                assert expected({"exit_code": 0, **answer}, nonce), (request, answer)
                assert answer.get("stopped_by") is None
                met["ordinary"] = met.get("ordinary", 0) + 1
            if uri := answer.get("stdout_uri"):
                assert nonce in await read(uri)

    async with asyncio.TaskGroup() as group:
        for name in range(CLIENTS):
            group.create_task(client(name))
    return met


NUMBERS = [150, pytest.param(10_000, marks=pytest.mark.long)]


@pytest.mark.parametrize("tier", BOTH)
@pytest.mark.parametrize("number", NUMBERS)
def test_every_request_gets_its_own_answer(tmp_path, tier, number):
    async def body(sandbox: Sandbox) -> dict[str, int]:
        async def call(_: str, request: Request) -> Answer:
            return wire(await sandbox.run(**request))

        async def read(uri: str) -> str:
            return (await sandbox.read(uri=uri)).data.decode()

        return await crowd(call, read, number)

    met = boxed(tmp_path, tier, body, patience_s=60 + number)
    assert sum(met.values()) == number
    assert met["hostile"] > number // 20


@pytest.mark.parametrize("number", NUMBERS)
def test_every_request_over_mcp_gets_its_own_answer(tmp_path, number):
    """On one connection, where only the request's id tells the answers apart."""

    async def main() -> dict[str, int]:
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent_kernel_mcp", "mcp", "--standalone", "--state", str(tmp_path / "state"),
            stdin=-1, stdout=-1, limit=1 << 24,
        )  # fmt: skip
        assert server.stdin is not None
        assert server.stdout is not None
        waiting: dict[str, asyncio.Future[Any]] = {}

        async def hear() -> None:
            while line := await server.stdout.readline():
                message = json.loads(line)
                if "id" in message and "method" not in message:
                    waiting.pop(message["id"]).set_result(message)

        async def ask(name: str, method: str, params: dict[str, Any]) -> Any:
            waiting[name] = asyncio.get_running_loop().create_future()
            answered = waiting[name]
            server.stdin.write(
                json.dumps({"jsonrpc": "2.0", "id": name, "method": method, "params": params}).encode() + b"\n"
            )
            await server.stdin.drain()
            reply = await answered
            assert reply["id"] == name
            return reply["result"]

        async def call(nonce: str, request: Request) -> Answer:
            result = await ask(nonce, "tools/call", {"name": "sandbox_run", "arguments": request})
            assert not result.get("isError"), result
            return result["structuredContent"]

        async def read(uri: str) -> str:
            result = await ask(f"read {uri}", "tools/call", {"name": "sandbox_read", "arguments": {"uri": uri}})
            return json.dumps(result["structuredContent"])

        hearing = asyncio.ensure_future(hear())
        about = {"name": "crowd", "version": "1"}
        await ask("hello", "initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": about})
        server.stdin.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        met = await crowd(call, read, number)
        assert not waiting
        server.stdin.close()
        assert await server.wait() == 0
        await hearing
        return met

    met = asyncio.run(asyncio.wait_for(main(), 60 + number))
    assert sum(met.values()) == number
