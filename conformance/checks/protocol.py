"""Checks of the conventions: the handshake, the list of tools, arguments, results, refusals, and the bytes themselves."""

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from ..driver import Driver
from ..registry import Failed, check, expect
from ..subject import ANSWER_S

TOOLS = (
    "sandbox_run", "sandbox_read", "run_start", "run_get", "run_send", "run_approve", "run_control", "memory_add",
    "memory_search", "memory_forget", "memory_blocks", "memory_edit", "skill_search", "skill_load", "skill_run",
)  # fmt: skip
READING = ("sandbox_read", "run_get", "memory_search", "memory_blocks", "skill_search", "skill_load")
DESTROYING = ("memory_forget", "run_approve", "run_control")
HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
NOWHERE = "run_aaaaaaaaaaaa"


async def raw_call(c: Driver, tool: str, **arguments: Any) -> dict[str, Any]:
    """The result object of a tools/call as it stood on the line, or the whole message when it is an error."""
    message = await c.subject.ask_raw("tools/call", {"name": tool, "arguments": arguments})
    return dict(message.get("result", message))


async def alive(c: Driver) -> None:
    message = await c.subject.ask_raw("ping", {})
    expect("result" in message, f"ping was answered with {message}")


# --- the wire


@check("protocol.handshake.serves-older-versions")
async def handshake_serves_older_versions(c: Driver) -> None:
    await c.subject.launch()
    params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
    await _say(c, {"id": 1, "method": "initialize", "params": params})
    hello = await _hear(c, 1)
    version = hello.get("result", {}).get("protocolVersion")
    expect(version == "2024-11-05", f"2024-11-05 was answered with {version!r}: {hello}")
    await _say(c, {"method": "notifications/initialized"})
    await _say(c, {"id": 2, "method": "tools/list", "params": {}})
    listed = await _hear(c, 2)
    expect(listed.get("result", {}).get("tools"), f"no tools in {str(listed)[:300]}")


async def _say(c: Driver, message: dict[str, Any]) -> None:
    await c.subject.write_raw(json.dumps({"jsonrpc": "2.0"} | message).encode())


async def _hear(c: Driver, number: int) -> dict[str, Any]:
    while line := await c.subject.read_line():
        message = json.loads(line)
        if message.get("id") == number:
            return dict(message)
    raise Failed(f"stdout ended; {c.subject.last_words()}")


@check("protocol.stdout.carries-messages-only")
async def stdout_carries_messages_only(c: Driver) -> None:
    before = len(c.subject.lines)
    code = "import os, sys\nprint('loud')\nos.write(1, b'louder\\n')\nos.write(2, b'loudest\\n')\nsys.exit(3)"
    await c.python(code)
    await alive(c)
    for line in c.subject.lines[before:]:
        try:
            message = json.loads(line)
        except ValueError:
            raise Failed(f"a line of stdout is not JSON: {line[:200]!r}") from None
        expect(isinstance(message, dict) and message.get("jsonrpc") == "2.0", f"not a JSON-RPC message: {line[:200]!r}")


@check("protocol.stdin.end-ends-the-server")
async def stdin_end_ends_the_server(c: Driver) -> None:
    await c.subject.start()
    process = c.subject.process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    try:
        status = await asyncio.wait_for(process.wait(), 10)
    except TimeoutError:
        raise Failed("the server still runs 10 s after its stdin ended") from None
    expect(status == 0, f"the server left with status {status}; {c.subject.last_words()}")


@check("protocol.line.malformed-is-survived")
async def malformed_line_is_survived(c: Driver) -> None:
    for line in (b"{not json", b"[" * 100_000 + b"]" * 100_000, b'"a string"', b'{"id": 7}', b"\xff\xfe\x00"):
        await c.subject.write_raw(line)
    await alive(c)


