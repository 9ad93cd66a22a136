import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import program_host as host


@pytest.fixture(autouse=True, scope="module")
def _template():
    yield
    host.Template.close()


def lived(program, **options):
    run = host.Run(program, **options)
    run.live()
    return run


def output(program, **options):
    run = lived(program, **options)
    assert "output" in run.payload, run.payload
    assert run.replay()[2] == run.payload
    return run.payload["output"]


def sent(run):
    return [(call[0], json.loads(call[2])) for call in run.calls]


# --- what goes over the wire


def test_each_call_sends_its_method_and_its_arguments_without_the_empty_ones():
    program = """
async def main(input):
    await kernel.sandbox.run("print(1)", timeout_s=5)
    await kernel.tool("search", name="an argument called name", q=1)
    await kernel.tools.github.issues(repo="a/b")
    await kernel.memory.add("a fact", key="slot")
    await kernel.memory.add([{"text": "one"}, {"text": "two"}])
    await kernel.memory.search("words", limit=3)
    await kernel.memory.forget(["mem_1"], reason="old")
    await kernel.memory.edit("label", "text", old="t")
    await kernel.memory.blocks()
    await kernel.skill("pdf", "fill.py", path="a.pdf")
    await kernel.sleep(2)
    await kernel.approve("sure?", {"cost": 3})
    await kernel.ask("what?", {"type": "object"})
    await kernel.model("say it")
    await kernel.send("run_1", "topic", {"a": 1})
    await kernel.receive("topic", timeout_s=4)
"""
    run = lived(program, answer=lambda *_: {"ok": {}})
    assert sent(run) == [
        ("sandbox.run", {"code": "print(1)", "language": "python", "timeout_s": 5}),
        ("tool", {"name": "search", "arguments": {"name": "an argument called name", "q": 1}}),
        ("tool", {"name": "github.issues", "arguments": {"repo": "a/b"}}),
        ("memory.add", {"items": [{"text": "a fact", "key": "slot"}]}),
        ("memory.add", {"items": [{"text": "one"}, {"text": "two"}]}),
        ("memory.search", {"query": "words", "limit": 3}),
        ("memory.forget", {"ids": ["mem_1"], "reason": "old"}),
        ("memory.edit", {"label": "label", "text": "text", "old": "t"}),
        ("memory.blocks", {}),
        ("skill", {"name": "pdf", "script": "fill.py", "input": {"path": "a.pdf"}}),
        ("sleep", {"seconds": 2}),
        ("approve", {"question": "sure?", "details": {"cost": 3}}),
        ("ask", {"question": "what?", "schema": {"type": "object"}}),
        ("model", {"prompt": "say it"}),
        ("send", {"run_id": "run_1", "topic": "topic", "content": {"a": 1}}),
        ("receive", {"topic": "topic", "timeout_s": 4}),
    ]  # fmt: skip


def test_equal_arguments_are_equal_bytes_whatever_the_order_of_keys():
    run = lived("async def main(input):\n    await kernel.tool('t', b=1, a=2)\n    await kernel.tool('t', a=2, b=1)")
    assert run.calls[0][2] == run.calls[1][2]


def test_labels_name_the_task_and_count_within_it():
    program = """
import asyncio
async def fetch(i):
    await kernel.tool("get", i=i)
    await kernel.tool("get", i=i)
async def main(input):
    await asyncio.gather(fetch(0), fetch(1), kernel.sleep(1))
    await kernel.step("save", int)
"""
    labels = sorted(call[3] for call in lived(program).calls)
    assert labels == [
        "main/fetch[0]/tool:get#0", "main/fetch[0]/tool:get#1", "main/fetch[1]/tool:get#0", "main/fetch[1]/tool:get#1", "main/sleep#0", "main/step:save#0",
    ]  # fmt: skip


def test_blocking_and_awaited_programs_make_the_same_calls():
    awaited = """
async def main(input):
    a = await kernel.tool("a")
    b = await kernel.map(lambda i: kernel.tool("b", i=i, a=a), range(5), limit=2)
    await kernel.sleep(1)
    return [a, b, await kernel.step("s", lambda: 5)]
"""
    blocking = awaited.replace("async def", "def").replace("await ", "")
    for seed in range(5):
        one, two = lived(awaited, seed=seed), lived(blocking, seed=seed)
        assert one.payload == two.payload
        assert [call[:3] for call in one.calls] == [call[:3] for call in two.calls]
        assert one.deliveries == two.deliveries


