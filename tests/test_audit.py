"""kernel/base/audit.py and `agent-kernel audit`: what is recorded of sandboxes, what of it can be lost, what the chain shows."""

import asyncio
import json
import math
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest
from agent_kernel.base.audit import MIGRATIONS, Audit, Origin, select, shown, verify
from agent_kernel.base.errors import Denied, HostError, KernelError
from agent_kernel.base.limits import Limits
from agent_kernel.base.ports import Ports
from agent_kernel.base.store import Store, look
from agent_kernel.scheduler import Scheduler
from agent_kernel_mcp.__main__ import main as command

sys.path.insert(0, str(Path(__file__).parent))
from kernels import opened as opened_kernel
from kernels import ran as ran_program


class Patient:
    """A clock that never wakes the flush of itself, so that a test says when."""

    def __init__(self):
        self.real = Ports.real().clock
        self.now, self.monotonic = self.real.now, self.real.monotonic

    async def sleep(self, _):
        await asyncio.Event().wait()


@asynccontextmanager
async def opened(folder, *, probe=None, closes=True, **limits):
    scheduler = Scheduler(slots=4, queue_max=100)
    limits = replace(Limits(), **limits)
    ports = replace(Ports.real(), clock=Patient(), probe=probe)
    store = await Store.open(folder, ports=ports, limits=limits, migrations=[MIGRATIONS], spawn=scheduler.spawn)
    try:
        audit = Audit(store, ports, limits)
        await audit.open(scheduler.spawn)
        yield audit
        if closes:
            await audit.close()
    finally:
        await store.close()
        await scheduler.close()


def act(audit, op="run", origin=Origin(), **facts):  # noqa: B008
    with audit.begin(op, origin, **facts) as operation:
        operation.sandbox_id = "sbx_1"


def ran(folder, body, **options):
    async def main():
        async with opened(folder, **options) as audit:
            return await asyncio.wait_for(body(audit), 60)

    return asyncio.run(main())


async def several(audit, count=5):
    for number in range(count):
        act(audit, number=number)


def everything(folder):
    return look(folder, lambda db: select(db, limit=10**9))


def test_an_event_says_who_what_and_how_it_ended_and_holds_no_payload(tmp_path):
    async def body(audit):
        origin = Origin("alice", client="cursor", run_id="run_1", step=3)
        with audit.begin("run", origin, language="python", timeout_s=30.0) as operation:
            operation.given(b"print('s3cret')", ["--s3cret"], ["s3cret.txt"])
            operation.sandbox_id = "sbx_1"
            operation.became(exit_code=0, stopped_by=None)
        [event] = await audit.page("alice", before=None, limit=10)
        return shown(event)

    event = ran(tmp_path / "s", body)
    assert event["n"] == 2
    assert (event["principal"], event["client"], event["run_id"], event["step"]) == ("alice", "cursor", "run_1", 3)
    assert (event["op"], event["outcome"], event["sandbox_id"], event["exit_code"]) == ("run", "ended", "sbx_1", 0)
    assert event["code_bytes"] == 15
    assert len(event["code_sha256"]) == len(event["argv_sha256"]) == len(event["files_sha256"]) == 64
    assert "stopped_by" not in event
    assert "s3cret" not in json.dumps(event)


def test_a_refusal_a_failure_and_a_cancellation_are_events_with_their_reason(tmp_path):
    async def body(audit):
        with pytest.raises(Denied), audit.begin("run", Origin()):
            raise Denied("egress.denied", "no")
        begun = audit.begin("run", Origin())
        begun.sandbox_id = "sbx_2"
        with pytest.raises(HostError), begun:
            raise HostError("state.disk_full", "no")
        with pytest.raises(ZeroDivisionError), audit.begin("run", Origin()):
            raise ZeroDivisionError
        with pytest.raises(asyncio.CancelledError), audit.begin("run", Origin()):
            raise asyncio.CancelledError
        return [shown(event) for event in await audit.page("local", before=None, limit=10)]

    found = [(event["outcome"], event.get("error")) for event in ran(tmp_path / "s", body)]
    assert found == [
        ("refused", "egress.denied"),
        ("failed", "state.disk_full"),
        ("refused", "kernel.fault"),
        ("cancelled", None),
    ]


