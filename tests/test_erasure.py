"""An erased text is in no byte of the state folder, steps of runs included; what may hold it still is named; and runs go on."""

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

from agent_kernel import Kernel

sys.path.insert(0, str(Path(__file__).parent))
from kernels import approve, opened, program, ran, rested, until

ROOT = Path(__file__).parent.parent
TESTS = Path(__file__).parent


def files_with(folder, *needles):
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(needle.encode() in path.read_bytes() for needle in needles)
    )


REMEMBERS = program(
    """
    text = input["backwards"][::-1]
    added = await kernel.memory.add([{"text": text, "source": "walk", "tags": [text[:9]]}, {"text": "of no interest"}])
    again = await kernel.memory.add([{"text": text, "source": "walk"}, {"text": text + " too"}])
    found = await kernel.memory.search(text[:20])
    await kernel.receive("go")
    more = await kernel.memory.search("lights boats")
    return {"hits": list(found.hits), "ids": [one.id for one in [*added, *again]], "more": len(more.hits)}
    """
)


def test_no_file_has_a_byte_of_it_afterwards_and_the_runs_that_read_it_go_on(tmp_path):
    """The text is made inside the program, so that neither its source nor its input holds it. Short and long, in rows and in blobs."""
    folder, backup = tmp_path / "state", tmp_path / "backup.db"
    texts = ["Zyzzyva keeps the harbour lights", "Quixotic boats " + "of many words " * 1500 + " Xanthippe"]
    needles = ("Zyzzyva", "Quixotic", "Xanthippe", "of many words of many")

    async def act(kernel):
        runs = [await kernel.runs.start(REMEMBERS, {"backwards": text[::-1]}) for text in texts]
        for handle in runs:
            await until(
                kernel,
                handle.id,
                lambda seen: any(step["kind"] == "receive" for step in seen.get("steps", ())),
                view="steps",
            )
        done = await ran(
            kernel, "found = await kernel.memory.search('harbour lights boats')\nreturn {'all': list(found.hits)}"
        )
        assert files_with(folder, *needles)
        gone = await kernel.memory.forget(source="walk", mode="erase", reason="asked to")
        assert gone.count == 2
        gone_too = await kernel.memory.forget(
            [hit.id for hit in (await kernel.memory.search("Zyzzyva Quixotic")).hits], mode="erase", reason="asked to"
        )
        assert gone_too.count == 2
        assert gone.proof.clean
        assert gone_too.proof.clean
        assert gone.steps >= 6
        assert files_with(folder, *needles) == []
        with sqlite3.connect(folder / "kernel.db") as source, sqlite3.connect(backup) as copy:
            source.backup(copy)
        copy.close()
        source.close()
        assert files_with(tmp_path, *needles) == []
        under_way = {place.place for place in gone.elsewhere if place.place.endswith("under way")}
        assert under_way == {f"run {handle.id} under way" for handle in runs}
        output = (await kernel.runs.view(done["run_id"]))["output"]
        assert {hit["text"] for hit in output["all"]} == {"[erased]"}
        return runs

    runs = opened(folder, act)

    async def resumed(kernel):
        for handle in runs:
            await kernel.runs.send(handle.id, topic="go", content=None)
            seen = await rested(kernel, handle.id)
            assert seen["status"] == "completed", seen
            assert {hit["text"] for hit in seen["output"]["hits"]} <= {"[erased]", "of no interest"}
            assert {tuple(hit["tags"]) for hit in seen["output"]["hits"]} <= {("[erased]",), ()}
            assert seen["output"]["more"] == 0

    opened(folder, resumed)
    assert files_with(folder, *needles) == []


