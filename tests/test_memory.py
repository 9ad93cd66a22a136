"""Guarantees of memory.py, of the floors it stands on, and of the proof of an erasure."""

import asyncio
import dataclasses
import sqlite3
from contextlib import asynccontextmanager

import pytest
from agent_kernel import memory
from agent_kernel.base import recall
from agent_kernel.base.errors import ArgumentError, Conflict, LimitExceeded, NotFound
from agent_kernel.base.facts import moment
from agent_kernel.base.limits import Limits
from agent_kernel.base.policy import MemoryRules
from agent_kernel.base.ports import Ports
from agent_kernel.base.store import Store
from agent_kernel.memory import Memory
from agent_kernel.scheduler import Scheduler

START = moment("2026-03-01T12:00:00Z", "start")


class Clock:
    """Stands still until a test moves it."""

    def __init__(self):
        self.at = START

    def now(self):
        return self.at

    def monotonic(self):
        return self.at

    async def sleep(self, _seconds):
        await asyncio.sleep(0)


@asynccontextmanager
async def opened(folder, clock=None, rules=None, **limits):
    scheduler = Scheduler(slots=4, queue_max=16)
    ports = dataclasses.replace(Ports.real(), clock=clock or Clock())
    store = await Store.open(
        folder, ports=ports, limits=Limits(), migrations=[memory.MIGRATIONS], spawn=scheduler.spawn
    )
    try:
        yield Memory(store=store, ports=ports, limits=Limits(**limits), rules=rules or MemoryRules())
    finally:
        await store.close()
        await scheduler.close()


def in_memory(body):
    """Run `body(memory, clock)` on a fresh state folder."""

    def test(tmp_path):
        async def run():
            clock = Clock()
            async with opened(tmp_path / "state", clock) as m:
                await body(m, clock)

        asyncio.run(run())

    test.__name__ = body.__name__
    return test


def texts(hits):
    return [hit.text for hit in hits.hits]


# --- add


@in_memory
async def test_an_added_fact_is_found_by_another_form_of_its_words_with_its_provenance(m, clock):
    [added] = await m.add(
        [{"text": "Anna prefers sailing at night", "source": "log", "tags": ["sea"], "speaker": "Bob"}],
        trust="guest", run_id="run_1", step=4,
    )  # fmt: skip
    [hit] = (await m.search("does anna sail?")).hits
    assert (hit.id, hit.text, hit.score, hit.retired) == (added.id, "Anna prefers sailing at night", 1.0, None)
    assert (hit.source, hit.tags, hit.speaker) == ("log", ("sea",), "Bob")
    assert (hit.trust, hit.run_id, hit.step) == ("guest", "run_1", 4)
    assert hit.time == "2026-03-01T12:00:00.000Z"


@in_memory
async def test_equal_live_text_gives_the_old_id_and_a_retracted_one_does_not_count(m, clock):
    [first] = await m.add([{"text": "tea"}])
    [again, same_batch] = await m.add([{"text": "tea"}, {"text": "tea"}])
    assert again == same_batch == memory.Added(first.id, duplicate=True, superseded=(), similar=())
    await m.forget([first.id])
    [new] = await m.add([{"text": "tea"}])
    assert not new.duplicate
    assert new.id != first.id


@in_memory
async def test_an_expired_text_said_again_is_a_new_fact(m, clock):
    await m.add([{"text": "tea", "expires_at": clock.at + 60}])
    clock.at += 61
    [again] = await m.add([{"text": "tea"}])
    assert not again.duplicate
    assert texts(await m.search("tea")) == ["tea"]


@in_memory
async def test_the_same_words_elsewhere_are_another_fact(m, clock):
    items = [
        {"text": "yes"},
        {"text": "yes", "conversation": "c"},
        {"text": "yes", "key": "k"},
        {"text": "yes", "speaker": "s"},
    ]
    added = await m.add(items)
    assert [a.duplicate for a in added] == [False] * 4


@in_memory
async def test_a_repetition_from_a_more_trusted_channel_lifts_trust_and_end_never_lowers_them(m, clock):
    await m.add([{"text": "tea", "expires_at": clock.at + 60}], trust="guest")
    await m.add([{"text": "tea"}], trust="user")
    await m.add([{"text": "tea", "expires_at": clock.at + 1}], trust="web")
    clock.at += 3600
    assert [hit.trust for hit in (await m.search("tea")).hits] == ["user"]


@in_memory
async def test_a_new_value_of_a_key_closes_the_old_one(m, clock):
    [old] = await m.add([{"text": "lives in Berlin", "key": "city"}])
    clock.at += 10
    [new] = await m.add([{"text": "lives in Munich", "key": "city"}])
    assert new.superseded == (old.id,)
    assert texts(await m.search(key="city")) == texts(await m.search("lives")) == ["lives in Munich"]
    whole = (await m.search(key="city", include_retired=True)).hits
    assert [(hit.text, hit.retired) for hit in whole] == [
        ("lives in Munich", None), ("lives in Berlin", f"superseded by {new.id}"),
    ]  # fmt: skip


