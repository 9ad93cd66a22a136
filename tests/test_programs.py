"""The life of a program: real sandboxes, real journal. What survives the process, and what ends it."""

import asyncio
import dataclasses
import os
import signal
import sys
from pathlib import Path

import pytest
from agent_kernel import Ports

sys.path.insert(0, str(Path(__file__).parent))
from kernels import approve, opened, program, ran, rested, until

LIFE = 'str(os.stat(".").st_mtime_ns)'
"""When the workspace was made: what a program can read that differs in every life."""


def test_a_program_runs_its_steps_and_gives_its_output(tmp_path):
    async def act(k):
        seen = await ran(
            k,
            """
            a = await kernel.step("double", lambda: input["x"] * 2)
            r = await kernel.sandbox.run("print(6 * 7)")
            await kernel.sleep(0.01)
            return {"a": a, "out": r.stdout}
            """,
            {"x": 21},
        )
        return seen, await k.runs.view(seen["run_id"], "steps")

    seen, steps = opened(tmp_path / "s", act)
    assert seen["status"] == "completed"
    assert seen["output"] == {"a": 42, "out": "42\n"}
    assert [(s["n"], s["kind"], s["name"], s["status"]) for s in steps["steps"]] == [
        (0, "step", "double", "completed"),
        (1, "sandbox.run", "sandbox.run", "completed"),
        (2, "sleep", "sleep", "completed"),
    ]


def test_a_program_that_waits_for_a_person_has_no_process_and_goes_on_where_it_was(tmp_path):
    async def act(k):
        handle = await k.runs.start(
            program(
                f"""
                life = {LIFE}
                kernel.log("before")
                a = await kernel.step("count", lambda: 1)
                yes = await kernel.approve("Go on?", details={{"a": a}})
                kernel.log("after")
                return [a, yes, life]
                """
            )
        )
        waiting = await rested(k, handle.id)
        await until(k, handle.id, lambda _: not k.sandbox._cells)
        await approve(k, handle.id)
        done = await rested(k, handle.id)
        log = await k.runs.view(handle.id, "log")
        return waiting, done, [line["text"] for line in log["log"]], await k.runs.view(handle.id, "steps")

    waiting, done, log, steps = opened(tmp_path / "s", act)
    assert waiting["status"] == "input_required"
    assert waiting["waiting"][0]["prompt"] == "Go on?"
    assert waiting["waiting"][0]["answer_by"] == "person"
    assert done["output"][:2] == [1, True]
    assert done["usage"]["starts"] == 2
    assert log == ["before", "after"]
    assert [s["n"] for s in steps["steps"]] == [0, 1]


def test_a_replay_that_differs_stops_and_shows_both_calls(tmp_path):
    async def act(k):
        handle = await k.runs.start(
            program(
                f"""
                await kernel.memory.edit(label="note", text={LIFE} + ".")
                await kernel.approve("Go on?")
                await kernel.memory.edit(label="note", text="never")
                """
            )
        )
        await rested(k, handle.id)
        await approve(k, handle.id)
        diverged = await until(k, handle.id, lambda v: v.get("detail") == "diverged")
        await k.runs.control(handle.id, "retry")
        again = await until(k, handle.id, lambda v: v.get("detail") == "diverged")
        await approve(k, handle.id, "deny")
        [block] = await k.memory.blocks()
        return diverged, again, await rested(k, handle.id), block.text

    diverged, again, ended, text = opened(tmp_path / "s", act)
    [item] = diverged["waiting"]
    assert (item["kind"], item["answer_by"]) == ("resolve", "person")
    assert "Replay differs at call 0" in item["prompt"]
    assert 'First difference: argument "text"' in item["prompt"]
    assert again["waiting"][0]["item_id"] != item["item_id"]
    assert ended["status"] == "failed"
    assert ended["error"]["code"] == "run.diverged"
    assert "never" not in text


