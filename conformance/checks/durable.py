"""Checks of runs. A check that survives a kill is an async generator: at its `yield` the server is killed and started again.

Re-execution is seen by entropy: a step that draws from /dev/urandom cannot return the same twice, so what the program showed
before the kill and returns after it differ exactly when the step ran again.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from ..driver import ENDED, Driver, items_of
from ..registry import Failed, Untestable, check, expect

Killed = AsyncGenerator[None, None]
CANCEL_S = 8.0
OK = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}


async def answered(c: Driver, run: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    """The run after its ask was answered, once it ended or needs something else."""
    run = await c.ok("run_send", run_id=run["run_id"], item_id=item["item_id"], content={"ok": True}, wait_s=10)
    return await c.follow(run)


def told(run: dict[str, Any]) -> str:
    expect(run.get("status") == "failed", f"the run is not failed: {run}")
    return json.dumps(run.get("error"))


# --- programs


@check("durable.run.completes-with-its-output")
async def run_completes_with_its_output(c: Driver) -> None:
    given = {"token": c.token, "list": [1, 2.5, None, True], "text": "grün"}
    run = await c.run("async def main(input):\n    return {'got': input, 'n': 6 * 7}", input=given)
    expect(run.get("status") == "completed", f"the run did not complete: {run}")
    expect(run.get("output") == {"got": given, "n": 42}, f"output is {run.get('output')!r}")


@check("durable.run.plain-main-works-alike")
async def plain_main_works_alike(c: Driver) -> None:
    program = (
        "def main(input):\n"
        "    a = kernel.step('six', lambda: 6)\n"
        "    b = kernel.step('times', lambda x: x * 7, a)\n"
        "    kernel.sleep(0.01)\n"
        "    return [a, b]\n"
    )
    output = await c.output(program)
    expect(output == [6, 42], f"output is {output!r}")


@check("durable.run.goes-on-without-the-client")
async def run_goes_on_without_the_client(c: Driver) -> None:
    program = "async def main(input):\n    await kernel.sleep(1)\n    return 'rested'"
    run = await c.ok("run_start", program=program, wait_s=0)
    expect(run.get("status") == "working", f"with wait_s=0 the run is {run}")
    output = c.completed(await c.follow(run))
    expect(output == "rested", f"output is {output!r}")


@check("durable.run.gets-its-files")
async def run_gets_its_files(c: Driver) -> None:
    output = await c.output("async def main(input):\n    return open('in/a.txt').read()", files={"in/a.txt": c.token})
    expect(output == c.token, f"the file was {output!r}")


@check("durable.run.syntax-error-is-told")
async def syntax_error_is_told(c: Driver) -> None:
    reply = await c.call("run_start", program="async def main(input):\n    x = 1\n    return x +\n", wait_s=20)
    text = reply.text if reply.refused else told(await c.follow(reply.data))
    expect("SyntaxError" in text and "3" in text, f"neither SyntaxError nor its line is told: {text}")


@check("durable.run.exception-is-told")
async def exception_is_told(c: Driver) -> None:
    program = f"def deep():\n    raise KeyError('{c.token}')\n\nasync def main(input):\n    deep()\n"
    text = told(await c.run(program))
    expect("KeyError" in text and c.token in text, f"the exception is not told: {text}")
    expect("line 2" in text, f"the program's line is not told: {text}")


@check("durable.run.missing-main-is-told")
async def missing_main_is_told(c: Driver) -> None:
    reply = await c.call("run_start", program="async def work(input):\n    return 1", wait_s=20)
    text = reply.text if reply.refused else told(await c.follow(reply.data))
    expect("main" in text, f"main is not named: {text}")


@check("durable.run.output-must-be-json")
async def output_must_be_json(c: Driver) -> None:
    run = await c.run("async def main(input):\n    return {1, 2}")
    text = told(run)
    expect((run.get("error") or {}).get("code") == "guest.result", f"the error is {text}")


@check("durable.run.deadlock-is-told")
async def deadlock_is_told(c: Driver) -> None:
    run = await c.run("import asyncio\nasync def main(input):\n    return await asyncio.Queue().get()")
    text = told(run)
    expect((run.get("error") or {}).get("code") == "guest.deadlock", f"the error is {text}")


@check("durable.run.log-and-progress-are-shown")
async def log_and_progress_are_shown(c: Driver) -> None:
    program = (
        "async def main(input):\n"
        f"    kernel.log('logged {c.token}')\n"
        "    kernel.progress(2, 5, 'two of five')\n"
        f"    await kernel.ask('ready?', {OK!r})\n"
    )
    run, item = await c.waiting(program)
    log = await c.ok("run_get", run_id=run["run_id"], view="log")
    expect(f"logged {c.token}" in json.dumps(log), f"the line is not in view log: {log}")
    progress = json.dumps((await c.ok("run_get", run_id=run["run_id"])).get("progress"))
    expect("2" in progress and "5" in progress, f"progress is {progress}")
    await answered(c, run, item)


# --- steps


@check("durable.step.is-listed")
async def step_is_listed(c: Driver) -> None:
    program = (
        "def good(x):\n    return x + 1\n"
        "def bad():\n    raise ValueError('wrong')\n"
        "async def main(input):\n"
        "    await kernel.step('good', good, 41)\n"
        "    try:\n        await kernel.step('bad', bad)\n"
        "    except kernel.Error:\n        pass\n"
    )
    run = await c.run(program)
    c.completed(run)
    view = await c.ok("run_get", run_id=run["run_id"], view="steps")
    steps = view.get("steps") or []
    names = [step.get("name") for step in steps]
    expect(names == ["good", "bad"], f"the steps are named {names}: {view}")
    numbers = [step.get("n") for step in steps]
    expect(numbers == sorted(numbers) and len(set(numbers)) == 2, f"n is {numbers}")
    for step in steps:
        missing = {"kind", "status", "attempts"} - set(step)
        expect(not missing, f"a step lacks {sorted(missing)}: {step}")
    expect(steps[0].get("result") == 42, f"the first step's result is {steps[0]}")
    expect("wrong" in json.dumps(steps[1].get("error")), f"the second step's error is {steps[1]}")


@check("durable.step.error-can-be-caught")
async def step_error_can_be_caught(c: Driver) -> None:
    program = (
        "def bad():\n    raise ValueError('wrong')\n"
        "async def main(input):\n"
        "    seen = []\n"
        "    for call in (lambda: kernel.step('bad', bad), lambda: kernel.send('run_aaaaaaaaaaaa', 't', {})):\n"
        "        try:\n            await call()\n            seen.append(None)\n"
        "        except kernel.Error as error:\n            seen.append(error.code)\n"
        "    return seen\n"
    )
    seen = await c.output(program)
    expect(isinstance(seen, list) and len(seen) == 2 and all(isinstance(s, str) and s for s in seen), f"codes: {seen}")
    expect(seen[1].endswith(".unknown"), f"a message to an unknown run raised {seen[1]!r}")


@check("durable.step.changes-no-variables")
async def step_changes_no_variables(c: Driver) -> None:
    program = (
        "seen = []\n"
        "def note():\n    seen.append(1)\n    return len(seen)\n"
        "async def main(input):\n    return [await kernel.step('note', note), await kernel.step('note', note), len(seen)]\n"
    )
    output = await c.output(program)
    expect(output == [1, 1, 0], f"a step's changes reached the program: {output}")


DRAW = "def draw():\n    with open('/dev/urandom', 'rb') as source:\n        return source.read(8).hex()\n"


async def drawn_twice(c: Driver, program: str) -> Killed:
    """The program shows two draws in an ask and returns them; they must be the same after the kill."""
    run, item = await c.waiting(program)
    shown = str(item.get("prompt")).split()
    if len(shown) != 2 or shown[0] == shown[1]:
        raise Untestable(f"the program has no entropy to show: {item}")
    yield
    run = await answered(c, await c.ok("run_get", run_id=run["run_id"]), item)
    output = c.completed(run)
    expect(output == shown, f"the step ran again: shown {shown} before the kill, returned {output} after it")
    view = await c.ok("run_get", run_id=run["run_id"], view="steps")
    attempts = [step.get("attempts") for step in (view.get("steps") or [])[:2]]
    expect(attempts == [1, 1], f"attempts of the recorded steps: {attempts}")


@check("durable.step.runs-once")
async def step_runs_once(c: Driver) -> Killed:
    program = DRAW + (
        "async def main(input):\n"
        "    a = await kernel.step('draw', draw)\n"
        "    b = await kernel.step('draw', draw)\n"
        f"    await kernel.ask(a + ' ' + b, {OK!r})\n"
        "    return [a, b]\n"
    )
    async for _ in drawn_twice(c, program):
        yield


@check("durable.step.sandbox-call-runs-once")
async def sandbox_call_runs_once(c: Driver) -> Killed:
    program = (
        "CODE = 'import uuid; print(uuid.uuid4())'\n"
        "async def main(input):\n"
        "    a = (await kernel.sandbox.run(CODE)).stdout.strip()\n"
        "    b = (await kernel.sandbox.run(CODE)).stdout.strip()\n"
        f"    await kernel.ask(a + ' ' + b, {OK!r})\n"
        "    return [a, b]\n"
    )
    async for _ in drawn_twice(c, program):
        yield


# --- replay


@check("durable.replay.values-repeat")
async def values_repeat(c: Driver) -> Killed:
    program = (
        "import json, os, random, secrets, time, uuid\n"
        "async def main(input):\n"
        "    await kernel.sleep(0.01)\n"
        "    seen = [kernel.now(), kernel.random(), str(kernel.uuid()), time.time(), random.random(), str(uuid.uuid4()),\n"
        "            secrets.token_hex(8), os.urandom(8).hex(), ' '.join({'a', 'b', 'c', 'd', 'e'})]\n"
        f"    await kernel.ask(json.dumps(seen), {OK!r})\n"
        "    return seen\n"
    )
    run, item = await c.waiting(program)
    shown = json.loads(item["prompt"])
    yield
    output = c.completed(await answered(c, run, item))
    expect(output == shown, f"before the kill {shown}, after it {output}")


@check("durable.replay.divergence-parks")
async def divergence_parks(c: Driver) -> Killed:
    program = (
        "async def main(input):\n"
        "    with open('/dev/urandom', 'rb') as source:\n"
        "        word = source.read(8).hex()\n"
        "    await kernel.step('say ' + word, len, word)\n"
        f"    await kernel.ask('go on?', {OK!r})\n"
        f"    await kernel.memory.edit('went-on-{c.token}', 'it did')\n"
    )
    run, item = await c.waiting(program)
    yield
    run = await c.ok("run_get", run_id=run["run_id"])
    if any(waiting.get("kind") == "ask" for waiting in run.get("waiting") or []):
        run = await c.ok("run_send", run_id=run["run_id"], item_id=item["item_id"], content={"ok": True}, wait_s=10)
    run = await c.follow(run)
    expect(run.get("status") not in ENDED, f"another program than the recorded one went on: {run}")
    kinds = [waiting.get("kind") for waiting in items_of(run)]
    expect(kinds == ["resolve"] and run.get("detail") == "diverged", f"the run is not parked as diverged: {run}")
    blocks = await c.call("memory_blocks", label=f"went-on-{c.token}")
    expect("it did" not in blocks.text, "the diverged program was executed further")


@check("durable.sleep.outlives-the-server")
async def sleep_outlives_the_server(c: Driver) -> Killed:
    program = "async def main(input):\n    a = kernel.now()\n    await kernel.sleep(4)\n    return kernel.now() - a\n"
    run = await c.ok("run_start", program=program, wait_s=0)
    for _ in range(20):
        if run.get("detail") == "sleeping":
            break
        run = await c.ok("run_get", run_id=run["run_id"], wait_s=0.2)
    yield
    slept = c.completed(await c.follow(await c.ok("run_get", run_id=run["run_id"])))
    expect(isinstance(slept, int | float) and 4 <= slept < 60, f"a sleep of 4 s took {slept!r} s of the run's clock")


@check("durable.sleep.plain-sleeps-are-durable")
async def plain_sleeps_are_durable(c: Driver) -> None:
    program = (
        "import asyncio, time\n"
        "async def main(input):\n"
        "    a = time.time()\n    await asyncio.sleep(0.3)\n"
        "    b = time.time()\n    time.sleep(0.3)\n"
        "    return [b - a, time.time() - b]\n"
    )
    slept = await c.output(program)
    expect(all(0.29 <= s < 20 for s in slept), f"two sleeps of 0.3 s took {slept} s of the run's clock")


# --- keys


@check("durable.key.same-arguments-same-run")
async def same_key_same_run(c: Driver) -> None:
    arguments = {"program": "async def main(input):\n    return input", "input": {"a": 1}, "idempotency_key": c.token}
    first = await c.ok("run_start", wait_s=20, name=c.token, **arguments)
    again = await c.ok("run_start", wait_s=20, name=c.token, **arguments)
    expect(first.get("run_id") == again.get("run_id"), f"two runs for one key: {first}, {again}")
    expect(again.get("replayed") is True and "replayed" not in first, f"replayed is not told: {first}, {again}")
    runs = (await c.ok("run_get", limit=50)).get("runs") or []
    named = [run.get("run_id") for run in runs if run.get("name") == c.token]
    expect(named == [first["run_id"]], f"the list shows {named}")


@check("durable.key.other-arguments-conflict")
async def other_arguments_conflict(c: Driver) -> None:
    program = "async def main(input):\n    return input"
    await c.ok("run_start", program=program, input={"a": 1}, idempotency_key=c.token, wait_s=20)
    await c.refused("key.conflict", "run_start", program=program, input={"a": 2}, idempotency_key=c.token, wait_s=20)


@check("durable.key.outlives-the-server")
async def key_outlives_the_server(c: Driver) -> Killed:
    arguments = {"program": "async def main(input):\n    return input", "input": {"k": 1}, "idempotency_key": c.token}
    first = await c.ok("run_start", wait_s=20, **arguments)
    yield
    again = await c.ok("run_start", wait_s=20, **arguments)
    expect(first.get("run_id") == again.get("run_id"), f"the key was forgotten: {first}, {again}")


@check("durable.run.outlives-the-server")
async def run_outlives_the_server(c: Driver) -> Killed:
    program = "async def main(input):\n    return await kernel.step('double', lambda x: x + x, input['word'])"
    run = await c.run(program, input={"word": c.token})
    expect(c.completed(run) == c.token * 2, f"output is {run}")
    steps = (await c.ok("run_get", run_id=run["run_id"], view="steps")).get("steps")
    yield
    after = await c.ok("run_get", run_id=run["run_id"])
    expect(c.completed(after) == c.token * 2, f"output after the restart is {after}")
    kept = (await c.ok("run_get", run_id=run["run_id"], view="steps")).get("steps")
    expect(steps and kept == steps, f"the steps were {steps}, and are {kept}")


# --- control


@check("durable.cancel.ends-the-run")
async def cancel_ends_the_run(c: Driver) -> None:
    run = await c.ok("run_start", program="async def main(input):\n    await kernel.sleep(3600)", wait_s=0)
    await c.ok("run_control", run_id=run["run_id"], action="cancel", reason="enough")
    run = await _ended(c, run)
    expect(run.get("status") == "cancelled", f"after cancel the run is {run}")


@check("durable.cancel.lets-finally-finish")
async def cancel_lets_finally_finish(c: Driver) -> None:
    program = (
        "async def main(input):\n"
        "    try:\n"
        f"        await kernel.ask('?', {OK!r})\n"
        "    finally:\n"
        f"        await kernel.memory.edit('finally-{c.token}', 'tidied')\n"
    )
    run, _ = await c.waiting(program)
    await c.ok("run_control", run_id=run["run_id"], action="cancel")
    run = await _ended(c, run)
    expect(run.get("status") == "cancelled", f"after cancel the run is {run}")
    blocks = await c.call("memory_blocks", label=f"finally-{c.token}")
    expect("tidied" in blocks.text, f"the finally block did not finish: {blocks.text}")


async def _ended(c: Driver, run: dict[str, Any]) -> dict[str, Any]:
    try:
        async with asyncio.timeout(CANCEL_S):
            while run.get("status") not in ENDED:
                run = await c.ok("run_get", run_id=run["run_id"], wait_s=1)
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Failed(f"{CANCEL_S:.0f} s after the cancel the run is {run}") from None
    return run


@check("durable.pause.holds-and-resumes")
async def pause_holds_and_resumes(c: Driver) -> None:
    label = f"count-{c.token}"
    program = (
        "async def main(input):\n"
        "    for n in range(1000):\n"
        f"        await kernel.memory.edit('{label}', str(n))\n"
        "        await kernel.sleep(0.02)\n"
    )
    run = await c.ok("run_start", program=program, wait_s=0)
    await _counted(c, label, "")
    await c.ok("run_control", run_id=run["run_id"], action="pause")
    for _ in range(40):
        run = await c.ok("run_get", run_id=run["run_id"])
        if run.get("detail") == "paused":
            break
        await asyncio.sleep(0.05)
    expect(run.get("status") == "working" and run.get("detail") == "paused", f"the paused run is {run}")
    await asyncio.sleep(0.3)  # what was in flight may end
    before = (await c.call("memory_blocks", label=label)).text
    await asyncio.sleep(0.5)
    after = (await c.call("memory_blocks", label=label)).text
    expect(after == before, f"the paused run went on: {before}, then {after}")
    await c.ok("run_control", run_id=run["run_id"], action="resume")
    await _counted(c, label, before)
    await c.ok("run_control", run_id=run["run_id"], action="cancel")


async def _counted(c: Driver, label: str, last: str) -> None:
    """Wait until the note is there and is another than `last`."""
    for _ in range(100):
        reply = await c.call("memory_blocks", label=label)
        if not reply.refused and label in reply.text and reply.text != last:
            return
        await asyncio.sleep(0.05)
    raise Failed("the program does not write its note")
