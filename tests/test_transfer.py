"""kernel/base/transfer.py and `agent-kernel memory export`: a memory as lines, and the same memory again."""

import asyncio
import dataclasses
import json
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from agent_kernel import MIGRATIONS, open_memory
from agent_kernel.base import transfer
from agent_kernel.base.errors import KernelError
from agent_kernel.base.limits import Limits
from agent_kernel.base.policy import MemoryRules
from agent_kernel.base.ports import Ports
from agent_kernel.base.store import Store
from agent_kernel.memory import Memory
from agent_kernel.scheduler import Scheduler
from agent_kernel_mcp.__main__ import main
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

START = 1_772_366_400.0
BATCH = 7


class Clock:
    def __init__(self):
        self.at = START

    def now(self):
        return self.at

    def monotonic(self):
        return self.at

    async def sleep(self, _seconds):
        await asyncio.sleep(0)


@asynccontextmanager
async def opened(folder, clock=None):
    scheduler = Scheduler(slots=4, queue_max=16)
    ports = dataclasses.replace(Ports.real(), clock=clock or Clock())
    store = await Store.open(folder, ports=ports, limits=Limits(), migrations=MIGRATIONS, spawn=scheduler.spawn)
    try:
        yield Memory(store=store, ports=ports, limits=Limits(), rules=MemoryRules(quarantine=frozenset({"web"}))), store
    finally:
        await store.close()
        await scheduler.close()


async def exported(memory, principal="local"):
    return [line async for line in memory.export(principal=principal)]


async def restored(memory, store, lines, *, principal="local", trust="user"):
    """How many were new; as the command does it: in batches, with the marks of the first."""
    before = await store.read(transfer.Before.of)
    records = [json.loads(line) for line in lines[1:-1]]
    new = 0
    for start in range(0, len(records), BATCH):

        def unit(tx, some=records[start : start + BATCH]):
            reader = memory.reader_in(tx, before, principal=principal, trust=trust)
            return sum(reader.take(record) for record in some)

        new += await store.write(unit)
    return new


# --- the property


WORDS = st.sampled_from(
    ["sails at night", "lives in Graz", "grüße 🐧\u2028", "a\nb\t\x00", '"q" \\', "x" * 3000, "sails"]
)
OPS = st.one_of(
    st.tuples(
        st.just("add"),
        st.fixed_dictionaries(
            {"text": WORDS},
            optional={
                "key": st.sampled_from(["home", "k"]), "conversation": st.sampled_from(["c1", "c2"]), "speaker": st.just("Anna"),
                "kind": st.sampled_from(["fact", "event"]), "tags": st.lists(st.sampled_from(["a", "ü"]), max_size=2),
                "source": st.just("s"), "time": st.floats(0, 4e9) | st.just("2024-01-01T00:00:00.123456Z"),
                "expires_at": st.floats(START - 10, START + 50),
            },
        ),
        st.sampled_from(["web", "guest", "agent", "user"]),
    ),
    st.tuples(st.just("retract"), st.integers(0, 9), st.sampled_from(["", "was wrong"])),
    st.tuples(st.just("erase"), st.integers(0, 9), st.just("")),
    st.tuples(st.just("release"), st.integers(0, 9), st.just("")),
    st.tuples(st.just("note"), st.sampled_from(["a", "b"]), st.sampled_from(["", "text", "longer"])),
    st.tuples(st.just("tick"), st.floats(0, 20), st.just("")),
)  # fmt: skip


async def lived(memory, clock, ops):
    ids = []
    for op, what, more in ops:
        clock.at += 0.001
        if op == "add":
            [added] = await memory.add(
                [what], trust=more, client="test", run_id="run_1" if more == "guest" else None, step=len(ids)
            )
            ids.append(added.id)
        elif op == "note":
            await memory.edit(what, more)
        elif op == "tick":
            clock.at += what
        elif op == "release":
            waiting = (await memory.quarantined()).waiting
            if waiting:
                await memory.release([waiting[what % len(waiting)].id])
        elif ids:
            await memory.forget([ids[what % len(ids)]], mode=op, reason=more)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OPS, max_size=25))