# --- answers


def test_fields_of_a_sandbox_result_are_attributes_and_those_left_out_are_empty():
    program = """
async def main(input):
    r = await kernel.sandbox.run("x")
    return [r.exit_code, r.stdout, r.stderr, r.value, r.outputs, r.files[0].path, r["files"][0]["uri"], r.stopped_by, r]
"""

    def answer(method, arguments, rng):
        return {"ok": {"exit_code": 0, "stdout": "hi", "files": [{"path": "a", "uri": "u"}]}}

    found = output(program, answer=answer)
    assert found[:8] == [0, "hi", "", None, [], "a", "u", None]


def test_approve_gives_a_real_bool():
    program = "async def main(input):\n    yes = await kernel.approve('?')\n    return [yes is True, yes]"
    assert output(program, answer=lambda *_: {"ok": True}) == [True, True]
    assert output(program, answer=lambda *_: {"ok": False}) == [False, False]


def test_a_failure_raises_the_same_error_in_the_replay():
    program = """
async def main(input):
    try:
        await kernel.tool("t")
    except kernel.Error as error:
        return [error.code, error.message, error.fault, error.retryable, str(error), type(error).__module__]
"""
    wire = {"code": "tool.denied", "message": "not that", "fault": "caller", "retryable": True}
    assert output(program, answer=lambda *_: {"error": wire}) == [
        "tool.denied", "not that", "caller", True, "tool.denied: not that", "kernel",
    ]  # fmt: skip


# --- refusals before a number is used


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ("x={1, 2}", "['arguments']['x'] is of type set"),
        ("x=float('nan')", "['arguments']['x'] is nan"),
        ("x=[1, {'k': float('inf')}]", "['arguments']['x'][1]['k'] is inf"),
        ("x={1: 2}", "has the key 1"),
        ("x=b'bytes'", "of type bytes"),
        ("x='\\ud800'", "lone surrogate"),
        ("x=__import__('pathlib').Path('a')", "pathlib"),
        ("x=10**5000", "is not JSON"),
    ],
)
def test_an_argument_that_is_not_json_is_a_type_error_at_the_call_and_uses_no_number(arguments, place):
    program = f"""
async def main(input):
    try:
        kernel.tool("t", {arguments})
    except TypeError as error:
        await kernel.tool("next")
        return str(error)
"""
    run = lived(program)
    assert place in run.payload["output"], run.payload
    assert [arguments["name"] for _, arguments in sent(run)] == ["next"]


def test_a_deep_argument_is_refused_and_not_a_crash():
    program = """
async def main(input):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    try:
        kernel.tool("t", x=deep)
    except TypeError as error:
        return str(error)
"""
    assert "nested deeper" in output(program)


def test_an_argument_over_the_limit_is_refused_by_name():
    program = """
async def main(input):
    try:
        await kernel.tool("t", x="x" * 3_000_000)
    except kernel.Error as error:
        return error.code
"""
    run = lived(program)
    assert run.payload == {"output": "argument.too_large"}
    assert run.calls == []


def test_arguments_are_those_of_the_moment_of_the_call():
    program = """
async def main(input):
    items = [1]
    call = kernel.tool("t", items=items)
    items.append(2)
    await call
"""
    assert sent(lived(program))[0][1]["arguments"] == {"items": [1]}


def test_a_call_that_nobody_awaits_is_not_made_and_is_named_with_its_line():
    run = lived("async def main(input):\n    kernel.tool('forgotten')\n    return 1")
    assert run.calls == []
    assert run.payload["warnings"] == ["line 2: kernel.tool(...) was never awaited, so it was not made"]


def test_a_coroutine_of_the_program_that_nobody_awaits_is_named():
    run = lived("async def work(): pass\nasync def main(input):\n    work()\n    return 1")
    assert run.payload["warnings"] == ["line 3: coroutine 'work' was never awaited"]


def test_a_call_is_awaited_once():
    program = """
async def main(input):
    call = kernel.tool("t")
    await call
    try:
        await call
    except RuntimeError as error:
        return str(error)
"""
    assert "awaited before" in output(program)


