"""Twins of runs: some forge the program on its way in, some forget at a restart, some only misreport."""

import json
from typing import Any

from .twin import Answer, Call, alters, blurs, drops, from_scratch, rewrites, twin

RUN = ("run_start", "run_get", "run_send")


def output_as_text(_: Call, data: dict[str, Any]) -> None:
    if "got" in json.dumps(data.get("output")):
        data["output"] = json.dumps(data["output"])


alters("durable.run.completes-with-its-output", "says the output as a string", RUN, output_as_text)


@twin("durable.run.plain-main-works-alike", "runs async programs only")
async def async_only(call: Call) -> Answer:
    if call.tool == "run_start" and call.text.startswith("def main"):
        call.arguments["program"] = "async def main(input):\n    raise TypeError('main is not async')"
    return await call.serve()


@twin("durable.run.goes-on-without-the-client", "ends a run when nobody waits for it")
async def ends_unwatched(call: Call) -> Answer:
    answer = await call.serve()
    if call.tool == "run_start" and call.arguments.get("wait_s") == 0 and not answer.refused:
        await call.other("run_control", run_id=answer.data["run_id"], action="cancel")
    return answer


drops("durable.run.gets-its-files", "starts a program without its files", "run_start", "files")
blurs("durable.run.syntax-error-is-told", "does not tell a syntax error", "SyntaxError")
blurs("durable.run.exception-is-told", "does not tell an exception", "KeyError")
blurs("durable.run.output-must-be-json", "does not tell that a result was no JSON", "guest.result")
blurs("durable.run.deadlock-is-told", "does not tell a deadlock", "guest.deadlock")


@twin("durable.run.missing-main-is-told", "calls a program without main a success")
async def no_main_needed(call: Call) -> Answer:
    if call.tool == "run_start" and "main" not in call.text:
        call.arguments["program"] = call.text + "\nasync def main(input):\n    return None"
    return await call.serve()


def no_progress(_: Call, data: dict[str, Any]) -> None:
    data.pop("progress", None)


alters("durable.run.log-and-progress-are-shown", "does not show progress", ("run_get",), no_progress)


def backwards(_: Call, data: dict[str, Any]) -> None:
    if len(data.get("steps") or []) == 2:
        data["steps"] = data["steps"][::-1]


alters("durable.step.is-listed", "lists the last step first", ("run_get",), backwards)
rewrites("durable.step.error-can-be-caught", "raises errors without a code", "append(error.code)", "append(None)")
rewrites(
    "durable.step.changes-no-variables",
    "runs a step's function in the program",
    "await kernel.step('note', note)",
    "note()",
)
from_scratch("durable.step.runs-once", "runs a program's steps again after a restart", "return source.read(8).hex()")
from_scratch(
    "durable.step.sandbox-call-runs-once", "runs sandbox calls again after a restart", "kernel.sandbox.run(CODE)"
)
from_scratch("durable.replay.values-repeat", "draws new values for a replay", "secrets.token_hex")
from_scratch("durable.replay.divergence-parks", "follows whatever the program does now", "word = source.read(8)")


@twin("durable.sleep.outlives-the-server", "loses sleeping runs at a restart")
async def never_wakes(call: Call) -> Answer:
    answer = await call.serve()
    run = call.notes.runs.get(str(call.arguments.get("run_id")))
    if run and run["start"] < call.notes.starts and "kernel.sleep(4)" in run["arguments"]["program"]:
        error = {"code": "run.lost", "message": "The server was restarted."}
        return answer.say(answer.data | {"status": "failed", "error": error})
    return answer


rewrites(
    "durable.sleep.plain-sleeps-are-durable",
    "lets asyncio.sleep pass at once",
    "asyncio.sleep(0.3)",
    "asyncio.sleep(0)",
)
drops("durable.key.same-arguments-same-run", "does not hear a key", "run_start", "idempotency_key")


@twin("durable.key.other-arguments-conflict", "answers a used key whatever comes with it")
async def key_is_enough(call: Call) -> Answer:
    if call.tool == "run_start" and call.arguments.get("idempotency_key"):
        for run in call.notes.runs.values():
            if run["arguments"].get("idempotency_key") == call.arguments["idempotency_key"]:
                call.params["arguments"] = dict(run["arguments"])
    return await call.serve()


@twin("durable.key.outlives-the-server", "forgets its keys at a restart")
async def forgets_keys(call: Call) -> Answer:
    if call.tool == "run_start" and call.notes.starts > 1:
        call.arguments.pop("idempotency_key", None)
    return await call.serve()


@twin("durable.run.outlives-the-server", "forgets finished runs at a restart")
async def forgets_runs(call: Call) -> Answer:
    answer = await call.serve()
    run = call.notes.runs.get(str(call.arguments.get("run_id")))
    if run and run["start"] < call.notes.starts and run.get("status") == "completed":
        return answer.refuse("run.unknown", "There is no such run.")
    return answer


async def unheard(call: Call, action: str) -> Answer:
    if call.tool == "run_control" and call.arguments.get("action") == action:
        return await call.other("run_get", run_id=call.arguments["run_id"])
    return await call.serve()


@twin("durable.cancel.ends-the-run", "says yes to cancel and does nothing")
async def deaf_to_cancel(call: Call) -> Answer:
    return await unheard(call, "cancel")


@twin("durable.pause.holds-and-resumes", "says yes to pause and does nothing")
async def deaf_to_pause(call: Call) -> Answer:
    return await unheard(call, "pause")


rewrites(
    "durable.cancel.lets-finally-finish", "kills where it should cancel", "    finally:\n", "    except ValueError:\n"
)
