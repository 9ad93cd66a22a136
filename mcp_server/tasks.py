"""The MCP extension `io.modelcontextprotocol/tasks` (SEP-2663): a run that a client starts is a task of its own; task id = run id.

    tools/call run_start       from a client that declares tasks: {resultType: "task", taskId, status, createdAt, lastUpdatedAt, ttlMs: null}
    tasks/get {taskId}         the same with `result` (what run_get would reply) or with what a person is asked (`inputRequests`)
    tasks/update {taskId, inputResponses}   a person's answers; keys that nobody waits for are passed over
    tasks/cancel {taskId}      asks the run to end; one that has ended stays as it is

Guarantees
1. A task is in the journal before its id is told, survives the server, and ends once.
2. A run that failed is a completed task: its failure is the result of the call, as it is without tasks. What waits for an answer by
   `run_send` is working, and says so.
3. Only a client that declared the extension in that very request gets a task; the three methods refuse everybody else with -32021.

Not here: notifications/tasks. Nothing is kept here, so nothing is lost.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import mcp_types as types
from agent_kernel import Kernel
from agent_kernel.base.errors import Conflict
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import Field

__all__ = ["IDENTIFIER", "Task", "Tasks", "declared", "task_of"]

IDENTIFIER = "io.modelcontextprotocol/tasks"
POLL_MS = 1000
MISSING_CAPABILITY = -32021
HEADER_MISMATCH = -32020
Context = ServerRequestContext[Any, Any]


class Task(dict[str, Any]):
    """A result of tools/call that is a task."""


class TaskParams(types.RequestParams):
    task_id: str


class UpdateParams(TaskParams):
    input_responses: dict[str, Any] = Field(default_factory=dict)


class Tasks:
    def __init__(
        self,
        kernel: Kernel,
        reply: Callable[[Mapping[str, Any]], Awaitable[types.CallToolResult]],
        ask: Callable[[Mapping[str, Any]], Mapping[str, types.ElicitRequest]],
        record: Callable[[str, str, str, types.ElicitResult], Awaitable[None]],
    ) -> None:
        """`reply` makes a tool's result of a run, `ask` the forms of what waits for a person, `record` takes a person's answer."""
        self._kernel, self._reply, self._ask, self._record = kernel, reply, ask, record

    def serve(self, server: Server[Any]) -> None:
        server.extensions[IDENTIFIER] = {}
        server.add_request_handler("tasks/get", TaskParams, self.get)
        server.add_request_handler("tasks/update", UpdateParams, self.update)
        server.add_request_handler("tasks/cancel", TaskParams, self.cancel)

    async def get(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        _check(ctx, params)
        view = await self._kernel.runs.view(params.task_id)
        task = task_of(view)
        if task["status"] == "completed":
            result = await self._reply(view)
            task["result"] = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        elif view["status"] == "input_required":
            forms = self._ask(view)
            if forms:
                asked = {
                    key: form.model_dump(by_alias=True, mode="json", exclude_none=True) for key, form in forms.items()
                }
                task.update(status="input_required", inputRequests=asked)
        return task

    async def update(self, ctx: Context, params: UpdateParams) -> dict[str, Any]:
        _check(ctx, params)
        view = await self._kernel.runs.view(params.task_id)
        for item in view.get("waiting", ()):
            answer = params.input_responses.get(item["item_id"])
            if item["answer_by"] == "person" and answer is not None:
                said = types.ElicitResult.model_validate(answer)
                await self._record(view["run_id"], item["item_id"], item["digest"], said)
        return {}

    async def cancel(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        _check(ctx, params)
        view = await self._kernel.runs.view(params.task_id)
        if view["status"] in ("working", "input_required"):
            with contextlib.suppress(Conflict):  # it ended just now
                await self._kernel.runs.control(params.task_id, "cancel", reason="the client cancelled its task")
        return {}


def declared(ctx: Context) -> bool:
    """Some clients declare tasks at the older handshake, whose wire cannot carry one."""
    capabilities = ctx.session.client_capabilities
    extensions = (capabilities.extensions if capabilities else None) or {}
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS and IDENTIFIER in extensions


def task_of(view: Mapping[str, Any]) -> Task:
    """The run as a task, without what it came to and what it asks."""
    ended = view["status"] in ("completed", "failed")
    status = "completed" if ended else "cancelled" if view["status"] == "cancelled" else "working"
    task = Task(
        taskId=view["run_id"], status=status, createdAt=view["created_at"], lastUpdatedAt=view["updated_at"],
        ttlMs=None, pollIntervalMs=POLL_MS,
    )  # fmt: skip
    waits = [item["item_id"] for item in view.get("waiting", ()) if item["answer_by"] != "person"]
    message = f"It waits for run_send: {', '.join(waits[:4])}" if waits else view.get("detail")
    return Task(task, statusMessage=message) if message else task


def _check(ctx: Context, params: TaskParams) -> None:
    if not declared(ctx):
        data = {"requiredCapabilities": {"extensions": {IDENTIFIER: {}}}}
        raise MCPError(MISSING_CAPABILITY, f"The client did not declare {IDENTIFIER} in this request.", data)
    headers = getattr(ctx.request, "headers", None)
    if headers is not None and headers.get("mcp-name") != params.task_id:
        raise MCPError(HEADER_MISMATCH, f"The header Mcp-Name is not the taskId {params.task_id}.")