def test_a_principal_reads_its_own_events_page_by_page(tmp_path):
    async def body(audit):
        for number in range(6):
            act(audit, origin=Origin("ab"[number % 2]), number=number)
        newest = await audit.page("a", before=None, limit=2)
        older = await audit.page("a", before=newest[0].n, limit=2)
        nobody = await audit.page("c", before=None, limit=100)
        return [[event.facts["number"] for event in page] for page in (older, newest, nobody)]

    assert ran(tmp_path / "s", body) == [[0], [2, 4], []]


@pytest.mark.parametrize("change", ["UPDATE audit SET at=0", "DELETE FROM audit", "DELETE FROM audit WHERE n=1"])
def test_the_table_refuses_to_be_changed(tmp_path, change):
    async def body(audit):
        await several(audit)
        await audit.flush()
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            await audit.store.write(lambda tx: tx.execute(change).rowcount)

    ran(tmp_path / "s", body)


def test_the_chain_of_what_was_written_by_several_kernels_is_whole(tmp_path):
    heads = []
    for _ in range(3):
        ran(tmp_path / "s", several)
        verdict = look(tmp_path / "s", verify)
        heads.append(verdict.head)
        assert (verdict.problem, verdict.unclean, verdict.lost) == (None, 0, 0)
    assert (verdict.first, verdict.last, verdict.events) == (1, 21, 21)
    assert len(set(heads)) == 3


@pytest.mark.parametrize(
    ("by_hand", "broken_at"),
    [
        ("UPDATE audit SET principal='other' WHERE n=3", 3),
        ("UPDATE audit SET facts=replace(facts, '2', '3') WHERE n=4", 4),
        ("UPDATE audit SET step=1 WHERE n=1", 1),
        ("UPDATE audit SET digest=zeroblob(32) WHERE n=5", 5),
        ("DELETE FROM audit WHERE n=3", 3),
        ("DELETE FROM audit WHERE n<3", 1),
        ("DELETE FROM audit WHERE n>5", 6),
        ("DELETE FROM audit", 1),
        ("INSERT INTO audit SELECT 99, at, principal, client, op, outcome, NULL, NULL, NULL, facts, digest FROM audit WHERE n=3", 8),
        ("INSERT INTO audit SELECT 8, at, principal, client, op, outcome, NULL, NULL, NULL, facts, digest FROM audit WHERE n=3", 8),
    ],
)  # fmt: skip
def test_a_clumsy_edit_breaks_the_chain_where_it_was_made(tmp_path, by_hand, broken_at):
    ran(tmp_path / "s", several)
    with closing(sqlite3.connect(tmp_path / "s" / "kernel.db", isolation_level=None)) as db:
        db.executescript("DROP TRIGGER audit_fixed; DROP TRIGGER audit_kept;" + by_hand)
    assert look(tmp_path / "s", verify).broken_at == broken_at
    assert command(["audit", "--verify", "--state", str(tmp_path / "s")]) == 1


def test_a_kernel_that_goes_on_after_a_cut_does_not_hide_it(tmp_path):
    ran(tmp_path / "s", several)
    with closing(sqlite3.connect(tmp_path / "s" / "kernel.db", isolation_level=None)) as db:
        db.executescript("DROP TRIGGER audit_kept; DELETE FROM audit WHERE n>4")
    ran(tmp_path / "s", several)
    assert look(tmp_path / "s", verify).broken_at == 5


def test_the_oldest_go_past_the_limit_and_the_chain_says_how_many_and_goes_on(tmp_path):
    async def body(audit):
        for number in range(60):
            act(audit, number=number)
            await audit.flush()

    for _ in range(2):
        ran(tmp_path / "s", body, audit_events_max=32)
        verdict = look(tmp_path / "s", verify)
        assert verdict.problem is None
        assert 28 <= verdict.events <= 34
    kept = everything(tmp_path / "s")
    removals = [event.facts["through"] for event in kept if event.op == "retention"]
    assert removals[-1] == verdict.first - 1
    assert [event.n for event in kept] == list(range(verdict.first, verdict.last + 1))
    db = sqlite3.connect(tmp_path / "s" / "kernel.db", isolation_level=None)
    with closing(db), pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute("DELETE FROM audit WHERE n=?", (verdict.first,))


