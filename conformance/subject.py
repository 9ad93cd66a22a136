"""A server under test: a process that speaks MCP on stdio, and the client that a check drives it with.

What a command has to do to be a subject, all of it:

- It speaks MCP on stdin and stdout, and ends when stdin ends.
- It keeps what must last in one folder: `{state}` in any of its arguments stands for that folder, and the variable
  AGENT_KERNEL_HOME holds it as well. The folder exists, is empty but for `skills/`, and is the same after a restart.
- Its process group may be killed with SIGKILL at any moment; the same command is then started again.
- It finds skill folders in `skills/` beneath the state folder, and runs with HOME and the variables PATH and LANG only.
- There is a folder `shared` in HOME. A command that shares it for writing is held to the clauses about that, too.

Two voices reach it. Tools are called through the `mcp` SDK's ClientSession, over pipes of our own so that every line can be
kept and the process killed. Where bytes matter, `ask_raw` and `write_raw` speak JSON lines past the SDK; their answers never
reach it.

Guarantees
1. Every wait is bounded: an answer by ANSWER_S, a start by START_S, an end by END_S; then Failed says what did not come.
2. `stop` leaves no process of the group behind, whatever happened before.

Not here: which check runs on which subject (suite.py), what a run or an item is (driver.py).
"""

import asyncio
import json
import math
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import anyio
from mcp import ClientSession, MCPError, types
from mcp.client.session import ElicitationFnT
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.message import SessionMessage

from .registry import Failed, Untestable

__all__ = ["ANSWER_S", "Reply", "Subject", "Workplace"]