FROM_A_THREAD = """
import threading
found = []
def work():
    try:
        kernel.tool("t")
    except kernel.Error as error:
        found.append(error)
def main(input):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    raise found[0]
"""

FROM_A_FINALISER = """
found = []
class Last:
    def __del__(self):
        try:
            kernel.tool("t")
        except kernel.Error as error:
            found.append(error)
def main(input):
    Last()
    raise found[0]
"""


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("value = kernel.tool('t')\nasync def main(input): pass", "kernel.import"),
        ("import kernel\nkernel.sleep(1)\ndef main(input): pass", "kernel.import"),
        (FROM_A_THREAD, "kernel.thread"),
        (FROM_A_FINALISER, "kernel.finaliser"),
    ],
)
def test_calls_from_where_they_could_not_replay_are_refused_with_the_alternative(program, code):
    run = lived(program)
    assert run.payload["error"]["code"] == code
    assert "main" in run.payload["error"]["message"] or "kernel.map" in run.payload["error"]["message"]
    assert run.calls == []


def test_an_unknown_name_says_what_there_is():
    run = lived("async def main(input):\n    await kernel.run('x')")
    assert "kernel has no 'run'; it has: Error, approve" in run.payload["error"]["message"]


def test_more_calls_than_may_be_open_wait_in_the_program():
    program = """
import asyncio
async def main(input):
    return await asyncio.gather(*[kernel.tool("t", i=i) for i in range(10)])
"""
    run = host.Run(program, limits={"calls_open_max": 3})
    run._start()
    run.until_idle()
    assert len(run.calls) == 3
    run.execute(1)
    run.deliver()
    run.until_idle()
    assert len(run.calls) == 4
    run.life.kill()
    for seed in range(5):
        whole = host.Run(program, limits={"calls_open_max": 3}, seed=seed)
        assert whole.live(crash=0.1)["output"] == ["t"] * 10


def test_the_limit_of_calls_is_an_error_that_names_the_way_on():
    run = lived("async def main(input):\n    while True:\n        await kernel.tool('t')", limits={"calls_max": 5})
    assert run.payload["error"]["code"] == "limit.calls"
    assert len(run.calls) == 5


# --- steps


def test_a_step_runs_in_a_child_and_leaves_its_value_and_its_files():
    program = """
import os
count = 0
def work(x, y):
    global count
    count += 1
    os.makedirs("deep")
    open("deep/new.txt", "w").write("new")
    open("old.txt", "a").write(" more")
    os.unlink("gone.txt")
    return {"sum": x + y, "count": count}
async def main(input):
    result = await kernel.step("work", work, 1, 2)
    return [result, count, open("deep/new.txt").read(), open("old.txt").read(), os.path.exists("gone.txt")]
"""
    run = host.check(program, seed=0, crash=0.0, files={"old.txt": "old", "gone.txt": "bye"})
    assert run.payload["output"] == [{"sum": 3, "count": 1}, 0, "new", "old more", False]
    recorded = json.loads(run.deliveries[0][3])
    assert host.decoded({k: v for k, v in recorded["files"].items() if v}) == {
        "deep/new.txt": "new",
        "old.txt": "old more",
    }
    assert recorded["files"]["gone.txt"] is None


def test_steps_that_run_side_by_side_have_their_own_files():
    program = """
import asyncio, os, time
def work(i):
    before = os.listdir(".")
    open(f"f{i}", "w").write(str(i))
    return before
async def main(input):
    return await asyncio.gather(*[kernel.step("work", work, i) for i in range(5)])
"""
    run = host.Run(program)
    run._start()
    run.until_idle()
    run.life.send(b"".join(host.frames.encode(host.frames.RUN, n) for n in (3, 0, 4, 1, 2)))
    while len(run.results) < 5:
        run._take()
    assert [result["ok"] for result in run.results.values()] == [[]] * 5
    assert [list(result["files"]) for result in run.results.values()] == [[f"f{n}"] for n in run.results]
    run.life.kill()


