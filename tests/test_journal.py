"""The journal as records: what one transaction makes true, and what the file refuses."""

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from agent_kernel import journal as j
from agent_kernel.base.errors import Conflict, NotFound
from agent_kernel.base.limits import Limits
from agent_kernel.base.ports import Ports
from agent_kernel.base.replay import Made, digest_of
from agent_kernel.base.store import Store
from agent_kernel.scheduler import Scheduler


def journaled(tmp_path, act):
    """Run `await act(store, journal)` on a fresh state folder."""

    async def main():
        scheduler, ports, limits = Scheduler(slots=4, queue_max=10), Ports.real(), Limits()
        store = await Store.open(
            tmp_path / "state", ports=ports, limits=limits, migrations=[j.MIGRATIONS], spawn=scheduler.spawn
        )
        try:
            return await act(store, j.Journal(store, ports, limits))
        finally:
            await store.close()
            await scheduler.close()

    return asyncio.run(main())


def new(run_id="run_a", *, principal="local", **more):
    given = {
        "program": "async def main(input): pass",
        "runtime": "r",
        "path_version": 1,
        "input": b"{}",
        "seed": b"0" * 32,
    }
    return j.NewRun(run_id=run_id, principal=principal, **{**given, **more})


def made(n, arguments=b"{}", method="tool", path="main/x"):
    return Made(n, method, "at_least_once", path, arguments, digest_of(arguments))


def test_deliveries_are_dense_and_their_clock_never_falls(tmp_path):
    async def act(store, journal):
        row, _ = await store.write(lambda tx: journal.create_in(tx, new()))
        for n, t in enumerate([5.0, 3.0, 7.0]):
            await store.write(lambda tx, n=n, t=t: journal.deliver_in(tx, row.rid, kind="ok", t=t, call=made(n)))
        return await store.read(lambda db: journal.past(db, row.rid))

    past = journaled(tmp_path, act)
    assert [(p.dseq, p.cseq, p.t) for p in past] == [(0, 0, 5.0), (1, 1, 5.0), (2, 2, 7.0)]


def test_a_call_is_answered_once_and_a_refused_answer_leaves_no_effect(tmp_path):
    async def act(store, journal):
        row, _ = await store.write(lambda tx: journal.create_in(tx, new()))
        await store.write(lambda tx: journal.deliver_in(tx, row.rid, kind="ok", t=0, call=made(0)))

        def again(tx):
            journal.event_in(tx, row.rid, "effect")
            return journal.deliver_in(tx, row.rid, kind="ok", t=0, call=made(0))

        with pytest.raises(Conflict, match=r"call\.answered"):
            await store.write(again)
        return await store.read(lambda db: journal.events(db, row))

    assert [event["event"] for event in journaled(tmp_path, act)] == ["delivery"]


def test_nothing_is_delivered_to_a_run_that_has_ended(tmp_path):
    async def act(store, journal):
        row, _ = await store.write(lambda tx: journal.create_in(tx, new()))
        end = {"status": "completed", "detail": None, "output": b"1", "error": None}
        assert await store.write(lambda tx: journal.end_in(tx, row.rid, **end))
        assert not await store.write(lambda tx: journal.end_in(tx, row.rid, **{**end, "status": "failed"}))
        with pytest.raises(Conflict, match=r"run\.ended"):
            await store.write(lambda tx: journal.deliver_in(tx, row.rid, kind="tick", t=0))
        return (await store.read(lambda db: journal.row(db, row.rid))).status

    assert journaled(tmp_path, act) == "completed"


def test_a_key_is_one_run_of_one_principal(tmp_path):
    async def act(store, journal):
        def start(**more):
            return store.write(lambda tx: journal.create_in(tx, new(**{"idempotency_key": "k", **more})))

        first, replayed = await start()
        again, replayed_again = await start(run_id="run_b")
        other, _ = await start(run_id="run_c", principal="somebody")
        with pytest.raises(Conflict, match=r"key\.conflict"):
            await start(run_id="run_d", input=b"[]")
        return first.run_id, replayed, again.run_id, replayed_again, other.run_id

    assert journaled(tmp_path, act) == ("run_a", False, "run_a", True, "run_c")


def test_another_principals_run_is_answered_like_an_unknown_one(tmp_path):
    async def act(store, journal):
        await store.write(lambda tx: journal.create_in(tx, new()))
        texts = []
        for run_id, principal in (("run_a", "somebody"), ("run_x", "local")):
            with pytest.raises(NotFound) as refused:
                await store.read(lambda db, r=run_id, p=principal: journal.run(db, r, p))
            texts.append(str(refused.value).replace(run_id, ""))
        return texts

    one, other = journaled(tmp_path, act)
    assert one == other


