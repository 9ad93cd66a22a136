"""The tools: one table of names, words and flat schemas; arguments in, values of the kernel out.

A row is what a host shows to its model, so every word is paid for in every conversation: names, descriptions and schemas of the
table stay below 2,000 tokens together. The schemas are written by hand and the same dictionaries check the arguments.

Guarantees
1. Schemas are flat: no `$ref`, no `anyOf`, no untyped parameter, no title inside. Every tool has a title and all four hints.
2. An argument of an unknown name, a wrong type, or outside its enum or range is refused by name before anything happens, with the
   nearest right name and all allowed ones. An object or array that arrives as a JSON string is parsed; null is an absent argument.
3. A tool or an argument that is not built is not here.
4. No argument names a principal, and none widens what the operator allowed.

Not here: MCP types, results and errors on the wire, progress, elicitation (server.py); bytes that are not JSON (transport.py).
Nothing here outlives a call, so there is nothing to lose when the process dies.
"""

import base64
import dataclasses
import difflib
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_kernel import Kernel
from agent_kernel.base.errors import ArgumentError, KernelError
from agent_kernel.base.limits import Limits
from agent_kernel.base.policy import Grants

from . import resources
from .transport import strict

__all__ = ["EXPORT", "TOOLS", "Call", "Tool", "named", "served", "waited"]

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One call under way: what its function needs beside the arguments."""

    kernel: Kernel
    arguments: dict[str, Any]
    note: Callable[[Mapping[str, Any]], None] | None = None
    """Takes what a guest says meanwhile, `{log}` or `{progress}`; None when nobody listens."""
    client: str | None = None
    """What the connection calls itself: the operator's --agent, else the name it gave at the handshake."""
    grants: Grants | None = None
    """Of the connection."""

    @property
    def author(self) -> dict[str, Any]:
        """As whose words memory takes what is said here: a model wrote it, whoever it says has told it."""
        return {"trust": "agent", "client": self.client}


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    title: str
    description: str
    parameters: Mapping[str, Schema]
    call: Callable[[Call], Awaitable[Any]]
    required: tuple[str, ...] = ()
    accepted: Mapping[str, Schema] = field(default_factory=dict)
    """Taken, though a model is not told of them."""
    reads: bool = False
    destroys: bool = False
    idempotent: bool = False
    open_world: bool = False
    a_run: bool = False
    """The reply is a run: a person may be asked for what it waits for."""
    sandboxed: bool = False
    """The reply is a sandbox's result: what the kernel knows of it goes beside it."""
    output_schema: Mapping[str, Any] | None = None
    """Listed with the tool, so that clients check replies against it. Only where another tool that is stood in for has one."""
    ignores_unknown: bool = False
    """Arguments that it does not know are left out, as the tool does that it stands in for."""

    @property
    def input_schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "object", "properties": self.parameters}
        if self.required:
            schema["required"] = self.required
        return schema

    def convert(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments under their names, checked; absent ones are absent."""
        known = {**self.parameters, **self.accepted}
        if self.ignores_unknown:
            given = _known_part(given, {"type": "object", "properties": known})
        for name in given:
            if name not in known:
                raise _unknown(self.name, name, self.parameters)
        taken = {
            name: _checked(f"{self.name}: {name}", value, known[name])
            for name, value in given.items()
            if value is not None
        }
        for name in self.required:
            if name not in taken:
                raise ArgumentError(
                    "argument.missing", f"{self.name} needs {name!r}. Required: {', '.join(self.required)}."
                )
        return taken


def served(grants: Grants) -> tuple[Tool, ...]:
    """The tools that a connection with these grants has: what it could only be refused is not there."""
    writable = any(folder.writable for folder in grants.folders)
    return tuple(tool for tool in (*TOOLS, EXPORT) if tool is not EXPORT or writable)


def named(name: str, tools: Sequence[Tool] | None = None) -> Tool:
    """The tool of that name; KernelError with the nearest one."""
    tools = TOOLS if tools is None else tools
    for tool in tools:
        if tool.name == name:
            return tool
    raise ArgumentError(
        "tool.unknown", f"There is no tool {name[:80]!r}.{_nearest(name, [tool.name for tool in tools])}"
    )


# --- checking


def _known_part(value: Any, schema: Schema) -> Any:
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return {name: _known_part(inner, known[name]) for name, inner in value.items() if name in known}
    if isinstance(value, list) and "items" in schema:
        return [_known_part(inner, schema["items"]) for inner in value]
    return value


def _unknown(where: str, name: str, known: Mapping[str, Schema]) -> KernelError:
    return ArgumentError("argument.unknown", f"{where} has no argument {name[:80]!r}.{_nearest(name, list(known))}")


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(_SYNONYMS.get(name, name), known, 1, 0.5)
    return (f" Did you mean {close[0]!r}?" if close else "") + f" Allowed: {', '.join(known)}."


_SYNONYMS = {
    "cmd": "code", "command": "code", "script_code": "code", "source_code": "code", "lang": "language", "content_text": "text",
    "timeout": "timeout_s", "wait": "wait_s", "memory": "memory_mb", "id": "run_id", "q": "query", "top_k": "limit", "n": "limit",
    "file": "uri", "url": "uri", "memories": "items", "reply": "content", "answer": "content",
}  # fmt: skip
"""What models write instead, where spelling alone does not lead to the right name."""

_LIMITS = Limits()
"""For what comes as a string inside a line that has passed the operator's limits."""
_WORDS = {str: "a string", bool: "a boolean", int: "an integer", float: "a number", list: "an array", dict: "an object"}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "boolean": (bool,), "integer": (int,), "number": (int, float), "array": (list,), "object": (dict,),
}  # fmt: skip