@in_memory
async def test_a_value_dated_before_the_present_one_goes_into_the_past_of_the_slot(m, clock):
    await m.add([{"text": "Bonn", "key": "seat", "time": "1990-01-01"}])
    await m.add([{"text": "Berlin", "key": "seat", "time": "1999-09-01"}])
    [middle] = await m.add([{"text": "on the move", "key": "seat", "time": "1999-07-01"}])
    assert middle.superseded == ()
    assert texts(await m.search(key="seat")) == ["Berlin"]
    for when, value in (("1995-01-01", "Bonn"), ("1999-08-01", "on the move"), ("2020-01-01", "Berlin")):
        assert texts(await m.search(key="seat", as_of=when)) == [value]


@in_memory
async def test_a_dated_value_replaces_one_of_which_nobody_said_since_when(m, clock):
    [old] = await m.add([{"text": "Bonn", "key": "seat"}])
    [new] = await m.add([{"text": "Berlin", "key": "seat", "time": "1999-09-01"}])
    assert new.superseded == (old.id,)
    assert texts(await m.search(key="seat")) == ["Berlin"]


@in_memory
async def test_supersedes_closes_what_the_caller_names_and_refuses_what_is_not_his(m, clock):
    [old] = await m.add([{"text": "the plan is A"}])
    [new] = await m.add([{"text": "the plan is B", "supersedes": [old.id]}])
    assert new.superseded == (old.id,)
    [foreign] = await m.add([{"text": "the plan is C"}], principal="other")
    with pytest.raises(NotFound, match=r"memory\.unknown"):
        await m.add([{"text": "the plan is D"}, {"text": "the plan is E", "supersedes": [foreign.id]}])
    assert texts(await m.search("plan")) == ["the plan is B"]


@in_memory
async def test_near_duplicates_are_shown_closest_first_and_strangers_are_not(m, clock):
    await m.add(
        [{"text": t} for t in ("Anna's favourite colour is green", "Anna went to the harbour", "the colour of the sea")]
    )
    [added] = await m.add([{"text": "Anna's favourite colour is blue"}])
    assert [s.text for s in added.similar] == ["Anna's favourite colour is green"]
    many = await m.add([{"text": f"the boiler was serviced by firm {n}"} for n in range(5)])
    assert [len(a.similar) for a in many] == [0, 1, 2, 3, 3]
    firms = [{"text": f"the roof was mended by firm {n}", "key": "roof"} for n in range(3)]
    assert [a.similar for a in await m.add(firms)] == [(), (), ()]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({}, "items[1].text"),
        ({"text": " "}, "items[1].text"),
        ({"text": 5}, "items[1].text"),
        ({"text": "a", "tag": ["b"]}, "Did you mean 'tags'?"),
        ({"text": "half \ud800"}, "lone surrogate"),
        ({"text": "a", "time": "yesterday"}, "items[1].time is 'yesterday'"),
        ({"text": "a", "time": float("nan")}, "items[1].time"),
        ({"text": "a", "time": 1e300}, "items[1].time"),
        ({"text": "a", "time": 10**400}, "items[1].time"),
        ({"text": "a", "tags": [1]}, "list of texts"),
        ({"text": "a", "key": "k" * 300}, "300 characters"),
        ("a", "is a str"),
    ],
)
def test_one_bad_item_refuses_the_whole_call_and_is_named(tmp_path, item, words):
    async def run():
        async with opened(tmp_path / "state") as m:
            with pytest.raises((ArgumentError, LimitExceeded)) as refusal:
                await m.add([{"text": "sound"}, item])
            assert words in str(refusal.value)
            assert (await m.search()).hits == ()

    asyncio.run(run())


def test_quotas_refuse_and_name_the_limit(tmp_path):
    async def run():
        async with opened(tmp_path / "state", memory_items_max=2, memory_rows_max=3, memory_text_bytes_max=10) as m:
            with pytest.raises(LimitExceeded, match="at most 2"):
                await m.add([{"text": "a"}] * 3)
            with pytest.raises(LimitExceeded, match="13 bytes; at most 10"):
                await m.add([{"text": "ööööö ö"}])
            added = await m.add([{"text": "a"}, {"text": "b"}])
            with pytest.raises(LimitExceeded, match=r"memory\.full"):
                await m.add([{"text": "c"}, {"text": "d"}])
            await m.add([{"text": "c"}, {"text": "d"}], principal="other")
            await m.forget([added[0].id], mode="erase")
            await m.add([{"text": "c"}, {"text": "d"}])

    asyncio.run(run())


def test_bytes_are_bounded_labels_included_and_given_back_by_erasing(tmp_path):
    async def run():
        async with opened(tmp_path / "state", memory_bytes_max=1000) as m:
            [a] = await m.add([{"text": "a" * 300, "tags": ["t" * 200], "key": "k" * 100}])
            with pytest.raises(LimitExceeded, match="1000 bytes of memories are kept at most"):
                await m.add([{"text": "b" * 200, "source": "s" * 200}])
            await m.add([{"text": "b" * 900}], principal="other")
            assert 600 < (await m.stats()).size_bytes < 620
            await m.forget([a.id])
            assert (await m.stats()).size_bytes > 600
            await m.forget([a.id], mode="erase")
            assert (await m.stats()).size_bytes == 0
            await m.add([{"text": "b" * 200, "source": "s" * 200}])

    asyncio.run(run())


