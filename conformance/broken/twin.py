"""What a twin is: a function around one call of the client, in a table under the clause that it breaks.

    @twin("memory.search.as-of", "does not hear as_of")
    async def deaf(call: Call) -> Answer:
        call.arguments.pop("as_of", None)
        return await call.serve()

Places to lie at: `call` (the default: around each request), `handshake` (likewise, but it takes a new connection to see it),
`line` (sees each raw line of the client first; a false answer swallows it), `end` (runs when stdin ended, before the server is
let go).

What a twin remembers (`call.notes`) is kept beside the state folder, so that it can lie about what was before a restart.
"""

import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..registry import CLAUSES

__all__ = [
    "TWINS", "Answer", "Call", "Notes", "Twin", "alters", "blurs", "drops", "from_scratch", "on_host", "rewrites", "twin",
]  # fmt: skip


@dataclass(slots=True)
class Notes:
    """What survives a restart of the proxy."""

    starts: int = 0
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """run_id -> {"arguments": of run_start, "start": in which life, "status": last seen}"""
    facts: dict[str, int] = field(default_factory=dict)
    """memory id -> in which life it was added"""
    again: dict[str, str] = field(default_factory=dict)
    """old run_id or item_id -> the one that stands in for it"""


@dataclass(slots=True)
class Answer:
    """The answer to one request: a JSON-RPC message that a twin may change."""

    message: dict[str, Any]

    @property
    def result(self) -> dict[str, Any]:
        if "error" in self.message:
            return {}
        result: dict[str, Any] = self.message.setdefault("result", {})
        return result

    @property
    def refused(self) -> bool:
        return "error" in self.message or bool(self.result.get("isError"))

    @property
    def data(self) -> dict[str, Any]:
        return self.result.get("structuredContent") or {}

    @property
    def code(self) -> str:
        return str((self.data.get("error") or {}).get("code", ""))

    def say(self, data: dict[str, Any]) -> "Answer":
        """Answer with this object instead, as a success in both forms."""
        self.message.pop("error", None)
        self.message["result"] = {
            "content": [{"type": "text", "text": json.dumps(data, ensure_ascii=False)}],
            "structuredContent": data,
            "_meta": self.result.get("_meta") or {},
        }
        return self

    def refuse(self, code: str, message: str) -> "Answer":
        error = {"code": code, "message": message, "fault": "caller", "retryable": False}
        content = [{"type": "text", "text": f"{code}: {message}"}]
        self.message["result"] = {"content": content, "structuredContent": {"error": error}, "isError": True}
        return self


@dataclass(slots=True)
class Call:
    """One request of the client on its way to the server."""

    message: dict[str, Any]
    forward: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
    notes: Notes
    write: Callable[[bytes], None]

    @property
    def method(self) -> str:
        return str(self.message.get("method"))

    @property
    def params(self) -> dict[str, Any]:
        params: dict[str, Any] = self.message.setdefault("params", {})
        return params

    @property
    def tool(self) -> str:
        return str(self.params.get("name")) if self.method == "tools/call" else ""

    @property
    def arguments(self) -> dict[str, Any]:
        given = self.params.get("arguments")
        return given if isinstance(given, dict) else {}

    @property
    def text(self) -> str:
        """The code or program that this call brings."""
        return str(self.arguments.get("code") or self.arguments.get("program") or "")

    async def serve(self) -> Answer:
        """Let the server answer, with what the arguments are by now."""
        return Answer(await self.forward(self.message))

    async def other(self, tool: str, **arguments: Any) -> Answer:
        """A call of the twin's own."""
        params = {"name": tool, "arguments": arguments}
        return Answer(await self.forward({"jsonrpc": "2.0", "method": "tools/call", "params": params}))


Lie = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Twin:
    clause: str
    lie: str
    """What this server does wrong, in one sentence."""
    function: Lie
    at: str = "call"


TWINS: dict[str, Twin] = {}