@check("protocol.line.odd-values-are-answered")
async def odd_values_are_answered(c: Driver) -> None:
    kinds = {
        "NaN": b'{"code": "1", "timeout_s": NaN}',
        "lone surrogate": b'{"code": "x = \'\\ud800\'"}',
        "duplicate key": b'{"code": "1", "code": "2"}',
        "huge integer": b'{"code": "1", "memory_mb": 123456789012345678901234567890}',
    }
    for number, (kind, arguments) in enumerate(kinds.items()):
        name = f"raw-odd-{c.token}-{number}"
        params = b'{"name": "sandbox_run", "arguments": ' + arguments + b"}"
        line = b'{"jsonrpc": "2.0", "id": "' + name.encode() + b'", "method": "tools/call", "params": ' + params + b"}"
        try:
            await c.subject.ask_line(name, line, wait_s=5)
        except Failed as silence:
            raise Failed(f"a call with {kind}: {silence}") from None
    await alive(c)


# --- the list of tools


@check("protocol.server.instructions-are-short")
async def instructions_are_short(c: Driver) -> None:
    text = (c.subject.hello.instructions if c.subject.hello else None) or ""
    expect(text.strip(), "the server gives no instructions")
    expect(len(text.encode()) < 1500, f"the instructions are {len(text.encode())} bytes long")


@check("protocol.tools.all-there")
async def tools_are_all_there(c: Driver) -> None:
    missing = [name for name in TOOLS if name not in {tool["name"] for tool in await listed(c)}]
    expect(not missing, f"not listed: {', '.join(missing)}")


async def listed(c: Driver) -> list[dict[str, Any]]:
    message = await c.subject.ask_raw("tools/list", {})
    tools = message.get("result", {}).get("tools")
    expect(tools, f"no tools listed: {str(message)[:300]}")
    return list(tools)


@check("protocol.tools.schemas-are-flat")
async def schemas_are_flat(c: Driver) -> None:
    for tool in await listed(c):
        schema = tool["inputSchema"]
        expect(schema.get("type") == "object", f"{tool['name']}: the schema is not that of an object")
        for word in words_of(schema):
            expect(word not in ("$ref", "$defs", "anyOf", "oneOf", "allOf"), f"{tool['name']}: the schema has {word}")
        expect("title" not in words_of(schema), f"{tool['name']}: a title inside the schema")
        for name, parameter in schema.get("properties", {}).items():
            typed = isinstance(parameter.get("type"), str)
            expect(typed, f"{tool['name']}: {name} has not one type: {parameter}")


def words_of(schema: Any) -> Iterator[str]:
    """The keywords of a schema; the names of its properties are none."""
    if isinstance(schema, list):
        for part in schema:
            yield from words_of(part)
    elif isinstance(schema, dict):
        for word, value in schema.items():
            yield word
            if word == "properties":
                yield from words_of(list(value.values()))
            elif word not in ("enum", "default", "const"):
                yield from words_of(value)


@check("protocol.tools.have-all-hints")
async def tools_have_all_hints(c: Driver) -> None:
    for tool in await listed(c):
        annotations = tool.get("annotations") or {}
        title = tool.get("title") or annotations.get("title")
        expect(isinstance(title, str) and title, f"{tool['name']} has no title")
        for hint in HINTS:
            expect(isinstance(annotations.get(hint), bool), f"{tool['name']} says nothing of {hint}")


@check("protocol.tools.hints-are-honest")
async def hints_are_honest(c: Driver) -> None:
    tools = {tool["name"]: tool.get("annotations") or {} for tool in await listed(c)}
    for name, hints in tools.items():
        reads, destroys = hints.get("readOnlyHint"), hints.get("destructiveHint")
        expect(not (reads and destroys), f"{name} is both read-only and destructive")
        if name in READING:
            expect(reads is True, f"{name} reads, and does not say so")
        elif name in TOOLS:
            expect(reads is False, f"{name} writes, and is marked read-only")
        if name in DESTROYING:
            expect(destroys is True, f"{name} is not marked destructive")


@check("protocol.tools.are-described")
async def tools_are_described(c: Driver) -> None:
    for tool in await listed(c):
        sentences = [part for part in re.split(r"[.!?](?:\s|$)", tool.get("description") or "") if part.strip()]
        expect(1 <= len(sentences) <= 4, f"{tool['name']} is described in {len(sentences)} sentences")