@in_memory
async def test_what_is_said_again_is_counted_and_what_is_dated_says_when_it_was_learnt(m, clock):
    await m.add([{"text": "tea", "time": "2020-01-01"}], client="editor")
    clock.at += 10
    await m.add([{"text": "tea"}, {"text": "tea"}, {"text": "coffee"}], client="other")
    tea, coffee = sorted((await m.search()).hits, key=lambda hit: hit.time)
    assert (tea.confirmed, tea.client, tea.time, tea.recorded_at) == (
        2, "editor", "2020-01-01T00:00:00.000Z", "2026-03-01T12:00:00.000Z",
    )  # fmt: skip
    assert (coffee.confirmed, coffee.client, coffee.recorded_at) == (None, "other", None)
    log = await m._store.read(lambda db: db.execute("SELECT op, client FROM memory_log ORDER BY n").fetchall())
    assert log == [("add", "editor"), ("confirm", "other"), ("confirm", "other"), ("add", "other")]


@in_memory
async def test_stats_are_of_one_principal(m, clock):
    await m.add([{"text": "one", "key": "k"}, {"text": "two", "key": "k"}, {"text": "three"}])
    await m.add([{"text": "four"}], principal="other")
    await m.edit("me", "I am Ada")
    stats = await m.stats()
    assert (stats.live, stats.history, stats.quarantined, stats.notes) == (2, 1, 0, 1)
    assert dataclasses.astuple(await m.stats(principal="nobody"))[:4] == (0, 0, 0, Limits().memory_bytes_max)


# --- secrets


KEY = "AKIA" + "IOSFODNN7EXAMPLE"


def test_a_secret_is_refused_wherever_it_stands_and_not_repeated(tmp_path):
    async def run():
        async with opened(tmp_path, rules=MemoryRules(secrets="refuse")) as m:
            await refuses_everywhere(m)

    asyncio.run(run())


async def refuses_everywhere(m):
    for item in (
        {"text": f"the key is {KEY}"},
        *({"text": "x", name: KEY} for name in ("key", "kind", "conversation", "speaker", "source")),
        {"text": "x", "tags": ["a", KEY]},
    ):
        with pytest.raises(
            ArgumentError, match=r"^memory\.secret: items\[1\]\.\w+ holds .* AWS access key at"
        ) as refused:
            await m.add([{"text": "sound"}, item])
        assert KEY not in str(refused.value)
    for act in (m.edit("me", KEY), m.forget(source="s", reason=KEY)):
        with pytest.raises(ArgumentError, match=r"memory\.secret"):
            await act
    assert (await m.search(include_retired=True)).hits == ()
    assert await m.blocks() == []


def test_secrets_are_left_out_unless_the_operator_lets_them_in(tmp_path):
    async def run():
        async with opened(tmp_path / "mask") as m:
            given = {"text": f"the key is {KEY}, keep it", "tags": [KEY]}
            [added] = await m.add([given])
            [hit] = (await m.search("key")).hits
            assert (hit.text, hit.tags) == (
                "the key is [AWS access key removed], keep it", ("[AWS access key removed]",),
            )  # fmt: skip
            assert added.masked[0] == memory.Masked("text", "AWS access key", 11, 31)
            assert given["text"][11:31] == KEY
            assert (await m.add([given]))[0].duplicate
            note = await m.edit("me", f"use {KEY}")
            assert (note.text, note.masked[0].kind) == ("use [AWS access key removed]", "AWS access key")
        assert bytes_in(tmp_path / "mask", KEY) == set()
        async with opened(tmp_path / "allow", rules=MemoryRules(secrets="allow")) as m:
            await m.add([{"text": f"the key is {KEY}"}])
            assert texts(await m.search("key")) == [f"the key is {KEY}"]

    asyncio.run(run())


# --- search


@in_memory
async def test_a_turn_without_the_words_is_found_through_its_neighbours(m, clock):
    await m.add([{"text": f"idle talk number {n}", "conversation": "b"} for n in range(5)])
    await m.add(
        [
            {"text": "Which instrument did you learn?", "conversation": "a"},
            {"text": "It was the cello.", "conversation": "a"},
            {"text": "Lovely.", "conversation": "a"},
        ]
    )
    assert texts(await m.search("what instrument?"))[:2] == ["Which instrument did you learn?", "It was the cello."]


@in_memory
async def test_a_speaker_is_searched_with_his_words(m, clock):
    await m.add([{"text": "I like tea", "speaker": "Bob"}, {"text": "I like tea", "speaker": "Ada"}])
    assert [hit.speaker for hit in (await m.search("does Ada like tea")).hits] == ["Ada", "Bob"]


@in_memory
async def test_a_word_in_the_middle_of_a_script_without_blanks_is_found_until_it_is_retracted(m, clock):
    [added] = await m.add([{"text": "昨日東京でiPhoneを買った", "speaker": "田中"}])
    for query in ("東京", "iphone", "買った", "田中", "京"):
        assert len((await m.search(query)).hits) == 1, query
    assert (await m.search("大阪")).hits == ()
    await m.forget([added.id])
    assert (await m.search("東京")).hits == ()
    assert len((await m.search("東京", include_retired=True)).hits) == 1
    await m._store.write(lambda tx: tx.execute("INSERT INTO memory_fts(memory_fts, rank) VALUES('integrity-check', 1)"))