def twin(clause: str, lie: str, at: str = "call") -> Callable[[Lie], Lie]:
    if clause not in CLAUSES or clause in TWINS:
        raise ValueError(f"{clause} is no clause, or has a twin")

    def bind(function: Lie) -> Lie:
        TWINS[clause] = Twin(clause, lie, function, at)
        return function

    return bind


# --- the common forms of a lie


def drops(clause: str, lie: str, tool: str, *names: str) -> None:
    """A server that does not hear these arguments of a tool."""

    async def deaf(call: Call) -> Answer:
        if call.tool == tool:
            for name in names:
                call.arguments.pop(name, None)
        return await call.serve()

    twin(clause, lie)(deaf)


def alters(clause: str, lie: str, tools: tuple[str, ...], change: Callable[[Call, dict[str, Any]], None]) -> None:
    """A server whose successes of these tools say something else."""

    async def liar(call: Call) -> Answer:
        answer = await call.serve()
        if call.tool in tools and not answer.refused:
            data = dict(answer.data)
            change(call, data)
            meta = answer.result.get("_meta")
            answer.say(data)
            if meta is not None:
                answer.result["_meta"] = meta
        return answer

    twin(clause, lie)(liar)


def rewrites(clause: str, lie: str, old: str, new: str) -> None:
    """A server that runs another program than it was given."""

    async def forger(call: Call) -> Answer:
        if call.tool == "run_start" and old in call.text:
            call.arguments["program"] = call.text.replace(old, new)
        return await call.serve()

    twin(clause, lie)(forger)


def blurs(clause: str, lie: str, word: str) -> None:
    """A server that does not tell why a run failed, when the reason holds this word."""

    def hide(_: Call, data: dict[str, Any]) -> None:
        if word in json.dumps(data.get("error") or {}):
            data["error"] = {"code": "guest.failed", "message": "It went wrong."}

    alters(clause, lie, ("run_start", "run_get", "run_send"), hide)


def from_scratch(clause: str, lie: str, word: str) -> None:
    """A server that, after a restart, runs programs with this word in them again from their first line."""

    async def forgetful(call: Call) -> Answer:
        run_id = str(call.arguments.get("run_id"))
        run = call.notes.runs.get(run_id)
        if run is None or word not in run["arguments"].get("program", "") or run["start"] == call.notes.starts:
            return await call.serve()
        if run_id not in call.notes.again:
            fresh = dict(run["arguments"], wait_s=20)
            fresh.pop("idempotency_key", None)
            begun = (await call.other("run_start", **fresh)).data
            call.notes.again[run_id] = begun["run_id"]
            for item in begun.get("waiting") or []:
                call.notes.again[run_id + "/item"] = item["item_id"]
        stand_in = call.notes.again[run_id]
        call.arguments["run_id"] = stand_in
        if "item_id" in call.arguments:
            call.arguments["item_id"] = call.notes.again.get(run_id + "/item", "")
        answer = await call.serve()
        answer.message = json.loads(json.dumps(answer.message).replace(stand_in, run_id))
        return answer

    twin(clause, lie)(forgetful)


def on_host(clause: str, lie: str, *words: str) -> None:
    """A server that runs code with one of these words in it as a plain process of the host."""

    async def careless(call: Call) -> Answer:
        if call.tool == "sandbox_run" and any(word in call.text for word in words):
            return Answer({"id": call.message.get("id")}).say(run_on_host(call.text, call.arguments.get("language")))
        return await call.serve()

    twin(clause, lie)(careless)


def run_on_host(code: str, language: str | None) -> dict[str, Any]:
    """In the subject's own place, and with its /tmp there, so that nothing is left on the machine."""
    place = Path(os.environ["AGENT_KERNEL_HOME"]).parent
    code = code.replace("'/tmp/left_", f"'{place}/left_")
    argv = ["bash", "-c", code] if language == "bash" else [sys.executable, "-c", code]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL, cwd=place
    )
    said = {"stdout": done.stdout, "stderr": done.stderr}
    return {"exit_code": done.returncode, **{name: text for name, text in said.items() if text}}
