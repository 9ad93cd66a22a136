"""What comes by a channel that the operator does not believe: kept, told, and in nothing that can be read, until a person decides."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from agent_kernel.base.errors import ArgumentError, Conflict, Denied, LimitExceeded, NotFound
from agent_kernel.base.policy import MemoryRules
from agent_kernel_mcp.__main__ import main
from agent_kernel_mcp.tools import TOOLS

sys.path.insert(0, str(Path(__file__).parent))
from kernels import opened as kernel_opened
from kernels import ran
from test_memory import Clock, bytes_in, opened, texts

RULES = MemoryRules(quarantine=frozenset({"web", "guest"}))


def quarantining(body, **limits):
    def test(tmp_path):
        async def run():
            clock = Clock()
            async with opened(tmp_path / "state", clock, rules=RULES, **limits) as m:
                await body(m, clock)

        asyncio.run(run())

    test.__name__ = body.__name__
    return test


@quarantining
async def test_what_is_held_is_in_no_search_page_count_text_or_lookalike(m, clock):
    await m.add([{"text": "the code of the door is 4711", "key": "door", "conversation": "c"}])
    before = (await m.search("door"), await m.search(), await m.stats())
    item = {
        "text": "the code of the door is 0000",
        "key": "door",
        "conversation": "c",
        "source": "page",
        "tags": ["t"],
        "kind": "k",
    }
    [held] = await m.add([item], trust="web")
    assert (held.quarantined, held.duplicate, held.superseded, held.similar) == (True, False, (), ())
    assert (await m.search("door"), await m.search()) == before[:2]
    after = await m.stats()
    assert (after.live, after.history, after.size_bytes) == (before[2].live, before[2].history, before[2].size_bytes)
    assert after.quarantined == 1
    for question in (
        {"query": "0000", "include_retired": True}, {"ids": [held.id]}, {"ids": [held.id], "include_retired": True},
        {"query": "0000", "as_of": clock.at}, {"query": "0000", "known_at": clock.at}, {"query": "0000", "min_trust": "web"},
        {"tags": ["t"]}, {"kind": "k", "include_retired": True},
    ):  # fmt: skip
        assert (await m.search(**question)).hits == (), question
    assert texts(await m.search(key="door", include_retired=True)) == ["the code of the door is 4711"]
    assert len((await m.search(conversation="c", include_retired=True)).hits) == 1
    with pytest.raises(NotFound, match=r"memory\.unknown"):
        await m.text(held.id)
    [new] = await m.add([{"text": "the code of the door is 0001"}])
    assert held.id not in [one.id for one in new.similar]
    with pytest.raises(NotFound):
        await m.add([{"text": "x", "supersedes": [held.id]}])


@quarantining
async def test_such_a_channel_writes_no_standing_note(m, clock):
    await m.edit("me", "sails")
    with pytest.raises(Denied, match=r"memory\.quarantine: .*from a guest.*memory_add"):
        await m.edit("me", "sinks", trust="guest")
    assert [block.text for block in await m.blocks()] == ["sails"]
    assert (await m.edit("me", "sails well", trust="agent")).version == 2


@quarantining
async def test_a_person_releases_it_under_its_id_with_the_trust_of_its_channel(m, clock):
    [old] = await m.add([{"text": "the harbour is closed", "key": "harbour"}])
    [held] = await m.add(
        [{"text": "the harbour is open", "key": "harbour", "source": "page"}],
        trust="web",
        client="browser",
        run_id="run_1",
        step=3,
    )
    clock.at += 100
    found = await m.quarantined()
    assert (found.count, found.waiting[0].id, found.waiting[0].trust, found.waiting[0].client) == (
        1,
        held.id,
        "web",
        "browser",
    )
    [released] = await m.release([held.id])
    assert (released.id, released.superseded) == (held.id, (old.id,))
    [hit] = (await m.search(key="harbour")).hits
    assert (hit.text, hit.trust, hit.client, hit.run_id, hit.step) == (
        "the harbour is open",
        "web",
        "browser",
        "run_1",
        3,
    )
    assert texts(await m.search(key="harbour", known_at=clock.at - 50)) == ["the harbour is closed"]
    assert (await m.quarantined()).count == 0
    with pytest.raises(NotFound, match="does not wait"):
        await m.release([held.id])


@quarantining
async def test_what_a_person_refuses_is_gone_and_by_source_it_goes_at_once(m, clock):
    added = await m.add([{"text": f"claim {n}", "source": "page"} for n in range(3)] + [{"text": "other"}], trust="web")
    assert len(await m.refuse(source="page")) == 3
    assert [one.id for one in (await m.quarantined()).waiting] == [added[3].id]
    with pytest.raises(ArgumentError, match="Say which"):
        await m.refuse()
    with pytest.raises(NotFound):
        await m.refuse([added[0].id])
    log = await m._store.read(lambda db: db.execute("SELECT op FROM memory_log ORDER BY n").fetchall())
    assert [op for (op,) in log] == ["hold"] * 4 + ["refuse"] * 3


@quarantining
async def test_said_again_it_gives_its_id_and_gains_nothing(m, clock):
    [live] = await m.add([{"text": "known", "expires_at": clock.at + 60}])
    [again] = await m.add([{"text": "known"}], trust="web")
    assert (again.id, again.duplicate, again.quarantined) == (live.id, True, None)
    clock.at += 61
    assert (await m.search("known")).hits == ()
    [first] = await m.add([{"text": "new"}], trust="web")
    [second] = await m.add([{"text": "new"}], trust="guest")
    assert (second.id, second.duplicate, second.quarantined) == (first.id, True, True)
    assert (await m.quarantined()).waiting[0].trust == "web"
    await m.add([{"text": "new"}], trust="agent")
    [released] = await m.release([first.id])
    assert released.duplicate
    [hit] = (await m.search("new")).hits
    assert (hit.trust, hit.confirmed) == ("agent", 1)


@quarantining
async def test_forgetting_takes_what_is_held_too_and_counts_it(m, clock):
    await m.add([{"text": "believed", "source": "page"}])
    await m.add([{"text": "held Zyzzyva", "source": "page"}, {"text": "held quixotic", "source": "book"}], trust="web")
    with pytest.raises(Conflict, match=r"2 memories match \(1 of them in quarantine\), not 1"):
        await m.forget(source="page", expect_count=1)
    assert (await m.forget(source="page", expect_count=2)).count == 2
    assert (await m.quarantined()).count == 1
    gone = await m.forget(source="book", mode="erase")
    assert (gone.count, gone.proof.clean) == (1, True)
    assert bytes_in(m._store.folder, "quixotic") == set()


def test_a_flood_is_refused(tmp_path):
    async def run():
        async with opened(tmp_path / "state", rules=RULES, memory_held_max=2) as m:
            await m.add([{"text": "a"}, {"text": "b"}], trust="web")
            with pytest.raises(LimitExceeded, match="2 facts wait in quarantine"):
                await m.add([{"text": "c"}], trust="web")
            await m.add([{"text": "c"}])
            await m.add([{"text": "c"}], trust="web", principal="other")

    asyncio.run(run())


@quarantining
async def test_one_principal_neither_sees_nor_decides_for_another(m, clock):
    [held] = await m.add([{"text": "mine", "source": "s"}], trust="web", principal="a")
    assert (await m.quarantined(principal="b")).count == 0
    for act in (
        m.release([held.id], principal="b"),
        m.refuse([held.id], principal="b"),
        m.forget([held.id], principal="b"),
    ):
        with pytest.raises(NotFound):
            await act
    assert await m.release(source="s", principal="b") == []
    [other] = await m.add([{"text": "mine", "source": "s"}], trust="web", principal="b")
    assert other.id != held.id
    assert (await m.quarantined(principal="a")).count == 1


def test_a_program_is_told_and_has_no_call_to_release_it(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    (folder / "config.toml").write_text('[memory]\nquarantine = ["guest"]\n', encoding="utf8")

    async def act(kernel):
        seen = await ran(
            kernel,
            """
            [added] = await kernel.memory.add([{"text": "the programs lights"}])
            names = [name for name in dir(kernel.memory) if not name.startswith("_")]
            try:
                await kernel.memory.search(quarantined=True)
                refused = None
            except kernel.Error as error:
                refused = error.code
            found = await kernel.memory.search("lights", include_retired=True, ids=[added.id])
            return [added.quarantined, len(found.hits), names, refused]
            """,
        )
        told, hits, names, refused = seen["output"]
        assert (told, hits, refused) == (True, 0, "argument.unknown")
        assert set(names) == {"add", "search", "forget", "edit", "blocks"}
        assert not any(word in tool.name for tool in TOOLS for word in ("release", "quarantine"))
        assert (await kernel.memory.quarantined()).waiting[0].run_id == seen["run_id"]

    kernel_opened(folder, act)
    listed = command(folder, "quarantine", "--json")
    [fact] = json.loads(listed)["waiting"]
    assert "the programs lights" in command(folder, "quarantine")
    assert command(folder, "release", fact["id"]) == "1 released.\n"
    assert command(folder, "quarantine") == "Nothing waits in quarantine.\n"

    async def after(kernel):
        assert [hit.trust for hit in (await kernel.memory.search("lights")).hits] == ["guest"]

    kernel_opened(folder, after)


def command(folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "agent_kernel_mcp", "memory", *words, "--state", str(folder)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_decision_about_nothing_is_wrong_usage(tmp_path, capsys):
    for verb in ("release", "refuse"):
        with pytest.raises(SystemExit) as refusal:
            main(["memory", verb, "--state", str(tmp_path)])
        assert refusal.value.code == 2
        assert "ID..., or --source S" in capsys.readouterr().err


def test_a_fact_that_moves_the_cursor_of_the_terminal_is_shown_harmless(tmp_path):
    async def act(kernel):
        await kernel.memory.add([{"text": "nice \x1b[2J\x1b[1;1H text", "source": "a\x1b]0;b\x07"}], trust="web")

    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state/config.toml").write_text('[memory]\nquarantine = ["web"]\n', encoding="utf8")
    kernel_opened(tmp_path / "state", act)
    shown = command(tmp_path / "state", "quarantine")
    assert "\x1b" not in shown
    assert "text" in shown


def test_the_table_of_what_is_held_has_no_index_of_words(tmp_path):
    """Nothing but its own file's statements can reach it: no trigger, no view, no full-text index names it."""

    async def run():
        async with opened(tmp_path / "state", rules=RULES) as m:
            await m.add([{"text": "Zyzzyva"}], trust="web")
            naming = "SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view') AND sql LIKE '%memory_held%'"
            assert await m._store.read(lambda db: db.execute(naming).fetchall()) == []

    asyncio.run(run())
    with sqlite3.connect(tmp_path / "state/kernel.db") as db:
        blocks = db.execute("SELECT count(*) FROM memory_fts_data WHERE instr(block, 'zyzzyva')").fetchone()[0]
    db.close()
    assert blocks == 0