@in_memory
async def test_a_quoted_phrase_comes_first_and_does_not_hide_the_rest(m, clock):
    await m.add(
        [{"text": "tea, hot and hot and tea"}, {"text": "a pot of hot tea that was long forgotten in the garden"}]
    )
    assert texts(await m.search('"hot tea"'))[0].startswith("a pot")
    assert len((await m.search('"hot tea" "never said"')).hits) == 2


@in_memory
async def test_a_score_is_explained_on_request(m, clock):
    await m.add([{"text": "anchors hold", "speaker": "Ada"}, {"text": "anchors rust"}])
    first, second = (await m.search("why do the anchors of Ada hold", explain=True)).hits
    assert set(first.why["terms"]) == {"anchors", "ada", "hold"}
    assert first.why["times"] == {"speaker": 1.5}
    assert first.score == pytest.approx(1.5 * sum(first.why["terms"].values()), abs=0.01)
    assert set(second.why["terms"]) == {"anchors"}
    assert [hit.why for hit in (await m.search("anchors")).hits] == [None, None]


@in_memory
async def test_what_only_frequent_words_match_is_found_where_rare_ones_are_filtered_away(m, clock):
    """The rare words choose whom to look at; a filter may leave none of those."""
    await m.add([{"text": f"boat {n}", "conversation": "a"} for n in range(300)][:100])
    for start in (100, 200, 300):
        await m.add([{"text": f"boat {n}", "conversation": "b"} for n in range(start, start + 100)])
    await m.add([{"text": f"quay {n}", "conversation": "b"} for n in range(100)])
    await m.add([{"text": f"gull {n}", "conversation": "b"} for n in range(100)])
    found = (await m.search("boat quay gull", conversation="a", limit=100, reply_bytes=10**6)).hits
    assert len(found) == 100
    everything, cursor = set(), None
    while True:
        page = await m.search("boat quay gull", limit=100, cursor=cursor, reply_bytes=10**6)
        everything.update(hit.id for hit in page.hits)
        cursor = page.cursor
        if not page.more:
            break
    assert len(everything) == 600


def test_rows_of_schema_3_are_found_by_what_new_ones_are_found_by(tmp_path):
    async def opened_with(migrations, unit):
        scheduler = Scheduler(slots=4, queue_max=16)
        ports = Ports.real()
        store = await Store.open(
            tmp_path / "s", ports=ports, limits=Limits(), migrations=migrations, spawn=scheduler.spawn
        )
        try:
            return await unit(store, Memory(store=store, ports=ports, limits=Limits()))
        finally:
            await store.close()
            await scheduler.close()

    async def old(store, _):
        def insert(tx):
            for n, text in enumerate(("東京で買った", "did you sail?"), 1):
                tx.execute(
                    "INSERT INTO memory(n, principal, scope, words, trust, id, kind, tags, dated, valid_from, recorded_at, digest,"
                    " speaker, text) VALUES(?, 'local', ?, 1, 4, ?, 'fact', '[]', 0, 0, 0, x'', 'Ada', ?)",
                    (n, recall.scopes_of("local")[0], f"mem_{n}", text),
                )
                tx.execute("INSERT INTO memory_fts(rowid, scope, speaker, text) VALUES(?, ?, 'Ada', ?)",
                           (n, recall.scopes_of("local")[0], text))  # fmt: skip
            tx.execute("INSERT INTO memory_count(principal, items) VALUES('local', 2)")

        await store.write(insert)

    async def new(store, m):
        assert texts(await m.search("京で")) == ["東京で買った"]
        [hit] = (await m.search("sailing", explain=True)).hits
        assert hit.why["times"] == {"question": 0.8}
        assert len((await m.search("ada")).hits) == 2
        await store.write(
            lambda tx: tx.execute("INSERT INTO memory_fts(memory_fts, rank) VALUES('integrity-check', 1)")
        )

    async def run():
        await opened_with([{version: step for version, step in memory.MIGRATIONS.items() if version < 4}], old)
        await opened_with([memory.MIGRATIONS], new)

    asyncio.run(run())


@in_memory
async def test_stop_words_alone_still_find_what_consists_of_them(m, clock):
    await m.add([{"text": "to be or not to be"}, {"text": "the boat"}])
    assert texts(await m.search("to be")) == ["to be or not to be"]
    assert texts(await m.search("the boat")) == ["the boat"]


@in_memory
async def test_hostile_questions_are_only_words(m, clock):
    await m.add([{"text": 'he said "stop" AND left \0 at once'}])
    for query in (
        '"',
        "stop AND",
        "NEAR(stop",
        "scope:1",
        "text : x",
        "{",
        "*",
        "-",
        "'; DROP",
        "\0",
        "\ud800",
        "^",
        "🦜",
        "a" * 100_000,
    ):
        await m.search(query)
    assert len((await m.search('") OR stop --')).hits) == 1
    assert len((await m.search("stop \ud800 \0")).hits) == 1
    for wrong in ({"key": "\ud800"}, {"tags": ["\ud800"]}, {"ids": ["\ud800"]}, {"conversation": "\ud800"}):
        with pytest.raises(ArgumentError):
            await m.search("stop", **wrong) if "ids" not in wrong else await m.forget(wrong["ids"], source="\ud800")