ANSWER_S = 40.0
START_S = 60.0
END_S = 5.0
LINE_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Workplace:
    """The folders of one subject. All but `state` are open to everybody, so that only the server's own walls protect them."""

    root: Path
    canary: str

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def secret_file(self) -> Path:
        return self.home / ".ssh" / "id_canary"

    @property
    def shared(self) -> Path:
        return self.home / "shared"

    @classmethod
    def make(cls, prepare: Callable[[Path], None]) -> Self:
        place = cls(Path(tempfile.mkdtemp(prefix="akc-")), "canary" + secrets.token_hex(8))
        place.root.chmod(0o755)
        place.state.mkdir(mode=0o700)
        place.secret_file.parent.mkdir(parents=True)
        place.shared.mkdir()
        place.secret_file.write_text(place.canary, encoding="utf8")
        prepare(place.state)
        return place

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Reply:
    """One tools/call answer, or the JSON-RPC error in its place."""

    refused: bool
    content: tuple[Any, ...] = ()
    structured: dict[str, Any] | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    protocol_error: str = ""

    @property
    def text(self) -> str:
        texts = [block.text for block in self.content if block.type == "text"]
        return texts[0] if texts else self.protocol_error

    @property
    def data(self) -> dict[str, Any]:
        """The result object, from either of its two forms."""
        if self.structured is not None:
            return self.structured
        try:
            value = json.loads(self.text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Failed(f"the result is not a JSON object: {self.text[:200]!r}")
        return value

    @property
    def code(self) -> str:
        if self.structured is not None and isinstance(self.structured.get("error"), dict):
            return str(self.structured["error"].get("code", ""))
        return self.text.partition(":")[0]


class Subject:
    def __init__(self, command: list[str], place: Workplace) -> None:
        self.argv = [part.replace("{state}", str(place.state)) for part in command]
        self.place = place
        self.tools: dict[str, types.Tool] = {}
        self.raw_tools: list[dict[str, Any]] = []
        self.hello: types.InitializeResult | None = None
        self.lines: list[bytes] = []
        self.process: asyncio.subprocess.Process | None = None
        self._errors = place.root / "stderr.log"
        self._asked: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._leave = asyncio.Event()
        self._ready: asyncio.Future[None] | None = None
        self._session: ClientSession | None = None
        self._gone = False

    # --- the process

    async def launch(self) -> asyncio.subprocess.Process:
        """Start the command and read its lines, without saying a word."""
        environment = {
            "PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": str(self.place.home),
            "AGENT_KERNEL_HOME": str(self.place.state), "CONFORMANCE_CANARY": self.place.canary,
        }  # fmt: skip
        with self._errors.open("ab") as errors:
            try:
                self.process = await asyncio.create_subprocess_exec(
                    *self.argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
                    env=environment, start_new_session=True, limit=LINE_BYTES_MAX,
                )  # fmt: skip
            except OSError as error:
                raise Untestable(f"the command does not start: {error}") from error
        return self.process

    async def start(self, *, elicit: ElicitationFnT | None = None) -> None:
        """Start the command, shake hands as the SDK does, list the tools."""
        await self.launch()
        self._gone = False
        self._leave = asyncio.Event()
        self._ready = asyncio.get_running_loop().create_future()
        self._tasks.append(asyncio.create_task(self._converse(elicit)))
        try:
            async with asyncio.timeout(START_S):
                await self._ready
                listed = await self.ask_raw("tools/list", {})
        except TimeoutError:
            raise Untestable(f"no handshake within {START_S:.0f} s; {self.last_words()}") from None
        self.raw_tools = listed.get("result", {}).get("tools", [])

    async def kill(self) -> None:
        """SIGKILL to the whole process group, and wait until it is gone."""
        process = self._process()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await self._hang_up()

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    async def stop(self) -> None:
        if self.process is None:
            return
        if self.process.stdin is not None:
            self.process.stdin.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), END_S)
        await self.kill()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.returncode is None and not self._gone

    def last_words(self) -> str:
        """The end of the server's stderr: what a person would look at next."""
        text = self._errors.read_text(encoding="utf8", errors="replace").strip() if self._errors.exists() else ""
        status = self.process.returncode if self.process else None
        state = "it still runs" if status is None else f"exit status {status}"
        return f"{state}; its stderr ends: {text[-600:]!r}" if text else f"{state}; nothing on stderr"

    def _process(self) -> asyncio.subprocess.Process:
        if self.process is None:
            raise Untestable("the server was never started")
        return self.process

    # --- the wire

    async def ask_raw(self, method: str, params: dict[str, Any], *, wait_s: float = ANSWER_S) -> dict[str, Any]:
        """One request as a JSON line of our own; the whole answer message."""
        number = "raw-" + secrets.token_hex(6)
        line = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return await self.ask_line(number, line.encode(), wait_s=wait_s)

    async def ask_line(self, number: str, line: bytes, *, wait_s: float = ANSWER_S) -> dict[str, Any]:
        """Write these bytes; the message that answers id `number`, which starts with `raw-`."""
        if self._gone:
            raise Failed(f"the server is gone; {self.last_words()}")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            await self.write_raw(line)
            return await asyncio.wait_for(answer, wait_s)
        except TimeoutError:
            raise Failed(f"no answer within {wait_s:.0f} s; {self.last_words()}") from None
        finally:
            self._asked.pop(number, None)

    async def write_raw(self, line: bytes) -> None:
        pipe = self._process().stdin
        assert pipe is not None
        try:
            pipe.write(line + b"\n")
            await pipe.drain()
        except OSError:
            raise Failed(f"the server closed its stdin; {self.last_words()}") from None

    async def read_line(self, *, wait_s: float = ANSWER_S) -> bytes:
        """One line of stdout, for a subject that was launched and never started; b'' at its end."""
        pipe = self._process().stdout
        assert pipe is not None
        try:
            return await asyncio.wait_for(pipe.readline(), wait_s)
        except TimeoutError:
            raise Failed(f"no line within {wait_s:.0f} s; {self.last_words()}") from None

    async def _converse(self, elicit: ElicitationFnT | None) -> None:
        to_session, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](math.inf)
        to_server, from_session = anyio.create_memory_object_stream[SessionMessage](math.inf)
        pumps = [
            asyncio.create_task(self._read(to_session)),
            asyncio.create_task(self._write(from_session)),
        ]
        assert self._ready is not None
        try:
            async with from_server, to_server, from_session, to_session:
                info = types.Implementation(name="agent-kernel-conformance", version="0.1")
                async with ClientSession(
                    from_server, to_server, client_info=info, elicitation_callback=elicit, read_timeout_seconds=ANSWER_S
                ) as session:
                    self.hello = await session.initialize()
                    self.tools = {tool.name: tool for tool in (await session.list_tools()).tools}
                    self._session = session
                    self._ready.set_result(None)
                    await self._leave.wait()
        except Exception as error:  # noqa: BLE001  whatever the handshake died of is the finding
            if not self._ready.done():
                await self._let_end()
                self._ready.set_exception(Untestable(f"no handshake: {_cause(error)}; {self.last_words()}"))
        finally:
            self._session = None
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _read(self, to_session: anyio.abc.ObjectSendStream[SessionMessage | Exception]) -> None:
        pipe = self._process().stdout
        assert pipe is not None
        while line := await pipe.readline():
            self.lines.append(line)
            message = _message(line)
            if message is None:
                continue
            answer = self._asked.get(str(message.get("id")))
            if answer is not None and "method" not in message:
                if not answer.done():
                    answer.set_result(message)
            elif message.get("id") is not None or "method" in message:
                await to_session.send(
                    SessionMessage(types.jsonrpc_message_adapter.validate_python(message, by_name=False))
                )
        await self._let_end()
        self._gone = True
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(Failed(f"the server is gone; {self.last_words()}"))
        await to_session.aclose()

    async def _let_end(self) -> None:
        """A process whose stdout ended is as a rule about to end; then its status says more."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process().wait(), 1)

    async def _write(self, from_session: anyio.abc.ObjectReceiveStream[SessionMessage]) -> None:
        async for message in from_session:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            with suppress(Failed):
                await self.write_raw(text.encode())

    async def _hang_up(self) -> None:
        self._leave.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    # --- tools

    async def call(self, tool: str, /, *, report: ProgressFnT | None = None, **arguments: Any) -> Reply:
        """Call a tool through the SDK. `report` gets progress and thereby sends a progress token."""
        if tool not in self.tools:
            raise Untestable(f"the server has no tool {tool}")
        if self._session is None:
            raise Untestable(f"the server is gone; {self.last_words()}")
        try:
            async with asyncio.timeout(ANSWER_S):
                result = await self._session.call_tool(tool, arguments, progress_callback=report)
        except TimeoutError:
            raise Failed(f"{tool} did not answer within {ANSWER_S:.0f} s") from None
        except MCPError as error:
            return Reply(refused=True, protocol_error=f"{error.error.code}: {error.error.message}")
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            raise Failed(f"the server died of {tool}; {self.last_words()}") from None
        assert isinstance(result, types.CallToolResult)
        return Reply(result.is_error, tuple(result.content), result.structured_content, result.meta or {})


def _cause(error: BaseException) -> BaseException:
    """The first exception of a group of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _message(line: bytes) -> dict[str, Any] | None:
    """The JSON-RPC message of a line, or None when it is none."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and value.get("jsonrpc") == "2.0" else None


if sys.platform == "win32":  # the process group and its killing have no like there
    raise ImportError("the conformance suite runs on POSIX systems")
