"""Checks of memory. Every text holds the check's own token as a word, so that checks on one state folder do not meet."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from ..driver import Driver
from ..registry import Untestable, check, expect
from ..subject import ANSWER_S


async def add(c: Driver, *items: dict[str, Any]) -> list[dict[str, Any]]:
    added = (await c.ok("memory_add", items=list(items))).get("items") or []
    expect(len(added) == len(items) and all(item.get("id") for item in added), f"not one id an item: {added}")
    return list(added)


async def found(c: Driver, **query: Any) -> list[dict[str, Any]]:
    return list((await c.ok("memory_search", **query)).get("hits") or [])


def texts(hits: list[dict[str, Any]]) -> list[str]:
    return sorted(str(hit.get("text")) for hit in hits)


@check("memory.add.can-be-found")
async def added_can_be_found(c: Driver) -> None:
    text = f"The lighthouse keeper is called {c.token}."
    [added] = await add(c, {"text": text, "source": "log book", "tags": ["sea"]})
    hits = await found(c, query=f"{c.token} lighthouse")
    expect(hits and hits[0].get("text") == text, f"not found: {hits}")
    expect(hits[0].get("id") == added["id"], f"found under another id: {hits[0]}, {added}")
    missing = {"time", "trust", "score"} - set(hits[0])
    expect(not missing, f"a hit lacks {sorted(missing)}: {hits[0]}")
    expect(hits[0].get("source") == "log book" and hits[0].get("tags") == ["sea"], f"provenance is lost: {hits[0]}")


@check("memory.add.duplicate-returns-the-old-id")
async def duplicate_returns_the_old_id(c: Driver) -> None:
    item = {"text": f"The harbour freezes in {c.token}."}
    [first] = await add(c, item)
    [again] = await add(c, item)
    expect(again.get("id") == first["id"] and again.get("duplicate") is True, f"first {first}, again {again}")
    expect(first.get("duplicate") in (None, False), f"the first is a duplicate: {first}")
    hits = await found(c, query=c.token)
    expect(len(hits) == 1, f"stored twice: {hits}")


@check("memory.add.refuses-whole")
async def bad_items_are_refused_whole(c: Driver) -> None:
    reply = await c.call("memory_add", items=[{"text": f"Sound and {c.token}."}, {"tags": ["no text"]}])
    expect(reply.refused, f"an item without text was taken: {reply.text[:300]}")
    hits = await found(c, query=c.token)
    expect(not hits, f"half of a refused call was stored: {hits}")


@check("memory.add.outlives-the-server")
async def added_outlives_the_server(c: Driver) -> AsyncGenerator[None, None]:
    [added] = await add(c, {"text": f"The last entry before the storm is {c.token}."})
    await c.ok("memory_edit", label=f"storm-{c.token}", text="before")
    yield
    hits = await found(c, query=c.token)
    expect([hit.get("id") for hit in hits] == [added["id"]], f"after the restart: {hits}")
    blocks = await c.call("memory_blocks", label=f"storm-{c.token}")
    expect("before" in blocks.text, f"the standing note after the restart: {blocks.text[:200]}")


@check("memory.add.trust-is-the-channels")
async def trust_is_the_channels(c: Driver) -> None:
    await add(c, {"text": f"The client says {c.token}a."})
    program = f"async def main(input):\n    await kernel.memory.add([{{'text': 'The program says {c.token}b.'}}])\n"
    await c.output(program)
    [client] = await found(c, query=f"{c.token}a")
    [guest] = await found(c, query=f"{c.token}b")
    expect(guest.get("trust") == "guest", f"what a program stored has trust {guest.get('trust')!r}")
    expect(client.get("trust") not in (None, "guest"), f"what the client stored has trust {client.get('trust')!r}")
    expect(str(guest.get("run_id", "")).startswith("run_"), f"the run is not named: {guest}")


@check("memory.add.names-the-client")
async def names_the_client(c: Driver) -> None:
    await add(c, {"text": f"Somebody stored {c.token}."})
    [hit] = await found(c, query=c.token)
    expect(hit.get("client"), f"nobody stored it: {hit}")


@check("memory.add.secrets-are-kept-out")
async def secrets_are_kept_out(c: Driver) -> None:
    for secret in ("AKIA" + "IOSFODNN7EXAMPLE", "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"):
        replies = [
            await c.call("memory_add", items=[{"text": f"The {c.token} key is {secret}."}]),
            await c.call("memory_edit", label=f"keys-{c.token}", text=f"use {secret}"),
            await c.call("memory_search", query=c.token),
            await c.call("memory_blocks", label=f"keys-{c.token}"),
        ]
        for reply in replies:
            expect(secret not in reply.text, f"the key is repeated: {reply.text[:300].replace(secret, '<the key>')}")


@check("memory.key.supersedes")
async def key_supersedes(c: Driver) -> None:
    [old] = await add(c, {"text": f"The mast of {c.token} is oak.", "key": f"mast.{c.token}"})
    [new] = await add(c, {"text": f"The mast of {c.token} is pine.", "key": f"mast.{c.token}"})
    expect(new.get("superseded") == [old["id"]], f"superseded is {new.get('superseded')}, not {[old['id']]}")
    for query in ({"key": f"mast.{c.token}"}, {"query": f"mast {c.token}"}):
        hits = await found(c, **query)
        expect(texts(hits) == [f"The mast of {c.token} is pine."], f"{query} finds {texts(hits)}")


@check("memory.search.stems-and-ignores-stop-words")
async def search_stems(c: Driver) -> None:
    await add(
        c,
        {"text": f"The captain {c.token} prefers sailing at night.", "conversation": c.token},
        {"text": "What is it that the and of to who was in a?", "conversation": c.token},
    )
    hits = await found(c, query="what is it that the captains of the ship prefer to sail in?", conversation=c.token)
    expect(hits and c.token in hits[0].get("text", ""), f"found first: {texts(hits[:1])}")


@check("memory.search.scripts-without-blanks")
async def scripts_without_blanks(c: Driver) -> None:
    sentences = {
        "星期三我們去圖書館看書": ("圖書館", "火車站"),
        "昨日東京で新しい自転車を買った": ("自転車", "飛行機"),
        "ฉันชอบกินผัดไทยที่ร้านนี้": ("ผัดไทย", "แกงเขียว"),
    }
    await add(c, *({"text": text, "conversation": c.token} for text in sentences))
    for text, (there, missing) in sentences.items():
        hits = await found(c, query=there, conversation=c.token, limit=1)
        expect(texts(hits) == [text], f"{there} finds {texts(hits)}")
        hits = await found(c, query=missing, conversation=c.token)
        expect(text not in texts(hits), f"{missing} finds {texts(hits)}")


@check("memory.search.quoted-words-first")
async def quoted_words_come_first(c: Driver) -> None:
    whole, apart = f"{c.token} red tea, a cup", f"{c.token} tea tea red red cup"
    await add(c, {"text": whole}, {"text": apart})
    for phrase, first in (("red tea", whole), ("tea red", apart)):
        hits = await found(c, query=f'{c.token} "{phrase}"')
        expect([hit.get("text") for hit in hits][:1] == [first], f'"{phrase}" finds first {hits[:1]}')
        expect(len(hits) == 2, f"what has the words apart is not found: {hits}")


@check("memory.search.explains")
async def search_explains(c: Driver) -> None:
    await add(c, {"text": f"{c.token} anchors hold", "conversation": c.token})
    [hit] = await found(c, query=f"{c.token} anchor rope", conversation=c.token, explain=True)
    terms = (hit.get("why") or {}).get("terms") or {}
    expect(set(terms) == {c.token, "anchor"}, f"terms of a hit with two of three words: {hit}")
    expect(all(isinstance(part, int | float) and part > 0 for part in terms.values()), f"parts of a score: {terms}")
    [hit] = await found(c, query=f"{c.token} anchor rope", conversation=c.token)
    expect("why" not in hit, f"why, unasked: {hit}")


@check("memory.search.narrows")
async def search_narrows(c: Driver) -> None:
    await add(
        c,
        {"text": f"{c.token} one", "conversation": f"a{c.token}", "time": "2020-01-01T00:00:00Z"},
        {
            "text": f"{c.token} two",
            "conversation": f"b{c.token}",
            "tags": ["t" + c.token],
            "time": "2021-01-01T00:00:00Z",
        },
        {"text": f"{c.token} three", "conversation": f"b{c.token}", "time": "2022-01-01T00:00:00Z"},
    )
    cases = (
        ({"conversation": f"b{c.token}"}, ["three", "two"]),
        ({"tags": ["t" + c.token]}, ["two"]),
        ({"since": "2020-06-01T00:00:00Z"}, ["three", "two"]),
        ({"until": "2021-06-01T00:00:00Z"}, ["one", "two"]),
    )
    for narrow, wanted in cases:
        hits = texts(await found(c, query=c.token, **narrow))
        expect(hits == [f"{c.token} {word}" for word in wanted], f"{narrow} finds {hits}")


@check("memory.search.pages")
async def search_pages(c: Driver) -> None:
    await add(c, *({"text": f"Buoy {number} of {c.token}."} for number in range(5)))
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(5):
        page = await c.ok("memory_search", query=c.token, limit=2, **cursor)
        hits = page.get("hits") or []
        expect(len(hits) <= 2, f"limit=2 brought {len(hits)}")
        seen += [hit["id"] for hit in hits]
        if not page.get("more"):
            break
        expect(page.get("cursor"), f"more without a cursor: {page}")
        cursor = {"cursor": page["cursor"]}
    expect(len(seen) == 5 and len(set(seen)) == 5, f"paging through five items brought {seen}")


@check("memory.search.as-of")
async def search_as_of(c: Driver) -> None:
    key = f"pilot.{c.token}"
    await add(c, {"text": f"{c.token} Ada steers", "key": key, "time": "2020-01-01T00:00:00Z"})
    await add(c, {"text": f"{c.token} Bob steers", "key": key, "time": "2022-01-01T00:00:00Z"})
    then = texts(await found(c, key=key, as_of="2021-01-01T00:00:00Z"))
    expect(then == [f"{c.token} Ada steers"], f"as of 2021 the key holds {then}")
    now = texts(await found(c, key=key))
    expect(now == [f"{c.token} Bob steers"], f"now the key holds {now}")


@check("memory.search.known-at")
async def search_known_at(c: Driver) -> None:
    key = f"cook.{c.token}"
    await add(c, {"text": f"{c.token} Ada cooks", "key": key, "time": "2020-01-01T00:00:00Z"})
    [hit] = await found(c, key=key)
    then = hit.get("recorded_at")
    expect(then, f"a dated fact does not say when it was learnt: {hit}")
    await asyncio.sleep(0.05)
    await add(c, {"text": f"{c.token} Bob cooks", "key": key, "time": "2021-01-01T00:00:00Z"})
    believed = texts(await found(c, key=key, known_at=then))
    expect(believed == [f"{c.token} Ada cooks"], f"known at {then} the key holds {believed}")
    now = texts(await found(c, key=key))
    expect(now == [f"{c.token} Bob cooks"], f"now the key holds {now}")


@check("memory.search.min-trust")
async def search_min_trust(c: Driver) -> None:
    await add(c, {"text": f"{c.token} the client says"})
    await c.output(f"async def main(input):\n    await kernel.memory.add([{{'text': '{c.token} the program says'}}])\n")
    trusted = texts(await found(c, query=c.token, min_trust="agent"))
    expect(trusted == [f"{c.token} the client says"], f"with min_trust agent: {trusted}")
    expect(len(await found(c, query=c.token)) == 2, "without min_trust not both are found")


@check("memory.search.odd-queries-are-harmless")
async def odd_queries_are_harmless(c: Driver) -> None:
    await add(c, {"text": f"The rope {c.token} is C++ and -x."})
    for query in (
        '"',
        "a AND",
        "NEAR(",
        "(((",
        "-",
        "*",
        "col:",
        "C++ -x",
        "'; DROP TABLE memory; --",
        "…",
        "a" * 5000,
    ):
        reply = await c.call("memory_search", query=query)
        harmless = not reply.refused or reply.code.startswith("argument.")
        expect(harmless, f"the query {query[:40]!r} was refused with {reply.text[:200]}")
    hits = await found(c, query=f'"{c.token}" OR (NEAR')
    expect(texts(hits)[:1] == [f"The rope {c.token} is C++ and -x."], f"a quoted word finds {texts(hits)}")


# --- forgetting


@check("memory.forget.retract-hides")
async def retract_hides(c: Driver) -> None:
    [added] = await add(c, {"text": f"The reef {c.token} is charted."})
    await c.ok("memory_forget", ids=[added["id"]], reason="wrong")
    expect(not await found(c, query=c.token), "a retracted fact is found")
    hits = await found(c, query=c.token, include_retired=True)
    expect([hit.get("id") for hit in hits] == [added["id"]], f"with include_retired: {hits}")


def holders(state: Path, needle: bytes) -> list[str]:
    """The files of the state folder that hold these bytes."""
    found = []
    for folder, _, files in os.walk(state):
        for name in files:
            path = Path(folder, name)
            if path.is_file() and needle in path.read_bytes():
                found.append(str(path.relative_to(state)))
    return found


@check("memory.forget.erase-leaves-no-bytes")
async def erase_leaves_no_bytes(c: Driver) -> None:
    secret = f"{c.token}wreckage"
    [added] = await add(c, {"text": f"The gold lies at {secret}.", "source": f"map {c.token}"})
    if not holders(c.place.state, secret.encode()):
        raise Untestable("the text is in no file of the state folder before it is erased; where is it kept?")
    erased = await c.ok("memory_forget", ids=[added["id"]], mode="erase", reason="asked to")
    left = holders(c.place.state, secret.encode())
    expect(not left, f"after the erasure the text is in {left}")
    expect(erased.get("proof"), f"the reply carries no proof: {erased}")
    expect(not await found(c, query=secret, include_retired=True), "an erased fact is found")


REMEMBERS = """
async def main(input):
    text = input["backwards"][::-1]
    await kernel.memory.add([{"text": text, "source": input["source"]}])
    found = await kernel.memory.search(text)
    await kernel.receive("go")
    return len(found.hits)
