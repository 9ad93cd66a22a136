import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import program_host as host
from agent_kernel.cell import frames
from program_shapes import SHAPES, by_chance

SEEDS = 12


@pytest.fixture(autouse=True, scope="module")
def _template():
    yield
    host.Template.close()


def output(program, **options):
    payload = host.outcome(program, **options)
    assert "output" in payload, payload
    return payload["output"]


def error(program, **options):
    payload = host.outcome(program, **options)
    assert "error" in payload, payload
    return payload["error"]


# --- order


@pytest.mark.parametrize("shape", SHAPES)
def test_a_program_crashed_at_random_goes_the_same_way_in_every_replay(shape):
    for seed in range(SEEDS):
        host.check(SHAPES[shape], seed=seed, answer=by_chance)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_cancelled_program_goes_the_same_way_in_every_replay(shape):
    for seed in range(3):
        run = host.check(SHAPES[shape], seed=seed, answer=by_chance, cancel_at=3 + seed)
        assert [d[0] for d in run.deliveries].count("cancel") <= 1


@pytest.mark.long
@pytest.mark.parametrize("shape", SHAPES)
def test_a_thousand_seeds_of_each_shape(shape):
    for seed in range(1000):
        host.check(SHAPES[shape], seed=seed, answer=by_chance)


def test_answers_that_arrive_in_one_frame_are_taken_one_in_a_turn():
    # With both applied in one turn, `b` would see a list that `a` had not yet gone on from.
    program = """
import asyncio
async def main(input):
    out = []
    async def one(name):
        await kernel.tool(name)
        for _ in range(3):
            await asyncio.sleep(0)
        out.append(name)
        await kernel.tool("second", name=name, seen=list(out))
    await asyncio.gather(one("a"), one("b"))
"""
    run = host.Run(program)
    run._start()
    run.until_idle()
    run.execute(1)
    run.execute(0)
    run.deliver()
    run.until_idle()
    assert [json.loads(call[2])["arguments"]["seen"] for call in run.calls[2:]] == [["b"], ["b", "a"]]
    run.life.kill()


def test_calls_of_one_turn_leave_together_with_the_idle_mark():
    run = host.Run(
        "import asyncio\nasync def main(input):\n    await asyncio.gather(*[kernel.tool('t', i=i) for i in range(20)])"
    )
    run._start()
    run.life.receive()
    assert len(run.life._frames) == 20  # 19 more calls and IDLE, in one read
    assert run.life._frames[-1].type == frames.IDLE
    run.life.kill()


def test_a_step_with_a_recorded_answer_is_not_forked_again():
    program = """
import os
forks = []
os.register_at_fork(before=lambda: forks.append(1))
async def main(input):
    await kernel.step("one", int)
    await kernel.step("two", int)
    return len(forks)  # differs on purpose: only this test may look
"""
    run = host.Run(program)
    assert run.live() == {"output": 2}
    assert run.replay()[2] == {"output": 0}


# --- time


def test_timers_fire_at_their_own_times_before_the_delivery_that_passed_them():
    program = """
import asyncio
async def main(input):
    loop, out = asyncio.get_running_loop(), []
    for delay in (3, 1, 2):
        loop.call_later(delay, lambda: out.append(loop.time()))
    await kernel.sleep(10)
    return [out, loop.time()]
"""
    run = host.Run(program)
    run._start()
    run.until_idle()
    assert run.timer == 1
    run.execute(0)  # answered at T = 10, past all timers
    run.deliver()
    assert run.until_idle()
    assert run.payload["output"] == [[1.0, 2.0, 3.0], 10.0]
    run.life.kill()


def test_equal_timers_fire_in_the_order_they_were_made():
    program = """
import asyncio
async def main(input):
    loop, out = asyncio.get_running_loop(), []
    for i in range(40):
        loop.call_at(1.0, out.append, i)
    await asyncio.sleep(2)
    return out
"""
    assert output(program) == list(range(40))


def test_timers_fire_after_years_of_run_clock():
    program = """
import asyncio
async def main(input):
    await kernel.sleep(3e8)
    loop = asyncio.get_running_loop()
    for _ in range(5):
        await asyncio.sleep(0.1)
    return round(loop.time() - 3e8, 3)
"""
    assert output(program) == 0.5