@in_memory
async def test_filters_narrow_together_and_without_a_query_the_newest_comes_first(m, clock):
    await m.add([{"text": "one", "time": "2020-01-01", "conversation": "a", "tags": ["x", "y"], "kind": "event"}])
    await m.add([{"text": "two", "time": "2021-01-01T23:00:00Z", "conversation": "b", "tags": ["x"]}], trust="web")
    [three] = await m.add([{"text": "three", "time": "2022-01-01", "conversation": "b"}])
    cases = {
        "three two one": {}, "two one": {"tags": ["x"]}, "one": {"tags": ["x", "y"]}, "three two": {"conversation": "b"},
        "three": {"ids": [three.id]}, "three one": {"min_trust": "agent"}, "": {"conversation": "b", "tags": ["y"]},
    }  # fmt: skip
    for found, filters in cases.items():
        assert " ".join(texts(await m.search(**filters))) == found, filters
    assert texts(await m.search(since="2021-01-01", until="2021-01-01")) == ["two"]
    assert texts(await m.search(kind="event")) == ["one"]
    assert texts(await m.search("one two three", conversation="a")) == ["one"]


@in_memory
async def test_what_has_expired_is_history(m, clock):
    await m.add([{"text": "the door code is 1234", "expires_at": clock.at + 60}])
    assert len((await m.search("door")).hits) == 1
    noon = clock.at
    clock.at += 61
    assert (await m.search("door")).hits == ()
    assert len((await m.search("door", known_at=noon)).hits) == 1
    assert [hit.retired for hit in (await m.search("door", include_retired=True)).hits] == ["expired"]


@in_memory
async def test_both_time_axes_are_read_apart(m, clock):
    await m.add([{"text": "the office is in Bonn", "key": "office", "time": "2020-01-01"}])
    clock.at += 100  # only now we learn that it moved years ago
    await m.add([{"text": "the office is in Kiel", "key": "office", "time": "2022-01-01"}])
    clock.at += 100
    assert texts(await m.search("office", as_of="2021-06-01")) == ["the office is in Bonn"]
    assert texts(await m.search("office", as_of="2023-06-01")) == ["the office is in Kiel"]
    assert texts(await m.search("office", as_of="2023-06-01", known_at=START + 50)) == ["the office is in Bonn"]
    assert texts(await m.search("office", known_at=START + 50)) == ["the office is in Bonn"]
    assert texts(await m.search("office", known_at=START + 150)) == ["the office is in Kiel"]
    assert texts(await m.search("office", as_of="2019-01-01")) == []


@in_memory
async def test_a_time_that_was_shown_includes_what_it_was_shown_for(m, clock):
    clock.at = START + 0.1239
    await m.add([{"text": "tea"}])
    [hit] = (await m.search("tea")).hits
    assert len((await m.search("tea", as_of=hit.time, since=hit.time, until=hit.time)).hits) == 1


@in_memory
async def test_pages_show_every_hit_once_also_past_the_pool_and_none_that_came_later(m, clock):
    for k in range(4):
        await m.add([{"text": f"buoy {n}", "conversation": f"c{n % 7}"} for n in range(k * 75, k * 75 + 75)])
    seen, cursor = [], None
    while True:
        page = await m.search("buoy", limit=70, cursor=cursor, reply_bytes=10**6)
        seen += texts(page)
        await m.add([{"text": f"late buoy {len(seen)}"}])
        cursor = page.cursor
        if not page.more:
            break
    assert sorted(seen) == sorted(f"buoy {n}" for n in range(300))
    assert cursor is None


@in_memory
async def test_a_cursor_of_another_question_is_refused(m, clock):
    await m.add([{"text": f"buoy {n}"} for n in range(5)])
    cursor = (await m.search("buoy", limit=2)).cursor
    for query, wrong in (("ship", cursor), ("buoy", "x"), ("buoy", "é"), ("buoy", "W10="), ("buoy", cursor[:-4])):
        with pytest.raises(ArgumentError, match="cursor"):
            await m.search(query, limit=2, cursor=wrong)
    assert len((await m.search("buoy", limit=1, cursor=cursor)).hits) == 1


@in_memory
async def test_a_reply_is_bounded_and_says_where_the_rest_is(m, clock):
    await m.add([{"text": f"ship {n} " + "wörd " * 5000} for n in range(30)] + [{"text": "ship short"}])
    page = await m.search("ship", limit=20)
    size = len(str([dataclasses.asdict(hit) for hit in page.hits]).encode())
    assert 8_000 < size < 16 * 1024
    long = next(hit for hit in page.hits if "left out" in hit.text)
    assert f"whole: memory://{long.id}" in long.text
    assert len(await m.text(long.id)) > 25_000
    assert "ship short" in texts(page)
    tiny = await m.search("ship", limit=20, reply_bytes=2000)
    assert 1 <= len(tiny.hits) < 20
    assert tiny.more


