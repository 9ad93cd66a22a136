"""The verbs on runs: start, see, answer, send, control; children; and what another principal sees of them."""

import asyncio
import dataclasses
import gc
import sys
from pathlib import Path

import pytest
from agent_kernel import Folder, Grants, KernelError, Ports

sys.path.insert(0, str(Path(__file__).parent))
from kernels import approve, opened, program, ran, rested, until

ECHO = "async def main(input):\n    return input"


def refused(code, awaitable):
    async def act():
        with pytest.raises(KernelError) as error:
            await awaitable
        assert error.value.code == code
        return str(error.value)

    return act()


def test_the_same_key_is_the_same_run(tmp_path):
    async def act(k):
        first = await k.runs.start(ECHO, input={"a": 1}, idempotency_key="job")
        again = await k.runs.start(ECHO, input={"a": 1}, idempotency_key="job")
        text = await refused("key.conflict", k.runs.start(ECHO, input={"a": 2}, idempotency_key="job"))
        return first, again, text, await first.result(), len((await k.runs.list())["runs"])

    first, again, text, result, count = opened(tmp_path / "s", act)
    assert (first.id, first.replayed, again.id, again.replayed) == (first.id, False, first.id, True)
    assert first.id in text
    assert result == {"a": 1}
    assert count == 1


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "argument.invalid"),
        ({"program": ECHO, "skill": "x"}, "argument.invalid"),
        ({"program": ECHO, "input": float("nan")}, "argument.invalid"),
        ({"program": ECHO, "input": "x" * 3_000_000}, "limit.exceeded"),
        ({"program": ECHO, "packages": ["numpy"]}, "packages.denied"),
        ({"program": ECHO, "budget": {"tokens": 1}}, "budget.not_enforced"),
        ({"program": ECHO, "files": {"../x": "y"}}, "path.outside"),
        ({"program": ECHO, "memory_mb": 1_000_000}, "limit.exceeded"),
        ({"program": ECHO + "\ud800"}, "argument.invalid"),
        ({"program": ECHO, "idempotency_key": ""}, "argument.invalid"),
    ],
)
def test_a_start_that_cannot_be_is_refused_and_leaves_nothing(tmp_path, given, code):
    async def act(k):
        await refused(code, k.runs.start(**given))
        return await k.runs.list()

    assert opened(tmp_path / "s", act) == {"runs": [], "more": False}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def main(input:\n    pass", "SyntaxError"),
        ("x = 1", "main"),
        ("async def main(input):\n    return {1, 2}", "set"),
        ("import nothing_of_that_name\nasync def main(input): pass", "ModuleNotFoundError"),
    ],
)
def test_a_program_that_is_none_fails_with_the_reason(tmp_path, source, said):
    async def act(k):
        return await rested(k, (await k.runs.start(source)).id)

    seen = opened(tmp_path / "s", act)
    assert seen["status"] == "failed"
    assert said in str(seen["error"])


def test_files_of_the_start_are_there_in_every_life(tmp_path):
    async def act(k):
        handle = await k.runs.start(
            program(
                """
                before = open("data/a.txt").read()
                open("data/a.txt", "w").write("changed")
                yes = await kernel.approve("?")
                return [before, open("data/a.txt").read(), yes]
                """
            ),
            files={"data/a.txt": "given"},
        )
        await rested(k, handle.id)
        await approve(k, handle.id)
        return await handle.result()

    assert opened(tmp_path / "s", act) == ["given", "changed", True]


def test_waiting_returns_when_somebody_is_needed_and_not_before_its_time(tmp_path):
    async def act(k):
        handle = await k.runs.start(program("await kernel.approve('?')"), wait_s=30)
        needed = await k.runs.view(handle.id)
        other = await k.runs.start(program("await kernel.receive('never')"))
        short = await k.runs.view(other.id, wait_s=0.2)
        return needed["status"], short["status"]

    assert opened(tmp_path / "s", act) == ("input_required", "working")