def test_what_runs_for_long_is_in_the_file_before_it_ends(tmp_path):
    async def body(audit):
        operation = audit.begin("program", Origin(run_id="run_1"))
        await audit.flush()
        await audit.flush()
        act(audit)
        operation.leave()
        operation.leave("cancelled")
        return [(event.op, event.outcome) for event in await audit.page("local", before=None, limit=9)]

    assert ran(tmp_path / "s", body) == [("program", "started"), ("run", "ended"), ("program", "ended")]


def test_what_is_still_open_at_the_close_is_recorded_as_cancelled(tmp_path):
    async def body(audit):
        audit.begin("program", Origin())

    ran(tmp_path / "s", body)
    assert [(event.op, event.outcome) for event in everything(tmp_path / "s")] == [
        ("open", "ended"),
        ("program", "cancelled"),
        ("close", "ended"),
    ]


def test_after_a_kill_what_was_flushed_is_there_and_the_next_open_says_that_some_may_be_missing(tmp_path):
    code = f"""
import asyncio, os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_audit import *
async def body(audit):
    act(audit, number=1)
    await audit.flush()
    act(audit, number=2)
    os.kill(os.getpid(), 9)
ran(Path(sys.argv[1]), body)
"""
    gone = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], timeout=60)
    assert gone.returncode == -9
    assert [event.facts.get("number") for event in everything(tmp_path / "s")] == [None, 1]
    ran(tmp_path / "s", several)
    again = everything(tmp_path / "s")[2]
    assert (again.op, again.facts) == ("open", {"unclean": True, "missing_after": 2})
    verdict = look(tmp_path / "s", verify)
    assert (verdict.problem, verdict.unclean) == (None, 1)


def test_a_flush_happens_by_itself(tmp_path):
    async def main():
        scheduler = Scheduler(slots=4, queue_max=100)
        ports, limits = Ports.real(), Limits()
        store = await Store.open(
            tmp_path / "s", ports=ports, limits=limits, migrations=[MIGRATIONS], spawn=scheduler.spawn
        )
        audit = Audit(store, ports, limits)
        await audit.open(scheduler.spawn)
        act(audit)
        async with asyncio.timeout(30):
            while len(everything(tmp_path / "s")) < 2:
                await asyncio.sleep(0.02)
        await audit.close()
        await store.close()
        await scheduler.close()

    asyncio.run(main())


def test_a_flush_whose_waiter_gave_up_is_not_written_twice(tmp_path):
    async def body(audit):
        await several(audit)
        flushing = asyncio.ensure_future(audit.flush())
        await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        act(audit)
        await audit.flush()

    ran(tmp_path / "s", body)
    assert [event.n for event in everything(tmp_path / "s")] == list(range(1, 9))
    assert look(tmp_path / "s", verify).problem is None


def test_while_events_cannot_be_written_they_wait_and_then_nothing_more_is_started(tmp_path):
    broken = []

    def probe(point):
        if point == "store.before_commit" and broken:
            raise sqlite3.OperationalError("database or disk is full")

    async def body(audit):
        broken.append(True)
        for number in range(8):
            act(audit, number=number)
        with pytest.raises(HostError, match=r"state\.disk_full"):
            await audit.flush()
        for _ in range(3):
            with pytest.raises(
                HostError, match=r"sandbox\.audit_behind: 8 events .* failed: state\.disk_full"
            ) as caught:
                act(audit)
        assert caught.value.retryable
        broken.clear()
        await audit.flush()
        act(audit, number=8)
        return await audit.page("local", before=None, limit=99)

    found = ran(tmp_path / "s", body, probe=probe, audit_waiting_max=8)
    assert [event.facts["number"] for event in found] == list(range(9))
    verdict = look(tmp_path / "s", verify)
    assert (verdict.problem, verdict.lost) == (None, 3)


def test_hostile_arguments_are_bounded_and_break_nothing(tmp_path):
    hostile = {
        "language": "x" * 10_000_000,
        "memory_mb": 10**5000,
        "timeout_s": math.nan,
        "cpu_s": -math.inf,
        "packages": ["\ud800", "\x1b[2J", 7, {}] * 1000,
        "allow_hosts": object(),
    }

    async def body(audit):
        act(audit, origin=Origin(client="\x1b[31m\ud800" * 100), **hostile)
        await several(audit, 1)
        return await audit.page("local", before=None, limit=9)

    event, after = ran(tmp_path / "s", body)
    text = json.dumps(shown(event))
    assert len(text) < 2000
    assert "\\u001b" not in text
    assert after.facts == {"number": 0}
    assert look(tmp_path / "s", verify).problem is None