def test_files_that_the_program_writes_beside_a_step_are_the_programs():
    program = """
import asyncio, os
def work():
    open("step", "w").write("s")
    kernel.log("written")
    while not os.path.exists(flag):
        os.sched_yield()
async def beside():
    await kernel.tool("t")
    open("main", "w").write("m")
    open(flag, "w").close()
async def main(input):
    global flag
    flag = os.path.abspath("flag")
    await asyncio.gather(kernel.step("work", work), beside())
    os.unlink(flag)
    return sorted(os.listdir("."))
"""
    run = host.Run(program)
    run._start()
    run.until_idle()
    tool, step = (0, 1) if run.calls[0][0] == "tool" else (1, 0)
    run.life.send(host.frames.encode(host.frames.RUN, step))
    while not run.notes:
        run._take()
    run.execute(tool)
    run.deliver()
    while step not in run.results:
        run._take()
    run.execute(step)
    run.deliver()
    assert run.until_idle()
    assert run.payload == {"output": ["main", "step"]}
    assert list(json.loads(run.deliveries[1][3])["files"]) == ["step"]
    run.life.kill()


def test_a_step_that_writes_to_the_runs_folder_by_its_absolute_path_is_refused():
    program = """
import os
async def main(input):
    here, out = os.getcwd(), []
    open("big", "w").write("x" * 3_000_000)
    for work in (lambda: open(here + "/a", "w"), lambda: os.mkdir(here + "/d"), lambda: open("big", "a"), lambda: len(open("big").read())):
        try:
            out.append(await kernel.step("work", work))
        except kernel.Error as error:
            out.append(error.code)
    return [out, os.listdir(".")]
"""
    assert output(program) == [["step.path", "step.path", "step.path", 3_000_000], ["big"]]


def test_files_of_a_failed_step_are_as_before():
    program = """
import os
def work():
    open("a.txt", "w").write("half")
    open("b.txt", "w").write("half")
    raise ValueError("no")
async def main(input):
    try:
        await kernel.step("work", work)
    except kernel.Error as error:
        return [error.code, error.message, open("a.txt").read(), os.path.exists("b.txt")]
"""
    assert output(program, files={"a.txt": "whole"}) == [
        "step.failed",
        "ValueError: no (line 6 of the program)",
        "whole",
        False,
    ]


def test_files_of_a_step_appear_when_its_answer_is_delivered_and_not_before():
    program = """
import asyncio, os
async def main(input):
    step = asyncio.create_task(kernel.step("write", lambda: open("f", "w").write("x")))
    await kernel.tool("beside")
    before = os.path.exists("f")
    await step
    return [before, os.path.exists("f")]
"""
    run = host.Run(program)
    run._start()
    run.until_idle()
    tool, step = (0, 1) if run.calls[0][0] == "tool" else (1, 0)
    run.life.send(host.frames.encode(host.frames.RUN, step))
    while step not in run.results:
        run._take()
    run.execute(tool)  # the step has run, the tool's answer is delivered first
    run.execute(step)
    run.deliver()
    assert run.until_idle()
    assert run.payload["output"] == [False, True]
    run.life.kill()


def test_a_step_sees_the_variables_of_the_moment_of_its_call():
    program = """
import asyncio
async def main(input):
    seen = []
    async def one(i):
        seen.append(i)
        return await kernel.step("look", lambda: list(seen))
    return await asyncio.gather(one(0), one(1), one(2))
"""
    assert output(program) == [[0], [0, 1], [0, 1, 2]]


def test_an_async_step_function_runs_on_a_loop_of_its_own():
    program = """
import asyncio, time
async def work():
    before = time.monotonic()
    await asyncio.sleep(0.01)
    one, two = await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))
    return [one, two, 0.005 < time.monotonic() - before < 30]
async def main(input):
    return await kernel.step("work", work)
"""
    assert output(program) == [1, 2, True]


def test_a_step_function_has_the_real_clock_and_chance_of_its_own():
    program = f"""
import asyncio, random, time, os
async def main(input):
    draws = await asyncio.gather(*[kernel.step("draw", lambda: [random.random(), os.urandom(4).hex(), time.time()]) for _ in range(3)])
    return [len({{d[0] for d in draws}}), len({{d[1] for d in draws}}), [abs(d[2] - {host.EPOCH}) > 1000 for d in draws]]
"""
    assert output(program) == [3, 3, [True] * 3]