def test_a_guest_that_is_killed_goes_on_and_executes_nothing_twice(tmp_path):
    async def act(k):
        await k.memory.edit("log", "begin")
        handle = await k.runs.start(
            program(
                """
                await kernel.memory.edit(label="log", text="begin+one", old="begin")
                got = await kernel.receive("go")
                await kernel.memory.edit(label="log", text="+two", old="+one")
                return got
                """
            )
        )
        await until(k, handle.id, lambda v: len(v["steps"]) == 2, view="steps")
        [cell] = k.sandbox._cells
        os.kill(cell.pid, signal.SIGKILL)
        await until(k, handle.id, lambda v: any(e["event"] == "lost" for e in v["events"]), view="events")
        await k.runs.send(handle.id, topic="go", content={"n": 1})
        done = await rested(k, handle.id)
        [block] = await k.memory.blocks()
        return done, block.text

    done, text = opened(tmp_path / "s", act)
    assert done["output"] == {"n": 1}
    assert done["usage"]["reruns"] == 1
    assert text == "begin+two"


def test_a_guest_that_is_killed_again_and_again_without_progress_is_given_up(tmp_path):
    async def act(k):
        return await ran(k, 'await kernel.step("one", lambda: 1)\nos.kill(os.getpid(), 9)')

    seen = opened(tmp_path / "s", act, limits={"reruns_without_progress_max": 2})
    assert seen["status"] == "failed"
    assert seen["error"]["code"] == "guest.killed"
    assert seen["usage"]["reruns"] == 3
    assert seen["usage"]["steps"] == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("os._exit(0)", "guest.exit"),
        ("os._exit(3)", "guest.exit"),
        ('os.write(3, b"\\xff" * 64)\nawait kernel.sleep(60)', "guest.protocol"),
        ('import struct\nos.write(3, struct.pack("<IBI", 0, 3, 77))\nawait kernel.sleep(60)', "guest.protocol"),
        ('import struct\nos.write(3, struct.pack("<IBI", 2, 10, 0) + b"[]")\nawait kernel.sleep(60)', "guest.protocol"),
        ("await asyncio.Event().wait()", "guest.deadlock"),
    ],
)
def test_a_program_that_leaves_or_breaks_its_channel_fails_at_once(tmp_path, body, code):
    seen = opened(tmp_path / "s", lambda k: ran(k, body))
    assert seen["status"] == "failed"
    assert seen["error"]["code"] == code
    assert ".." not in seen["error"]["message"]
    assert seen["usage"]["starts"] == 1


def test_an_exception_is_the_result_of_a_program(tmp_path):
    seen = opened(tmp_path / "s", lambda k: ran(k, 'raise ValueError("no such thing")'))
    assert seen["status"] == "failed"
    assert seen["error"]["type"] == "ValueError"
    assert "no such thing" in seen["error"]["message"]


def test_a_program_that_never_awaits_is_stopped(tmp_path):
    seen = opened(tmp_path / "s", lambda k: ran(k, "while True: pass"), limits={"turn_cpu_s_max": 1.0})
    assert seen["status"] == "failed"
    assert seen["error"]["stopped_by"] == "cpu"
    assert seen["usage"]["starts"] == 1


def test_a_program_that_floods_its_output_is_stopped_by_name(tmp_path):
    body = 'while True:\n    os.write(1, b"x" * 65536)'
    seen = opened(tmp_path / "s", lambda k: ran(k, body), limits={"output_bytes_max": 1 << 20})
    assert seen["status"] == "failed"
    assert seen["error"]["stopped_by"] == "output"
    assert seen["usage"]["starts"] == 1


def test_timers_of_the_loop_are_durable_and_the_clock_never_falls(tmp_path):
    async def act(k):
        return await ran(
            k,
            """
            times = [kernel.now()]
            await asyncio.sleep(0.05)
            times.append(kernel.now())
            try:
                async with asyncio.timeout(0.05):
                    await kernel.receive("never")
            except TimeoutError:
                times.append(kernel.now())
            yes = await kernel.approve("again?", timeout_s=0.05)
            times.append(kernel.now())
            return [yes, times == sorted(times), times[1] - times[0] > 0.049]
            """,
        )

    seen = opened(tmp_path / "s", lambda k: act_until(k, act))
    assert seen["output"] == [False, True, True]


async def act_until(k, act):
    seen = await act(k)
    return await until(k, seen["run_id"], lambda v: v["status"] not in ("working", "input_required"))