def test_large_values_come_back_whole_and_in_bounded_pieces(tmp_path):
    async def act(store, journal):
        row, _ = await store.write(lambda tx: journal.create_in(tx, new()))
        for n in range(4):
            await store.write(
                lambda tx, n=n: journal.deliver_in(tx, row.rid, kind="ok", t=0, value=b"%d" % n * 20_000, call=made(n))
            )
        return await store.read(lambda db: journal.deliveries(db, row.rid, 1, 30_000))

    got = journaled(tmp_path, act)
    assert [(d.dseq, d.value) for d in got] == [(1, b"1" * 20_000), (2, b"2" * 20_000)]


def test_arguments_are_kept_up_to_their_bound_and_hashed_always(tmp_path):
    async def act(store, journal):
        row, _ = await store.write(lambda tx: journal.create_in(tx, new()))
        long = b'{"a":"' + b"x" * 5000 + b'"}'
        await store.write(lambda tx: journal.deliver_in(tx, row.rid, kind="ok", t=0, call=made(0, b'{"a":1}')))
        await store.write(lambda tx: journal.deliver_in(tx, row.rid, kind="ok", t=0, call=made(1, long)))
        calls = [await store.read(lambda db, n=n: journal.recorded_call(db, row.rid, n)) for n in (0, 1)]
        return calls, await store.read(lambda db: journal.past(db, row.rid)), long

    calls, past, long = journaled(tmp_path, act)
    assert [call[2] for call in calls] == [b'{"a":1}', None]
    assert past[1].args_hash == digest_of(long)


def test_a_run_needs_input_exactly_while_an_item_of_it_waits(tmp_path):
    async def act(store, journal):
        row, _ = await store.write(lambda tx: journal.create_in(tx, new()))

        async def status():
            found = await store.read(lambda db: journal.row(db, row.rid))
            return found.status, found.detail

        seen = [await status()]
        one = await store.write(lambda tx: journal.item_in(tx, row, made(0), kind="approve", prompt="a?"))
        two = await store.write(
            lambda tx: journal.item_in(tx, row, made(1), kind="resolve", prompt="b?", reason="in_doubt")
        )
        same = await store.write(lambda tx: journal.item_in(tx, row, made(0), kind="approve", prompt="a?"))
        assert same == one
        seen.append(await status())
        await store.write(lambda tx: journal.settle_item_in(tx, two, status="answered"))
        seen.append(await status())
        await store.write(lambda tx: journal.settle_item_in(tx, one, status="answered"))
        seen.append(await status())
        with pytest.raises(Conflict, match=r"item\.closed"):
            await store.write(lambda tx: journal.settle_item_in(tx, one, status="answered"))
        return seen

    assert journaled(tmp_path, act) == [
        ("working", "queued"),
        ("input_required", "in_doubt"),
        ("input_required", None),
        ("working", None),
    ]


def test_a_parked_run_is_found_again_when_something_comes_for_it(tmp_path):
    async def act(store, journal):
        row, _ = await store.write(lambda tx: journal.create_in(tx, new()))
        await store.write(lambda tx: journal.change_in(tx, row.rid, parked=1, wake_at=1000.0))
        seen = [await store.read(lambda db, at=at: journal.due(db, at)) for at in (999.0, 1000.0)]
        seen.append(await store.read(lambda db: journal.next_wake(db, 999.0)))
        await store.write(lambda tx: journal.send_in(tx, row, topic="t", content=b"1", sender=None))
        seen.append(await store.read(lambda db: journal.due(db, 0.0)))
        return seen

    assert journaled(tmp_path, act) == [[], [(1, "run_a")], 1000.0, [(1, "run_a")]]


def test_a_run_is_not_parked_over_what_came_in_the_same_moment(tmp_path):
    """Each of: nothing new, a message, an own answer. Only the first parks; the others are looked at first."""

    async def act(store, journal):
        row, _ = await store.write(lambda tx: journal.create_in(tx, new()))

        def park(deliveries):
            return store.write(lambda tx: journal.park_in(tx, row.rid, deliveries=deliveries, wake_at=None))

        seen = [await park(0)]
        await store.write(lambda tx: journal.live_in(tx, row.rid))
        await store.write(lambda tx: journal.send_in(tx, row, topic="t", content=b"1", sender=None))
        seen.append(await park(0))
        await store.write(lambda tx: journal.deliver_in(tx, row.rid, kind="tick", t=1.0))
        seen.append(await park(0))
        seen.append(await park(1))
        return seen

    assert journaled(tmp_path, act) == [True, False, False, True]


