"""The MCP server: one kernel behind the SDK's low-level `Server`, in both eras of the protocol.

    a call:  refusals of the transport -> the table's conversion -> the kernel -> a value -> one complete reply

Guarantees
1. Every outcome is one complete result (replies.py); no call ends the server.
2. A wait longer than `wait_s_max` needs a progress token; with one, progress is sent at least every `PROGRESS_S`.
3. What waits for a person is asked by elicitation where the client has it: pushed during the call in the handshake era, returned as
   `input_required` in 2026-07-28. Only what the person answered is recorded; a form that was closed leaves the item waiting. Never
   asked twice by one connection after it was closed.

Not here: bytes (transport.py), the table (tools.py), uris (resources.py), what a reply looks like (replies.py). If the process dies inside a call the reply is lost;
what the kernel acknowledged is not. The state of a multi-round request is sealed under a key kept in the state folder, so that an
answer given after a restart still counts.
"""

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mcp_types as types
import orjson
from agent_kernel import Kernel
from agent_kernel.base.errors import KernelError, KernelFault, LimitExceeded
from agent_kernel.base.policy import Folder, Grants
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from . import once, resources
from .changes import Changes
from .hello import VERSION
from .profiles import tools_of
from .prompts import Prompts
from .replies import Replies, failure, listed
from .skills_ext import PAGE, SkillsExtension, checked_cursor, described
from .tasks import Task, Tasks, declared, task_of
from .tools import DEFAULT_WAIT_S, Call, Tool, named, waited
from .values import compact

__all__ = ["build"]

log = logging.getLogger("agent_kernel.mcp")

PROGRESS_S = 4.0
REQUEST_STATE_TTL_S = 24 * 3600.0
ASKED_MAX = 4096
CLIENT_CHARS_MAX = 64
Context = ServerRequestContext[Any, Any]


def build(
    kernel: Kernel,
    memory_profiles: Iterable[str] = (),
    agent: str | None = None,
    grants: Grants | None = None,
    *,
    local: bool = True,
    toolsets: Iterable[str] = (),
) -> Server[Any]:
    """`grants` are those of the connection; without them it has the kernel's. `local`: the client can open this machine's files."""
    grants = grants or kernel.policy.grants
    face = Face(kernel, tools_of(memory_profiles, grants, toolsets), agent, grants, Replies(kernel, local=local))
    server: Server[Any] = Server(
        "agent-kernel",
        version=VERSION,
        title="Agent Kernel",
        description="Sandbox, durable runs, memory and skills",
        instructions=instructions(grants),
        on_list_tools=face.list_tools,
        on_call_tool=face.call_tool,
        on_list_resources=face.list_resources,
        on_list_resource_templates=face.list_templates,
        on_read_resource=face.read_resource,
    )
    keys = [request_state_key(kernel.store.folder)]
    security = RequestStateSecurity(keys=keys, ttl=REQUEST_STATE_TTL_S, bind_principal=None)
    server.middleware[:] = [
        _boundary,
        RequestStateBoundary(security, default_audience=str(kernel.store.folder)),
    ]
    SkillsExtension(kernel, grants).serve(server)
    Prompts(kernel, grants).serve(server)
    Changes(kernel, grants).serve(server)
    Tasks(kernel, face.reply_of_run, face.forms_of, face.record).serve(server)
    return server