def test_a_sleep_ends_at_its_time_although_the_kernel_was_closed_meanwhile(tmp_path):
    async def start(k):
        handle = await k.runs.start(
            program(
                """
                began = kernel.now()
                await kernel.sleep(0.5)
                await asyncio.sleep(0.3)
                return kernel.now() - began
                """
            )
        )
        await until(k, handle.id, lambda v: len(v["steps"]) == 1, view="steps")
        return handle.id

    run_id = opened(tmp_path / "s", start)
    seen = opened(tmp_path / "s", lambda k: rested(k, run_id))
    assert seen["status"] == "completed"
    assert seen["output"] >= 0.8


def test_a_run_parked_for_a_far_timer_wakes_in_the_next_kernel(tmp_path):
    """Parked: no process and, after the restart, nothing in memory but the alarm."""

    async def start(k):
        handle = await k.runs.start(program("await kernel.sleep(2)\nreturn 1"))
        return handle.id, await until(k, handle.id, lambda v: v.get("detail") == "sleeping")

    run_id, sleeping = opened(tmp_path / "s", start, limits={"park_after_s": 0.1})
    assert sleeping["status"] == "working"

    async def wake(k):
        before = dict(k.runs._programs)
        return before, await rested(k, run_id)

    before, seen = opened(tmp_path / "s", wake, limits={"park_after_s": 0.1})
    assert before == {}
    assert seen["output"] == 1


def test_a_cancelled_program_gets_its_cleanup(tmp_path):
    async def act(k):
        handle = await k.runs.start(
            program(
                """
                try:
                    await kernel.receive("never")
                finally:
                    await kernel.memory.edit(label="note", text="cleaned")
                """
            )
        )
        await until(k, handle.id, lambda v: len(v["steps"]) == 1, view="steps")
        await k.runs.control(handle.id, "cancel", "enough")
        seen = await rested(k, handle.id)
        [block] = await k.memory.blocks()
        return seen, block.text

    seen, text = opened(tmp_path / "s", act)
    assert seen["status"] == "cancelled"
    assert text == "cleaned"


def test_a_parked_program_gets_its_cleanup_too(tmp_path):
    async def act(k):
        handle = await k.runs.start(
            program(
                """
                try:
                    await kernel.approve("Really?")
                finally:
                    await kernel.memory.edit(label="note", text="cleaned")
                """
            )
        )
        await rested(k, handle.id)
        await until(k, handle.id, lambda _: not k.sandbox._cells)
        await k.runs.control(handle.id, "cancel")
        seen = await rested(k, handle.id)
        return seen, await k.runs.items(), [block.text for block in await k.memory.blocks()]

    seen, items, texts = opened(tmp_path / "s", act)
    assert seen["status"] == "cancelled"
    assert list(items) == []
    assert texts == ["cleaned"]


def test_a_program_that_will_not_be_cancelled_is_killed_when_its_grace_ends(tmp_path):
    async def act(k):
        handle = await k.runs.start(
            program(
                """
                while True:
                    try:
                        await kernel.receive("never")
                    except BaseException:
                        pass
                """
            )
        )
        await until(k, handle.id, lambda v: len(v["steps"]) == 1, view="steps")
        await k.runs.control(handle.id, "cancel")
        return await rested(k, handle.id)

    seen = opened(tmp_path / "s", act, limits={"cancel_grace_s": 0.5})
    assert (seen["status"], seen["detail"]) == ("cancelled", "cleanup_cut")


def test_a_paused_run_has_no_process_and_resumes_from_its_journal(tmp_path):
    async def act(k):
        handle = await k.runs.start(
            program('a = await kernel.step("one", lambda: 1)\ngot = await kernel.receive("go")\nreturn [a, got]')
        )
        await until(k, handle.id, lambda v: len(v["steps"]) == 2, view="steps")
        await k.runs.control(handle.id, "pause")
        paused = await until(k, handle.id, lambda _: not k.sandbox._cells and not k.runs._programs)
        await k.runs.send(handle.id, topic="go", content=2)
        still = await k.runs.view(handle.id)
        await k.runs.control(handle.id, "resume")
        return paused, still, await rested(k, handle.id)

    paused, still, done = opened(tmp_path / "s", act)
    assert (paused["status"], paused["detail"]) == ("working", "paused")
    assert still["detail"] == "paused"
    assert done["output"] == [1, 2]


