"""What a reply looks like: a value of the kernel becomes the result of a tools/call that hosts hand to their model whole.

Guarantees
1. Success: `structuredContent` and the one text block are each complete, compact JSON below `reply_bytes_max`; what is longer is cut
   and kept whole under a uri.
2. Where there are pictures there is no `structuredContent`, since hosts that find one drop all blocks: the JSON block, then at most
   `IMAGES_MAX` picture blocks; the object is in `_meta` too, as `result`.
3. A sandbox's `id`, `tier`, `layers` and `usage` are in `_meta`, where they cost a model nothing.
4. A file of a result has a `local_path` where the client is on this machine.
5. Failure: `isError`, one text block `code: what happened. What to do.`, and `structuredContent.error`.

Not here: calls and questions (server.py), cutting (values.py), pictures (images.py). Nothing to lose when the process dies.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mcp_types as types
from agent_kernel import Kernel
from agent_kernel.base.errors import KernelError
from agent_kernel.base.items import command
from agent_kernel.base.ports import LOCAL

from .copies import Copies
from .foreign import Said, Worded
from .images import shown
from .resources import Content
from .tools import Tool
from .values import compact, fitted, wire, with_cut_outputs

__all__ = ["Replies", "failure", "listed"]

MESSAGE_CHARS_MAX = 4000
ENVELOPE_BYTES = 512
"""Of a reply beside its object."""


class Replies:
    """The successes of one connection."""

    def __init__(self, kernel: Kernel, *, local: bool) -> None:
        self._kernel = kernel
        self._copies = Copies(kernel) if local else None

    async def success(self, tool: Tool, value: Any) -> types.CallToolResult:
        if isinstance(value, Worded):
            blocks: list[Any] = [
                types.TextContent(type="text", text=part) for part in (value.text, value.note) if part is not None
            ]
            return types.CallToolResult(content=blocks, structured_content=value.structured)
        if isinstance(value, Content):
            about = {"uri": value.uri, "mime": value.mime, "size_bytes": len(value.data)}
            return await self._pictured(about, [value], {})
        reply = wire(value)
        assert isinstance(reply, dict)
        beside = ("id", "tier", "layers", "usage") if tool.sandboxed else ()
        meta = {name: reply.pop(name) for name in beside if name in reply}
        if tool.sandboxed and self._copies is not None and "files" in reply:
            reply["files"] = await self._copies.beside(reply["files"])
        pictures = await self._pictures(reply) if tool.sandboxed else []
        reply = advised(reply, self._kernel.store.folder)
        if pictures:
            return await self._pictured(reply, pictures, meta)
        reply = await self._cut(reply)
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=compact(reply).decode())],
            structured_content=reply,
            _meta=meta or None,
        )

    async def _pictured(
        self, reply: dict[str, Any], pictures: Sequence[Content], meta: Mapping[str, Any]
    ) -> types.CallToolResult:
        images, notes = await shown(self._kernel, pictures)
        if notes:
            reply["note"] = " ".join(notes)
        reply = await self._cut(reply)
        text = types.TextContent(type="text", text=compact(reply).decode())
        if not images:
            return types.CallToolResult(content=[text], structured_content=reply, _meta=dict(meta) or None)
        blocks = [types.ImageContent(type="image", data=image.data, mime_type=image.mime) for image in images]
        return types.CallToolResult(content=[text, *blocks], _meta={**meta, "result": reply})

    async def _pictures(self, reply: Mapping[str, Any]) -> list[Content]:
        """What a sandbox left under names of pictures."""
        kept = [
            (output, await self._kernel.store.artifact(LOCAL, output["uri"]))
            for output in reply.get("outputs", ())
            if output["mime"] != "image/svg+xml"  # a text, which sandbox_read reads
        ]
        return [Content(output["uri"], output["mime"], found.data) for output, found in kept if found is not None]

    async def _cut(self, reply: dict[str, Any]) -> dict[str, Any]:
        """`reply` below the limit; the whole of what had to be cut is kept."""
        limit = self._kernel.policy.limits.reply_bytes_max - ENVELOPE_BYTES
        cut = with_cut_outputs(reply, limit)
        if len(compact(cut)) <= limit:
            return cut
        uri = f"sandbox://replies/{self._kernel.ports.new_id('rep')}.json"
        data = compact(reply)
        store = self._kernel.store
        await store.write(lambda tx: store.keep(tx, LOCAL, uri, data, "application/json"))
        return dict(fitted(cut, limit, uri))


def advised(reply: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a model should do next about a run that is not over."""
    run_id = reply.get("run_id")
    if run_id is None or "status" not in reply or reply["status"] not in ("working", "input_required"):
        return reply
    items = [item["item_id"] for item in reply.get("waiting", ()) if item["answer_by"] == "person"]
    if items:
        commands = " or ".join(f"`{command(item, folder)}`" for item in items[:3])
        advice = f"A person must decide. Ask the user to run {commands} (or `deny`), then run_get(run_id, wait_s=50)."
    elif reply.get("waiting"):
        advice = "Answer with run_send(run_id, item_id, content)."
    elif reply.get("detail") == "paused":
        advice = 'It is paused: run_control(run_id, "resume") lets it go on.'
    elif reply["status"] == "input_required":
        advice = "It waits for an answer: run_get(run_id) shows for which."
    else:
        advice = "run_get(run_id, wait_s=50) waits for it."
    return {**reply, "next": advice}


def failure(error: KernelError, tool: Tool | None = None) -> types.CallToolResult:
    """Where the tool lists an output schema only the text: clients check structured content against it in a refusal too."""
    told = error.to_wire()
    if len(told["message"]) > MESSAGE_CHARS_MAX:
        told["message"] = (
            f"{told['message'][: MESSAGE_CHARS_MAX // 2]} [...] {told['message'][-MESSAGE_CHARS_MAX // 4 :]}"
        )
    text = told["message"] if isinstance(error, Said) else f"{told['code']}: {told['message']}"
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)],
        structured_content=None if tool is not None and tool.output_schema else {"error": told},
        is_error=True,
    )


def listed(tool: Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema,
        output_schema=tool.output_schema,
        annotations=types.ToolAnnotations(
            title=tool.title,
            read_only_hint=tool.reads,
            destructive_hint=tool.destroys,
            idempotent_hint=tool.idempotent,
            open_world_hint=tool.open_world,
        ),
    )