async def _boundary(ctx: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
    """Errors of requests that are no tool calls; and of bad bytes only a tool call goes on: its refusal is a result for the model."""
    if isinstance(ctx.request, KernelError) and ctx.method != "tools/call":
        raise protocol_error(ctx.request)
    try:
        return await call_next(ctx)
    except KernelError as error:
        raise protocol_error(error) from error
    except (MCPError, ValidationError):
        raise
    except Exception as error:  # a bug of ours costs one request
        log.exception("%s failed", ctx.method)
        raise protocol_error(KernelFault.of(error)) from error


def protocol_error(error: KernelError, uri: str | None = None) -> MCPError:
    code = types.INVALID_PARAMS if error.fault == "caller" else types.INTERNAL_ERROR
    return MCPError(code=code, message=str(error), data={**error.to_wire(), **({} if uri is None else {"uri": uri})})


def request_state_key(folder: Path) -> bytes:
    """32 bytes beside the store; a new key only when there is none, so that open questions survive a restart."""
    path = folder / "request_state.key"
    with contextlib.suppress(FileNotFoundError):
        key = path.read_bytes()
        if len(key) == 32:
            return key
        path.unlink()
    key = os.urandom(32)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


def instructions(grants: Grants) -> str:
    """What a host puts into the context beside the tools; below 1.5 kB."""
    return (
        "Agent Kernel: isolated code, durable programs, memory and skills on this machine.\n"
        "- sandbox_run: one piece of code, at most 50 s. run_start: work that is longer, has steps, must survive a crash or needs a"
        " person's approval; load the skill `durable-programs` before writing one.\n"
        "- A run goes on without you: run_get(run_id, wait_s=50) waits for it. An item with answer_by `person` is for the user: if"
        " they are not asked here, tell them to run the command that `next` names in a terminal.\n"
        "- memory_search before asking what the user may have told already; memory_add what should last.\n"
        "- skill_search before unfamiliar work; skill_load before acting on a skill.\n"
        "- A reply that was cut names a uri: sandbox_read opens it.\n"
        f"{_shared(grants)}"
    )


def _shared(grants: Grants) -> str:
    if not grants.folders:
        return "No folder is shared: sandboxes see no user files. The user can share one with `agent-kernel mcp --folder DIR`."
    told = f"Shared folders, seen read-only in sandboxes at their own path: {_some(grants.folders)}."
    writable = [folder for folder in grants.folders if folder.writable]
    return f"{told} sandbox_export copies results into: {_some(writable)}." if writable else told


def _some(folders: Sequence[Folder]) -> str:
    listed = ", ".join(str(folder.path) for folder in folders[:8])[:250]
    return f"{listed} and {len(folders) - 8} more" if len(folders) > 8 else listed


@dataclass(slots=True)
class Face:
    """The handlers of one connection."""

    kernel: Kernel
    tools: tuple[Tool, ...]
    agent: str | None
    """What the operator calls this connection."""
    grants: Grants
    replies: Replies
    closed_forms: set[str] = field(default_factory=set)
    """Items whose form the person closed without an answer: not shown again by itself."""
    asking: set[str] = field(default_factory=set)
    """Items whose form is on the screen, for another call that waits for the same run."""

    async def list_tools(self, ctx: Context, params: types.PaginatedRequestParams) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[listed(tool) for tool in self.tools], ttl_ms=3_600_000, cache_scope="public"
        )

    async def call_tool(
        self, ctx: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult | Task:
        tool: Tool | None = None
        try:
            if isinstance(ctx.request, KernelError):
                return failure(ctx.request)
            tool = named(params.name, self.tools)
            arguments = tool.convert(params.arguments or {})
            self._check_time(ctx, tool, arguments)
            value = await once.repeated(self.kernel, ctx.request, tool, arguments)
            if value is None:
                with once.marked(ctx.request, tool):
                    value = await self._serve(ctx, params, tool, arguments)
            if isinstance(value, types.InputRequiredResult | Task):
                return value
            return await self.replies.success(tool, value)
        except KernelError as error:
            return failure(error, tool)
        except MCPError:
            raise
        except Exception as error:  # the tool boundary: a bug of ours costs one call
            log.exception("%s failed", params.name)
            return failure(KernelFault.of(error), tool)

    def _check_time(self, ctx: Context, tool: Tool, arguments: Mapping[str, Any]) -> None:
        most = self.kernel.policy.limits.wait_s_max
        if _token(ctx) is not None:
            return
        for name in ("wait_s", "timeout_s"):
            if arguments.get(name, 0) > most:
                advice = (
                    "Wait shorter and call again: the run goes on meanwhile."
                    if tool.a_run
                    else "Use run_start with a program that calls kernel.sandbox.run, and look at it with run_get."
                )
                raise LimitExceeded(
                    "timeout.too_long",
                    f"{tool.name}: {name} is {arguments[name]:g} s; without a progress token most hosts give up a call after 60 s,"
                    f" so the limit is {most:g}. {advice if 'run_start' in advice else advice + ' Long work belongs into run_start.'}",
                )

    async def _serve(
        self, ctx: Context, params: types.CallToolRequestParams, tool: Tool, arguments: dict[str, Any]
    ) -> Any:
        ticker = Ticker(ctx) if _token(ctx) is not None else None
        call = Call(
            self.kernel, arguments, ticker.note if ticker else None, self.agent or client_name(ctx), self.grants
        )
        if not tool.a_run:
            return await _ticking(ticker, tool.call(call))
        if tool.name == "run_start" and declared(ctx):
            arguments["wait_s"] = 0.0
            return Task(task_of(await tool.call(call)), resultType="task")
        wait_s = arguments.get("wait_s", 0.0 if tool.name == "run_get" else DEFAULT_WAIT_S)
        if params.request_state is not None:
            view = await self._answers(params, wait_s, ticker)
        else:
            view = await _ticking(ticker, tool.call(call))
        if "waiting" not in view or not _elicits(ctx) or (tool.name == "run_get" and not wait_s):
            return view
        if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return self._ask_by_return(view, params.input_responses)
        return await self._ask_by_push(ctx, view, wait_s, ticker)

    # --- asking a person

    def _open_items(self, view: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        return [
            item
            for item in view.get("waiting", ())
            if item["answer_by"] == "person" and item["item_id"] not in self.closed_forms | self.asking
        ]

    def forms_of(self, view: Mapping[str, Any]) -> dict[str, types.ElicitRequest]:
        """What a person has to be asked, by item."""
        return {item["item_id"]: types.ElicitRequest(params=form(item, view)) for item in self._open_items(view)}

    async def reply_of_run(self, view: Mapping[str, Any]) -> types.CallToolResult:
        return await self.replies.success(named("run_get", self.tools), view)

    def _ask_by_return(self, view: Mapping[str, Any], answered: Mapping[str, Any] | None) -> Any:
        items = [item for item in self._open_items(view) if item["item_id"] not in (answered or {})][:4]
        if not items:
            return view
        state = {"run_id": view["run_id"], "digests": {item["item_id"]: item["digest"] for item in items}}
        return types.InputRequiredResult(
            input_requests={item["item_id"]: types.ElicitRequest(params=form(item, view)) for item in items},
            request_state=orjson.dumps(state).decode(),
        )

    async def _answers(self, params: types.CallToolRequestParams, wait_s: float, ticker: "Ticker | None") -> Any:
        """The second round of a request: record what the person said, then look at the run again. Nothing is started anew."""
        state = orjson.loads(params.request_state or "{}")  # sealed and bound to this very call by RequestStateBoundary
        for item_id, digest in state["digests"].items():
            answer = (params.input_responses or {}).get(item_id)
            if isinstance(answer, types.ElicitResult):
                await self.record(state["run_id"], item_id, digest, answer)
        return await self._waited(state["run_id"], wait_s, ticker)

    async def _waited(self, run_id: str, wait_s: float, ticker: "Ticker | None") -> Any:
        return await _ticking(ticker, waited(self.kernel, run_id, wait_s, ticker.note if ticker else None))

    async def _ask_by_push(self, ctx: Context, view: Any, wait_s: float, ticker: "Ticker | None") -> Any:
        clock = self.kernel.ports.clock
        limit_s = REQUEST_STATE_TTL_S if ticker else max(wait_s, self.kernel.policy.limits.wait_s_max)
        until = clock.monotonic() + limit_s
        while (items := self._open_items(view)) and clock.monotonic() < until:
            item = items[0]
            asking = ctx.session.send_request(
                types.ElicitRequest(params=form(item, view)),
                types.ElicitResult,
                request_read_timeout_seconds=until - clock.monotonic(),
                metadata=ServerMessageMetadata(related_request_id=ctx.request_id),
            )
            self.asking.add(item["item_id"])
            try:
                answer = await _ticking(ticker, asking)
            except MCPError as error:
                if (
                    error.error.code != types.REQUEST_TIMEOUT
                ):  # the client cannot, whatever it declared; a slow person is asked again
                    self._close_form(item["item_id"])
                log.warning("the question for %s was not answered: %s", item["item_id"], error)
                return await self.kernel.runs.view(view["run_id"])
            finally:
                self.asking.discard(item["item_id"])
            await self.record(view["run_id"], item["item_id"], item["digest"], answer)
            view = await self._waited(view["run_id"], max(0.0, min(wait_s, until - clock.monotonic())), ticker)
        return view

    async def record(self, run_id: str, item_id: str, digest: str, answer: types.ElicitResult) -> None:
        decision = decision_of(answer)
        if decision is None:
            self._close_form(item_id)
            return
        note = (answer.content or {}).get("note")
        try:
            await self.kernel.runs.approve(
                run_id,
                item_id,
                digest,
                decision,
                note=note if isinstance(note, str) and note else None,
                channel="person",
            )
        except KernelError as error:  # answered elsewhere, expired, changed: the view that follows tells
            log.warning("the answer to %s came too late: %s", item_id, error)

    def _close_form(self, item_id: str) -> None:
        if len(self.closed_forms) < ASKED_MAX:
            self.closed_forms.add(item_id)

    # --- resources

    async def list_resources(self, ctx: Context, params: types.PaginatedRequestParams) -> types.ListResourcesResult:
        """What the kernel has itself, then the skills, in pages of their own."""
        after = checked_cursor(params.cursor)
        graph = any(tool.name == "read_graph" for tool in self.tools)
        own = [] if after else await resources.listed(self.kernel, graph=graph)
        skills, more = await self.kernel.skills.published(after, PAGE, grants=self.grants)
        return types.ListResourcesResult(
            resources=[
                *(
                    types.Resource(uri=uri, name=name, description=about, mime_type=mime)
                    for uri, name, about, mime in own
                ),
                *(types.Resource.model_validate(described(skill)) for skill in skills),
            ],
            next_cursor=skills[-1].uri if more else None,
        )

    async def list_templates(
        self, ctx: Context, params: types.PaginatedRequestParams
    ) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(
            resource_templates=[
                types.ResourceTemplate(uri_template=template, name=name, description=description)
                for template, name, description in resources.TEMPLATES
            ]
        )

    async def read_resource(self, ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        uri = str(params.uri)
        try:
            content = await resources.read(self.kernel, uri, self.agent or client_name(ctx), self.grants)
        except KernelError as error:
            raise protocol_error(error, uri) from error
        text = content.text
        if text is not None:
            item: Any = types.TextResourceContents(uri=content.uri, mime_type=content.mime, text=text)
        else:
            item = types.BlobResourceContents(
                uri=content.uri, mime_type=content.mime, blob=resources.image_block(content)[0]
            )
        return types.ReadResourceResult(contents=[item])


# --- progress


@dataclass(slots=True)
class Ticker:
    """Progress of one call. Numbers only rise, as the protocol asks, whatever a guest says."""

    ctx: Context
    last: float = -1.0
    done: float | None = None
    total: float | None = None
    message: str | None = None

    def note(self, note: Mapping[str, Any]) -> None:
        """What a guest said last; sent with the next tick."""
        if "progress" in note:
            given = note["progress"]
            if isinstance(given, dict):
                given = [given.get("done"), given.get("total"), given.get("message")]
            parts = given if isinstance(given, list) else []
            done, total, message = (*parts, None, None)[:3]
            self.done = done if _is_number(done) else None
            self.total = total if _is_number(total) else None
            self.message = str(message)[:200] if message else None
        elif "log" in note:
            self.message = str(note["log"])[:200]

    async def tick(self) -> None:
        value = self.last + 0.001 if self.done is None or self.done <= self.last else float(self.done)
        if self.last < 0:
            value = max(value, 0.0)
        self.last = value
        await self.ctx.session.report_progress(value, self.total, self.message)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


async def _ticking(ticker: Ticker | None, work: Any) -> Any:
    """Await `work`; meanwhile a tick at once and then every PROGRESS_S, with what a guest said last."""
    if ticker is None:
        return await work
    task = asyncio.ensure_future(work)
    try:
        while True:
            await ticker.tick()
            done, _ = await asyncio.wait((task,), timeout=PROGRESS_S)
            if done:
                return task.result()
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


def _token(ctx: Context) -> str | int | None:
    meta = ctx.meta or {}
    token = meta.get("progress_token", meta.get("progressToken"))
    return token if isinstance(token, str | int) and not isinstance(token, bool) else None


# --- forms


def client_name(ctx: Context) -> str | None:
    """What the client calls itself, as far as it can be kept: nobody checks it, so it decides nothing."""
    told = ctx.session.client_params
    name = (
        "" if told is None else "".join(char for char in told.client_info.name[:CLIENT_CHARS_MAX] if char.isprintable())
    )
    return name.strip() or None


def _elicits(ctx: Context) -> bool:
    capabilities = ctx.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    if elicitation is None or (elicitation.url is not None and elicitation.form is None):
        return False
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS or ctx.session.can_send_request


def form(item: Mapping[str, Any], view: Mapping[str, Any]) -> types.ElicitRequestFormParams:
    """One item as a form. The person sees what the digest binds: the question, the details, the run that asks."""
    details = compact(item["details"]).decode() if item.get("details") else ""
    if len(details) > 2000:
        details = f"{details[:2000]} [... the rest: run://{view['run_id']}]"
    asks = f"Run {view.get('name') or view['run_id']} asks: {item.get('prompt', '')[:2000]}"
    return types.ElicitRequestFormParams(
        message="\n".join(part for part in (asks, details, f"({item['item_id']}, digest {item['digest']})") if part),
        requested_schema={
            "type": "object",
            "properties": {
                "decision": {"type": "string", "enum": ["approve", "deny"], "title": "Decision"},
                "note": {"type": "string", "title": "Note"},
            },
            "required": ["decision"],
        },
    )


def decision_of(answer: types.ElicitResult) -> str | None:
    """`approve` only from an explicit approve; refusing the form is a no; closing it is no answer."""
    if answer.action == "cancel":
        return None
    if answer.action == "accept" and (answer.content or {}).get("decision") == "approve":
        return "approve"
    return "deny"