def test_an_approval_is_bound_to_its_digest_and_to_a_person(tmp_path):
    async def act(k):
        handle = await k.runs.start(program("return await kernel.approve('Pay?', details={'eur': 9})"))
        seen = await rested(k, handle.id)
        item = seen["waiting"][0]
        give = {"run_id": handle.id, "item_id": item["item_id"], "digest": item["digest"]}
        await refused(
            "item.changed", k.runs.approve(**{**give, "digest": "0" * 12}, decision="approve", channel="person")
        )
        text = await refused("approval.elsewhere", k.runs.approve(**give, decision="approve", channel="host"))
        await refused("approval.elsewhere", k.runs.send(handle.id, item["item_id"], content={}))
        await refused("item.unknown", k.runs.approve(**{**give, "item_id": "itm_x"}, decision="deny"))
        waiting = await k.runs.items()
        await k.runs.approve(**give, decision="approve", channel="person", note="fine")
        result = await handle.result()
        await refused("item.closed", k.runs.approve(**give, decision="deny", channel="person"))
        return item, text, waiting, result

    item, text, waiting, result = opened(tmp_path / "s", act)
    assert f"agent-kernel approve {item['item_id']} --state {tmp_path / 's'}" in text
    assert [(w["run_id"][:4], w["item_id"]) for w in waiting] == [("run_", item["item_id"])]
    assert item["details"] == {"eur": 9}
    assert result is True


def test_the_client_that_asked_may_deny_and_approve_where_the_operator_said_so(tmp_path):
    async def deny(k):
        handle = await k.runs.start(program("return await kernel.approve('?')"))
        item = (await rested(k, handle.id))["waiting"][0]
        await k.runs.approve(handle.id, item["item_id"], item["digest"], "deny", channel="host")
        return await handle.result()

    async def allow(k):
        handle = await k.runs.start(program("return await kernel.approve('?')"))
        item = (await rested(k, handle.id))["waiting"][0]
        await k.runs.approve(handle.id, item["item_id"], item["digest"], "approve", channel="host")
        return await handle.result()

    assert opened(tmp_path / "a", deny) is False
    assert opened(tmp_path / "b", allow, grants=Grants(approve_in_host=True)) is True


def test_an_item_survives_the_kernel_and_is_answered_in_the_next_one(tmp_path):
    async def start(k):
        handle = await k.runs.start(program("return await kernel.approve('?')"))
        return handle.id, (await rested(k, handle.id))["waiting"][0]

    run_id, item = opened(tmp_path / "s", start)

    async def answer(k):
        [still] = await k.runs.items()
        view = await k.runs.answer_item(item["item_id"], "approve", note="yes")
        return still, view, await rested(k, run_id)

    still, _, done = opened(tmp_path / "s", answer)
    assert still["item_id"] == item["item_id"]
    assert done["output"] is True


def test_a_question_is_answered_by_an_object_of_its_schema(tmp_path):
    async def act(k):
        schema = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
        handle = await k.runs.start(program(f"return await kernel.ask('How many?', {schema})"))
        item = (await rested(k, handle.id))["waiting"][0]
        text = await refused("argument.schema", k.runs.send(handle.id, item["item_id"], content={"n": "three"}))
        still = await k.runs.view(handle.id)
        await k.runs.send(handle.id, item["item_id"], content={"n": 3})
        return item, text, still["status"], await handle.result()

    item, text, status, result = opened(tmp_path / "s", act)
    assert (item["kind"], item["answer_by"]) == ("ask", "any")
    assert "content.n" in text
    assert status == "input_required"
    assert result == {"n": 3}


class Echo:
    async def complete(self, prompt, schema):
        return {"said": prompt} if schema else f"said {prompt}"

    async def call(self, principal, name, arguments):
        return {"principal": principal, "name": name, "arguments": arguments}