def test_every_source_of_time_follows_the_run_clock():
    program = """
import datetime, email.utils, time, uuid, tempfile
def main(input):
    kernel.sleep(100)
    a = [email.utils.localtime().timestamp(), time.time(), time.time_ns() / 1e9, datetime.datetime.now().timestamp(),
         datetime.datetime.now(datetime.UTC).timestamp(), kernel.now(), time.clock_gettime(time.CLOCK_REALTIME)]
    b = [time.monotonic(), time.perf_counter(), time.process_time(), time.monotonic_ns() / 1e9]
    c = [datetime.date.today().isoformat(), datetime.datetime.today().date().isoformat(), time.strftime("%Y-%m-%d"),
         time.gmtime().tm_year, time.ctime()[-4:], type(datetime.datetime.now()) is datetime.datetime]
    class Mine(datetime.datetime): pass
    import pickle
    c.append(type(Mine.now()) is Mine and pickle.loads(pickle.dumps(datetime.datetime.now())).year)
    return [a, b, c]
"""
    unix, since, words = output(program)
    assert all(abs(t - (host.EPOCH + 100)) < 0.01 for t in unix), unix
    assert all(abs(t - 100) < 0.01 for t in since), since
    assert words == ["2027-01-15", "2027-01-15", "2027-01-15", 2027, "2027", True, 2027]


def test_a_loop_that_waits_for_the_clock_ends_and_the_clock_never_falls():
    program = """
import time
def main(input):
    reads = [time.time()]
    while reads[-1] < reads[0] + 0.001:
        reads.append(time.time())
    kernel.sleep(0.0001)
    reads.append(time.time())
    return reads == sorted(set(reads))
"""
    assert output(program) is True


def test_every_source_of_chance_repeats_and_differs_from_call_to_call():
    program = """
import os, random, secrets, uuid, tempfile
def draw():
    return [random.random(), random.Random().random(), random.SystemRandom().random(), secrets.token_hex(8), str(uuid.uuid4()),
            str(uuid.uuid1()), os.urandom(8).hex(), os.getrandom(8).hex(), kernel.random(), kernel.uuid(),
            next(tempfile._get_candidate_names()), random.sample(range(1000), 5)]
random.seed()
def main(input):
    first, second = draw(), draw()
    random.seed()
    kernel.tool("x")
    return [first, second, draw()]
"""
    run = host.Run(program)
    first, second, third = run.live()["output"]
    assert all(a != b != c for a, b, c in zip(first, second, third, strict=True))
    assert run.replay()[2]["output"] == [first, second, third]


def test_another_seed_gives_other_values(monkeypatch):
    program = "def main(input):\n    return kernel.uuid()"
    before = output(program)
    monkeypatch.setattr(host, "SEED", "aa" * 32)
    assert output(program) != before


# --- the end of a program


def test_a_program_that_can_never_go_on_ends_with_the_stacks_of_its_tasks():
    program = """
import asyncio
async def worker(queue):
    return await queue.get()
async def main(input):
    await asyncio.gather(worker(asyncio.Queue()), worker(asyncio.Queue()))
"""
    found = error(program)
    assert found["code"] == "guest.deadlock"
    assert "line 4 in worker" in found["traceback"]
    assert "line 6 in main" in found["traceback"]


def test_a_blocking_program_that_can_never_go_on_ends_too():
    program = """
import asyncio
def main(input):
    try:
        asyncio.get_event_loop().run_until_complete(asyncio.Event().wait())
    except BaseException:
        return "survived"
"""
    assert error(program)["code"] == "guest.deadlock"


def test_tasks_left_over_are_cancelled_and_their_last_calls_count():
    program = """
import asyncio
async def left():
    try:
        await asyncio.Event().wait()
    finally:
        await kernel.tool("goodbye")
async def main(input):
    task = asyncio.create_task(left())
    await asyncio.sleep(0)
    return "done"
"""
    run = host.Run(program)
    assert run.live() == {"output": "done"}
    assert [json.loads(call[2])["name"] for call in run.calls] == ["goodbye"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("", {"output": None}),
        ("0", {"output": None}),
        ("3", "guest.exit"),
        ("'no'", "guest.exit"),
    ],
)
def test_exit_status_zero_completes_and_any_other_fails(status, expected):
    payload = host.outcome(f"import sys\nasync def main(input):\n    await kernel.tool('a')\n    sys.exit({status})")
    assert payload == expected or payload["error"]["code"] == expected


