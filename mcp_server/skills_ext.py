"""The MCP extension `io.modelcontextprotocol/skills` (SEP-2640): the catalogue of skills.py for hosts that load skills by themselves.

    skills/list {cursor?}                    entries {uri, frontmatter, resources: [{uri, digest, size}]}, by uri, whole in one page
    skills/get {uri}                         one entry, also of a skill that another of its name hides
    resources/directory/read {uri, cursor?}  what lies directly in a folder of a skill

Guarantees
1. An entry lists every file of its skill with the size and SHA-256 of its bytes, as `resources/read` gives them at that moment.
2. Only what the standard calls a skill is served; `kernel://status` says what is not, and why. The tools serve the rest too.
3. A cursor names the last uri of its page: going on from it skips nothing and repeats nothing that stayed.
4. The same answers in every protocol version that can ask; `ttlMs` and `cacheScope` where the version has them.
5. Once a client has listed, a changed catalogue is told to it within `WATCH_S`, or later where looking is slow: at most a hundredth of
   the time is spent on it.

Not here: bytes of files (resources.py), which folders are skills (skills.py). Nothing is written, nothing is lost.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import mcp_types as types
from agent_kernel import Kernel
from agent_kernel.base.errors import ArgumentError, NotFound
from agent_kernel.base.policy import Grants
from agent_kernel.skills import Published
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from .resources import mime_of

__all__ = ["IDENTIFIER", "PAGE", "SkillsExtension", "checked_cursor", "described"]

IDENTIFIER = "io.modelcontextprotocol/skills"
SETTINGS = {"directoryRead": True}
PAGE = 100
TTL_MS = 300_000
Context = ServerRequestContext[Any, Any]


class UriParams(types.RequestParams):
    uri: str


class DirectoryParams(types.PaginatedRequestParams):
    uri: str


class SkillsExtension:
    """The three methods over one kernel's catalogue."""

    def __init__(self, kernel: Kernel, grants: Grants | None = None) -> None:
        """`grants` are those of the connection; without them it has the kernel's."""
        self._kernel = kernel
        self._grants = grants

    def serve(self, server: Server[Any]) -> None:
        server.extensions[IDENTIFIER] = SETTINGS
        server.add_request_handler("skills/list", types.PaginatedRequestParams, self.list)
        server.add_request_handler("skills/get", UriParams, self.get)
        server.add_request_handler("resources/directory/read", DirectoryParams, self.read_directory)
        server.middleware.append(_declared)

    async def list(self, ctx: Context, params: types.PaginatedRequestParams) -> dict[str, Any]:
        page, more = await self._kernel.skills.published(checked_cursor(params.cursor), PAGE, grants=self._grants)
        rest = {"nextCursor": page[-1].uri} if more else {}
        return _cacheable(ctx, {"skills": [_entry(skill) for skill in page], **rest})

    async def get(self, ctx: Context, params: UriParams) -> dict[str, Any]:
        return _cacheable(
            ctx, {"skill": _entry(await self._kernel.skills.publication(params.uri, grants=self._grants))}
        )

    async def read_directory(self, ctx: Context, params: DirectoryParams) -> dict[str, Any]:
        children = await self._children(params.uri)
        after = checked_cursor(params.cursor)
        page = [children[uri] for uri in sorted(children) if uri > after]
        rest = {"nextCursor": page[PAGE - 1]["uri"]} if len(page) > PAGE else {}
        return {"resources": page[:PAGE], **rest}

    async def _children(self, uri: str) -> dict[str, dict[str, Any]]:
        """By uri, what lies directly in the folder of that uri; a skill's own folder or one inside it."""
        parts = uri.split("/")
        for count in range(len(parts), 3, -1):
            try:
                skill = await self._kernel.skills.publication(
                    "/".join([*parts[:count], "SKILL.md"]), grants=self._grants
                )
            except NotFound:
                continue
            children = dict(_children(skill, unquote("".join(f"{part}/" for part in parts[count:]))))
            if children:
                return children
        raise ArgumentError(
            "uri.not_a_folder",
            f"{uri[:200]!r} is no folder of a skill that is served. Its uri ends without a slash; skills/list gives the skills.",
        )


async def _declared(ctx: Context, call_next: Any) -> Any:
    """The SDK drops `extensions` from the answer to `initialize`, whose version did not have them; clients look there all the same."""
    result = await call_next(ctx)
    if ctx.method == "initialize":
        result["capabilities"]["extensions"] = {IDENTIFIER: SETTINGS}
    return result


def checked_cursor(cursor: str | None) -> str:
    if cursor is not None and not cursor.startswith("skill://"):
        raise ArgumentError(
            "argument.invalid", f"The cursor {cursor[:80]!r} is none of ours. List from the start again."
        )
    return cursor or ""


def described(skill: Published) -> dict[str, Any]:
    """The resource that a skill's SKILL.md is."""
    return {"uri": skill.uri, "name": skill.name, "description": skill.description, "mimeType": "text/markdown"}


def _cacheable(ctx: Context, result: dict[str, Any]) -> dict[str, Any]:
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return {**result, "ttlMs": TTL_MS, "cacheScope": "private"}
    return result


def _entry(skill: Published) -> dict[str, Any]:
    base = skill.uri.removesuffix("SKILL.md")
    return {
        "uri": skill.uri,
        "frontmatter": skill.frontmatter,
        "resources": [
            {"uri": base + quote(file.path), "digest": f"sha256:{file.digest}", "size": file.size_bytes}
            for file in skill.files
        ],
    }


def _children(skill: Published, inside: str) -> Iterator[tuple[str, dict[str, Any]]]:
    base = skill.uri.removesuffix("SKILL.md")
    for file in skill.files:
        if not file.path.startswith(inside):
            continue
        name, below, _ = file.path.removeprefix(inside).partition("/")
        uri = base + quote(inside + name)
        if below:
            yield uri, {"uri": uri, "name": name, "mimeType": "inode/directory"}
        elif uri == skill.uri:
            yield uri, described(skill)
        else:
            yield uri, {"uri": uri, "name": name, "mimeType": mime_of(name), "size": file.size_bytes}