def test_a_model_and_tools_are_used_where_they_are_configured_and_asked_for_where_not(tmp_path):
    body = """
    text = await kernel.model("hi")
    try:
        called = await kernel.tool("server.do", x=1)
    except kernel.Error as error:
        called = error.code
    return [text, called]
    """

    async def without(k):
        handle = await k.runs.start(program(body))
        item = (await rested(k, handle.id))["waiting"][0]
        await k.runs.send(handle.id, item["item_id"], content={"text": "hello"})
        return item["kind"], await handle.result()

    async def having(k):
        return (await ran(k, body))["output"]

    ports = dataclasses.replace(Ports.real(), model=Echo(), tools=Echo())
    assert opened(tmp_path / "a", without) == ("model", ["hello", "tool.unavailable"])
    called = {"principal": "local", "name": "server.do", "arguments": {"x": 1}}
    assert opened(tmp_path / "b", having, ports=ports) == ["said hi", called]


def test_messages_are_read_in_order_each_once(tmp_path):
    async def act(k):
        handle = await k.runs.start(
            program(
                "return await asyncio.gather(*(kernel.receive('t') for _ in range(3)), kernel.receive('other', timeout_s=9))"
            )
        )
        for n in range(3):
            await k.runs.send(handle.id, topic="t", content={"n": n})
        await k.runs.send(handle.id, topic="other", content="x")
        result = await handle.result()
        await refused("run.ended", k.runs.send(handle.id, topic="t", content=0))
        return result

    *mine, other = opened(tmp_path / "s", act)
    assert sorted(m["n"] for m in mine) == [0, 1, 2]
    assert other == "x"


def test_a_message_that_does_not_come_is_an_error_in_time(tmp_path):
    body = """
    try:
        await kernel.receive("t", timeout_s=0.1)
    except kernel.Error as error:
        return error.code
    """
    assert opened(tmp_path / "s", lambda k: ran(k, body))["output"] == "receive.timeout"


def test_runs_talk_to_each_other_and_to_nobody_elses(tmp_path):
    async def act(k):
        theirs = await k.runs.start(program("await kernel.receive('t')"), principal="somebody")
        mine = await k.runs.start(program("return await kernel.receive('t')"))
        seen = await ran(
            k,
            """
            await kernel.send(input["mine"], "t", {"from": "me"})
            try:
                await kernel.send(input["theirs"], "t", 1)
            except kernel.Error as error:
                return error.code
            """,
            {"mine": mine.id, "theirs": theirs.id},
        )
        return seen["output"], await mine.result(), (await k.runs.view(theirs.id, principal="somebody"))["status"]

    assert opened(tmp_path / "s", act) == ("run.unknown", {"from": "me"}, "working")


def test_another_principal_sees_nothing_of_a_run(tmp_path):
    async def act(k):
        handle = await k.runs.start(program("await kernel.approve('?')"))
        item = (await rested(k, handle.id))["waiting"][0]
        other = {"principal": "somebody"}
        for attempt in (
            k.runs.view(handle.id, **other),
            k.runs.control(handle.id, "cancel", **other),
            k.runs.send(handle.id, topic="t", content=1, **other),
            k.runs.approve(handle.id, item["item_id"], item["digest"], "deny", **other),
        ):
            await refused("run.unknown", attempt)
        await refused("item.unknown", k.runs.answer_item(item["item_id"], "deny", **other))
        return (await k.runs.list(**other))["runs"], list(await k.runs.items(**other)), await handle.status()

    assert opened(tmp_path / "s", act) == ([], [], "input_required")


def test_children_give_their_output_and_their_failure(tmp_path):
    async def act(k):
        seen = await ran(
            k,
            """
            good = await kernel.spawn("async def main(input):\\n    return input['n'] + 1", {"n": 1})
            try:
                await kernel.spawn("async def main(input):\\n    raise ValueError('bad')")
            except kernel.Error as error:
                return [good, error.code, "bad" in error.message]
            """,
        )
        listed = (await k.runs.list())["runs"]
        return seen, [run.get("parent") for run in listed]

    seen, parents = opened(tmp_path / "s", act)
    assert seen["output"] == [2, "child.failed", True]
    assert parents == [seen["run_id"], seen["run_id"], None]