def test_exit_in_a_task_ends_the_run():
    program = """
import asyncio, sys
async def leave():
    await kernel.tool("a")
    sys.exit(2)
async def main(input):
    task = asyncio.create_task(leave())
    await asyncio.Event().wait()
"""
    assert error(program)["code"] == "guest.exit"


def test_an_uncaught_exception_is_reported_with_the_lines_of_the_program_only():
    program = "async def inner():\n    raise LookupError('gone')\nasync def main(input):\n    await inner()\n"
    found = error(program)
    assert (found["code"], found["type"], found["message"]) == ("guest.exception", "LookupError", "gone")
    assert "line 4, in main" in found["traceback"]
    assert "line 2, in inner" in found["traceback"]
    assert "cell" not in found["traceback"]
    assert "asyncio" not in found["traceback"]


def test_an_uncaught_kernel_error_keeps_its_code():
    def refuse(method, arguments, rng):
        return {"error": {"code": "tool.denied", "message": "no", "fault": "caller", "retryable": False}}

    found = error("async def main(input):\n    await kernel.tool('a')", answer=refuse)
    assert (found["code"], found["message"]) == ("tool.denied", "no")


@pytest.mark.parametrize("value", ["{1, 2}", "float('nan')", "{1: 2}", "b'x'", "'\\ud800'", "object()"])
def test_a_result_that_is_not_json_fails_by_name(value):
    found = error(f"async def main(input):\n    return {value}")
    assert found["code"] == "guest.result"
    assert "main's result" in found["message"]


def test_a_result_over_the_limit_fails_by_name():
    assert error("def main(input):\n    return 'x' * 3_000_000")["code"] == "guest.result"


def test_a_syntax_error_is_reported_with_its_line():
    found = error("async def main(input):\n    x = = 1\n")
    assert found["code"] == "program.syntax"
    assert found["message"].startswith("line 2: ")
    assert "x = = 1" in found["message"]


@pytest.mark.parametrize("program", ["x = 1", "main = 3", "async def start(input): pass", ""])
def test_a_program_without_main_is_refused_by_name(program):
    assert error(program)["code"] == "program.no_main"


def test_a_nul_in_the_source_is_a_syntax_error():
    assert error("def main(input):\n    return '\0'")["code"] == "program.syntax"


def test_an_exception_of_the_top_level_is_reported():
    found = error("import no_such_module\nasync def main(input): pass")
    assert (found["code"], found["type"]) == ("guest.exception", "ModuleNotFoundError")


def test_the_lines_that_start_a_script_do_nothing():
    program = "async def main(input):\n    return 1\nif __name__ == '__main__':\n    import asyncio\n    asyncio.run(main({}))\n"
    assert output(program) == 1


def test_nothing_follows_end_whatever_the_program_catches():
    program = """
import asyncio
def main(input):
    while True:
        try:
            asyncio.run(asyncio.Event().wait())
        except BaseException:
            kernel.log("still here")
            try:
                kernel.spawn("more")
            except BaseException:
                return "caught"
"""
    run = host.Run(program)
    run._start()
    assert run.until_idle()
    assert run.payload["error"]["code"] == "guest.deadlock"
    with pytest.raises(host.Gone):
        run.life.receive()
    run.life.close()


def test_a_task_that_will_not_end_does_not_hold_what_main_returned():
    program = """
import asyncio
async def stubborn():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
async def main(input):
    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    return "done"
"""
    assert output(program) == "done"


def test_blocking_code_cancelled_in_the_turn_of_its_answer_sees_the_cancel():
    program = """
import asyncio
async def main(input):
    child, out, tasks = kernel.spawn("skill"), [], []
    await child.started()
    def blocking():
        try:
            out.append(child.result())
        except asyncio.CancelledError:
            out.append("cancelled")
            raise
    async def start():
        tasks.append(asyncio.create_task(asyncio.to_thread(blocking)))
    starting = asyncio.create_task(start())
    await child  # woken by the same answer, before the thread
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return out
"""
    answers = {"spawn": {"run_id": "run_child"}, "join": 1}
    assert output(program, answer=lambda method, *_: {"ok": answers[method]}) == ["cancelled"]


