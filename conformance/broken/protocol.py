"""Twins of the conventions: each spoils one thing about the wire, the list of tools, an argument or a reply."""

import asyncio
import json
import sys
from typing import Any

from .twin import Answer, Call, alters, drops, twin


def listed(answer: Answer) -> dict[str, dict[str, Any]]:
    return {tool["name"]: tool for tool in answer.result.get("tools", [])}


@twin("protocol.handshake.serves-older-versions", "answers every client with the newest version")
async def newest_only(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "initialize":
        answer.result["protocolVersion"] = "2025-11-25"
    return answer


@twin("protocol.stdout.carries-messages-only", "prints a line of its own beside each answer")
async def chatty(call: Call) -> Answer:
    answer = await call.serve()
    call.write(b"DEBUG answered\n")
    return answer


@twin("protocol.stdin.end-ends-the-server", "stays when its stdin has ended", at="end")
async def stays() -> None:
    await asyncio.sleep(3600)


@twin("protocol.line.malformed-is-survived", "dies of a line that is not JSON", at="line")
def dies_of_bad_lines(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        sys.exit(1)
    return True


@twin("protocol.line.odd-values-are-answered", "swallows a call with NaN", at="line")
def swallows_nan(line: bytes) -> bool:
    return b"NaN" not in line


@twin("protocol.server.instructions-are-short", "tells its whole manual at the handshake", at="handshake")
async def wordy(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "initialize":
        answer.result["instructions"] = "Read this first. " * 100
    return answer


@twin("protocol.tools.all-there", "lacks skill_search")
async def lacks_a_tool(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "tools/list":
        answer.result["tools"] = [tool for tool in answer.result["tools"] if tool["name"] != "skill_search"]
    return answer


@twin("protocol.tools.schemas-are-flat", "offers a parameter with anyOf")
async def any_of(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "tools/list":
        properties = listed(answer)["sandbox_run"]["inputSchema"]["properties"]
        properties["stdin"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    return answer


@twin("protocol.tools.have-all-hints", "leaves out a hint")
async def hint_missing(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "tools/list":
        del listed(answer)["run_get"]["annotations"]["openWorldHint"]
    return answer


@twin("protocol.tools.hints-are-honest", "calls memory_forget harmless")
async def harmless(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "tools/list":
        listed(answer)["memory_forget"]["annotations"]["destructiveHint"] = False
    return answer


@twin("protocol.tools.are-described", "describes a tool in seven sentences")
async def seven_sentences(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "tools/list":
        listed(answer)["run_get"]["description"] = "It looks. " * 7
    return answer


@twin("protocol.tools.cost-few-tokens", "explains one parameter at length")
async def expensive(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "tools/list":
        listed(answer)["sandbox_run"]["inputSchema"]["properties"]["code"]["description"] = "any code at all " * 700
    return answer


@twin("protocol.tools.no-output-schemas", "lists an output schema")
async def output_schema(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "tools/list":
        listed(answer)["memory_blocks"]["outputSchema"] = {"type": "object"}
    return answer


@twin("protocol.tool.unknown-is-refused", "answers calls of tools that do not exist")
async def knows_every_tool(call: Call) -> Answer:
    answer = await call.serve()
    return answer.say({"ok": True}) if call.tool == "sandbox_rum" else answer


drops("protocol.argument.unknown-is-named", "does not look at arguments it does not know", "sandbox_run", "timeout")


@twin("protocol.argument.missing-is-named", "takes a missing argument for an empty one")
async def fills_in(call: Call) -> Answer:
    if call.tool == "sandbox_run":
        call.arguments.setdefault("code", "")
    return await call.serve()


@twin("protocol.argument.wrong-type-is-named", "makes a string of anything")
async def coerces(call: Call) -> Answer:
    if call.tool == "sandbox_run" and "code" in call.arguments:
        call.arguments["code"] = str(call.arguments["code"])
    return await call.serve()


@twin("protocol.argument.json-string-is-parsed", "refuses an object that comes as a string")
async def wants_objects(call: Call) -> Answer:
    answer = await call.serve()
    if isinstance(call.arguments.get("files"), str):
        return answer.refuse("argument.wrong_type", "files must be an object.")
    return answer


@twin("protocol.error.has-one-shape", "tells a refusal in two blocks")
async def two_blocks(call: Call) -> Answer:
    answer = await call.serve()
    if answer.refused and "content" in answer.result:
        answer.result["content"].append({"type": "text", "text": "Sorry."})
    return answer


@twin("protocol.error.unknown-ids-are-unknown", "calls an unknown run a fault of its own")
async def unknown_is_a_fault(call: Call) -> Answer:
    answer = await call.serve()
    if call.tool == "run_get" and answer.code.endswith(".unknown"):
        answer.refuse("kernel.fault", "KeyError.")
    return answer


@twin("protocol.result.both-forms-are-equal", "leaves stdout out of the text")
async def shorter_text(call: Call) -> Answer:
    answer = await call.serve()
    if call.tool == "sandbox_run" and not answer.refused:
        rest = {name: value for name, value in answer.data.items() if name != "stdout"}
        answer.result["content"][0]["text"] = json.dumps(rest)
    return answer


def say_null(_: Call, data: dict[str, Any]) -> None:
    data.setdefault("stopped_by", None)


alters("protocol.result.leaves-out-nothing-said", "says null where there is nothing", ("sandbox_run",), say_null)


def say_more(_: Call, data: dict[str, Any]) -> None:
    if len(str(data)) > 4000:
        data["stdout"] = str(data.get("stdout")) + "y" * 40_000


alters("protocol.result.stays-small", "does not cut long output", ("sandbox_run",), say_more)


@twin("protocol.wait.longer-than-hosts-wait-is-refused", "shortens a long wait without a word")
async def shortens(call: Call) -> Answer:
    for name in ("timeout_s", "wait_s"):
        if isinstance(call.arguments.get(name), int | float) and "progressToken" not in call.params.get("_meta", {}):
            call.arguments[name] = min(call.arguments[name], 50)
    return await call.serve()


@twin("protocol.wait.longer-with-progress-is-served", "does not see the progress token")
async def no_progress(call: Call) -> Answer:
    call.params.get("_meta", {}).pop("progressToken", None)
    return await call.serve()


@twin("protocol.ids.are-short-and-prefixed", "numbers its items")
async def long_ids(call: Call) -> Answer:
    answer = await call.serve()
    for item in answer.data.get("waiting") or []:
        if "'type': 'object'}" in call.text:
            item["item_id"] = "1"
    return answer


def local_time(_: Call, data: dict[str, Any]) -> None:
    if "created_at" in data:
        data["created_at"] = data["created_at"].removesuffix("Z").removesuffix("+00:00")


alters("protocol.times.are-utc", "says times without their zone", ("run_get",), local_time)


@twin("protocol.resources.status-is-readable", "tells its status in prose")
async def prose(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "resources/read":
        answer.result["contents"] = [{"uri": call.params.get("uri"), "mimeType": "text/plain", "text": "fine"}]
    return answer


@twin("protocol.completion.finds-what-opens", "offers runs that are not there")
async def offers_nothing(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "completion/complete":
        answer.result["completion"] = {"values": ["run_aaaaaaaaaaaa"], "total": 1, "hasMore": False}
    return answer


@twin("protocol.resources.schemas-describe-replies", "says more than its schemas know")
async def unsaid(call: Call) -> Answer:
    answer = await call.serve()
    if call.method == "resources/read" and "schemas" in str(call.params.get("uri")):
        [content] = answer.result["contents"]
        content["text"] = content["text"].replace('"stderr"', '"standard_error"')
    return answer