def test_a_child_has_no_more_than_its_parent(tmp_path):
    async def act(k):
        return await ran(
            k,
            """
            child = '''
            import kernel
            async def main(input):
                found = []
                for call in (kernel.memory.edit("n", "x"), kernel.memory.blocks(), kernel.spawn(input["grandchild"], {})):
                    try:
                        await call
                        found.append("done")
                    except kernel.Error as error:
                        found.append(error.code)
                return found
            '''
            import textwrap
            grandchild = "import kernel\\nasync def main(input):\\n    await kernel.memory.edit('n', 'x')"
            return await kernel.spawn(
                textwrap.dedent(child), {"grandchild": grandchild}, budget={"steps": 500}, capabilities=["memory.blocks", "spawn"]
            )
            """,
            budget={"steps": 50},
        ), await k.runs.list()

    seen, listed = opened(tmp_path / "s", act)
    assert seen["output"] == ["capability.denied", "done", "child.failed"]
    grandchild, child, parent = listed["runs"]
    assert parent["budget"]["steps"] == 50
    assert child["budget"]["steps"] < 50
    assert "capability.denied" in grandchild["error"]["code"]


def test_cancelling_a_run_cancels_what_it_started(tmp_path):
    async def act(k):
        handle = await k.runs.start(
            program(
                "await kernel.spawn(\"import kernel\\nasync def main(input):\\n    await kernel.receive('t')\", {})"
            )
        )
        while len(runs := (await k.runs.list())["runs"]) < 2:
            await asyncio.sleep(0.01)
        child = runs[0]["run_id"]
        await until(k, child, lambda v: len(v["steps"]) == 1, view="steps")
        await handle.cancel()
        return [(await rested(k, run_id))["status"] for run_id in (handle.id, child)]

    assert opened(tmp_path / "s", act) == ["cancelled", "cancelled"]


def test_a_parent_that_waits_goes_on_in_the_next_kernel(tmp_path):
    async def start(k):
        handle = await k.runs.start(
            program(
                "return await kernel.spawn('import kernel\\nasync def main(input):\\n    return await kernel.receive(\"t\")', {})"
            )
        )
        while len(runs := (await k.runs.list())["runs"]) < 2:
            await asyncio.sleep(0.01)
        return handle.id, runs[0]["run_id"]

    parent, child = opened(tmp_path / "s", start)

    async def go_on(k):
        await k.runs.send(child, topic="t", content="late")
        return (await rested(k, parent))["output"]

    assert opened(tmp_path / "s", go_on) == "late"


def test_a_run_that_the_kernel_gave_up_is_retried_and_one_that_ended_by_itself_is_not(tmp_path):
    async def act(k):
        spun = await k.runs.start(
            program('await kernel.step("one", lambda: 1)\nwhile not os.path.exists("/nowhere"): pass')
        )
        given_up = await rested(k, spun.id)
        await k.runs.control(spun.id, "retry")
        again = await rested(k, spun.id)
        raised = await ran(k, "raise ValueError")
        await refused("run.not_retryable", k.runs.control(raised["run_id"], "retry"))
        await refused("run.ended", k.runs.control(raised["run_id"], "cancel"))
        return given_up, again

    given_up, again = opened(tmp_path / "s", act, limits={"turn_cpu_s_max": 0.6})
    assert given_up["error"]["code"] == again["error"]["code"] == "guest.turn"
    assert again["usage"]["starts"] == 2
    assert again["usage"]["steps"] == 1


def test_more_runs_than_places_wait_their_turn_and_all_end(tmp_path):
    async def act(k):
        handles = [
            await k.runs.start(program("return await kernel.step('n', lambda: input)"), input=n) for n in range(8)
        ]
        return await asyncio.gather(*(handle.result() for handle in handles))

    assert opened(tmp_path / "s", act, limits={"sandboxes_max": 4}) == list(range(8))