@in_memory
async def test_principals_do_not_meet(m, clock):
    """One principal owns nearly everything, so that both ways of selecting a scope are walked."""
    [mine] = await m.add(
        [{"text": "the secret is blue", "key": "secret", "source": "s", "conversation": "c"}], principal="a"
    )
    for n in range(3):
        await m.add([{"text": f"filler {n} {k}"} for k in range(30)], principal="b")
    [theirs] = await m.add(
        [{"text": "the secret is red", "key": "secret", "source": "s", "conversation": "c"}], principal="b"
    )
    await m.edit("note", "mine", principal="a")
    for who, text in (("a", "the secret is blue"), ("b", "the secret is red")):
        assert theirs.superseded == mine.superseded == ()
        for question in (
            {"query": "secret"},
            {"key": "secret"},
            {"query": "secret", "include_retired": True},
            {"query": "secret", "as_of": START},
        ):
            assert texts(await m.search(**question, principal=who)) == [text]
    for act in (
        m.forget([mine.id], principal="b"),
        m.text(mine.id, principal="b"),
        m.forget([mine.id], mode="erase", principal="b"),
    ):
        with pytest.raises(NotFound) as refused:
            await act
        assert mine.id in str(refused.value)
    assert (await m.search(ids=[mine.id], principal="b")).hits == ()
    assert (await m.forget(source="s", principal="c")).count == 0
    assert await m.blocks(principal="b") == []
    assert texts(await m.search("secret", principal="a")) == ["the secret is blue"]
    assert (await m.search("secret", principal="nobody")).hits == ()


# --- forget


@in_memory
async def test_what_is_retracted_is_not_found_but_stays_history(m, clock):
    [a] = await m.add([{"text": "tea is poison", "source": "page"}])
    clock.at += 10
    gone = await m.forget([a.id], reason="it was wrong")
    assert (gone.ids, gone.count, gone.mode, gone.proof) == ((a.id,), 1, "retract", None)
    assert (await m.search("tea")).hits == ()
    assert (await m.search("tea", as_of=clock.at)).hits == ()
    assert len((await m.search("tea", known_at=START + 5)).hits) == 1
    assert [hit.retired for hit in (await m.search("tea", include_retired=True)).hits] == ["retracted: it was wrong"]
    assert (await m.forget([a.id])).count == 0


@in_memory
async def test_an_equal_text_that_names_what_it_supersedes_ends_that(m, clock):
    paris, rome = await m.add([{"text": "lives in Paris", "key": "city"}, {"text": "lives in Rome"}])
    [again] = await m.add([{"text": "lives in Rome", "supersedes": [paris.id, rome.id]}])
    assert (again.id, again.duplicate, again.superseded) == (rome.id, True, (paris.id,))
    assert texts(await m.search()) == ["lives in Rome"]
    with pytest.raises(NotFound, match="mem_nothere"):
        await m.add([{"text": "lives in Rome", "supersedes": ["mem_nothere"]}])


@in_memory
async def test_a_filter_that_is_none_is_refused_instead_of_passed_over(m, clock):
    await m.add([{"text": "buoy", "tags": ["a"]}])
    with pytest.raises(ArgumentError, match=r"no filter 'conversatio'\. Did you mean 'conversation'"):
        await m.search(conversatio="c")
    for asked in (
        {"ids": "mem_x"},
        {"tags": "a"},
        {"tags": [1]},
        {"ids": [["mem_x"]]},
        {"ids": ["\ud800"]},
        {"since": 10**400},
    ):
        with pytest.raises(ArgumentError, match=next(iter(asked))):
            await m.search(**asked)
    for ids in ("mem_x", [1], ["\ud800"]):
        with pytest.raises(ArgumentError, match="ids"):
            await m.forget(ids)


@in_memory
async def test_forgetting_by_source_takes_all_of_it_and_a_wrong_count_nothing(m, clock):
    await m.add([{"text": f"claim {n}", "source": "page", "conversation": f"c{n % 2}"} for n in range(6)])
    await m.add([{"text": "claim of mine"}])
    with pytest.raises(Conflict, match="6 memories match, not 5"):
        await m.forget(source="page", expect_count=5)
    assert len((await m.search("claim")).hits) == 7
    assert (await m.forget(source="page", conversation="c1", expect_count=3)).count == 3
    assert (await m.forget(source="page")).count == 3
    assert texts(await m.search("claim")) == ["claim of mine"]
    with pytest.raises(ArgumentError, match="Say which: ids, source or conversation"):
        await m.forget()
    with pytest.raises(NotFound, match="mem_nothere"):
        await m.forget(["mem_nothere"])
    with pytest.raises(ArgumentError, match="'erase'"):
        await m.forget(source="page", mode="delete")


def bytes_in(folder, *needles):
    return {
        (path.name, needle)
        for path in folder.iterdir()
        for needle in needles
        if needle.lower().encode() in path.read_bytes().lower()
    }