def test_what_is_read_back_gives_the_same_lines_byte_for_byte_and_twice_changes_nothing(ops):
    async def run(folder):
        clock = Clock()
        async with opened(folder / "a", clock) as (one, store):
            await lived(one, clock, ops)
            await one.add([{"text": "of somebody else"}], principal="other")
            lines = await exported(one)
            searched = (await one.search("sailing", limit=100), await one.search(include_retired=True, limit=100))
            assert await restored(one, store, lines) == 0
            assert await exported(one) == lines
        async with opened(folder / "b", clock) as (two, store):
            assert await restored(two, store, lines) == len(lines) - 2
            assert await exported(two) == lines
            assert await restored(two, store, lines) == 0
            assert await exported(two) == lines
            again = (await two.search("sailing", limit=100), await two.search(include_retired=True, limit=100))
            assert [hits.hits for hits in again] == [hits.hits for hits in searched]

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(asyncio.wait_for(run(Path(folder)), 60))


def in_memory(body):
    def test(tmp_path):
        async def run():
            clock = Clock()
            async with opened(tmp_path / "a", clock) as (memory, store):
                await body(memory, store, clock)

        asyncio.run(asyncio.wait_for(run(), 60))

    test.__name__ = body.__name__
    return test


def test_every_column_of_memory_is_written_or_follows_from_what_is(tmp_path):
    async def run():
        async with opened(tmp_path / "a") as (_, store):

            def columns(table):
                return lambda db: {row[1] for row in db.execute("SELECT * FROM pragma_table_info(?)", (table,))}

            assert await store.read(columns("memory")) == {*transfer.FACT, *transfer.DERIVED}
            assert await store.read(columns("memory_log")) == {*transfer.LOG, "n", "principal"}
            assert await store.read(columns("block")) == {"principal", "label", "text", "version", "updated_at"}

    asyncio.run(run())


# --- merging


def fact(**more):
    return {"type": "fact", "id": "mem_aaaaaaaaaaaa", "text": "lives in Graz", "recorded_at": START, **more}


@in_memory
async def test_an_end_that_is_known_elsewhere_is_taken_over_and_never_taken_back(memory, store, clock):
    await memory.add([{"text": "lives in Graz", "key": "home"}])
    before = await exported(memory)
    clock.at += 1
    [moved] = await memory.add([{"text": "lives in Wien", "key": "home"}])
    after = await exported(memory)
    assert await restored(memory, store, before) == 0
    assert await exported(memory) == after
    async with opened(store.folder.parent / "b", clock) as (other, other_store):
        await restored(other, other_store, before)
        await restored(other, other_store, after)
        assert await exported(other) == after
        assert [hit.id for hit in (await other.search(key="home")).hits] == [moved.id]
        assert (await other.search("Graz", include_retired=True)).hits[0].retired == f"superseded by {moved.id}"


@in_memory
async def test_two_live_values_of_a_key_become_one_and_its_history(memory, store, clock):
    await memory.add([{"text": "lives in Wien", "key": "home", "time": START}])
    header = json.dumps(transfer.FORMAT)
    await restored(memory, store, [header, json.dumps(fact(key="home", time=START - 5)), "{}"])
    assert [hit.text for hit in (await memory.search(key="home")).hits] == ["lives in Wien"]
    await restored(
        memory,
        store,
        [header, json.dumps(fact(id="mem_bbbbbbbbbbbb", text="lives in Linz", key="home", time=START + 5)), "{}"],
    )
    assert [hit.text for hit in (await memory.search(key="home")).hits] == ["lives in Linz"]
    assert len((await memory.search(key="home", include_retired=True)).hits) == 3


@in_memory
async def test_an_equal_live_text_is_known_and_another_text_under_a_known_id_refused(memory, store, clock):
    [added] = await memory.add([{"text": "lives in Graz"}])
    header = json.dumps(transfer.FORMAT)
    assert await restored(memory, store, [header, json.dumps(fact()), "{}"]) == 0
    with pytest.raises(KernelError, match=r"memory\.id_conflict"):
        await restored(memory, store, [header, json.dumps(fact(id=added.id, text="lives in Wien")), "{}"])