def _checked(where: str, value: Any, schema: Schema) -> Any:
    wanted = schema["type"]
    if wanted in ("object", "array") and isinstance(value, str):
        value = _parsed(where, value)
    if wanted == "integer" and isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) not in _TYPES[wanted]:
        article = "an" if wanted[0] in "aio" else "a"
        shown = json.dumps(value)[:60]
        raise ArgumentError(
            "argument.wrong_type", f"{where} must be {article} {wanted}, not {_WORDS[type(value)]} ({shown})."
        )
    if wanted in ("integer", "number"):
        _check_range(where, value, schema)
    elif wanted == "array":
        return [_checked(f"{where}[{i}]", item, schema["items"]) for i, item in enumerate(value)]
    elif wanted == "object":
        return _checked_object(where, value, schema)
    elif "enum" in schema and value not in schema["enum"]:
        close = difflib.get_close_matches(value, schema["enum"], 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ArgumentError(
            "argument.invalid", f"{where} must be one of {', '.join(schema['enum'])}, not {value[:80]!r}.{hint}"
        )
    return value


def _checked_object(where: str, value: dict[str, Any], schema: Schema) -> dict[str, Any]:
    if "properties" in schema:
        for name in value:
            if name not in schema["properties"]:
                raise _unknown(where, name, schema["properties"])
        for name in schema.get("required", ()):
            if value.get(name) is None:
                raise ArgumentError("argument.missing", f"{where} needs {name!r}.")
        return {k: _checked(f"{where}.{k}", v, schema["properties"][k]) for k, v in value.items() if v is not None}
    if "additionalProperties" in schema:
        return {k: _checked(f"{where}[{k!r}]", v, schema["additionalProperties"]) for k, v in value.items()}
    return value


def _check_range(where: str, value: float, schema: Schema) -> None:
    least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    if abs(value) > 2**53 or not least <= value <= most:
        limits = f"at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ArgumentError(
            "argument.invalid", f"{where} must be {limits if least > -math.inf else 'within 2**53'}, not {value}."
        )