def test_a_state_from_before_the_audit_is_brought_up_to_it(tmp_path):
    async def old():
        scheduler = Scheduler(slots=1, queue_max=1)
        store = await Store.open(
            tmp_path / "s", ports=Ports.real(), limits=Limits(), migrations=[], spawn=scheduler.spawn
        )
        await store.close()
        await scheduler.close()

    asyncio.run(old())
    state = str(tmp_path / "s")
    assert command(["audit", "--state", state]) == 0
    assert command(["audit", "--verify", "--state", state]) == 0
    ran(tmp_path / "s", several)
    assert look(tmp_path / "s", verify).events == 7


# --- the command


def audit_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "agent_kernel_mcp", "audit", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_command_reads_while_a_kernel_runs_and_while_none_does_and_leaves_nothing(tmp_path, capsys):
    state = tmp_path / "s"

    async def body(audit):
        await several(audit)
        await audit.flush()
        return await asyncio.to_thread(audit_command, "--state", state, "--json", "--limit", "2")

    running = ran(state, body)
    assert [json.loads(line)["number"] for line in running.stdout.splitlines()] == [3, 4]
    before = sorted((path.name, path.read_bytes()) for path in state.iterdir())
    assert command(["audit", "--state", str(state), "--json"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["op"] for event in printed] == ["open", *["run"] * 5, "close"]
    assert command(["audit", "--state", str(state)]) == 0
    assert "sbx_1" in capsys.readouterr().out
    assert command(["audit", "--state", str(state), "--verify"]) == 0
    assert "Intact: 7 events, 1 to 7." in capsys.readouterr().out
    assert sorted((path.name, path.read_bytes()) for path in state.iterdir()) == before


def test_the_command_finds_events_by_time_sandbox_and_run(tmp_path, capsys):
    async def body(audit):
        for number in range(3):
            with audit.begin("run", Origin(run_id=f"run_{number}"), number=number) as operation:
                operation.sandbox_id = f"sbx_{number}"

    ran(tmp_path / "s", body)

    def numbers(*arguments):
        assert command(["audit", "--state", str(tmp_path / "s"), "--json", *arguments]) == 0
        return [json.loads(line).get("number") for line in capsys.readouterr().out.splitlines()]

    assert numbers("--sandbox", "sbx_1") == [1]
    assert numbers("--run", "run_2") == [2]
    assert numbers("--since", "2999-01-01") == []
    assert numbers("--until", "2001-01-01T00:00:00Z") == []
    assert numbers("--since", "2001-01-01", "--until", "2999-01-01", "--limit", "2") == [2, None]


def test_the_command_makes_no_state_and_refuses_what_it_cannot_read(tmp_path, capsys):
    assert command(["audit", "--state", str(tmp_path / "none")]) == 1
    assert "state.missing" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    ran(tmp_path / "s", several)
    assert command(["audit", "--state", str(tmp_path / "s"), "--since", "yesterday"]) == 1
    assert "--since is 'yesterday'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command(["audit", "--limit", "0"])


def test_the_table_shows_no_control_characters_of_anybody(tmp_path, capsys):
    async def body(audit):
        act(audit, origin=Origin(client="[red]\x1b[31mred"), packages=["\x1b]0;title\x07"])

    ran(tmp_path / "s", body)
    assert command(["audit", "--state", str(tmp_path / "s")]) == 0
    text = capsys.readouterr().out
    assert "[red]" in text
    assert "\x1b" not in text
    assert "\x07" not in text


# --- what the sandbox records


SOURCE = """
    ran = await kernel.sandbox.run("print(1)")
    try:
        await kernel.sandbox.run("1", allow_hosts=["example.org"])
    except kernel.Error:
        pass
    return ran.stdout
"""


def audited(folder, body, **options):
    """The events of the local user after `body(kernel)`, as they are shown."""

    async def act(kernel):
        value = await body(kernel)
        events = await kernel.audit.page("local", before=None, limit=99)
        return value, [shown(event) for event in events if event.outcome != "started"]

    return opened_kernel(folder, act, **options)


def test_a_call_is_recorded_with_its_limits_its_end_and_what_came_out(tmp_path):
    async def body(kernel):
        result = await kernel.sandbox.run(
            "open('new', 'w').write('12345'); raise SystemExit(3)",
            files={"in": "1"},
            memory_mb=300,
            timeout_s=20.0,
            client="cursor",
        )
        await kernel.sandbox.run("import time; time.sleep(30)", timeout_s=0.2)
        await kernel.sandbox.read(uri=result.files[0].uri)
        return result

    result, (ran, slow, read) = audited(tmp_path / "s", body)
    assert (ran["sandbox_id"], ran["client"], ran["tier"], ran["language"]) == (
        result.id,
        "cursor",
        result.tier,
        "python",
    )
    assert (ran["memory_mb"], ran["timeout_s"], ran["exit_code"]) == (300, 20.0, 3)
    assert (ran["files_count"], ran["files_out"], ran["files_out_bytes"]) == (1, 1, 5)
    assert ran["cpu_s"] == round(result.usage.cpu_s, 6)
    assert ran["peak_memory_bytes"] == result.usage.peak_memory_bytes
    assert (slow["stopped_by"], slow["timeout_s"]) == ("timeout", 0.2)
    assert "exit_code" not in slow
    assert (read["op"], read["sandbox_id"], read["bytes_out"]) == ("read", result.id, 5)


def test_what_a_program_runs_carries_its_run_and_call_and_its_own_process_is_recorded(tmp_path):
    async def body(kernel):
        return (await ran_program(kernel, SOURCE))["run_id"]

    run_id, events = audited(tmp_path / "s", body)
    found = {(event["op"], event.get("step")): event for event in events}
    assert {event["run_id"] for event in events} == {run_id}
    assert found["run", 0]["outcome"] == "ended"
    assert (found["run", 1]["error"], found["run", 1]["allow_hosts"]) == ("egress.denied", ["example.org"])
    [program] = [event for event in events if event["op"] == "program"] or [None]
    if program is not None:  # its process may still be ending
        assert program["code_bytes"] > len(SOURCE)
    closed = everything(tmp_path / "s")
    assert [event.outcome for event in closed if event.op == "program"][-1] == "ended"


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("limit.exceeded", {"memory_mb": 10**6}),
        ("egress.denied", {"allow_hosts": ["example.org"]}),
        ("packages.denied", {"packages": ["numpy"]}),
        ("path.outside", {"files": {"../x": ""}}),
    ],
)
def test_a_refused_call_is_recorded_with_the_code_of_its_refusal(tmp_path, code, arguments):
    async def body(kernel):
        with pytest.raises(KernelError, match=code.replace(".", r"\.")):
            await kernel.sandbox.run("1", **arguments)

    _, [event] = audited(tmp_path / "s", body)
    assert (event["op"], event["outcome"], event["error"]) == ("run", "refused", code)


def test_a_call_that_is_given_up_is_recorded_as_cancelled_with_its_sandbox(tmp_path):
    async def body(kernel):
        alive = asyncio.Event()
        code = "import kernel, time\nkernel.log('up')\ntime.sleep(60)"
        calling = asyncio.ensure_future(kernel.sandbox.run(code, on_note=lambda _: alive.set()))
        await alive.wait()
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)

    _, [event] = audited(tmp_path / "s", body)
    assert (event["outcome"], event["tier"]) == ("cancelled", "full")


def test_nothing_is_run_that_could_not_be_recorded(tmp_path):
    async def body(kernel):
        kernel.audit.limits = replace(kernel.audit.limits, audit_waiting_max=0)
        for refused in (
            kernel.sandbox.run("1"),
            kernel.sandbox.launch({}, timeout_s=1.0, memory_mb=64),
            kernel.sandbox.read(uri="sandbox://sbx_1/stdout"),
        ):
            with pytest.raises(HostError, match=r"sandbox\.audit_behind"):
                await refused
        kernel.audit.limits = replace(kernel.audit.limits, audit_waiting_max=10)

    assert audited(tmp_path / "s", body)[1] == []
    assert look(tmp_path / "s", verify).lost == 3
