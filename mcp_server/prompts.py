"""What a person picks in a host, and is helped to type: the prompt `skill`, and completion of names and ids.

    skill(name, task?)   the skill's SKILL.md with what to do with it, as a slash command offers it

Completion: a prompt's `name`, and in uris `run_id` (also by the run's name) of skills. At most `VALUES_MAX` values; `total`
says how many there are.

Guarantee: what is offered here opens with `prompts/get` or `resources/read`. Nothing is written, so there is nothing to lose.
"""

from collections.abc import Sequence
from typing import Any

import mcp_types as types
from agent_kernel import Kernel
from agent_kernel.base.errors import ArgumentError
from agent_kernel.base.policy import Grants
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

from .resources import read

__all__ = ["Prompts"]

VALUES_MAX = 100
TTL_MS = 3_600_000
Context = ServerRequestContext[Any, Any]

SKILL = types.Prompt(
    name="skill",
    title="Use a skill",
    description="Read a skill's instructions and follow them.",
    arguments=[
        types.PromptArgument(name="name", description="of the skill", required=True),
        types.PromptArgument(name="task", description="what to do with it"),
    ],
)


class Prompts:
    def __init__(self, kernel: Kernel, grants: Grants) -> None:
        self._kernel = kernel
        self._grants = grants

    def serve(self, server: Server[Any]) -> None:
        server.add_request_handler("prompts/list", types.PaginatedRequestParams, self.list)
        server.add_request_handler("prompts/get", types.GetPromptRequestParams, self.get)
        server.add_request_handler("completion/complete", types.CompleteRequestParams, self.complete)

    async def list(self, ctx: Context, params: types.PaginatedRequestParams) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=[SKILL], ttl_ms=TTL_MS, cache_scope="public")

    async def get(self, ctx: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        given = params.arguments or {}
        if params.name != SKILL.name:
            raise ArgumentError("prompt.unknown", f"There is no prompt {params.name[:80]!r}. There is: {SKILL.name}.")
        if not given.get("name"):
            raise ArgumentError(
                "argument.missing", "The prompt `skill` needs the `name` of a skill; skill_search finds one."
            )
        loaded = await self._kernel.skills.load(given["name"], grants=self._grants)
        content = await read(self._kernel, loaded.uri, grants=self._grants)
        task = given.get("task")
        says = f"Follow the skill {loaded.name!r}" + (f" for this task: {task}" if task else ".")
        return types.GetPromptResult(
            description=loaded.description,
            messages=[
                types.PromptMessage(role="user", content=types.TextContent(type="text", text=says)),
                types.PromptMessage(
                    role="user",
                    content=types.EmbeddedResource(
                        type="resource",
                        resource=types.TextResourceContents(
                            uri=content.uri, mime_type=content.mime, text=content.text or ""
                        ),
                    ),
                ),
            ],
        )

    async def complete(self, ctx: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        typed = params.argument.value
        values = [value for value in await self._values(params.ref, params.argument.name, typed) if value != typed]
        return types.CompleteResult(
            completion=types.Completion(
                values=values[:VALUES_MAX], total=len(values), has_more=len(values) > VALUES_MAX
            )
        )

    async def _values(self, ref: Any, argument: str, typed: str) -> Sequence[str]:
        if isinstance(ref, types.PromptReference):
            names = (
                await self._kernel.skills.names(grants=self._grants)
                if (ref.name, argument) == (SKILL.name, "name")
                else []
            )
            return [name for name in names if name.startswith(typed)]
        if argument == "run_id":
            runs = (await self._kernel.runs.list(limit=100))["runs"]
            return [run["run_id"] for run in runs if run["run_id"].startswith(typed) or _named(run, typed)]
        if argument == "path" and str(ref.uri).startswith("skill://"):
            uris = [uri.removeprefix("skill://") for uri in await self._kernel.skills.uris(grants=self._grants)]
            return [uri for uri in uris if uri.startswith(typed)]
        return []


def _named(run: Any, typed: str) -> bool:
    return bool(typed) and str(run.get("name") or "").lower().startswith(typed.lower())
