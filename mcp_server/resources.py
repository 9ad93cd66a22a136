"""What has a uri: one reader for MCP resources and for `sandbox_read`.

    kernel://status        the kernel: pid, tier, runs, queue, what is shared
    kernel://schemas       what the reply of each tool holds
    kernel://audit         what the caller's sandboxes did, newest last;   kernel://audit/{before}   the page before an event's number
    run://{id}             a run as run_get shows it;   run://{id}/steps   its recorded steps
    memory://blocks        the standing notes
    memory://stats         how much is remembered, and how much may be
    memory://{memory_id}   the whole text of a fact
    memory://knowledge-graph   entities and relations (memory_graph.py)
    sandbox://...          files and outputs that were kept, and replies that were too long
    skill://...            files of skills

Guarantees
1. Every uri that a reply names opens here, by resources/read and by the tool `sandbox_read`, for hosts that have no resources.
2. `read_part` returns at most a page that fits into a reply, cut between characters; `next_offset` goes on where it stopped.
3. An id or uri of somebody else answers exactly as one that never was.

Not here: subscriptions and list_changed. Nothing is written, so there is nothing to lose when the process dies.
"""

import base64
import difflib
import mimetypes
from dataclasses import dataclass
from typing import Any

from agent_kernel import Kernel
from agent_kernel.base.audit import shown
from agent_kernel.base.errors import ArgumentError, KernelError, NotFound
from agent_kernel.base.policy import Grants
from agent_kernel.base.ports import LOCAL
from agent_kernel.base.versions import text_of

from .memory_graph import graph_of, pretty
from .shapes import Part, schemas
from .values import compact, wire

__all__ = ["TEMPLATES", "Content", "Part", "listed", "mime_of", "read", "read_part", "status"]

PAGE_BYTES = 12 << 10
"""A page of text, which JSON makes longer: quotes, line ends and control characters count double or more."""

DIGEST_CHARS = 12
EVENTS_MAX = 40

TEMPLATES = (
    ("kernel://audit/{before}", "older audit", "What sandboxes did before the event of that number"),
    ("run://{run_id}", "run", "A run: status, output, what it waits for"),
    ("run://{run_id}/steps", "run steps", "The recorded steps of a run"),
    ("memory://{memory_id}", "memory", "The whole text of a fact"),
    ("sandbox://{+path}", "sandbox file", "A file or output that was kept"),
    ("skill://{+path}", "skill file", "A file of a skill"),
)
SCHEMES = ("kernel", "run", "memory", "sandbox", "skill")


@dataclass(frozen=True, slots=True)
class Content:
    uri: str
    mime: str
    data: bytes

    @property
    def text(self) -> str | None:
        """None for bytes that are no text."""
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            return None