def test_what_is_left_over_ends_before_the_steps_are_undone():
    program = """
import asyncio
async def left():
    try:
        await asyncio.Event().wait()
    finally:
        await kernel.tool("goodbye")
async def main(input):
    task = asyncio.create_task(left())
    await kernel.step("one", int, compensate=print)
    raise ValueError
"""
    run = host.Run(program)
    run.live()
    assert [json.loads(call[2])["name"] for call in run.calls] == ["one", "goodbye", "undo one"]


def test_a_failure_after_main_ended_is_a_warning():
    program = """
import asyncio
async def left():
    try:
        await asyncio.Event().wait()
    finally:
        raise ValueError("in the cleanup")
async def main(input):
    task = asyncio.create_task(left())
    await asyncio.sleep(0)
    return "done"
"""
    payload = host.outcome(program)
    assert payload["output"] == "done"
    assert payload["warnings"] == ["main/left[0] failed after main ended: ValueError: in the cleanup"]


# --- cancel


def test_cancel_reaches_main_and_its_cleanup_may_make_calls():
    program = """
import asyncio
async def main(input):
    try:
        await kernel.tool("long")
    finally:
        await kernel.tool("cleanup")
"""
    run = host.Run(program)
    run._start()
    run.until_idle()
    run.record("cancel")
    run.deliver()
    run.until_idle()
    assert run.drops == [0]
    run.execute(1)
    run.deliver()
    assert run.until_idle()
    assert run.payload["error"]["code"] == "run.cancelled"
    run.life.kill()


def test_cancel_reaches_a_blocking_main_in_its_call():
    program = """
import asyncio
def main(input):
    try:
        kernel.tool("long")
    except asyncio.CancelledError:
        kernel.tool("cleanup")
        return "kept"
"""
    run = host.Run(program)
    assert run.live(cancel_at=0) == {"output": "kept"}
    assert run.drops == [0]


def test_cleanup_may_not_start_runs_or_ask_persons_and_has_a_bound():
    program = """
import asyncio
async def main(input):
    out = []
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        for call in (lambda: kernel.approve("sure?"), lambda: kernel.ask("what?", {}), lambda: kernel.spawn("skill", {})):
            try:
                await call()
            except kernel.Error as error:
                out.append(error.code)
        try:
            for i in range(200):
                await kernel.tool("t")
        except kernel.Error as error:
            out.append(i)
    return out
"""
    run = host.Run(program)
    assert run.live(cancel_at=0)["output"] == ["run.cancelled"] * 3 + [97]


# --- the world inside


def test_files_of_the_run_are_there_before_the_program_is_imported():
    program = "import local\ntext = open('data/a.txt').read()\ndef main(input):\n    return [text, local.value, sorted(__import__('os').listdir('.'))]"
    found = output(program, files={"data/a.txt": "hello", "local.py": "value = 7"})
    assert found == ["hello", 7, ["data", "local.py"]]


def test_what_was_printed_and_noted_is_there_once_however_often_the_guest_was_parked():
    program = """
async def main(input):
    for i in range(4):
        print("line", i)
        kernel.log("note", i)
        await kernel.tool("t")
    print("end")
"""
    run = host.Run(program)
    run._start()
    while not run.until_idle():
        run._crash()  # killed while it waits, as a parked guest is
        run.until_idle()
        run.execute(max(run.open))
        run.deliver()
    run.life.close()
    assert (run.stdout + run.life.stdout).decode().split("\n") == [*(f"line {i}" for i in range(4)), "end", ""]
    assert run.notes == [{"log": f"note {i}"} for i in range(4)]
    assert run.lives == 5


def test_an_endless_sleep_is_no_timer():
    program = """
import asyncio
async def main(input):
    task = asyncio.create_task(asyncio.sleep(float("inf")))
    await kernel.tool("t")
    await task
"""
    assert error(program)["code"] == "guest.deadlock"