def test_kernel_calls_inside_a_step_are_refused():
    program = """
async def main(input):
    async def work():
        await kernel.tool("inside")
    def raw():
        import os
        os.write(3, b"x" * 100)
    out = []
    for fn in (work, raw):
        try:
            await kernel.step("work", fn)
        except kernel.Error as error:
            out.append(error.code)
    return out
"""
    run = lived(program)
    assert run.payload["output"] == ["step.nested", "step.failed"]
    assert [method for method, _ in sent(run)] == ["step", "step"]


def test_retries_happen_inside_the_step():
    program = """
import pathlib
def work():
    with open("/tmp/" + input_name, "a") as file:
        file.write("x")
    if len(open("/tmp/" + input_name).read()) < 3:
        raise OSError("flaky")
    return 3
async def main(input):
    global input_name
    input_name = input["name"]
    return await kernel.step("work", work, retry={"attempts": 5, "delay_s": 0})
"""
    import tempfile

    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        run = lived(program, input={"name": Path(file.name).name})
        assert run.payload == {"output": 3}
        assert Path(file.name).read_text() == "xxx"
    assert len(run.calls) == 1


@pytest.mark.parametrize(
    ("work", "code"),
    [
        ("def work():\n    raise KeyError('k')", "step.failed"),
        ("def work():\n    return {1, 2}", "step.result"),
        ("def work():\n    return 'x' * 3_000_000", "step.too_large"),
        ("def work():\n    open('big', 'w').write('x' * 3_000_000)", "step.too_large"),
        ("def work():\n    import os\n    os._exit(3)", "step.died"),
        ("def work():\n    import os\n    os.kill(os.getpid(), 9)", "step.died"),
        ("def work():\n    raise SystemExit(2)", "step.failed"),
        ("def work():\n    while True: pass", "step.timeout"),
        ("async def work():\n    import asyncio\n    await asyncio.sleep(1000)", "step.timeout"),
        ("def work(a, b):\n    return 1", "step.failed"),
    ],
)
def test_whatever_a_step_function_does_there_is_an_answer(work, code):
    program = f"""
import os
{work}
async def main(input):
    try:
        await kernel.step("work", work, timeout_s=0.2)
    except kernel.Error as error:
        return [error.code, os.listdir(".")]
"""
    assert output(program) == [code, []]


def test_a_step_s_result_that_is_no_json_is_named_as_the_program_knows_it():
    program = """
async def main(input):
    try:
        await kernel.step("work", lambda: {"a": {1}})
    except kernel.Error as error:
        return error.message
"""
    assert output(program).startswith("the step's result['a'] is of type set")


def test_log_and_progress_work_inside_a_step():
    program = """
def work():
    kernel.log("inside", 1)
    kernel.progress(1, 2, "half")
    return kernel.idempotency_key()
async def main(input):
    kernel.log("before")
    return await kernel.step("work", work)
"""
    run = lived(program)
    assert run.payload == {"output": "run_test:0"}
    assert run.notes == [{"log": "before"}, {"log": "inside 1"}, {"progress": [1, 2, "half"]}]


def test_a_dropped_step_ends_with_its_processes_and_leaves_no_files():
    program = """
import asyncio, os, signal, time
def work():
    open("half", "w").write("x")
    import subprocess
    subprocess.Popen(["sleep", "600"])
    kernel.log("wrote")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
async def main(input):
    try:
        await asyncio.wait_for(kernel.step("work", work), 5)
    except TimeoutError:
        await kernel.tool("after")
    return os.listdir(".")
"""
    run = host.Run(program)
    run._start()
    run.until_idle()
    run.life.send(host.frames.encode(host.frames.RUN, 0))
    while not run.notes:
        run._take()
    run.record("tick", at=5.0)
    run.deliver()
    run.until_idle()
    assert run.drops == [0]
    run.execute(1)
    run.deliver()
    assert run.until_idle()
    run.life.until_all_left()
    assert not any(Path(run.life.folder).iterdir())
    run.life.close()


def test_many_steps_at_once_wait_in_the_program():
    program = """
import asyncio
async def main(input):
    return sum(await asyncio.gather(*[kernel.step("s", lambda i=i: i) for i in range(40)]))
"""
    run = host.Run(program)
    run._start()
    run.until_idle()
    assert len(run.calls) == 16
    run.life.kill()
    assert output(program) == sum(range(40))


