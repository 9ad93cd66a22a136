"""The man in the middle: starts the real server, passes every line, and lets one twin lie.

    python -m agent_kernel_conformance.broken.proxy CLAUSE COMMAND...

The server is a child in the same process group, so what kills the proxy kills it as well. A notification
`conformance/twin {"clause": ID or ""}` on stdin changes the twin while it runs; the server never sees it. Notes are kept in
`$AGENT_KERNEL_HOME.twin.json`.
"""

import asyncio
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import TWINS
from .twin import Answer, Call, Notes, Twin

LINE_BYTES_MAX = 64 * 1024 * 1024


class Proxy:
    def __init__(self, clause: str, notes_file: Path) -> None:
        self.twin: Twin | None = TWINS[clause] if clause else None
        self.notes_file = notes_file
        self.notes = Notes(**json.loads(notes_file.read_text(encoding="utf8"))) if notes_file.exists() else Notes()
        self.notes.starts += 1
        self.waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.number = 0

    async def run(self, command: list[str]) -> int:
        self.server = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES_MAX
        )
        answers = asyncio.create_task(self.read_server())
        await self.read_client()
        if self.twin is not None and self.twin.at == "end":
            await self.twin.function()
        assert self.server.stdin is not None
        self.server.stdin.close()
        await answers
        return await self.server.wait()

    async def read_client(self) -> None:
        lines = asyncio.StreamReader(limit=LINE_BYTES_MAX)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            if self.twin is not None and self.twin.at == "line" and not self.twin.function(line):
                continue
            message = _message(line)
            if message is None or "method" not in message:
                self.to_server(line)
            elif message["method"] == "conformance/twin":
                clause = message["params"]["clause"]
                self.twin = TWINS[clause] if clause else None
            elif "id" not in message or self.twin is None or self.twin.at in ("line", "end"):
                await self.pass_on(message, line)
            else:
                task = asyncio.create_task(self.lie(self.twin, message))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)

    async def pass_on(self, message: dict[str, Any], line: bytes) -> None:
        """Untouched, byte for byte; the answer is only read along."""
        if "id" in message and message["method"] == "tools/call":
            self.waiting["heard " + str(message["id"])] = future = asyncio.get_running_loop().create_future()
            call = self.call_of(message)
            future.add_done_callback(lambda done: self.remember(call, Answer(done.result())))
        self.to_server(line)

    async def lie(self, twin: Twin, message: dict[str, Any]) -> None:
        call = self.call_of(message)
        answer: Answer = await twin.function(call)
        answer.message["id"] = message["id"]
        answer.message.setdefault("jsonrpc", "2.0")
        self.remember(call, answer)
        self.to_client(json.dumps(answer.message).encode() + b"\n")

    def call_of(self, message: dict[str, Any]) -> Call:
        return Call(message, self.forward, self.notes, self.to_client)

    async def forward(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a request under an id of our own; its answer."""
        self.number += 1
        own = f"twin-{self.number}"
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.waiting[own] = answer
        self.to_server(json.dumps(message | {"id": own}).encode() + b"\n")
        return await answer

    async def read_server(self) -> None:
        assert self.server.stdout is not None
        while line := await self.server.stdout.readline():
            message = _message(line)
            if message is None or "method" in message:
                self.to_client(line)
                continue
            own = self.waiting.pop(str(message.get("id")), None)
            if own is not None:
                own.set_result(message)
                continue
            heard = self.waiting.pop("heard " + str(message.get("id")), None)
            if heard is not None:
                heard.set_result(message)
            self.to_client(line)

    def remember(self, call: Call, answer: Answer) -> None:
        """What lies about a restart have to know of the time before it."""
        data = answer.data
        run_id = data.get("run_id")
        if run_id and call.tool == "run_start" and run_id not in self.notes.runs:
            self.notes.runs[run_id] = {"arguments": dict(call.arguments), "start": self.notes.starts}
        if run_id in self.notes.runs:
            self.notes.runs[run_id]["status"] = data.get("status")
        if call.tool == "memory_add":
            for item in data.get("items") or []:
                self.notes.facts.setdefault(item["id"], self.notes.starts)
        self.notes_file.write_text(json.dumps(asdict(self.notes)), encoding="utf8")

    def to_server(self, line: bytes) -> None:
        assert self.server.stdin is not None
        self.server.stdin.write(line)

    def to_client(self, line: bytes) -> None:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def _message(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def main() -> int:
    clause, *command = sys.argv[1:]
    return asyncio.run(Proxy(clause, Path(os.environ["AGENT_KERNEL_HOME"] + ".twin.json")).run(command))


if __name__ == "__main__":
    sys.exit(main())
