"""Checks of items, messages, child runs, and of the one transaction in which a step and its memory write commit."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from mcp import types

from ..driver import ENDED, Driver, items_of
from ..registry import Failed, check, expect
from .durable import OK, answered

Killed = AsyncGenerator[None, None]
APPROVE = (
    "async def main(input):\n"
    "    answer = await kernel.approve('Send the letter?', details={'to': 'Ada', 'pages': 3})\n"
    "    return {'answer': answer, 'type': type(answer).__name__}\n"
)


# --- questions


@check("orchestration.ask.is-answered")
async def ask_is_answered(c: Driver) -> None:
    schema = {"type": "object", "properties": {"port": {"type": "string"}}, "required": ["port"]}
    run, item = await c.waiting(f"async def main(input):\n    return await kernel.ask('Which port?', {schema!r})")
    expect(item.get("kind") == "ask" and item.get("answer_by") == "any", f"the item is {item}")
    expect(item.get("prompt") == "Which port?" and item.get("schema") == schema, f"the item is {item}")
    run = await c.ok("run_send", run_id=run["run_id"], item_id=item["item_id"], content={"port": c.token}, wait_s=20)
    output = c.completed(await c.follow(run))
    expect(output == {"port": c.token}, f"ask returned {output!r}")


@check("orchestration.ask.answer-must-fit")
async def answer_must_fit(c: Driver) -> None:
    schema = {"type": "object", "properties": {"knots": {"type": "number"}}, "required": ["knots"]}
    run, item = await c.waiting(f"async def main(input):\n    return await kernel.ask('How fast?', {schema!r})")
    where = {"run_id": run["run_id"], "item_id": item["item_id"]}
    reply = await c.call("run_send", content={"knots": "fast"}, **where)
    expect(reply.refused, f"a string was taken for a number: {reply.text[:300]}")
    expect("knots" in reply.text, f"the refusal does not name the field: {reply.text[:300]}")
    run = await c.ok("run_send", content={"knots": 7}, wait_s=20, **where)
    expect(c.completed(await c.follow(run)) == {"knots": 7}, f"after the right answer: {run}")


@check("orchestration.ask.is-answered-once")
async def ask_is_answered_once(c: Driver) -> None:
    program = f"async def main(input):\n    return [await kernel.ask('one', {OK!r}), await kernel.ask('two', {OK!r})]"
    run, first = await c.waiting(program)
    run = await answered(c, run, first)
    [second] = items_of(run)
    reply = await c.call("run_send", run_id=run["run_id"], item_id=first["item_id"], content={"ok": False})
    expect(reply.refused, f"an item was answered twice: {reply.text[:300]}")
    output = c.completed(await answered(c, run, second))
    expect(output == [{"ok": True}, {"ok": True}], f"the answers are {output}")


@check("orchestration.ask.outlives-the-server")
async def ask_outlives_the_server(c: Driver) -> Killed:
    program = f"async def main(input):\n    return await kernel.ask('Still there?', {OK!r})"
    asked = [await c.waiting(program) for _ in range(6)]
    yield

    async def answer(run: dict[str, Any], item: dict[str, Any]) -> None:
        after = items_of(await c.ok("run_get", run_id=run["run_id"]))
        kept = [(one.get("item_id"), one.get("prompt"), one.get("digest")) for one in after]
        expect(kept == [(item["item_id"], "Still there?", item.get("digest"))], f"before {item}, after {after}")
        output = c.completed(await answered(c, run, item))
        expect(output == {"ok": True}, f"ask returned {output!r}")

    await asyncio.gather(*(answer(run, item) for run, item in asked))  # while the programs are being started again


@check("orchestration.model.is-answered")
async def model_is_answered(c: Driver) -> None:
    run, item = await c.waiting("async def main(input):\n    return await kernel.model('Name a wind.')")
    expect(item.get("kind") == "model" and item.get("answer_by") == "any", f"the item is {item}")
    sent = {"run_id": run["run_id"], "item_id": item["item_id"], "content": {"text": f"Mistral {c.token}"}}
    output = c.completed(await c.follow(await c.ok("run_send", wait_s=20, **sent)))
    expect(output == f"Mistral {c.token}", f"model returned {output!r}")


# --- approvals


async def still_waits(c: Driver, run: dict[str, Any], item: dict[str, Any]) -> None:
    now = await c.ok("run_get", run_id=run["run_id"])
    waiting = [one.get("item_id") for one in now.get("waiting") or []]
    expect(waiting == [item["item_id"]], f"the item does not wait any more: {now}")


async def deny(c: Driver, run: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    named = {"run_id": run["run_id"], "item_id": item["item_id"], "digest": item["digest"]}
    return await c.follow(await c.ok("run_approve", decision="deny", **named))


@check("orchestration.approve.shows-its-item")
async def approve_shows_its_item(c: Driver) -> None:
    run, item = await c.waiting(APPROVE)
    expect(item.get("kind") == "approve" and item.get("answer_by") == "person", f"the item is {item}")
    expect(item.get("prompt") == "Send the letter?", f"the prompt is {item.get('prompt')!r}")
    expect(item.get("details") == {"to": "Ada", "pages": 3}, f"the details are {item.get('details')!r}")
    digest = str(item.get("digest"))
    expect(len(digest) == 12 and set(digest) <= set("0123456789abcdef"), f"the digest is {digest!r}")
    await deny(c, run, item)


@check("orchestration.approve.send-does-not-answer")
async def send_does_not_answer_a_persons_item(c: Driver) -> None:
    run, item = await c.waiting(APPROVE)
    for content in ({"approve": True}, {"decision": "approve", "digest": item["digest"]}, {}):
        reply = await c.call("run_send", run_id=run["run_id"], item_id=item["item_id"], content=content)
        expect(reply.refused, f"run_send answered a person's item: {reply.text[:300]}")
    await still_waits(c, run, item)
    await deny(c, run, item)


@check("orchestration.approve.host-does-not-approve")
async def host_does_not_approve(c: Driver) -> None:
    run, item = await c.waiting(APPROVE)
    named = {"run_id": run["run_id"], "item_id": item["item_id"], "digest": item["digest"]}
    reply = await c.refused("approval.elsewhere", "run_approve", decision="approve", **named)
    expect(item["item_id"] in reply.text, f"the text names no command for the person: {reply.text}")
    await still_waits(c, run, item)
    await deny(c, run, item)


@check("orchestration.approve.denying-is-accepted")
async def denying_is_accepted(c: Driver) -> None:
    run, item = await c.waiting(APPROVE)
    output = c.completed(await deny(c, run, item))
    expect(output == {"answer": False, "type": "bool"}, f"approve returned {output!r}")


@check("orchestration.approve.digest-must-match")
async def digest_must_match(c: Driver) -> None:
    run, item = await c.waiting(APPROVE)
    for decision in ("approve", "deny"):
        await c.refused(
            "item.changed", "run_approve", run_id=run["run_id"], item_id=item["item_id"], digest="0" * 12,
            decision=decision,
        )  # fmt: skip
    await still_waits(c, run, item)
    await deny(c, run, item)


def yes(schema: Any) -> dict[str, Any]:
    """The values with which a person says yes to a form: true, or the first choice that is not a no."""
    values: dict[str, Any] = {}
    for name, part in (schema or {}).get("properties", {}).items():
        if part.get("type") == "boolean":
            values[name] = True
        elif part.get("enum"):
            values[name] = next((one for one in part["enum"] if one in ("approve", "yes", "accept")), part["enum"][0])
    return values


@check("orchestration.approve.person-answers-by-elicitation")
async def person_answers_by_elicitation(c: Driver) -> None:
    asked: list[str] = []

    async def accept(context: Any, params: Any) -> types.ElicitResult:  # noqa: ARG001  the SDK names both
        asked.append(params.message)
        return types.ElicitResult(action="accept", content=yes(getattr(params, "requested_schema", None)))

    await c.subject.start(elicit=accept)
    run = await c.run(APPROVE)
    for _ in range(20):
        if run.get("status") in ENDED:
            break
        run = await c.ok("run_get", run_id=run["run_id"], wait_s=1)
    expect(asked, f"the client was never asked; the run is {run}")
    expect("Send the letter?" in asked[0], f"the question put to the person: {asked[0]!r}")
    output = c.completed(run)
    expect(output == {"answer": True, "type": "bool"}, f"approve returned {output!r}")


async def answered_by_form(c: Driver, action: str) -> dict[str, Any]:
    """A run that asks a person, whose form is answered so; as it is some time after that."""

    async def answer(context: Any, params: Any) -> types.ElicitResult:  # noqa: ARG001  the SDK names both
        return types.ElicitResult(action=action)  # type: ignore[arg-type]

    await c.subject.start(elicit=answer)
    run = await c.run(APPROVE)
    for _ in range(3):
        if run.get("status") in ENDED:
            break
        run = await c.ok("run_get", run_id=run["run_id"], wait_s=1)
    return run


@check("orchestration.approve.declining-is-no")
async def declining_is_no(c: Driver) -> None:
    output = c.completed(await answered_by_form(c, "decline"))
    expect(output == {"answer": False, "type": "bool"}, f"approve returned {output!r}")


@check("orchestration.approve.closing-is-no-answer")
async def closing_is_no_answer(c: Driver) -> None:
    run = await answered_by_form(c, "cancel")
    [item] = items_of(run)
    expect(item.get("kind") == "approve", f"what waits is {item}")


@check("orchestration.approve.is-answered-once")
async def approval_is_answered_once(c: Driver) -> None:
    run, item = await c.waiting(APPROVE)
    answer = {"run_id": run["run_id"], "item_id": item["item_id"], "digest": item["digest"], "decision": "deny"}
    await c.ok("run_approve", **answer)
    reply = await c.call("run_approve", **answer)
    expect(reply.refused, f"a second decision was accepted: {reply.text[:300]}")
    output = c.completed(await c.follow(await c.ok("run_get", run_id=run["run_id"], wait_s=10)))
    expect(output == {"answer": False, "type": "bool"}, f"approve returned {output!r}")


@check("orchestration.approve.is-asked-by-return")
async def asked_by_return(c: Driver) -> None:
    await c.subject.launch()
    stated = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
    }
    params = {"name": "run_start", "arguments": {"program": APPROVE, "wait_s": 20}, "_meta": stated}
    asked = await _first_words(c, 1, params)
    requests = asked.get("inputRequests") or {}
    expect(asked.get("resultType") == "input_required" and requests, f"the person is not asked: {str(asked)[:300]}")
    [(key, form)] = requests.items()
    expect("Send the letter?" in json.dumps(form), f"the form does not hold the question: {form}")
    content = yes(form.get("params", {}).get("requestedSchema"))
    answered = {key: {"action": "accept", "content": content}}
    result = await _first_words(c, 2, params | {"inputResponses": answered, "requestState": asked.get("requestState")})
    run = result.get("structuredContent") or {}
    expect(run.get("output") == {"answer": True, "type": "bool"}, f"the run is {run}")


async def _first_words(c: Driver, number: int, params: dict[str, Any]) -> dict[str, Any]:
    """The result of a tools/call on a connection that speaks without a handshake."""
    line = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    await c.subject.write_raw(json.dumps(line).encode())
    while heard := await c.subject.read_line():
        message = json.loads(heard)
        if message.get("id") == number:
            return dict(message.get("result") or message)
    raise Failed(f"stdout ended; {c.subject.last_words()}")


@check("orchestration.approve.expiry-is-no")
async def expiry_is_no(c: Driver) -> None:
    program = "async def main(input):\n    return await kernel.approve('Quick?', timeout_s=1)"
    run = await c.ok("run_start", program=program, wait_s=0)
    for _ in range(20):
        run = await c.ok("run_get", run_id=run["run_id"], wait_s=1)
        if run.get("status") in ENDED:
            break
        await asyncio.sleep(0.1)
    output = c.completed(run)
    expect(output is False, f"an expired approval is {output!r}")


# --- runs among themselves


@check("orchestration.message.is-delivered")
async def message_is_delivered(c: Driver) -> None:
    program = (
        "async def main(input):\n"
        "    first = await kernel.receive('orders')\n"
        "    return [first, await kernel.receive('orders'), await kernel.receive('other', timeout_s=20)]\n"
    )
    run = await c.ok("run_start", program=program, wait_s=0)
    for topic, word in (("orders", "port"), ("other", "aside"), ("orders", "starboard")):
        run = await c.ok("run_send", run_id=run["run_id"], topic=topic, content={"turn": word}, wait_s=0)
    output = c.completed(await c.follow(run))
    expect(output == [{"turn": "port"}, {"turn": "starboard"}, {"turn": "aside"}], f"received: {output}")


@check("orchestration.spawn.returns-the-childs-output")
async def spawn_returns_the_childs_output(c: Driver) -> None:
    program = (
        "CHILD = 'async def main(input):\\n    return input[\"n\"] * 2'\n"
        "async def main(input):\n"
        "    direct = await kernel.spawn(CHILD, {'n': 4})\n"
        "    handle = kernel.spawn(CHILD, {'n': 21})\n"
        "    return [direct, await handle]\n"
    )
    run = await c.run(program)
    output = c.completed(run)
    expect(output == [8, 42], f"the children returned {output!r}")
    runs = (await c.ok("run_get", limit=50)).get("runs") or []
    children = [one for one in runs if run["run_id"] in json.dumps(one.get("parent"))]
    expect(len(children) == 2, f"the list shows {len(children)} children of {run['run_id']}")


@check("orchestration.spawn.childs-failure-is-raised")
async def childs_failure_is_raised(c: Driver) -> None:
    program = (
        "CHILD = 'async def main(input):\\n    raise ValueError(input[\"word\"])'\n"
        "async def main(input):\n"
        "    try:\n        await kernel.spawn(CHILD, input)\n"
        "    except kernel.Error as error:\n        return [error.code, str(error)]\n"
    )
    output = await c.output(program, input={"word": c.token})
    expect(isinstance(output, list) and c.token in str(output), f"the parent saw {output!r}")


@check("orchestration.gather.runs-calls-together")
async def gather_runs_calls_together(c: Driver) -> None:
    program = (
        "import asyncio\n"
        "async def late(seconds):\n    await kernel.sleep(seconds)\n    return seconds\n"
        "async def main(input):\n"
        "    begun = kernel.now()\n"
        "    results = await asyncio.gather(late(1.0), late(0.6), late(0.8))\n"
        "    steps = await asyncio.gather(*(kernel.step(f's{n}', lambda n=n: n * n) for n in range(5)))\n"
        "    return [results, kernel.now() - begun, steps]\n"
    )
    results, took, steps = await c.output(program)
    expect(results == [1.0, 0.6, 0.8] and steps == [0, 1, 4, 9, 16], f"results: {results}, {steps}")
    expect(1.0 <= took < 2.0, f"sleeps of 1.0, 0.6 and 0.8 s together took {took} s of the run's clock")


@check("orchestration.cancel.reaches-children")
async def cancel_reaches_children(c: Driver) -> None:
    program = "async def main(input):\n    return await kernel.spawn('async def main(input):\\n    await kernel.sleep(3600)', {})\n"
    run = await c.ok("run_start", program=program, wait_s=0)
    child = None
    for _ in range(50):
        runs = (await c.ok("run_get", limit=50)).get("runs") or []
        child = next((one for one in runs if run["run_id"] in json.dumps(one.get("parent"))), None)
        if child:
            break
        await asyncio.sleep(0.1)
    if child is None:
        raise Failed(f"the child of {run['run_id']} is not listed")
    await c.ok("run_control", run_id=run["run_id"], action="cancel")
    for run_id in (run["run_id"], child["run_id"]):
        for _ in range(40):
            seen = await c.ok("run_get", run_id=run_id, wait_s=1)
            if seen.get("status") in ENDED:
                break
        expect(seen.get("status") == "cancelled", f"after cancel the run is {seen}")


@check("orchestration.list.shows-runs")
async def list_shows_runs(c: Driver) -> None:
    run = await c.run("async def main(input):\n    return 1", name=f"voyage {c.token}")
    for narrow in ({}, {"status": "completed"}):
        runs = (await c.ok("run_get", limit=50, **narrow)).get("runs") or []
        mine = [one for one in runs if one.get("run_id") == run["run_id"]]
        expect(len(mine) == 1 and mine[0].get("status") == "completed", f"listed with {narrow}: {mine}")
        expect(mine[0].get("name") == f"voyage {c.token}", f"listed as {mine[0].get('name')!r}")
    others = (await c.ok("run_get", limit=50, status="cancelled")).get("runs") or []
    wrong = [one for one in others if one.get("status") != "cancelled"]
    expect(not wrong, f"status=cancelled lists {wrong[:1]}")


@check("orchestration.memory.written-once")
async def memory_is_written_once(c: Driver) -> Killed:
    count, halt = f"count-{c.token}", f"halt-{c.token}"
    await c.ok("memory_edit", label=count, text="n=0.")
    await c.ok("memory_edit", label=halt, text="go on")
    program = (
        "async def main(input):\n"
        "    for n in range(2000):\n"
        f"        await kernel.memory.edit('{count}', f'n={{n + 1}}.', old=f'n={{n}}.')\n"
        f"        if 'stop' in str(await kernel.memory.blocks('{halt}')):\n"
        "            return n + 1\n"
        "        await kernel.sleep(0.02)\n"
    )
    run = await c.ok("run_start", program=program, wait_s=0)
    await _passes(c, count, 5)
    yield
    await _passes(c, count, await _number(c, count) + 5)
    await c.ok("memory_edit", label=halt, text="stop")
    output = c.completed(await c.follow(await c.ok("run_get", run_id=run["run_id"], wait_s=10)))
    expect(
        output == await _number(c, count), f"the program made {output} edits, the note says {await _number(c, count)}"
    )


async def _number(c: Driver, label: str) -> int:
    text = (await c.ok("memory_blocks", label=label))["blocks"][0]["text"]
    return int(text.removeprefix("n=").removesuffix("."))


async def _passes(c: Driver, label: str, number: int) -> None:
    for _ in range(300):
        if await _number(c, label) >= number:
            return
        await asyncio.sleep(0.05)
    raise Failed(f"the program counted to {await _number(c, label)} and stopped there; it had to reach {number}")