@pytest.mark.parametrize(
    "call",
    [
        "kernel.step('s', 5)",
        "kernel.step('s', int, x=1)",
        "kernel.step('s', int, retry={'times': 3})",
        "kernel.step('s', int, effect='once')",
    ],
)
def test_a_step_written_wrongly_is_a_type_error(call):
    run = lived(f"async def main(input):\n    await {call}")
    assert run.payload["error"]["type"] == "TypeError"
    assert run.calls == []


def test_effect_is_in_the_frame():
    run = lived("async def main(input):\n    await kernel.step('s', int, effect='at_most_once')")
    assert run.calls[0][1] == host.frames.EFFECTS.index("at_most_once")


def test_compensations_of_finished_steps_run_backwards_when_main_fails():
    program = """
async def main(input):
    for name in "abc":
        await kernel.step(name, lambda: name * 2, compensate=lambda value: print("undo", value))
    raise ValueError("late")
"""
    run = lived(program)
    assert run.payload["error"]["type"] == "ValueError"
    assert [arguments["name"] for _, arguments in sent(run)] == ["a", "b", "c", "undo c", "undo b", "undo a"]
    assert run.stdout.decode().split("\n") == ["undo cc", "undo bb", "undo aa", ""]
    assert lived(program.replace("raise ValueError", "str")).calls[3:] == []


# --- child runs


def spawning(method, arguments, rng):
    return {"ok": {"run_id": "run_child"} if method == "spawn" else {"out": 1} if method == "join" else None}


def test_a_child_starts_at_once_and_is_awaited_any_number_of_times():
    program = """
import asyncio
async def main(input):
    child = kernel.spawn("async def main(input): return 1", {"a": 1}, budget={"steps": 5})
    await kernel.tool("between")
    first = await child
    return [first, await child, await asyncio.gather(child, child.result()), child.run_id, await child.started()]
"""
    run = lived(program, answer=spawning)
    out = {"out": 1}
    assert run.payload["output"] == [out, out, [out, out], "run_child", "run_child"]
    methods = [method for method, _ in sent(run)]
    assert sorted(methods) == ["join", "spawn", "tool"]
    assert methods[0] == "spawn"
    assert sent(run)[0][1] == {"program": "async def main(input): return 1", "input": {"a": 1}, "budget": {"steps": 5}}


def test_a_blocking_program_has_the_child_and_its_result():
    program = """
def main(input):
    child = kernel.spawn("report", {})
    return [child.run_id, child.result(), child.result()]
"""
    run = lived(program, answer=spawning)
    assert run.payload["output"] == ["run_child", {"out": 1}, {"out": 1}]
    assert sent(run) == [("spawn", {"skill": "report", "input": {}}), ("join", {"run_id": "run_child"})]


def test_a_wait_for_a_child_that_is_given_up_is_dropped_and_can_be_taken_up_again():
    program = """
import asyncio
async def main(input):
    child = kernel.spawn("report")
    await child.started()
    try:
        await asyncio.wait_for(child, 1)
    except TimeoutError:
        pass
    return await child
"""
    run = host.Run(program, answer=spawning)
    run._start()
    run.until_idle()
    run.execute(0)
    run.deliver()
    run.until_idle()
    run.record("tick", at=1.0)
    run.deliver()
    run.until_idle()
    assert run.drops == [1]
    run.execute(2)
    run.deliver()
    assert run.until_idle()
    assert run.payload == {"output": {"out": 1}}
    run.life.kill()


def test_the_failure_of_a_child_is_raised_where_it_is_awaited():
    program = """
async def main(input):
    child = kernel.spawn("report")
    forgotten = kernel.spawn("report")
    try:
        await child
    except kernel.Error as error:
        return error.code
"""
    wire = {"code": "child.failed", "message": "", "fault": "guest", "retryable": False}
    assert (
        output(program, answer=lambda m, a, r: spawning(m, a, r) if m == "spawn" else {"error": wire}) == "child.failed"
    )


# --- many at once


def test_map_gives_results_in_order_and_at_most_limit_at_a_time():
    program = """
async def main(input):
    now, most = 0, 0
    async def one(i):
        nonlocal now, most
        now += 1
        most = max(most, now)
        value = await kernel.tool("t", i=i)
        now -= 1
        return [i, value]
    return [await kernel.map(one, range(9), limit=4), most]
"""
    assert output(program) == [[[i, "t"] for i in range(9)], 4]