def test_erased_bytes_are_in_no_file_of_the_state_folder(tmp_path):
    folder = tmp_path / "state"
    needles = ("Zyzzyva", "quixotic", "Xanthippe", "vortigern", "the reason")

    async def run():
        async with opened(folder) as m:
            for n in range(10):
                await m.add(
                    [{"text": f"talk {n} {k} about ships and tea" * 20, "conversation": "c"} for k in range(30)]
                )
            item = {
                "text": "Zyzzyva moved. " + "quixotic " * 900,
                "conversation": "c",
                "speaker": "Xanthippe",
                "tags": ["vortigern"],
            }
            [a] = await m.add([item])
            [b] = await m.add([{"text": "a later value, Zyzzyva", "supersedes": [a.id], "key": "vortigern"}])
            for n in range(10):
                await m.add([{"text": f"more talk {n} {k} about ships" * 20, "conversation": "c"} for k in range(30)])
            await m.forget([b.id], reason="the reason")
            assert bytes_in(folder, *needles)
            gone = await m.forget([a.id, b.id], mode="erase", reason="the reason", expect_count=2)
            assert bytes_in(folder, *needles) == set()
            assert (gone.count, gone.mode, gone.proof.clean, gone.proof.found, gone.proof.texts) == (
                2,
                "erase",
                True,
                0,
                2,
            )
            assert {"kernel.db", "kernel.db-wal"} <= set(gone.proof.files)
            assert (await m.search("Zyzzyva", include_retired=True)).hits == ()
            again = await m.forget([a.id], mode="erase")
            assert (again.count, again.ids) == (0, ())

    asyncio.run(run())
    assert bytes_in(folder, *needles) == set()


def test_the_proof_names_what_still_holds_the_words(tmp_path):
    folder = tmp_path / "state"

    async def run():
        async with opened(folder) as m:
            [a] = await m.add([{"text": "meet me at the Kontor"}], run_id="run_7", step="greet")
            await m.add([{"text": "she said: meet me at the Kontor, at nine"}])
            await m.add([{"text": "meet me at the Kontor"}], principal="other")
            await m.edit("diary", "meet me at the Kontor")
            (folder / "old.log").write_text("> meet me at the Kontor <", encoding="utf8")
            gone = await m.forget([a.id], mode="erase")
            assert gone.proof.clean
            places = {place.place: place.count for place in gone.elsewhere}
            assert places == {
                "table memory.text": 1,
                "table block.text": 1,
                "old.log": 1,
                "run run_7": None,
                "backups": None,
            }

    asyncio.run(run())


def test_a_word_that_others_use_is_not_counted_against_the_erasure_of_a_text_of_that_word(tmp_path):
    async def run():
        async with opened(tmp_path / "state") as m:
            [a] = await m.add([{"text": "kontor"}])
            await m.add([{"text": "the KONTOR is closed"}])
            gone = await m.forget([a.id], mode="erase")
            assert gone.proof.clean
            assert [place.place for place in gone.elsewhere] == ["backups"]

    asyncio.run(run())


@in_memory
async def test_the_index_holds_what_the_table_holds(m, clock):
    added = await m.add([{"text": f"value {n}", "key": "k", "speaker": "s"} for n in range(5)] + [{"text": "tea"}])
    await m.forget([added[4].id])
    await m.forget([added[2].id, added[5].id], mode="erase")
    await m._store.write(lambda tx: tx.execute("INSERT INTO memory_fts(memory_fts, rank) VALUES('integrity-check', 1)"))


@pytest.mark.parametrize("word", ["Kontor", "source", "principal"])
def test_a_text_that_is_also_a_label_or_a_word_of_our_own_schema_is_proven_gone(tmp_path, word):
    async def run():
        async with opened(tmp_path / "state") as m:
            [a] = await m.add([{"text": word}])
            labels = {"key": word, "conversation": word, "source": word, "tags": [word]}
            await m.add([{"text": "another one", **labels}], principal="other")
            await m.add([{"text": "another one", **labels}])
            gone = await m.forget([a.id], mode="erase")
            assert (gone.proof.clean, gone.proof.found, gone.proof.texts) == (True, 0, 1)
            assert {f"table memory.{name}" for name in labels} <= {place.place for place in gone.elsewhere}
            assert all(place.count in (1, None) for place in gone.elsewhere)

    asyncio.run(run())


@in_memory
async def test_a_text_of_a_few_bytes_is_erased_and_not_looked_for(m, clock):
    [a] = await m.add([{"text": "e"}])
    gone = await m.forget([a.id], mode="erase")
    assert (gone.count, gone.proof.clean, gone.proof.texts) == (1, True, 0)


def test_who_reads_meanwhile_keeps_the_bytes_and_the_reply_says_so(tmp_path):
    folder = tmp_path / "state"

    async def run():
        async with opened(folder) as m:
            [a] = await m.add([{"text": "Zyzzyva burned down"}])
            await m._store._between_batches(lambda db: db.execute("PRAGMA busy_timeout=50"))
            async with m._store.snapshot() as read:
                await read(lambda db: db.execute("SELECT count(*) FROM memory").fetchone())
                gone = await m.forget([a.id], mode="erase")
            assert not gone.proof.clean
            [place] = [place for place in gone.elsewhere if place.place == "kernel.db-wal"]
            assert place.count == gone.proof.found
            assert "erased again" in place.note
            await m.forget([a.id], mode="erase")
            assert bytes_in(folder, "Zyzzyva") == set()

    asyncio.run(run())