def test_parents_that_hold_every_place_give_way_to_their_children(tmp_path):
    async def act(k):
        handles = [
            await k.runs.start(
                program('return await kernel.spawn("async def main(input):\\n    return input", input)'), input=n
            )
            for n in range(4)
        ]
        return await asyncio.gather(*(handle.result() for handle in handles))

    assert opened(tmp_path / "s", act, limits={"sandboxes_max": 4}) == list(range(4))


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("kernel.sandbox.run('1', sesion='x')", "argument.unknown"),
        ("kernel.sandbox.run('1', timeout_s='x')", "argument.invalid"),
        ("kernel.sandbox.run('1', allow_hosts=['example.org'])", "egress.denied"),
        ("kernel.sleep(-1)", "argument.invalid"),
        ("kernel.ask('?', {'type': 'strin'})", "argument.invalid"),
        ("kernel.memory.edit('n', 'x', old='absent')", None),
        ("kernel.spawn('async def main(i):\\n    pass', {}, capabilities=['nothing'])", "argument.invalid"),
    ],
)
def test_a_call_that_cannot_be_is_an_error_in_the_program(tmp_path, call, code):
    body = f"""
    try:
        await {call}
    except kernel.Error as error:
        return [error.code, error.fault]
    """
    seen = opened(tmp_path / "s", lambda k: ran(k, body))
    assert seen["status"] == "completed", seen
    found, fault = seen["output"]
    assert code is None or found == code
    assert fault == "caller"


SKILL = """---
name: shouting
description: Says a text loudly. Use it when something must be heard.
---
Run scripts/shout.py with the text on standard input.
"""


def test_a_skill_is_a_step_of_a_program_and_a_run_of_its_own(tmp_path):
    skill = tmp_path / "s" / "skills" / "shouting"
    (skill / "scripts").mkdir(parents=True)
    (tmp_path / "s").chmod(0o700)
    (skill / "SKILL.md").write_text(SKILL)
    (skill / "scripts" / "shout.py").write_text(
        "import json, sys\nprint(json.load(sys.stdin)['text'].upper(), *sys.argv[1:])\n"
    )

    async def act(k):
        seen = await ran(k, "r = await kernel.skill('shouting', text='ho', args=['!'])\nreturn [r.exit_code, r.stdout]")
        whole = await k.runs.start(skill="shouting/scripts/shout.py", input={"text": "hey"})
        return seen, (await whole.result())["stdout"]

    seen, out = opened(tmp_path / "s", act)
    assert seen["output"] == [0, "HO !\n"], seen
    assert out == "HEY\n"


def test_a_budget_of_time_ends_a_run_that_only_waits(tmp_path):
    async def act(k):
        handle = await k.runs.start(program("await kernel.approve('?')"), budget={"wall_s": 0.6})
        first = await rested(k, handle.id)
        return first, await until(k, handle.id, lambda v: v["status"] == "failed"), list(await k.runs.items())

    first, last, items = opened(tmp_path / "s", act, limits={"park_after_s": 0.1})
    assert first["status"] == "input_required"
    assert last["error"]["code"] == "budget.exceeded"
    assert items == []