def test_a_budget_ends_the_run_before_the_call_that_passes_it(tmp_path):
    async def act(k):
        return await ran(
            k, 'for i in range(9):\n    await kernel.memory.edit(label="n", text=str(i))', budget={"steps": 3}
        ), await k.memory.blocks()

    seen, [block] = opened(tmp_path / "s", act)
    assert (seen["status"], seen["detail"]) == ("failed", "budget")
    assert seen["error"]["code"] == "budget.exceeded"
    assert block.text == "2"


def test_calls_that_nobody_waits_for_are_given_up_and_stay_so_in_a_replay(tmp_path):
    async def act(k):
        handle = await k.runs.start(
            program(
                """
                winner = await kernel.race(kernel.sleep(0.05), kernel.receive("never"), kernel.sleep(30))
                yes = await kernel.approve("Go on?")
                return [winner, yes]
                """
            )
        )
        await rested(k, handle.id)
        await approve(k, handle.id)
        return await rested(k, handle.id), await k.runs.view(handle.id, "steps")

    seen, steps = opened(tmp_path / "s", act)
    assert seen["output"] == [None, True]
    assert [s["kind"] for s in steps["steps"]] == ["sleep", "approve"]


def test_a_past_larger_than_the_socket_is_replayed_whole(tmp_path):
    async def act(k):
        handle = await k.runs.start(
            program(
                """
                sizes = await asyncio.gather(*(kernel.step(f"s{i}", lambda i=i: "x" * (100_000 + i)) for i in range(30)))
                yes = await kernel.approve("Go on?")
                return [sum(map(len, sizes)), yes]
                """
            )
        )
        await rested(k, handle.id)
        await approve(k, handle.id)
        return await rested(k, handle.id)

    seen = opened(tmp_path / "s", act)
    assert seen["output"] == [30 * 100_000 + sum(range(30)), True]


def test_an_answer_that_is_too_large_is_an_error_of_its_call(tmp_path):
    async def act(k):
        return await ran(
            k,
            """
            try:
                await kernel.step("big", lambda: "x" * 200_000)
            except kernel.Error as error:
                return error.code
            """,
        )

    seen = opened(tmp_path / "s", act, limits={"value_bytes_max": 100_000})
    assert seen["output"] in ("limit.value", "step.too_large")


def test_an_interrupted_call_that_may_run_at_most_once_waits_for_a_person(tmp_path):
    body = """
    try:
        return await kernel.step("once", lambda: time.sleep(input["s"]), effect="at_most_once")
    except kernel.Error as error:
        return error.code
    """

    async def start(k):
        handles = [await k.runs.start(program(body), input={"s": 1}) for _ in range(2)]
        for handle in handles:
            await until(k, handle.id, lambda v: len(v["steps"]) == 1, view="steps")
        intents = "SELECT count(*) FROM intent"
        while (await k.store.read(lambda db: db.execute(intents).fetchone()))[0] < 2:
            await asyncio.sleep(0.01)
        return [handle.id for handle in handles]

    ids = opened(tmp_path / "s", start)

    async def go_on(k):
        seen = [await until(k, run_id, lambda v: v.get("detail") == "in_doubt") for run_id in ids]
        await approve(k, ids[0], "deny")
        await approve(k, ids[1], "approve")
        return seen, [await rested(k, run_id) for run_id in ids]

    seen, done = opened(tmp_path / "s", go_on)
    assert {s["waiting"][0]["kind"] for s in seen} == {"resolve"}
    assert "at most once" in seen[0]["waiting"][0]["prompt"]
    assert done[0]["output"] == "step.in_doubt"
    assert done[1]["status"] == "completed"
    assert "output" not in done[1] or done[1]["output"] is None


def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path):
    full = []

    def probe(point):
        if full and point == "store.before_commit":
            raise OSError(28, "No space left on device")

    async def act(k):
        handle = await k.runs.start(
            program(
                """
                await kernel.memory.edit("log", "$")
                await kernel.receive("go")
                for i in range(3):
                    await kernel.memory.edit("log", f"{i},$", old="$")
                """
            )
        )
        await until(k, handle.id, lambda v: len(v["steps"]) == 2, view="steps")
        await k.runs.send(handle.id, topic="go", content=None)
        full.append(1)
        await asyncio.sleep(0.3)
        full.clear()
        done = await rested(k, handle.id)
        return done, [block.text for block in await k.memory.blocks()]

    done, texts = opened(tmp_path / "s", act, ports=dataclasses.replace(Ports.real(), probe=probe))
    assert done["status"] == "completed"
    assert texts == ["0,1,2,$"]