def test_a_run_that_decides_by_the_words_that_are_gone_stops_for_a_person(tmp_path):
    folder = tmp_path / "state"
    body = """
    found = await kernel.memory.search("colour")
    await kernel.memory.edit("seen", "blue" if "blue" in found.hits[0].text else "none")
    await kernel.receive("go")
    return "done"
    """

    async def act(kernel):
        [added] = await kernel.memory.add([{"text": "the colour is blue"}])
        handle = await kernel.runs.start(program(body))
        await until(
            kernel,
            handle.id,
            lambda seen: any(step["kind"] == "receive" for step in seen.get("steps", ())),
            view="steps",
        )
        gone = await kernel.memory.forget([added.id], mode="erase", reason="asked to")
        assert [place.place for place in gone.elsewhere if place.place.startswith("run ")] == [
            f"run {handle.id} under way"
        ]
        return handle.id

    run_id = opened(folder, act)

    async def resumed(kernel):
        await kernel.runs.send(run_id, topic="go", content=None)
        seen = await rested(kernel, run_id)
        assert (seen["status"], seen["detail"]) == ("input_required", "diverged")
        assert "Replay differs at call 1" in seen["waiting"][0]["prompt"]
        await approve(kernel, run_id, "deny")
        assert (await rested(kernel, run_id))["status"] == "failed"

    opened(folder, resumed)


def test_what_a_program_made_of_the_text_is_named_by_run(tmp_path):
    folder = tmp_path / "state"

    async def act(kernel):
        [added] = await kernel.memory.add([{"text": "Zyzzyva keeps the lights"}])
        seen = await ran(kernel, "found = await kernel.memory.search('lights')\nreturn 'I read: ' + found.hits[0].text")
        kept = await kernel.runs.start("async def main(input): return 1", {"note": "Zyzzyva keeps the lights"})
        await kept.result()
        gone = await kernel.memory.forget([added.id], mode="erase", reason="asked to")
        assert gone.proof.clean
        named = {place.place: place.note for place in gone.elsewhere}
        assert seen["run_id"] in named["table run.output"]
        assert kept.id in named["table run.input"]
        assert (await kernel.runs.view(seen["run_id"], "steps"))["steps"][0]["result"]["hits"][0]["text"] == "[erased]"

    opened(folder, act)


def test_steps_of_others_and_of_other_facts_are_left_as_they_are(tmp_path):
    async def act(kernel):
        [mine] = await kernel.memory.add([{"text": "the lights are green"}])
        await kernel.memory.add([{"text": "the lights are red"}])
        await kernel.memory.add([{"text": "the lights are green"}], principal="other")
        source = program("found = await kernel.memory.search('lights')\nreturn len(found.hits)")
        runs = [await kernel.runs.start(source, principal=who) for who in ("local", "other")]
        for handle in runs:
            await handle.result()
        gone = await kernel.memory.forget([mine.id], mode="erase", reason="asked to")
        assert gone.steps == 1
        hits = [
            [
                hit["text"]
                for hit in (await kernel.runs.view(handle.id, "steps", principal=who))["steps"][0]["result"]["hits"]
            ]
            for handle, who in zip(runs, ("local", "other"), strict=True)
        ]
        assert sorted(hits[0]) == ["[erased]", "the lights are red"]
        assert hits[1] == ["the lights are green"]

    opened(tmp_path / "state", act)


def test_a_search_that_was_read_before_an_erasure_is_not_written_down_after_it(tmp_path):
    """The erasure commits between the reading of the answer and its record."""

    async def act(kernel):
        [added] = await kernel.memory.add([{"text": "Zyzzyva keeps the lights"}])
        memory = kernel.memory
        read = type(memory).search

        async def late(self, *args, **more):
            found = await read(self, *args, **more)
            if more.get("principal") and found.hits:
                await self.forget([added.id], mode="erase", reason="asked to")
            return found

        type(memory).search = late
        try:
            seen = await ran(kernel, "found = await kernel.memory.search('lights')\nreturn len(found.hits)")
        finally:
            type(memory).search = read
        assert seen["output"] == 0
        assert files_with(kernel.store.folder, "Zyzzyva") == []

    opened(tmp_path / "state", act)