@check("protocol.tools.cost-few-tokens")
async def tools_cost_few_tokens(c: Driver) -> None:
    seen = [{word: tool.get(word) for word in ("name", "description", "inputSchema")} for tool in await listed(c)]
    size = len(json.dumps(seen, separators=(",", ":"), ensure_ascii=False).encode())
    expect(size < 8_000, f"the tools are {size} bytes, about {size // 4} tokens")


@check("protocol.tools.no-output-schemas")
async def tools_have_no_output_schemas(c: Driver) -> None:
    with_one = [tool["name"] for tool in await listed(c) if "outputSchema" in tool]
    expect(not with_one, f"output schemas in the list: {', '.join(with_one)}")


# --- arguments


@check("protocol.tool.unknown-is-refused")
async def unknown_tool_is_refused(c: Driver) -> None:
    message = await c.subject.ask_raw("tools/call", {"name": "sandbox_rum", "arguments": {}})
    refused = "error" in message or message.get("result", {}).get("isError") is True
    expect(refused, f"a tool that does not exist answered {str(message)[:300]}")
    expect("sandbox_rum" in json.dumps(message), f"the refusal does not name the tool: {str(message)[:300]}")


@check("protocol.argument.unknown-is-named")
async def unknown_argument_is_named(c: Driver) -> None:
    reply = await c.refused("argument.", "sandbox_run", code="1", timeout=5)
    expect(
        "timeout'" in reply.text or "timeout " in reply.text or "`timeout`" in reply.text, f"not named: {reply.text}"
    )
    expect("timeout_s" in reply.text, f"the nearest right name is not given: {reply.text}")


@check("protocol.argument.missing-is-named")
async def missing_argument_is_named(c: Driver) -> None:
    reply = await c.refused("argument.", "sandbox_run", language="python")
    expect("code" in reply.text.partition(":")[2], f"the missing argument is not named: {reply.text}")


@check("protocol.argument.wrong-type-is-named")
async def wrong_type_is_named(c: Driver) -> None:
    reply = await c.refused("argument.", "sandbox_run", code=["print(1)"])
    expect("code" in reply.text.partition(":")[2], f"not named: {reply.text}")
    reply = await c.refused("argument.", "sandbox_run", code="1", timeout_s="soon")
    expect("timeout_s" in reply.text, f"not named: {reply.text}")


@check("protocol.argument.json-string-is-parsed")
async def json_string_is_parsed(c: Driver) -> None:
    result = await c.python("print(open('a.txt').read())", files=json.dumps({"a.txt": c.token}))
    expect(result.get("stdout", "").strip() == c.token, f"files as a string came to nothing: {result}")
    added = await c.ok("memory_add", items=json.dumps([{"text": f"The password of the day is {c.token}."}]))
    expect("mem_" in json.dumps(added), f"items as a string came to nothing: {added}")


# --- results and refusals