def test_lines_and_prints_of_a_program_are_its_log(tmp_path):
    async def act(k):
        handle = await k.runs.start(
            program('kernel.log("a", 1)\nkernel.progress(1, 2, "half")\nprint("out")\nreturn 1')
        )
        seen = await rested(k, handle.id)
        log = await until(k, handle.id, lambda v: len(v["log"]) == 2, view="log")
        return seen, [line["text"] for line in log["log"]]

    seen, log = opened(tmp_path / "s", act)
    assert seen["progress"] == {"done": 1, "total": 2, "message": "half"}
    assert log == ["a 1", "out"]


def test_notes_reach_a_listener_as_they_come(tmp_path):
    async def act(k):
        handle = await k.runs.start(
            program('await kernel.receive("go")\nfor i in range(3):\n    kernel.progress(i, 3, "")\n    kernel.log(i)')
        )
        async with k.runs.notes(handle.id) as notes:
            await k.runs.send(handle.id, topic="go", content=None)
            return [note async for note in notes]

    notes = opened(tmp_path / "s", act)
    assert [note["log"] for note in notes if "log" in note] == ["0", "1", "2"]
    assert [note["progress"]["done"] for note in notes if "progress" in note] == [0, 1, 2]


RAW = """
import json, struct
def frame(kind, number, payload):
    left = struct.pack("<IBI", len(payload), kind, number) + payload
    while left:
        left = left[os.write(3, left):]
"""


def test_a_program_that_floods_notes_without_rest_keeps_the_last_ones_only(tmp_path):
    """They are written when the program rests; until then they are in the kernel's memory."""

    async def act(k):
        handle = await k.runs.start(
            program(
                """
                for n in range(5000):
                    frame(8, n, b'{"log":"%d"}' % n)
                while time.thread_time() < 2:
                    pass
                frame(10, 0, b'{"output":1}')
                """,
                before=RAW,
            )
        )
        held = 0
        while (await k.runs.view(handle.id))["status"] == "working":
            lives = [one._life_now for one in k.runs._programs.values() if one._life_now]
            held = max([held, *(len(life.notes) for life in lives)])
        return held, (await k.runs.view(handle.id, "log"))["log"]

    held, log = opened(tmp_path / "s", act)
    assert 0 < held <= 2000
    assert [line["text"] for line in log] == [str(n) for n in range(3000, 5000)]


def test_a_program_that_lives_by_its_own_timers_is_ended_when_they_are_too_many(tmp_path):
    async def act(k):
        return await ran(k, "await kernel.sleep(0)\nwhile True:\n    await asyncio.sleep(0.0001)")

    seen = opened(tmp_path / "s", act, limits={"guest_ticks_max": 20})
    assert (seen["status"], seen["error"]["code"]) == ("failed", "limit.ticks")


def test_runs_that_beget_runs_come_to_an_end(tmp_path):
    async def act(k):
        return await ran(
            k,
            r"""
            child = "import kernel\nasync def main(input): await kernel.receive('never')"
            tasks = [asyncio.ensure_future(kernel.spawn(child)) for _ in range(10)]
            done, open_ones = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            return [(task.exception().code, task.exception().fault) for task in done]
            """,
        )

    seen = opened(tmp_path / "s", act, limits={"runs_open_max": 8})
    assert seen["output"][0] == ["kernel.overloaded", "kernel"]


def test_a_message_that_nobody_could_receive_is_not_sent(tmp_path):
    async def act(k):
        handle = await k.runs.start(
            program(
                """
                said = json.dumps({"run_id": input["to"], "topic": "t", "content": "x" * 3_000_000}).encode()
                frame(2, 0, struct.pack("<BBH", 15, 0, 1) + b"p" + said)
                frame(4, 0, struct.pack("<d", float("nan")))
                time.sleep(60)
                """,
                before=RAW,
            ),
            input={"to": (await k.runs.start(program("return await kernel.receive('t')"))).id},
        )
        return (
            await until(
                k, handle.id, lambda seen: "error" in seen["steps"][0] if seen["steps"] else False, view="steps"
            )
        )["steps"]

    steps = opened(tmp_path / "s", act)
    assert steps[0]["error"]["code"] == "limit.value"