def test_replies_that_were_kept_because_they_were_long_go_too(tmp_path):
    async def act(kernel):
        [added] = await kernel.memory.add([{"text": "Zyzzyva keeps the lights"}])
        reply = json.dumps({"hits": [{"id": added.id, "text": "Zyzzyva keeps the lights"}]}).encode()
        other = b'{"hits": [{"id": "mem_other", "text": "of no interest"}]}'
        store = kernel.store
        for name, data in (("a", reply), ("b", reply), ("c", other)):
            uri = f"sandbox://replies/{name}.json"
            await store.write(lambda tx, uri=uri, data=data: store.keep(tx, "local", uri, data, "application/json"))
        assert (await kernel.memory.forget([added.id], mode="erase", reason="asked to")).proof.clean
        assert files_with(store.folder, "Zyzzyva") == []
        kept = [await store.artifact("local", f"sandbox://replies/{name}.json") for name in "abc"]
        assert [one is None for one in kept] == [True, True, False]

    opened(tmp_path / "state", act)


MANY = """
import asyncio, random, sqlite3, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
if sys.argv[3] != "own":
    newest = __import__(sys.argv[3] + ".dbapi2", fromlist=["dbapi2"])
    sys.modules["sqlite3"] = sys.modules["sqlite3.dbapi2"] = newest
from agent_kernel import Kernel

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("nd", "rk", "st", "lm", "x")]

async def main():
    import aiosqlite.core
    print("SQLite", aiosqlite.core.sqlite3.sqlite_version, flush=True)
    rng = random.Random(7)
    folder = Path(sys.argv[1])
    async with Kernel.open(folder) as kernel:
        for round in range(6):
            marked = []
            for batch in range(4):
                items = []
                for n in range(25):
                    mark = f"qz{round}w{batch}w{n}qz"
                    size = rng.choice((5, 20, 20, 80, 700))
                    words = [rng.choice(WORDS) for _ in range(size)]
                    words[rng.randrange(size)] = mark
                    items.append({"text": " ".join(words), "conversation": f"c{n % 5}", "tags": [mark], "speaker": mark})
                added = await kernel.memory.add(items)
                marked += [(one.id, item["speaker"]) for one, item in zip(added, items)]
            rng.shuffle(marked)
            gone = marked[: rng.choice((1, 5, 40))]
            reply = await kernel.memory.forget([one for one, _ in gone], mode="erase", reason="asked to")
            assert reply.proof.clean, reply
            data = b"".join(path.read_bytes() for path in folder.glob("kernel.db*"))
            left = [mark for _, mark in gone if mark.encode() in data]
            assert not left, (round, left)
            kept = [mark for _, mark in marked[len(gone) :]]
            assert all(mark.encode() in data for mark in kept)
asyncio.run(main())
"""


def many(folder, driver):
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(folder), str(TESTS), driver], capture_output=True, text=True, timeout=300,
        cwd=folder.parent, env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return re.search(r"SQLite (\S+)", done.stdout)[1]


def test_among_many_facts_only_what_was_erased_is_gone_and_all_of_it(tmp_path):
    many(tmp_path / "state", "own")


def test_so_it_is_on_the_newest_sqlite(tmp_path):
    """Another SQLite than Python's own, from the extra `test`. Without it nothing is shown here, and that is a failure."""
    version = many(tmp_path / "state", "pysqlite3")
    assert tuple(map(int, version.split("."))) >= (3, 50), f"pysqlite3 has SQLite {version}; install a newer one"


def test_the_folder_opens_again_after_an_erasure_was_cut_off_before_its_scrub(tmp_path):
    """Killed between COMMIT and scrub: the bytes may lie in the WAL; the next close folds it in, over pages that were zeroed."""
    folder = tmp_path / "state"
    script = f"""
import asyncio, os
from agent_kernel import Kernel
async def main():
    async with Kernel.open({str(folder)!r}) as kernel:
        [added] = await kernel.memory.add([{{"text": "Zyzzyva keeps the lights"}}])
        async def die():
            os._exit(9)
        type(kernel.store).scrub = lambda self: die()
        await kernel.memory.forget([added.id], mode="erase", reason="asked to")
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60, cwd=tmp_path).returncode == 9

    async def main():
        async with Kernel.open(folder) as kernel:
            assert (await kernel.memory.search("Zyzzyva", include_retired=True)).hits == ()

    asyncio.run(main())
    assert files_with(folder, "Zyzzyva") == []