@in_memory
async def test_an_id_of_another_principal_is_replaced_and_tells_nothing(memory, store, clock):
    [theirs] = await memory.add([{"text": "theirs"}], principal="other")
    before = await exported(memory, "other")
    assert await restored(memory, store, ["", json.dumps(fact(id=theirs.id)), ""]) == 1
    [hit] = (await memory.search("Graz")).hits
    assert hit.id != theirs.id
    assert await exported(memory, "other") == before


@in_memory
async def test_a_secret_in_a_line_is_masked_as_it_is_in_an_added_fact(memory, store, clock):
    line = json.dumps(fact(text="token ghp_abcdefghijklmnopqrstuvwxyz0123456789"))
    await restored(memory, store, ["", line, ""])
    assert [hit.text for hit in (await memory.search()).hits] == ["token [GitHub token removed]"]


@in_memory
async def test_lines_are_trusted_at_most_as_the_reader_says(memory, store, clock):
    lines = [
        "",
        json.dumps(fact(trust="user")),
        json.dumps(fact(id="mem_bbbbbbbbbbbb", text="from a page", trust="web")),
        "",
    ]
    await restored(memory, store, lines, trust="tool")
    assert {hit.text: hit.trust for hit in (await memory.search()).hits} == {
        "lives in Graz": "tool",
        "from a page": "web",
    }


BAD = [
    {"type": "row"}, {}, fact(id="mem_1"), fact(id="../../x"), fact(id=7), fact(text=""), fact(text=["x"]), fact(text="x" * (1 << 19)),
    fact(recorded_at=None), fact(recorded_at="soon"), fact(recorded_at=1e300), fact(time=-1e18), fact(trust="god"), fact(trust=4),
    fact(superseded_by="mem_bbbbbbbbbbbb"), fact(superseded_by="x", valid_to=START, closed_at=START),
    fact(superseded_by="mem_bbbbbbbbbbbb", valid_to=START - 1, closed_at=START), fact(retracted_at="x"), fact(reason="r" * 5000),
    fact(confirmed=-1), fact(confirmed=True), fact(step=1 << 70), fact(step=1.5), fact(run_id=["r"]), fact(client="c" * 300),
    fact(key="k" * 300), fact(tags="t" * 300), fact(scope="1"), fact(principal="other"), fact(n=1), fact(speaker="\ud800"),
    {"type": "note", "label": "a", "text": "x", "version": 0, "updated_at": START},
    {"type": "note", "label": "a", "text": "x" * 5000, "version": 1, "updated_at": START}, {"type": "note", "version": 1, "updated_at": START},
    {"type": "log", "op": "DROP TABLE", "id": "x", "at": START}, {"type": "log", "op": "add", "at": START}, {"type": "log", "op": "add", "id": "x"},
    {"type": "held", "id": "mem_aaaaaaaaaaaa", "recorded_at": START, "item": []}, {"type": "held", "id": "mem_aaaaaaaaaaaa", "recorded_at": START},
]  # fmt: skip


@in_memory
async def test_a_hostile_line_is_refused_and_changes_nothing(memory, store, clock):
    empty = await exported(memory)
    for line in BAD:
        with pytest.raises(KernelError):
            await store.write(lambda tx, line=line: memory.reader_in(tx, transfer.Before(0, 0)).take(line))
    assert await exported(memory) == empty


@in_memory
async def test_an_export_sees_one_moment_while_others_write(memory, store, clock):
    for part in range(4):  # more than are read at a time, so that the log is read after the writes below
        await memory.add([{"text": f"fact {part} {n}"} for n in range(100)])
    whole = await exported(memory)
    stream = memory.export()
    first = await anext(stream)
    await memory.add([{"text": "later"}])
    await memory.forget([json.loads(whole[1])["id"]])
    assert [first, *[line async for line in stream]] == whole


# --- the command