def test_nothing_a_guest_says_makes_the_lists_unreadable(tmp_path):
    """Raw frames: 1e999 is infinite when it is read, and no JSON when it is written; a wait of 1e308 s ends at no date."""
    raw = """
        import json, struct
        def frame(kind, number, payload):
            os.write(3, struct.pack("<IBI", len(payload), kind, number) + payload)
        def call(number, method, arguments):
            frame(2, number, struct.pack("<BBH", method, 0, 1) + b"p" + arguments)
        """

    async def act(k):
        end = program('frame(10, 0, b\'{"error":{"code":"x","message":1e999}}\')\ntime.sleep(60)', before=raw)
        ended = await rested(k, (await k.runs.start(end)).id)
        deep = program('frame(10, 0, b\'{"output":\' + b"[" * 900 + b"]" * 900 + b"}")\ntime.sleep(60)', before=raw)
        assert (await rested(k, (await k.runs.start(deep)).id))["error"]["code"] == "guest.protocol"
        ask = program(
            """
            call(0, 12, b'{"question":"a","timeout_s":1e308}')
            call(1, 12, b'{"question":"b","details":1e999}')
            call(2, 9, b'{"program":"x","budget":{"wall_s":1e999}}')
            call(3, 9, b'{"program":"x","budget":{"steps":1e300}}')
            call(4, 11, b'{"seconds":' + b"9" * 400 + b"}")
            call(5, 12, b'{"question":"c"}')
            call(6, 12, b'{"question":"d","details":' + b"[" * 900 + b"]" * 900 + b"}")
            frame(4, 0, struct.pack("<d", float("nan")))
            time.sleep(60)
            """,
            before=raw,
        )
        handle = await k.runs.start(ask)
        steps = await until(
            k, handle.id, lambda seen: sum(s["status"] == "failed" for s in seen["steps"]) == 6, view="steps"
        )
        await rested(k, handle.id)
        return ended, steps["steps"], await k.runs.list(), await k.runs.items()

    ended, steps, listed, waiting = opened(tmp_path / "s", act)
    assert ended["error"]["code"] == "guest.protocol"
    assert {s["error"]["code"] for s in steps if s["status"] == "failed"} == {"argument.invalid"}
    assert [run["status"] for run in listed["runs"]] == ["input_required", "failed", "failed"]
    assert [item["prompt"] for item in waiting] == ["c"]


def test_looking_at_runs_leaves_nothing_behind(tmp_path):
    async def act(k):
        handle = await k.runs.start(program("return 1"))
        await handle.result()
        for n in range(50):
            await k.runs.view(handle.id, wait_s=1)
            await handle.result()
            with pytest.raises(KernelError):
                await k.runs.view(f"run_none{n}", wait_s=1)
        await k.runs.view(handle.id)  # the reader's thread holds the last refusal until its next question
        gc.collect()  # a refusal's traceback holds its frames, and these what they waited for
        return len(k.runs._changes)

    assert opened(tmp_path / "s", act) == 0


READS = """
try:
    mine = open(input).read()
except OSError as error:
    mine = type(error).__name__
there = await kernel.sandbox.run(f"print(open({input!r}).read())")
child = await kernel.spawn("async def main(input): return open(input).read()", input)
return [mine, there.stdout.strip(), child]
"""


def test_a_run_sees_the_folders_of_its_starter_in_all_its_lives(tmp_path):
    note = tmp_path / "ada" / "note.txt"
    note.parent.mkdir(mode=0o755)
    note.write_text("hers")
    note.chmod(0o644)
    grants = Grants(folders=(Folder(note.parent),))
    waits = program("go = await kernel.receive('go')\nreturn open(input).read()")

    async def starts(kernel):
        seen = await ran(kernel, READS, str(note), grants=grants)
        assert seen["output"] == ["hers", "hers", "hers"], seen
        assert (await ran(kernel, "open(input)", str(note)))["error"]["type"] in (
            "FileNotFoundError",
            "PermissionError",
        )
        return (await kernel.runs.start(waits, input=str(note), grants=grants)).id

    run_id = opened(tmp_path / "state", starts)

    async def goes_on(kernel):
        await kernel.runs.send(run_id, topic="go", content={})
        return await rested(kernel, run_id)

    assert opened(tmp_path / "state", goes_on)["output"] == "hers"


def test_a_run_has_no_folder_that_the_operator_took_back(tmp_path):
    folder = tmp_path / "ada"
    folder.mkdir()
    waits = program("go = await kernel.receive('go')\nimport os\nreturn os.path.exists(input)")

    async def starts(kernel):
        grants = Grants(folders=(Folder(folder),))
        return (await kernel.runs.start(waits, input=str(folder), grants=grants)).id

    run_id = opened(tmp_path / "state", starts)
    (tmp_path / "state/config.toml").write_text("folders = []")

    async def goes_on(kernel):
        await kernel.runs.send(run_id, topic="go", content={})
        seen = await rested(kernel, run_id)
        return seen["output"] if kernel.sandbox.tier == "full" else False  # in tier confined stat sees what is there

    assert opened(tmp_path / "state", goes_on) is False
