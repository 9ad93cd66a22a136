"""Twins of items, messages and child runs."""

from typing import Any

from .twin import Answer, Call, alters, from_scratch, rewrites, twin

RUN = ("run_start", "run_get", "run_send")


@twin("orchestration.ask.is-answered", "changes the words of an answer")
async def shouts(call: Call) -> Answer:
    content = call.arguments.get("content")
    if call.tool == "run_send" and isinstance(content, dict) and "port" in content:
        content["port"] = content["port"].upper() + "!"
    return await call.serve()


async def nods(call: Call, *codes: str) -> Answer:
    """Take a refusal with one of these codes back; '' stands for any."""
    answer = await call.serve()
    if answer.refused and ("" in codes or answer.code in codes):
        return answer.say((await call.other("run_get", run_id=call.arguments["run_id"])).data)
    return answer


@twin("orchestration.ask.answer-must-fit", "takes any answer")
async def takes_any(call: Call) -> Answer:
    fits = isinstance((call.arguments.get("content") or {}).get("knots", 0), int | float)
    return await call.serve() if call.tool != "run_send" or fits else await nods(call, "")


@twin("orchestration.ask.is-answered-once", "nods at a second answer")
async def nods_twice(call: Call) -> Answer:
    second = call.tool == "run_send" and call.arguments.get("content") == {"ok": False}
    return await nods(call, "") if second else await call.serve()


def new_ids(call: Call, data: dict[str, Any]) -> None:
    if call.notes.starts > 1:
        for item in data.get("waiting") or []:
            item["item_id"] = item["item_id"][::-1]


alters("orchestration.ask.outlives-the-server", "gives items new ids at a restart", ("run_get",), new_ids)


def model_as_ask(_: Call, data: dict[str, Any]) -> None:
    for item in data.get("waiting") or []:
        if item.get("kind") == "model":
            item["kind"] = "ask"


alters("orchestration.model.is-answered", "shows what is for a model as a question", RUN, model_as_ask)


def no_details(_: Call, data: dict[str, Any]) -> None:
    for item in data.get("waiting") or []:
        item.pop("details", None)


alters("orchestration.approve.shows-its-item", "does not show what is approved", RUN, no_details)


@twin("orchestration.approve.send-does-not-answer", "takes any client's word for a person's")
async def any_word(call: Call) -> Answer:
    content = call.arguments.get("content")
    for_person = call.tool == "run_send" and isinstance(content, dict) and "approve" in str(content)
    return await nods(call, "") if for_person else await call.serve()


@twin("orchestration.approve.host-does-not-approve", "lets the host approve")
async def host_approves(call: Call) -> Answer:
    return await nods(call, "approval.elsewhere") if call.tool == "run_approve" else await call.serve()


@twin("orchestration.approve.denying-is-accepted", "does not even take a no")
async def takes_no_no(call: Call) -> Answer:
    if call.tool == "run_approve" and call.arguments.get("decision") == "deny":
        call.arguments["decision"] = "approve"
    return await call.serve()


@twin("orchestration.approve.digest-must-match", "does not look at the digest")
async def any_digest(call: Call) -> Answer:
    if call.tool == "run_approve":
        run = (await call.other("run_get", run_id=call.arguments["run_id"])).data
        for item in run.get("waiting") or []:
            call.arguments["digest"] = item["digest"]
    return await call.serve()


@twin("orchestration.approve.person-answers-by-elicitation", "does not ask the person")
async def never_asks(call: Call) -> Answer:
    if call.method == "initialize":
        call.params.get("capabilities", {}).pop("elicitation", None)
    return await call.serve()


def silence_is_yes(_: Call, data: dict[str, Any]) -> None:
    if data.get("output") is False:
        data["output"] = True


alters("orchestration.approve.expiry-is-no", "takes silence for a yes", RUN, silence_is_yes)


def no_is_yes(_: Call, data: dict[str, Any]) -> None:
    if data.get("output") == {"answer": False, "type": "bool"}:
        data["output"] = {"answer": True, "type": "bool"}


alters("orchestration.approve.declining-is-no", "takes a declined form for a yes", RUN, no_is_yes)


def closed_is_no(_: Call, data: dict[str, Any]) -> None:
    if data.pop("waiting", None):
        data.update(status="completed", output={"answer": False, "type": "bool"})


alters("orchestration.approve.closing-is-no-answer", "takes a closed form for a no", RUN, closed_is_no)


@twin("orchestration.approve.is-answered-once", "nods at a second decision")
async def decides_twice(call: Call) -> Answer:
    return await nods(call, "") if call.tool == "run_approve" else await call.serve()


@twin("orchestration.approve.is-asked-by-return", "does not see that a client can ask")
async def never_returns(call: Call) -> Answer:
    stated = call.params.get("_meta", {}).get("io.modelcontextprotocol/clientCapabilities", {})
    stated.pop("elicitation", None)
    return await call.serve()


@twin("orchestration.message.is-delivered", "delivers a message twice")
async def twice(call: Call) -> Answer:
    if call.tool == "run_send" and (call.arguments.get("content") or {}).get("turn") == "port":
        await call.other("run_send", **call.arguments)
    return await call.serve()


def orphans(_: Call, data: dict[str, Any]) -> None:
    for run in data.get("runs") or []:
        run.pop("parent", None)


alters("orchestration.spawn.returns-the-childs-output", "does not tell whose child a run is", ("run_get",), orphans)
rewrites(
    "orchestration.spawn.childs-failure-is-raised", "does not tell a parent that its child failed",
    "raise ValueError(input", "return (input",
)  # fmt: skip
rewrites(
    "orchestration.gather.runs-calls-together", "runs gathered calls one after another",
    "await asyncio.gather(late(1.0), late(0.6), late(0.8))", "[await late(1.0), await late(0.6), await late(0.8)]",
)  # fmt: skip


def lives_on(_: Call, data: dict[str, Any]) -> None:
    if data.get("parent") and data.get("status") == "cancelled":
        data["status"] = "working"


alters("orchestration.cancel.reaches-children", "lets the children of a cancelled run go on", ("run_get",), lives_on)


def nameless(_: Call, data: dict[str, Any]) -> None:
    for run in data.get("runs") or []:
        if str(run.get("name")).startswith("voyage"):
            del run["name"]


alters("orchestration.list.shows-runs", "lists runs without their names", ("run_get",), nameless)
from_scratch("orchestration.memory.written-once", "applies a program's writes again after a restart", "old=f'n=")