"""


@check("memory.forget.erase-reaches-the-steps")
async def erase_reaches_the_steps(c: Driver) -> None:
    text, source = f"the cable lies at {c.token}", f"chart {c.token}"
    run = await c.ok("run_start", program=REMEMBERS, input={"backwards": text[::-1], "source": source}, wait_s=0)
    shown = ""
    async with asyncio.timeout(ANSWER_S):
        while '"receive"' not in shown:
            shown = (await c.call("run_get", run_id=run["run_id"], view="steps", wait_s=1)).text
    expect(text in shown, f"the steps do not show what they found: {shown[:300]}")
    await c.ok("memory_forget", source=source, mode="erase", reason="asked to")
    shown = (await c.call("run_get", run_id=run["run_id"], view="steps")).text
    expect(text not in shown, f"after the erasure the steps show it: {shown[:500]}")
    await c.ok("run_send", run_id=run["run_id"], topic="go", content={})
    expect(
        c.completed(await c.follow(await c.ok("run_get", run_id=run["run_id"], wait_s=10))) == 1, "the run lost its hit"
    )


@check("memory.forget.takes-a-whole-source")
async def forget_takes_a_source(c: Driver) -> None:
    bad, good = f"page {c.token}", f"book {c.token}"
    await add(
        c,
        *({"text": f"{c.token} rumour {n}", "source": bad} for n in range(3)),
        {"text": f"{c.token} fact", "source": good},
    )
    gone = await c.ok("memory_forget", source=bad, reason="it lied")
    expect(gone.get("count") == 3, f"three facts of one source, forgotten: {gone}")
    left = texts(await found(c, query=c.token))
    expect(left == [f"{c.token} fact"], f"left is {left}")


@check("memory.forget.expect-count-guards")
async def expect_count_guards(c: Driver) -> None:
    source = f"harbour office {c.token}"
    await add(c, *({"text": f"Berth {number} is {c.token}.", "source": source} for number in range(3)))
    reply = await c.call("memory_forget", source=source, expect_count=2, reason="tidy")
    expect(reply.refused, f"three facts were forgotten where two were expected: {reply.text[:200]}")
    expect(len(await found(c, query=c.token)) == 3, "a refused memory_forget forgot something")
    await c.ok("memory_forget", source=source, expect_count=3, reason="tidy")
    expect(not await found(c, query=c.token), "three facts are found after they were forgotten")


@check("memory.stats.are-readable")
async def stats_are_readable(c: Driver) -> None:
    counts = []
    for number in range(2):
        part = await c.ok("sandbox_read", uri="memory://stats")
        stats = json.loads(part.get("text") or "{}")
        expect(stats.get("size_bytes", 0) > 0 or number == 0, f"nothing takes no bytes: {stats}")
        counts.append(stats.get("live"))
        await add(c, {"text": f"{c.token} {number}"})
    expect(counts[1] == counts[0] + 1, f"one fact more, and live went from {counts[0]} to {counts[1]}")


# --- standing notes


async def note(c: Driver, label: str) -> dict[str, Any]:
    blocks = (await c.ok("memory_blocks", label=label)).get("blocks") or []
    expect(len(blocks) == 1, f"the standing note {label} is {blocks}")
    return dict(blocks[0])


@check("memory.blocks.are-written-and-read")
async def blocks_are_written_and_read(c: Driver) -> None:
    label = f"watch-{c.token}"
    await c.ok("memory_edit", label=label, text="Ada has the first watch.")
    first = await note(c, label)
    await c.ok("memory_edit", label=label, text="Bob", old="Ada")
    second = await note(c, label)
    expect(second.get("text") == "Bob has the first watch.", f"the note is {second}")
    expect(second.get("version") == first.get("version", 0) + 1, f"versions: {first}, {second}")
    labels = [block.get("label") for block in (await c.ok("memory_blocks")).get("blocks") or []]
    expect(label in labels, f"the list of notes lacks it: {labels}")


@check("memory.blocks.stale-version-is-a-conflict")
async def stale_version_is_a_conflict(c: Driver) -> None:
    label = f"course-{c.token}"
    await c.ok("memory_edit", label=label, text="north")
    version = (await note(c, label)).get("version")
    await c.ok("memory_edit", label=label, text="east", if_version=version)
    reply = await c.call("memory_edit", label=label, text="south", if_version=version)
    expect(reply.refused, f"a stale version was accepted: {reply.text[:200]}")
    expect(reply.code.endswith("conflict"), f"refused with {reply.code!r}")
    expect((await note(c, label)).get("text") == "east", "the refused edit changed the note")


@check("memory.blocks.old-must-be-there-once")
async def old_must_be_there_once(c: Driver) -> None:
    label = f"cargo-{c.token}"
    await c.ok("memory_edit", label=label, text="tea, rum, tea")
    for old in ("coal", "tea"):
        reply = await c.call("memory_edit", label=label, text="salt", old=old)
        expect(reply.refused, f"old={old!r} was replaced in 'tea, rum, tea': {reply.text[:200]}")
    expect((await note(c, label)).get("text") == "tea, rum, tea", "a refused edit changed the note")


@check("memory.blocks.are-bounded")
async def blocks_are_bounded(c: Driver) -> None:
    label = f"long-{c.token}"
    reply = await c.call("memory_edit", label=label, text="x" * 100_000)
    expect(reply.refused, f"a note of 100,000 characters was taken: {reply.text[:200]}")
    after = await c.call("memory_blocks", label=label)
    expect("xxxx" not in after.text, "the refused note was stored, or stored in part")