def test_the_proof_fails_when_bytes_are_left(tmp_path):
    """Here in a table that belongs to nobody; a free page that was not overwritten looks the same to the scan."""
    folder = tmp_path / "state"

    async def run():
        async with opened(folder) as m:
            [a] = await m.add([{"text": "the Kontor burned down in 1842"}])
            await m._store.write(lambda tx: tx.execute("CREATE TABLE trace(text)"))
            await m._store.write(lambda tx: tx.execute("INSERT INTO trace VALUES('the Kontor burned down in 1842')"))
            gone = await m.forget([a.id], mode="erase")
            assert not gone.proof.clean
            assert gone.proof.found == 1

    asyncio.run(run())


def test_erasing_mends_the_chain_of_a_conversation(tmp_path):
    async def run():
        async with opened(tmp_path / "state") as m:
            turns = ["Which instrument?", "Hm.", "The cello."]
            added = await m.add([{"text": text, "conversation": "a"} for text in turns])
            await m.add([{"text": "of no interest", "conversation": "a"}])
            await m.forget([added[1].id], mode="erase")
            assert texts(await m.search("instrument"))[:2] == ["Which instrument?", "The cello."]

    asyncio.run(run())


def test_the_log_tells_who_did_what_without_text_and_cannot_be_changed(tmp_path):
    async def run():
        async with opened(tmp_path / "state") as m:
            [a] = await m.add([{"text": "tea", "key": "k"}], trust="agent", run_id="run_1", step=2)
            await m.add([{"text": "coffee", "key": "k"}])
            await m.forget([a.id], mode="erase")
            asked = "SELECT op, id, run_id FROM memory_log ORDER BY n"
            log = await m._store.read(lambda db: db.execute(asked).fetchall())
            assert [(op, run) for op, _, run in log] == [
                ("add", "run_1"),
                ("add", None),
                ("supersede", None),
                ("erase", None),
            ]
            assert log[3][1] == a.id
            for change in ("DELETE FROM memory_log", "UPDATE memory_log SET op='x'"):
                with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                    await m._store.write(lambda tx, change=change: tx.execute(change))

    asyncio.run(run())


# --- inside somebody's transaction


@in_memory
async def test_memory_and_what_the_caller_writes_become_true_together(m, clock):
    def unit(tx):
        m.add_in(tx, [{"text": "half"}])
        m.edit_in(tx, "note", "half")
        [found] = m.search_in(tx, "half").hits
        m.forget_in(tx, [found.id])
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await m._store.write(unit)
    assert (await m.search(include_retired=True)).hits == ()
    assert await m.blocks() == []


# --- standing notes


@in_memory
async def test_a_note_is_set_replaced_and_appended_to_under_a_growing_version(m, clock):
    assert await m.edit("me", "I am Ada") == memory.Block("me", "I am Ada", 1, 3992)
    assert (await m.edit("me", "Eve", old="Ada", if_version=1)).text == "I am Eve"
    assert await m.edit("me", "!", old="") == memory.Block("me", "I am Eve!", 3, 3991)
    assert [block.label for block in await m.blocks()] == ["me"]
    await m.edit("me", "")
    assert await m.blocks() == []
    assert (await m.blocks("me"))[0].version == 4


@in_memory
async def test_a_stale_version_or_an_ambiguous_old_changes_nothing(m, clock):
    await m.edit("me", "tea and tea")
    for wrong, code in (
        ({"old": "tea"}, "memory.old_conflict"),
        ({"old": "milk"}, "memory.old_conflict"),
        ({"if_version": 0}, "memory.version_conflict"),
    ):
        with pytest.raises(Conflict) as refused:
            await m.edit("me", "x", **wrong)
        assert refused.value.code == code
    assert (await m.blocks("me"))[0].text == "tea and tea"
    assert (await m.edit("new", "x", if_version=0)).version == 1
    with pytest.raises(NotFound):
        await m.blocks("missing")
    with pytest.raises(ArgumentError):
        await m.edit(" ", "x")


def test_a_full_note_is_refused_not_cut(tmp_path):
    async def run():
        async with opened(tmp_path / "state", block_chars_max=5, blocks_max=1) as m:
            await m.edit("a", "12345")
            for label, text, old in (("a", "6", ""), ("a", "123456", None), ("b", "1", None)):
                with pytest.raises(LimitExceeded) as refused:
                    await m.edit(label, text, old=old)
                assert refused.value.code == "memory.block_full"
            assert [(b.text, b.chars_left) for b in await m.blocks()] == [("12345", 0)]

    asyncio.run(run())


def test_facts_and_notes_are_there_after_a_restart(tmp_path):
    async def run():
        async with opened(tmp_path / "state") as m:
            await m.add([{"text": "tea"}])
            await m.edit("a", "1")
        async with opened(tmp_path / "state") as m:
            assert texts(await m.search("tea")) == ["tea"]
            assert (await m.blocks())[0].text == "1"

    asyncio.run(run())