def run(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "agent_kernel_mcp", "memory", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )


def filled(state):
    async def run():
        async with open_memory(state) as (_, memory, _limits):
            await memory.add([{"text": f"fact {n}", "key": f"k{n % 7}"} for n in range(60)])
            await memory.edit("style", "short answers")

    asyncio.run(asyncio.wait_for(run(), 60))


def test_export_and_import_by_the_command_line_give_the_same_file(tmp_path, capsys):
    filled(tmp_path / "a")
    file, again = tmp_path / "memory.jsonl", tmp_path / "again.jsonl"
    assert main(["memory", "export", str(file), "--state", str(tmp_path / "a")]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert main(["memory", "import", str(file), "--state", str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["added"] == file.read_text().count("\n") - 2
    assert main(["memory", "export", str(again), "--state", str(tmp_path / "b")]) == 0
    assert again.read_bytes() == file.read_bytes()
    assert main(["memory", "import", str(file), "--state", str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["added"] == 0
    printed = run("export", "--state", tmp_path / "a")
    assert printed.stdout == file.read_text()
    assert main(["memory", "stats", "--json", "--state", str(tmp_path / "a")]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert (stats["live"], stats["history"], stats["notes"]) == (7, 53, 1)


def test_an_export_overwrites_no_file_and_needs_a_memory(tmp_path, capsys):
    filled(tmp_path / "a")
    (tmp_path / "there").write_text("mine")
    assert main(["memory", "export", str(tmp_path / "there"), "--state", str(tmp_path / "a")]) == 1
    assert "export.exists" in capsys.readouterr().err
    assert (tmp_path / "there").read_text() == "mine"
    assert main(["memory", "export", str(tmp_path / "new"), "--state", str(tmp_path / "none")]) == 1
    assert "state.missing" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "there"]


def test_an_export_that_was_cut_is_imported_as_far_as_it_goes_and_named(tmp_path, capsys):
    filled(tmp_path / "a")
    whole = run("export", "--state", tmp_path / "a").stdout
    (tmp_path / "cut").write_text(whole[: len(whole) // 2])
    assert main(["memory", "import", str(tmp_path / "cut"), "--state", str(tmp_path / "b"), "--json"]) == 1
    done = json.loads(capsys.readouterr().out)
    assert "ends before its end" in done["problems"][-1]["what"]
    assert done["added"] > 10
    (tmp_path / "newer").write_text('{"format": "agent-kernel-memory", "version": 2}\n')
    assert main(["memory", "import", str(tmp_path / "newer"), "--state", str(tmp_path / "b"), "--json"]) == 1
    assert "version" in json.loads(capsys.readouterr().out)["problems"][0]["what"]


def test_export_import_and_stats_work_while_a_kernel_runs(tmp_path):
    from mcp import Client, StdioServerParameters

    state = str(tmp_path / "state")
    arguments = ["-m", "agent_kernel_mcp", "mcp", "--standalone", "--state", state]

    async def go():
        async with Client(StdioServerParameters(command=sys.executable, args=arguments), cache=None) as client:
            await client.call_tool("memory_add", {"items": [{"text": "lives in Graz"}]})
            first = await asyncio.to_thread(run, "export", "--state", state)
            assert first.returncode == 0, first.stderr
            assert "lives in Graz" in first.stdout
            (tmp_path / "f").write_text(first.stdout.replace("mem_", "mem_").replace("Graz", "Wien"))
            done = await asyncio.to_thread(run, "import", tmp_path / "f", "--state", state, "--json")
            assert "memory.id_conflict" in json.loads(done.stdout)["problems"][0]["what"]
            (tmp_path / "f").write_text(first.stdout)
            done = await asyncio.to_thread(run, "import", tmp_path / "f", "--state", state, "--json")
            assert (done.returncode, json.loads(done.stdout)["known"]) == (0, 2)
            stats = await asyncio.to_thread(run, "stats", "--state", state, "--json")
            assert json.loads(stats.stdout)["live"] == 1

    asyncio.run(asyncio.wait_for(go(), 120))
