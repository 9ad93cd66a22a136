"""Compatibility profiles: tools of other memory servers, served over the kernel's own memory when the operator asks for them.

    agent-kernel mcp --memory-profile anthropic          the tool `memory` of Anthropic's memory_20250818: files under /memories
    agent-kernel mcp --memory-profile server-memory      the nine tools of the official server-memory: a graph
    config.toml: [memory] profiles = ["anthropic"]       the same; what file and line name is added up

A client that was made for one of them needs no other change. Their tools stand beside the default ones, and what is stored through
either is found by memory_search.

Guarantees
1. Without the option no tool of a profile is listed or can be called.
2. Names, arguments and answers are the other tool's, hints included; the words that describe them are ours.
3. An argument that the other server ignores is ignored here too; one of a wrong type is refused by name.

Not here: what the tools do (memory_files.py, memory_graph.py). Nothing is kept.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from agent_kernel.base.policy import MEMORY_PROFILES, Grants

from . import memory_files, memory_graph
from .foreign import Worded
from .tools import Call, Tool
from .toolsets import selected

__all__ = ["tools_of"]


def tools_of(profiles: Iterable[str], grants: Grants, toolsets: Iterable[str] = ()) -> tuple[Tool, ...]:
    """The tools of the sets that somebody with these grants has, and those of the profiles."""
    asked = set(profiles)
    return (*selected(grants, toolsets), *(tool for name in MEMORY_PROFILES if name in asked for tool in _TOOLS[name]))


def _text(description: str = "") -> dict[str, Any]:
    return {"type": "string", **({"description": description} if description else {})}


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


# --- anthropic


async def _memory(call: Call) -> Worded:
    return await memory_files.perform(call.kernel, call.arguments, call.author)


_FILES = Tool(
    "memory",
    "Files that last",
    "Keep notes as files under /memories, for later conversations. Look there first (view /memories) before you start a task."
    " Commands: view {path, view_range?}, create {path, file_text}, str_replace {path, old_str, new_str},"
    " insert {path, insert_line, insert_text}, delete {path}, rename {old_path, new_path}.",
    {
        "command": {"type": "string", "enum": tuple(memory_files.COMMANDS)},
        "path": _text(),
        "view_range": _list({"type": "integer"}) | {"description": "[first, last] line; -1 is the end"},
        "file_text": _text(),
        "old_str": _text("must occur once"),
        "new_str": _text(),
        "insert_line": {"type": "integer", "description": "after this line; 0 is the beginning"},
        "insert_text": _text(),
        "old_path": _text(),
        "new_path": _text(),
    },
    _memory,
    required=("command",),
    destroys=True,
)


# --- server-memory


def _graph_call(name: str) -> Callable[[Call], Awaitable[Worded]]:
    async def call(call: Call) -> Worded:
        return await memory_graph.perform(call.kernel, name, call.arguments, call.author)

    return call


def _strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a result: as the argument's, and nothing else in it."""
    made = dict(schema)
    if "items" in made:
        made["items"] = _strict(made["items"])
    if "properties" in made:
        made["properties"] = {name: _strict(inner) for name, inner in made["properties"].items()}
        made["additionalProperties"] = False
    return made


_ENTITY = _object(name=_text(), entityType=_text(), observations=_list(_text()))
_RELATION = _object(**{"from": _text(), "to": _text(), "relationType": _text("active voice")})
_ADDED = _object(entityName=_text(), contents=_list(_text()))
_DELETED = _object(entityName=_text(), observations=_list(_text()))
_RESULT = _object(entityName=_text(), addedObservations=_list(_text()))
_DONE = _object(success={"type": "boolean"}, message=_text())
_GRAPH = _object(entities=_list(_ENTITY), relations=_list(_RELATION))


def _graph_tool(
    name: str, title: str, description: str, parameters: Mapping[str, Any], result: Mapping[str, Any], **hints: bool
) -> Tool:
    return Tool(
        name, title, description, parameters, _graph_call(name),
        required=tuple(parameters), output_schema=_strict(result), ignores_unknown=True, **hints,
    )  # fmt: skip


_GRAPH_TOOLS = (
    _graph_tool(
        "create_entities", "Create entities",
        "Add entities to the knowledge graph. A name that is there already stays as it is.",
        {"entities": _list(_ENTITY)}, _object(entities=_list(_ENTITY)),
    ),
    _graph_tool(
        "create_relations", "Create relations",
        "Connect entities of the knowledge graph.",
        {"relations": _list(_RELATION)}, _object(relations=_list(_RELATION)),
    ),
    _graph_tool(
        "add_observations", "Add observations",
        "Add what was learnt about entities that are in the knowledge graph.",
        {"observations": _list(_ADDED)}, _object(results=_list(_RESULT)),
    ),
    _graph_tool(
        "delete_entities", "Delete entities",
        "Remove entities from the knowledge graph, with their relations.",
        {"entityNames": _list(_text())}, _DONE, destroys=True, idempotent=True,
    ),
    _graph_tool(
        "delete_observations", "Delete observations",
        "Remove observations from entities.",
        {"deletions": _list(_DELETED)}, _DONE, destroys=True, idempotent=True,
    ),
    _graph_tool(
        "delete_relations", "Delete relations",
        "Remove relations from the knowledge graph.",
        {"relations": _list(_RELATION)}, _DONE, destroys=True, idempotent=True,
    ),
    _graph_tool(
        "read_graph", "Read the graph",
        "Show the knowledge graph from its beginning, as much as a reply holds.",
        {}, _GRAPH, reads=True, idempotent=True,
    ),
    _graph_tool(
        "search_nodes", "Search nodes",
        "Find entities by their names, types and observations; by single words where the whole query is nowhere.",
        {"query": _text()}, _GRAPH, reads=True, idempotent=True,
    ),
    _graph_tool(
        "open_nodes", "Open nodes",
        "Show entities by name, with their relations.",
        {"names": _list(_text())}, _GRAPH, reads=True, idempotent=True,
    ),
)  # fmt: skip

_TOOLS: Mapping[str, tuple[Tool, ...]] = {"anthropic": (_FILES,), "server-memory": _GRAPH_TOOLS}