async def read(kernel: Kernel, uri: str, client: str | None = None, grants: Grants | None = None) -> Content:
    """`client` is a label for the audit: who reads. `grants` are those of the connection; without them it has the kernel's."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in SCHEMES:
        close = difflib.get_close_matches(scheme, SCHEMES, 1)
        hint = f" Did you mean {close[0]}://?" if close else ""
        raise ArgumentError(
            "uri.invalid",
            f"{uri[:200]!r} is no uri of the kernel.{hint} Known: {', '.join(f'{s}://' for s in SCHEMES)}.",
        )
    match scheme, rest.split("/"):
        case "kernel", ["status"]:
            return _json(uri, await status(kernel, grants))
        case "kernel", ["schemas"]:
            return _json(uri, schemas())
        case "kernel", ["audit"]:
            return _json(uri, await audit_page(kernel, None))
        case "kernel", ["audit", before] if before.isdecimal() and len(before) <= 15:
            return _json(uri, await audit_page(kernel, int(before)))
        case "run", [run_id]:
            return _json(uri, await kernel.runs.view(run_id))
        case "run", [run_id, "steps"]:
            return _json(uri, await kernel.runs.view(run_id, view="steps"))
        case "memory", ["blocks"]:
            return _json(uri, {"blocks": wire(await kernel.memory.blocks())})
        case "memory", ["stats"]:
            return _json(uri, wire(await kernel.memory.stats()))
        case "memory", ["knowledge-graph"]:
            graph = await kernel.store.read(lambda db: graph_of(kernel.memory, db))
            return Content(uri, "application/json", pretty(graph.wire()).encode())
        case "memory", [memory_id]:
            return Content(uri, "text/plain", (await kernel.memory.text(memory_id)).encode())
        case "sandbox", _:
            found = await kernel.sandbox.read(uri=uri, client=client)
            return Content(uri, found.mime, found.data)
        case "skill", _:
            return await _skill_file(kernel, uri, grants)
    raise unknown(uri)


def unknown(uri: str) -> KernelError:
    return NotFound(
        "uri.unknown", f"There is nothing at {uri[:200]!r}, or it has expired. Use a uri that a reply named."
    )


async def read_part(
    kernel: Kernel, uri: str, offset: int = 0, limit: int = PAGE_BYTES, *, client: str | None = None, grants: Grants | None = None
) -> Part | Content:  # fmt: skip
    """One page of text; a picture as a whole (the server makes an image of it)."""
    content = await read(kernel, uri, client, grants)
    size = len(content.data)
    if content.text is None:
        if content.mime.startswith("image/"):
            return content
        note = "The bytes are no text. A client reads them as the resource of this uri; a model sees pictures only."
        return Part(uri, content.mime, size, 0, note=note)
    start = min(_character_at(content.data, int(offset)), size)
    end = min(start + min(int(limit), PAGE_BYTES), size)
    end = max(_character_at(content.data, end), min(start + 1, size)) if end < size else size
    text = content.data[start:end].decode(errors="ignore")
    return Part(uri, content.mime, size, start, text, next_offset=end if end < size else None)


def _character_at(data: bytes, offset: int) -> int:
    """The last offset not after `offset` at which a character begins."""
    while 0 < offset < len(data) and data[offset] & 0xC0 == 0x80:
        offset -= 1
    return offset


async def listed(kernel: Kernel, *, graph: bool = False) -> list[tuple[str, str, str, str]]:
    """(uri, name, description, mime) of what a host may offer: few, and in a stable order; the `graph` where its tools are."""
    found = [
        ("kernel://status", "status", "The kernel: isolation, runs, what is shared", "application/json"),
        ("kernel://schemas", "schemas", "What the reply of each tool holds", "application/json"),
        ("kernel://audit", "audit", "What sandboxes did: when, for whom, limits, how they ended", "application/json"),
        ("memory://blocks", "standing notes", "Notes that hold for every conversation", "application/json"),
        ("memory://stats", "memory", "How much is remembered, and how much may be", "application/json"),
    ]
    if graph:
        found.append(("memory://knowledge-graph", "knowledge graph", "Entities and relations", "application/json"))
    runs = await kernel.runs.list(limit=20)
    found += [
        (f"run://{run['run_id']}", run.get("name") or run["run_id"], f"Run, {run['status']}", "application/json")
        for run in runs["runs"]
    ]
    return found


async def status(kernel: Kernel, grants: Grants | None = None) -> dict[str, Any]:
    """`folders` are those that somebody with these grants shares; without them the kernel's."""
    folders = (grants or kernel.policy.grants).folders
    return {
        **wire(await kernel.status()),
        "folders": [str(folder) for folder in folders],
        "skill_problems": wire(await kernel.skills.problems(grants=grants)),
        "skill_shadows": wire(await kernel.skills.shadows(grants=grants)),
        "skills_not_served": wire(await kernel.skills.unpublished(grants=grants)),
    }


async def audit_page(kernel: Kernel, before: int | None) -> dict[str, Any]:
    """As many events as fit a page, newest last, and the uri of those before them."""
    found = await kernel.audit.page(LOCAL, before=before, limit=EVENTS_MAX + 1)
    events = [shown(event, digest_chars=DIGEST_CHARS) for event in found]
    kept = events[-EVENTS_MAX:]
    while len(compact(kept)) > PAGE_BYTES - 64:
        del kept[0]
    return {"events": kept, **({"older": f"kernel://audit/{kept[0]['n']}"} if len(kept) < len(events) else {})}


async def _skill_file(kernel: Kernel, uri: str, grants: Grants | None) -> Content:
    """The bytes of the file, SKILL.md with its front matter."""
    found = await kernel.skills.file(uri, grants=grants)
    otherwise = "application/octet-stream" if text_of(found.data) is None else "text/plain"
    return Content(uri, mime_of(found.file.path, otherwise), found.data)


def mime_of(path: str, otherwise: str = "application/octet-stream") -> str:
    """The type of a file of a skill, by its name alone."""
    return "text/markdown" if path.endswith(".md") else mimetypes.guess_type(path)[0] or otherwise


def _json(uri: str, value: Any) -> Content:
    return Content(uri, "application/json", compact(value))


def image_block(content: Content) -> tuple[str, str]:
    return base64.b64encode(content.data).decode(), content.mime