def failing_third(method, arguments, rng):
    if arguments["arguments"].get("i") == 3:
        return {"error": {"code": "tool.failed", "message": "3", "fault": "host", "retryable": False}}
    return {"ok": arguments["arguments"].get("i")}


@pytest.mark.parametrize("blocking", [False, True])
def test_the_first_error_of_map_cancels_the_rest_and_is_raised(blocking):
    program = """
async def main(input):
    try:
        await kernel.map(lambda i: kernel.tool("t", i=i), range(4))
    except kernel.Error as error:
        return error.message
"""
    program = program.replace("async ", "").replace("await ", "") if blocking else program
    run = host.Run(program, answer=failing_third)
    run._start()
    run.until_idle()
    run.execute(3)
    run.deliver()
    assert run.until_idle()
    assert run.payload == {"output": "3"}
    assert run.drops == [0, 1, 2]
    run.life.kill()


@pytest.mark.parametrize("blocking", [False, True])
def test_race_gives_the_first_success_and_awaits_the_cancelled(blocking):
    program = """
import asyncio
async def main(input):
    out = []
    async def slow():
        try:
            await kernel.tool("t", i=0)
        finally:
            out.append(await kernel.tool("t", i=9))
    winner = await kernel.race(slow, lambda: kernel.tool("t", i=3), lambda: kernel.tool("t", i=2))
    return [winner, out]
"""
    program = program.replace("async def", "def").replace("await ", "") if blocking else program
    run = host.Run(program, answer=failing_third)
    run._start()
    run.until_idle()
    run.execute(1)  # fails: leaves the race
    run.execute(2)
    run.deliver()
    run.until_idle()
    assert run.drops == [0]
    run.execute(3)
    run.deliver()
    assert run.until_idle()
    assert run.payload == {"output": [2, [9]]}
    run.life.kill()


def test_a_race_that_all_lose_raises_the_first_error():
    program = """
async def main(input):
    try:
        await kernel.race(kernel.tool("t", i=3), kernel.tool("t", i=3))
    except kernel.Error as error:
        return error.code
"""
    assert output(program, answer=failing_third) == "tool.failed"


def test_keys_differ_from_call_to_call_and_are_the_same_in_the_replay():
    program = "async def main(input):\n    return [kernel.idempotency_key(), kernel.idempotency_key()]"
    first, second = output(program)
    assert first != second
    assert first.startswith("run_test:")


# --- the guide


def examples():
    guide = Path(host.frames.__file__).parent.parent / "builtin_skills" / "durable-programs" / "SKILL.md"
    inside = [part.partition("```")[0] for part in guide.read_text().split("```python\n")[1:]]
    return [*inside, (guide.parent / "examples" / "blocking.py").read_text()], guide


def answers_of_the_guide(method, arguments, rng):
    if method == "sandbox.run" and rng.random() < 0.2:
        if "stdin" in arguments:
            return {
                "error": {"code": "kernel.overloaded", "message": "by chance", "fault": "kernel", "retryable": True}
            }
        return {"ok": {"exit_code": 1, "stdout": "", "stderr": "by chance"}}
    if method == "sandbox.run":
        return {"ok": {"exit_code": 0, "stdout": "3.5\n"}}
    return {"ok": True if method == "approve" else None}


@pytest.mark.parametrize(
    ("n", "given", "expected"),
    [
        (0, {"title": "t", "text": "one two"}, {"words": 2}),
        (1, {"pages": [{"name": name, "html": "<h1>a</h1>"} for name in "abc"]}, {"stored": 3}),
        (2, {"day": "d", "table": [["x"], [1], [2.5]]}, {"bytes": 11, "sum": 3.5}),
    ],
)
def test_the_programs_of_the_guide_live_through_crashes(n, given, expected):
    program = examples()[0][n]
    for seed in range(4):
        run = host.check(program, seed=seed, answer=answers_of_the_guide, input=given)
        assert run.payload == {"output": expected}


def test_the_guide_names_every_call_and_stays_short():
    from agent_kernel.cell import kernel_api

    text = examples()[1].read_text()
    assert [name for name in kernel_api.__all__ if f"kernel.{name}" not in text and name != "Error"] == []
    assert text.count("\n") < 200