def test_messages_are_taken_once_in_order(tmp_path):
    async def act(store, journal):
        row, _ = await store.write(lambda tx: journal.create_in(tx, new()))
        for content in (b"1", b"2"):
            await store.write(lambda tx, c=content: journal.send_in(tx, row, topic="t", content=c, sender=None))
        first = await store.read(lambda db: journal.next_message(db, row.rid, "t", ()))
        second = await store.read(lambda db: journal.next_message(db, row.rid, "t", (first,)))
        taken = [await store.write(lambda tx, seq=seq: journal.take_in(tx, row.rid, seq, 7)) for seq in (first, second)]
        return taken, await store.read(lambda db: journal.next_message(db, row.rid, "t", ()))

    assert journaled(tmp_path, act) == ([b"1", b"2"], None)


def test_a_line_that_a_replay_says_again_is_kept_once(tmp_path):
    async def act(store, journal):
        row, _ = await store.write(lambda tx: journal.create_in(tx, new()))
        for lines in ([(0, "a"), (1, "lone \ud800 surrogate")], [(0, "a"), (1, "again"), (2, "c")]):
            await store.write(lambda tx, lines=lines: journal.log_in(tx, row.rid, "local", lines, None))
        return [line["text"] for line in await store.read(lambda db: journal.log(db, row))]

    assert journaled(tmp_path, act) == ["a", "lone ? surrogate", "c"]


def test_the_listing_is_paged_newest_first_and_filtered(tmp_path):
    async def act(store, journal):
        for i in range(5):
            await store.write(lambda tx, i=i: journal.create_in(tx, new(f"run_{i}")))
        end = {"status": "failed", "detail": None, "output": None, "error": {"code": "x"}}
        await store.write(lambda tx: journal.end_in(tx, 2, **end))

        def page(**given):
            return store.read(
                lambda db: journal.listing(db, "local", **{"status": None, "limit": 2, "cursor": None, **given})
            )

        first = await page()
        second = await page(cursor=first["cursor"])
        failed = await page(status="failed")
        return [[r["run_id"] for r in p["runs"]] for p in (first, second, failed)], failed["more"]

    assert journaled(tmp_path, act) == ([["run_4", "run_3"], ["run_2", "run_1"], ["run_1"]], False)


def test_acknowledged_deliveries_survive_a_kill_without_a_hole(tmp_path):
    """A child process records and prints what was acknowledged; it is killed in the middle of the next ones."""
    code = textwrap.dedent(
        """
        import asyncio, os, signal, sys
        sys.path.insert(0, sys.argv[2])
        from test_journal import j, new, made, Ports, Limits, Scheduler, Store
        from pathlib import Path
        async def main():
            s, ports, limits = Scheduler(slots=4, queue_max=10), Ports.real(), Limits()
            store = await Store.open(Path(sys.argv[1]), ports=ports, limits=limits, migrations=[j.MIGRATIONS], spawn=s.spawn)
            journal = j.Journal(store, ports, limits)
            row, _ = await store.write(lambda tx: journal.create_in(tx, new()))
            async def one(n):
                await store.write(lambda tx: journal.deliver_in(tx, row.rid, kind="ok", t=0, call=made(n)))
                os.write(1, b"%d\\n" % n)
                if n == 37:
                    os.kill(os.getpid(), signal.SIGKILL)
            for base in range(0, 100, 10):
                await asyncio.gather(*(one(base + i) for i in range(10)))
        asyncio.run(main())
        """
    )
    state = tmp_path / "state"
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code, state, here], capture_output=True, text=True, timeout=60)
    acknowledged = {int(line) for line in done.stdout.split()}
    assert 37 in acknowledged, done.stderr

    async def act(store, journal):
        return await store.read(lambda db: journal.past(db, 1))

    past = journaled(tmp_path, act)
    assert acknowledged <= {p.cseq for p in past}
    assert [p.dseq for p in past] == list(range(len(past)))


def test_a_cursor_that_nobody_gave_out_breaks_nothing(tmp_path):
    async def act(store, journal):
        return [
            await store.read(lambda db, c=c: journal.listing(db, "local", status=None, limit=2, cursor=c)["runs"])
            for c in ("z" * 500, "-zz", "0")
        ]

    assert journaled(tmp_path, act) == [[], [], []]