def test_sockets_processes_and_other_loops_are_refused_with_the_remedy():
    program = """
import asyncio
async def main(input):
    out = []
    for attempt in (
        lambda: asyncio.create_subprocess_exec("ls"),
        lambda: asyncio.open_connection("localhost", 1),
        lambda: asyncio.to_thread(asyncio.new_event_loop),
        lambda: asyncio.get_running_loop().set_task_factory(None),
    ):
        try:
            await attempt()
        except (NotImplementedError, RuntimeError) as error:
            out.append(str(error))
    try:
        asyncio.run(asyncio.sleep(1))
    except RuntimeError as error:
        out.append(str(error))
    return out
"""
    found = output(program)
    assert len(found) == 5
    assert all("kernel." in text or "await" in text or "task factory" in text for text in found), found


def test_asyncio_run_works_in_a_blocking_program():
    program = """
import asyncio
async def both():
    return await asyncio.gather(kernel.tool("a"), kernel.tool("b"))
def main(input):
    return asyncio.run(both()) + [kernel.tool("c")]
"""
    assert output(program) == ["a", "b", "c"]


def test_generators_left_open_are_closed_at_the_end_in_order():
    program = """
closed = []
async def numbers(i):
    try:
        while True:
            yield i
    finally:
        await kernel.tool("closed", i=i)
kept = [numbers(i) for i in range(6)]
async def main(input):
    for source in kept:
        await anext(source)
"""
    run = host.Run(program)
    run.live()
    assert [json.loads(call[2])["arguments"]["i"] for call in run.calls] == list(range(6))


def test_garbage_is_collected_at_fixed_deliveries_and_finalisers_may_not_call():
    program = """
import gc, weakref
seen = []
class Cycle:
    def __init__(self):
        self.me = self
def last(_):
    try:
        kernel.tool("from a callback of a weak reference")
    except kernel.Error as error:
        seen.append(error.code)
def dropped():
    cycle = Cycle()
    return weakref.ref(cycle, last)
async def main(input):
    kept = dropped()
    for i in range(1001):
        if seen:
            return [i, seen, gc.isenabled()]
        await kernel.tool("t")
"""
    assert output(program) == [1000, ["kernel.finaliser"], False]


def test_a_prefix_longer_than_the_buffers_is_taken_while_nobody_reads_the_calls(monkeypatch):
    program = """
async def main(input):
    for i in range(1500):
        await kernel.tool("t", text="x" * 1000)
"""
    run = host.Run(program, answer=lambda *_: {"ok": "y" * 1000})
    run.live()

    def send_without_reading(life, data):
        life.sock.settimeout(host.WAIT_S)
        life.sock.sendall(data)

    monkeypatch.setattr(host.Life, "send", send_without_reading)
    assert len(run.replay()[0]) == 1500


def test_a_guest_whose_kernel_is_gone_leaves():
    run = host.Run("async def main(input):\n    await kernel.tool('t')")
    run._start()
    run.until_idle()
    run.life.sock.shutdown(2)
    run.life.until_all_left()
    run.life.close()


def test_a_forked_child_of_the_program_cannot_reach_the_kernel():
    program = """
import os
async def main(input):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            await kernel.tool("from the child")
        except kernel.Error as error:
            os.write(write, error.code.encode())
        try:
            os.fstat(3)
        except OSError:
            os.write(write, b" closed")
        return "the child's end"
    os.waitpid(pid, 0)
    return os.read(read, 100).decode()
"""
    assert output(program) == "kernel.forked closed"


def test_the_loop_uses_only_names_that_this_python_has():
    import asyncio

    loop = asyncio.new_event_loop()
    names = (
        "_selector",
        "_process_events",
        "_scheduled",
        "_ready",
        "_clock_resolution",
        "_write_to_self",
        "_asyncgens",
        "_check_closed",
    )
    assert [name for name in names if not hasattr(loop, name)] == []
    loop.close()
    assert hasattr(asyncio.tasks, "_GatheringFuture")


def test_the_cell_needs_nothing_but_the_standard_library():
    cell = Path(frames.__file__).parent
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("cell", {str(cell / "__init__.py")!r}, submodule_search_locations=[{str(cell)!r}])
cell = importlib.util.module_from_spec(spec); sys.modules["cell"] = cell; spec.loader.exec_module(cell)
from cell import turns
print(*sorted(n for n in sys.modules if n.startswith("cell.")))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert "cell.turns" in done.stdout