@check("protocol.error.has-one-shape")
async def error_has_one_shape(c: Driver) -> None:
    refusals = [
        await raw_call(c, "sandbox_run", code="1", cmd="2"),
        await raw_call(c, "run_get", run_id=NOWHERE),
        await raw_call(c, "sandbox_run", code="1", files={"../out": "x"}),
    ]
    for result in refusals:
        expect(result.get("isError") is True, f"not an error result: {str(result)[:300]}")
        blocks = result.get("content") or []
        expect(len(blocks) == 1 and blocks[0].get("type") == "text", f"not exactly one text block: {str(blocks)[:300]}")
        error = (result.get("structuredContent") or {}).get("error") or {}
        expect(error, f"no structuredContent.error: {str(result)[:300]}")
        expect(set(error) == {"code", "message", "fault", "retryable"}, f"the error's fields are {sorted(error)}")
        expect(error["fault"] in ("caller", "guest", "kernel", "host"), f"fault is {error['fault']!r}")
        expect(isinstance(error["retryable"], bool), f"retryable is {error['retryable']!r}")
        expect(re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", error["code"]), f"the code is {error['code']!r}")
        text = blocks[0]["text"]
        expect(text == f"{error['code']}: {error['message']}", f"text and error differ: {text!r}, {error}")


@check("protocol.error.unknown-ids-are-unknown")
async def unknown_ids_are_unknown(c: Driver) -> None:
    for reply in (
        await c.call("run_get", run_id=NOWHERE),
        await c.call("run_control", run_id=NOWHERE, action="cancel"),
        await c.call("sandbox_read", uri=f"sandbox://{c.token}/nothing.txt"),
        await c.call("skill_load", name=f"no-skill-{c.token}"),
    ):
        expect(reply.refused, f"something that is not there was found: {reply.text[:300]}")
        expect(reply.code.endswith(".unknown"), f"refused with {reply.code!r}: {reply.text[:300]}")
        fault = (reply.structured or {}).get("error", {}).get("fault")
        expect(fault == "caller", f"an unknown id is the fault of {fault!r}: {reply.text[:300]}")


async def some_results(c: Driver) -> list[dict[str, Any]]:
    started = await c.run("async def main(input):\n    return 'done'")
    return [
        await raw_call(c, "sandbox_run", code="print('a'); 7"),
        await raw_call(c, "sandbox_run", code="pass"),
        await raw_call(c, "memory_add", items=[{"text": f"A note about {c.token}."}]),
        await raw_call(c, "run_get", run_id=started["run_id"]),
    ]


@check("protocol.result.both-forms-are-equal")
async def both_forms_are_equal(c: Driver) -> None:
    for result in await some_results(c):
        expect(not result.get("isError"), f"refused: {str(result)[:300]}")
        blocks = result.get("content") or []
        expect(len(blocks) == 1 and blocks[0].get("type") == "text", f"not one text block: {str(blocks)[:300]}")
        structured = result.get("structuredContent")
        expect(isinstance(structured, dict), f"no structuredContent: {str(result)[:300]}")
        expect(json.loads(blocks[0]["text"]) == structured, f"the forms differ: {str(result)[:500]}")


@check("protocol.result.leaves-out-nothing-said")
async def result_leaves_out_nothing_said(c: Driver) -> None:
    for result in await some_results(c):
        structured = result.get("structuredContent") or {}
        expect(structured, f"no structuredContent: {str(result)[:300]}")
        empty = [name for name, value in structured.items() if value is None or value in ("", [], {})]
        expect(not empty, f"null or empty: {', '.join(empty)} in {structured}")


@check("protocol.result.stays-small")
async def result_stays_small(c: Driver) -> None:
    message = await c.subject.ask_raw(
        "tools/call",
        {"name": "sandbox_run", "arguments": {"code": "for n in range(20_000): print(f'{n:09d}')"}},
    )
    size = len(json.dumps(message.get("result", {}), ensure_ascii=False))
    expect(size < 2 * 16 * 1024, f"the reply (text and structuredContent) is {size} characters long")
    structured = message.get("result", {}).get("structuredContent") or {}
    size = len(json.dumps(structured, ensure_ascii=False))
    expect(size < 16 * 1024, f"the result object is {size} characters long")
    uris = re.findall(r"[a-z]+://[^\s\"'\\)\]}>,]+", json.dumps(structured))
    expect(uris, f"a cut result names no uri: ...{structured.get('stdout', '')[-300:]!r}")
    opened = await c.ok("sandbox_read", uri=uris[0], offset=0)
    expect("000000000" in json.dumps(opened), f"{uris[0]} is not the output: {str(opened)[:300]}")


@check("protocol.wait.longer-than-hosts-wait-is-refused")
async def longer_wait_is_refused(c: Driver) -> None:
    reply = await c.refused("timeout.too_long", "sandbox_run", code="1", timeout_s=60)
    expect("run_start" in reply.text, f"run_start is not named: {reply.text}")
    await c.refused("timeout.too_long", "run_start", program="async def main(input): return 1", wait_s=60)


@check("protocol.wait.longer-with-progress-is-served")
async def longer_wait_with_progress_is_served(c: Driver) -> None:
    async def ignore(progress: float, total: float | None, message: str | None) -> None:
        pass

    reply = await c.subject.call("sandbox_run", report=ignore, code="print(1)", timeout_s=60)
    expect(not reply.refused, f"refused although there is a progress token: {reply.text}")


@check("protocol.ids.are-short-and-prefixed")
async def ids_are_short_and_prefixed(c: Driver) -> None:
    run, item = await c.waiting("async def main(input):\n    return await kernel.ask('?', {'type': 'object'})")
    added = await c.ok("memory_add", items=[{"text": f"An id for {c.token}."}])
    memory = re.search(r"mem_[^\"]*", json.dumps(added))
    for prefix, id_ in (("run", run["run_id"]), ("itm", item["item_id"]), ("mem", memory[0] if memory else "")):
        expect(re.fullmatch(rf"{prefix}_[a-z2-7]{{12}}", id_), f"{id_!r} is not {prefix}_ and 12 base32 characters")
    await c.ok("run_control", run_id=run["run_id"], action="cancel")


@check("protocol.times.are-utc")
async def times_are_utc(c: Driver) -> None:
    run = await c.run("async def main(input):\n    return 1")
    run = await c.ok("run_get", run_id=run["run_id"])
    for name in ("created_at", "updated_at"):
        text = str(run.get(name))
        expect(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", text), f"{name} is {text!r}")
        away = abs(datetime.fromisoformat(text) - datetime.now(UTC))
        expect(away < timedelta(minutes=5), f"{name} is {text}, {away} away from now")


@check("protocol.resources.status-is-readable")
async def status_is_readable(c: Driver) -> None:
    message = await c.subject.ask_raw("resources/read", {"uri": "kernel://status"})
    contents = message.get("result", {}).get("contents") or []
    expect(contents, f"not readable: {str(message)[:300]}")
    expect(isinstance(json.loads(contents[0].get("text", "")), dict), f"not a JSON object: {contents[0]}")


@check("protocol.changes.list-is-told")
async def changed_list_is_told(c: Driver) -> None:
    await c.subject.ask_raw("resources/list", {})
    before = len(c.subject.lines)
    folder = c.place.state / "skills" / c.token
    folder.mkdir()
    (folder / "SKILL.md").write_text(f"---\nname: {c.token}\ndescription: Appears.\n---\n", encoding="utf8")
    try:
        async with asyncio.timeout(ANSWER_S):
            while not any(b"notifications/resources/list_changed" in line for line in c.subject.lines[before:]):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise Failed(f"a skill appeared, and nothing was told within {ANSWER_S:.0f} s") from None
    finally:
        shutil.rmtree(folder)


@check("protocol.completion.finds-what-opens")
async def completion_finds_what_opens(c: Driver) -> None:
    run = await c.run("async def main(input):\n    return 1")
    asked = {
        "ref": {"type": "ref/resource", "uri": "run://{run_id}"},
        "argument": {"name": "run_id", "value": run["run_id"][:7]},
    }
    message = await c.subject.ask_raw("completion/complete", asked)
    values = message.get("result", {}).get("completion", {}).get("values") or []
    expect(run["run_id"] in values, f"{run['run_id']} is not offered: {str(message)[:300]}")
    for value in values[:5]:
        read = await c.subject.ask_raw("resources/read", {"uri": f"run://{value}"})
        expect("result" in read, f"{value} is offered and cannot be read: {str(read)[:300]}")


@check("protocol.resources.schemas-describe-replies")
async def schemas_describe_replies(c: Driver) -> None:
    message = await c.subject.ask_raw("resources/read", {"uri": "kernel://schemas"})
    contents = message.get("result", {}).get("contents") or []
    expect(contents, f"not readable: {str(message)[:300]}")
    schemas = json.loads(contents[0].get("text", ""))
    missing = [name for name in c.subject.tools if name not in schemas]
    expect(not missing, f"no schema for {', '.join(missing)}")
    program = "async def main(input):\n    return 1"
    for tool, reply in (
        (
            "sandbox_run",
            await c.python("import sys\nprint(1)\nprint(2, file=sys.stderr)\nopen('a.txt', 'w').write('3')\n4"),
        ),
        ("run_start", await c.ok("run_start", program=program)),
        ("memory_add", await c.ok("memory_add", items=[{"text": f"A schema for {c.token}."}])),
        ("memory_search", await c.ok("memory_search", query=c.token)),
    ):
        unsaid = set(reply) - set(schemas[tool].get("properties", {}))
        expect(not unsaid, f"the schema of {tool} does not know {', '.join(sorted(unsaid))}")