def _parsed(where: str, text: str) -> Any:
    """What a string of JSON says, read as strictly as a line; another string as it is."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return strict(text.encode(), _LIMITS)
    except KernelError as error:
        raise type(error)(error.code, f"{where}: {error.message}") from None


def text(description: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "string", **({"description": description} if description else {}), **more}


def _number(description: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "number", **({"description": description} if description else {}), "minimum": 0, **more}


def _count(**more: Any) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, **more}


def _texts(description: str = "") -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, **({"description": description} if description else {})}


def _object(description: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "object", **({"description": description} if description else {}), **more}


# --- what each tool does


async def waited(
    kernel: Kernel, run_id: str, wait_s: float, note: Callable[[Mapping[str, Any]], None] | None
) -> dict[str, Any]:
    """The run when it ended, needs something, or `wait_s` is over; what its program says meanwhile goes to `note`."""
    if note is None or not wait_s:
        return await kernel.runs.view(run_id, wait_s=wait_s)
    async with kernel.runs.notes(run_id) as notes:
        now = await kernel.runs.view(run_id)
        if now.get("progress"):
            note(now)
        listening = kernel.scheduler.spawn(_pass_on(notes, note), f"{run_id} notes")
        try:
            return await kernel.runs.view(run_id, wait_s=wait_s)
        finally:
            listening.cancel()


async def _pass_on(notes: AsyncIterator[Mapping[str, Any]], note: Callable[[Mapping[str, Any]], None]) -> None:
    async for said in notes:
        note(said)


async def sandbox_run(call: Call) -> Any:
    return await call.kernel.sandbox.run(on_note=call.note, client=call.client, grants=call.grants, **call.arguments)


async def sandbox_read(call: Call) -> Any:
    return await resources.read_part(call.kernel, client=call.client, grants=call.grants, **call.arguments)


async def sandbox_export(call: Call) -> Any:
    given = call.arguments
    done = await call.kernel.sandbox.export(
        given["from"], given["to"], overwrite=given.get("overwrite", False), grants=call.grants, client=call.client
    )
    return {"files": done}


async def run_start(call: Call) -> Any:
    arguments = dict(call.arguments)
    wait_s = arguments.pop("wait_s", DEFAULT_WAIT_S)
    handle = await call.kernel.runs.start(grants=call.grants, **arguments)
    view = await waited(call.kernel, handle.id, wait_s, call.note)
    return {**view, "replayed": True} if handle.replayed else view


async def run_get(call: Call) -> Any:
    arguments = dict(call.arguments)
    if "run_id" in arguments:
        _refuse_beside(arguments, "run_id", ("status", "limit", "cursor"))
        wait_s = arguments.pop("wait_s", 0.0)
        summary = arguments.get("view", "summary") == "summary"
        view = await waited(call.kernel, arguments["run_id"], wait_s, call.note) if summary or wait_s else None
        return view if summary else await call.kernel.runs.view(**arguments)
    _refuse_without(arguments, "run_id", ("wait_s", "view"))
    return await call.kernel.runs.list(**arguments)


async def run_send(call: Call) -> Any:
    arguments = dict(call.arguments)
    wait_s = arguments.pop("wait_s", DEFAULT_WAIT_S)
    if ("item_id" in arguments) == ("topic" in arguments):
        raise ArgumentError(
            "argument.invalid", "run_send takes either item_id (to answer it) or topic (to send a message)."
        )
    await call.kernel.runs.send(**arguments)
    return await waited(call.kernel, arguments["run_id"], wait_s, call.note)


async def run_approve(call: Call) -> Any:
    await call.kernel.runs.approve(**call.arguments, channel="host", grants=call.grants)
    return await call.kernel.runs.view(call.arguments["run_id"])


async def run_control(call: Call) -> Any:
    await call.kernel.runs.control(**call.arguments)
    return await call.kernel.runs.view(call.arguments["run_id"])


async def memory_add(call: Call) -> Any:
    return {"items": await call.kernel.memory.add(call.arguments["items"], **call.author)}


async def memory_search(call: Call) -> Any:
    return await call.kernel.memory.search(**call.arguments)


async def memory_forget(call: Call) -> Any:
    return await call.kernel.memory.forget(**call.arguments, **call.author)


async def memory_blocks(call: Call) -> Any:
    return {"blocks": await call.kernel.memory.blocks(**call.arguments)}


async def memory_edit(call: Call) -> Any:
    return await call.kernel.memory.edit(**call.arguments, **call.author)


async def skill_search(call: Call) -> Any:
    return {"skills": await call.kernel.skills.search(**call.arguments, grants=call.grants)}


async def skill_load(call: Call) -> Any:
    arguments = dict(call.arguments)
    if ("name" in arguments) == ("uri" in arguments):
        raise ArgumentError("argument.invalid", "skill_load takes either name or uri.")
    skill = arguments.pop("name", None) or arguments.pop("uri")
    loaded = await call.kernel.skills.load(skill, **arguments, grants=call.grants)
    if loaded.base64 is None:
        return loaded
    data = base64.b64decode(loaded.base64)
    uri = f"{loaded.uri.removesuffix('SKILL.md')}{loaded.path}"
    content = resources.Content(uri, resources.mime_of(loaded.path or ""), data)
    note = "The file is no text. skill_run sees it beneath $SKILL."
    return content if content.mime.startswith("image/") else dataclasses.replace(loaded, base64=None, warnings=(note,))


async def skill_run(call: Call) -> Any:
    given = call.arguments
    invocation = await call.kernel.skills.script(given["name"], given["script"], grants=call.grants)
    return await call.kernel.sandbox.run(
        invocation.code,
        language=invocation.language,
        argv=(*invocation.argv, *given.get("args", ())),
        stdin=json.dumps(given["input"]) if "input" in given else None,
        files={"input.json": json.dumps(given["input"])} if "input" in given else None,
        skill=invocation.skill_folder,
        grants=call.grants,
        timeout_s=given.get("timeout_s", 30.0),
        on_note=call.note,
        client=call.client,
    )


def _refuse_beside(arguments: Mapping[str, Any], name: str, others: tuple[str, ...]) -> None:
    for other in others:
        if other in arguments:
            raise ArgumentError(
                "argument.invalid", f"{other!r} belongs to the list of runs. Leave out {name!r} or {other!r}."
            )


def _refuse_without(arguments: Mapping[str, Any], name: str, others: tuple[str, ...]) -> None:
    for other in others:
        if other in arguments:
            raise ArgumentError("argument.invalid", f"{other!r} needs a run. Give {name!r}, or leave out {other!r}.")


DEFAULT_WAIT_S = 20.0


_ITEM = _object(
    properties={
        "text": text(),
        "key": text("names a slot: a new value supersedes the old"),
        "kind": text(),
        "conversation": text(),
        "speaker": text(),
        "time": text("RFC 3339"),
        "tags": _texts(),
        "source": text(),
        "supersedes": _texts(),
        "expires_at": text(),
    },
    required=("text",),
)
_WAIT = _number("at most 50", maximum=7200)

TOOLS: tuple[Tool, ...] = (
    Tool(
        "sandbox_run",
        "Run code in a sandbox",
        "Run Python or bash in a fresh, isolated sandbox. It sees no user files except folders the operator shared (read-only, at"
        " their own path), no network and no secrets. Changed files come back as uris, pictures as images. For work beyond 50 s or that must survive a"
        " crash use run_start.",
        {
            "code": text(),
            "language": text(enum=("python", "bash")),
            "files": _object("{path: text} to put there", additionalProperties={"type": "string"}),
            "stdin": text(),
            "timeout_s": _number("default 30", maximum=7200),
            "memory_mb": _count(),
        },
        sandbox_run,
        required=("code",),
        accepted={"packages": _texts(), "allow_hosts": _texts()},
        sandboxed=True,
    ),
    Tool(
        "sandbox_read",
        "Read a kernel uri",
        "Read any uri that a reply named (sandbox://, run://, memory://, skill://, kernel://), in pages.",
        {"uri": text(), "offset": _number("byte"), "limit": _count(description="bytes")},
        sandbox_read,
        required=("uri",),
        reads=True,
        idempotent=True,
    ),
    Tool(
        "run_start",
        "Start a durable run",
        "Start a durable program: Python with `async def main(input)` whose calls to `kernel` (step, sandbox.run, memory, skill,"
        " spawn, sleep, approve, ask) are recorded, so it survives crashes and goes on without you. Read the skill"
        " `durable-programs` first. Returns when it ends, needs something, or wait_s is over.",
        {
            "program": text(),
            "skill": text("instead of program"),
            "input": _object(),
            "idempotency_key": text(),
            "name": text(),
            "budget": _object("any of wall_s, steps, tool_calls"),
            "files": _object(additionalProperties={"type": "string"}),
            "memory_mb": _count(),
            "wait_s": _WAIT,
        },
        run_start,
        open_world=True,
        a_run=True,
    ),
    Tool(
        "run_get",
        "Look at runs",
        "State of a run, its output and what it waits for; wait_s waits for a change. Without run_id: a list of runs.",
        {
            "run_id": text(),
            "wait_s": _WAIT,
            "view": text(enum=("summary", "steps", "events", "log")),
            "status": text(enum=("working", "input_required", "completed", "failed", "cancelled")),
            "limit": _count(maximum=100),
            "cursor": text(),
        },
        run_get,
        reads=True,
        idempotent=True,
        a_run=True,
    ),
    Tool(
        "run_send",
        "Answer or message a run",
        "Answer a waiting item whose answer_by is `any` (item_id), or deliver a message (topic).",
        {"run_id": text(), "item_id": text(), "topic": text(), "content": _object(), "wait_s": _WAIT},
        run_send,
        required=("run_id", "content"),
        a_run=True,
    ),
    Tool(
        "run_approve",
        "Approve or deny for a person",
        "Record a person's decision on a waiting item. Approving works only if the operator enabled it; otherwise ask the user to"
        " run `agent-kernel approve ITEM --state DIR`. Denying always works.",
        {
            "run_id": text(),
            "item_id": text(),
            "digest": text("as shown in waiting"),
            "decision": text(enum=("approve", "deny")),
            "note": text(),
        },
        run_approve,
        required=("run_id", "item_id", "digest", "decision"),
        destroys=True,
        open_world=True,
    ),
    Tool(
        "run_control",
        "Cancel, pause, resume or retry a run",
        "Cancel, pause, resume or retry a run.",
        {"run_id": text(), "action": text(enum=("cancel", "pause", "resume", "retry")), "reason": text()},
        run_control,
        required=("run_id", "action"),
        destroys=True,
    ),
    Tool(
        "memory_add",
        "Remember facts",
        "Store facts for later conversations, one statement each. Equal text returns the old id.",
        {"items": {"type": "array", "items": _ITEM}},
        memory_add,
        required=("items",),
        idempotent=True,
    ),
    Tool(
        "memory_search",
        "Search memory",
        "Find stored facts by words, key, conversation, tags or time.",
        {
            "query": text(),
            "key": text(),
            "conversation": text(),
            "tags": _texts(),
            "since": text("RFC 3339"),
            "until": text(),
            "as_of": text("what was true then"),
            "limit": _count(maximum=100),
            "cursor": text(),
        },
        memory_search,
        accepted={
            "ids": _texts(),
            "kind": text(),
            "known_at": text(),
            "min_trust": text(),
            "include_retired": {"type": "boolean"},
            "explain": {"type": "boolean"},
        },
        reads=True,
        idempotent=True,
    ),
    Tool(
        "memory_forget",
        "Forget facts",
        "Forget facts by ids, source or conversation. `retract` keeps them in history; `erase` removes the bytes and proves it.",
        {
            "ids": _texts(),
            "source": text(),
            "conversation": text(),
            "mode": text(enum=("retract", "erase")),
            "reason": text(),
            "expect_count": {"type": "integer", "minimum": 0, "description": "refuse if another number matches"},
        },
        memory_forget,
        required=("reason",),
        destroys=True,
        idempotent=True,
    ),
    Tool(
        "memory_blocks",
        "Read standing notes",
        "Read the standing notes, or one of them.",
        {"label": text()},
        memory_blocks,
        reads=True,
        idempotent=True,
    ),
    Tool(
        "memory_edit",
        "Edit a standing note",
        "Write a standing note: the whole text, or replace `old` once.",
        {"label": text(), "text": text(), "old": text(), "if_version": {"type": "integer", "minimum": 0}},
        memory_edit,
        required=("label", "text"),
    ),
    Tool(
        "skill_search",
        "Search skills",
        "Find skills (instructions and scripts) for a task. Look here before starting something unfamiliar.",
        {"query": text(), "limit": _count(maximum=50)},
        skill_search,
        required=("query",),
        reads=True,
        idempotent=True,
    ),
    Tool(
        "skill_load",
        "Load a skill",
        "Read a skill's instructions and file list, or one of its files (path).",
        {
            "name": text(),
            "uri": text(),
            "path": text(),
            "revision": text(),
            "view": text(enum=("content", "history", "diff")),
        },
        skill_load,
        reads=True,
        idempotent=True,
    ),
    Tool(
        "skill_run",
        "Run a skill's script",
        "Run a script of a skill in a fresh sandbox, isolated as sandbox_run. It finds `input` on stdin and in input.json; what it puts"
        " into /output comes back.",
        {
            "name": text(),
            "script": text("path in the skill"),
            "args": _texts(),
            "input": _object(),
            "timeout_s": _number("default 30", maximum=7200),
        },
        skill_run,
        required=("name", "script"),
        sandboxed=True,
    ),
)

EXPORT = Tool(
    "sandbox_export",
    "Export files",
    "Copy files of a sandbox's result into a folder that the user shared for writing. Existing files stay unless overwrite is true.",
    {
        "from": _texts("uris of the files"),
        "to": text("absolute: a folder, or the new name of one file"),
        "overwrite": {"type": "boolean"},
    },
    sandbox_export,
    required=("from", "to"),
    destroys=True,
    idempotent=True,
)
"""Listed only where a folder is shared so."""
