"""A state folder of every schema that was: opened by this kernel, all of it is there, and the run that waited in it goes on."""

import lzma
import sqlite3
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from kernels import opened, rested

STATES = sorted(Path(__file__).parent.glob("states/schema-*.db.xz"))


def unpacked(kept, folder):
    folder.mkdir(mode=0o700)
    (folder / "kernel.db").write_bytes(lzma.decompress(kept.read_bytes()))
    return folder


@pytest.mark.parametrize("kept", STATES, ids=lambda path: path.name.split(".")[0])
def test_a_kept_state_is_all_there_and_its_run_wakes(kept, tmp_path):
    folder = unpacked(kept, tmp_path / "state")

    version = int(kept.name.removeprefix("schema-").split(".")[0])

    async def act(kernel):
        m = kernel.memory
        assert [hit.text for hit in (await m.search(key="city")).hits] == ["lives in Kiel"]
        assert [hit.text for hit in (await m.search(key="city", as_of="2021-01-01")).hits] == ["lives in Berlin"]
        [sails] = (await m.search("does Ada sail?")).hits
        assert (sails.speaker, sails.tags, sails.source, sails.trust, sails.confirmed) == (
            "Bob",
            ("sea",),
            "log",
            "user",
            1,
        )
        assert [hit.retired for hit in (await m.search("tea", include_retired=True)).hits] == [
            "retracted: it was wrong"
        ]
        assert [hit.text for hit in (await m.search("Ada", principal="other")).hits] == ["Ada rows"]
        assert (await m.blocks("me"))[0].text == "I am Ada"
        stats = await m.stats()
        assert (stats.live, stats.history) == (3, 2)
        assert stats.size_bytes > 60
        [waits] = [run for run in (await kernel.runs.list())["runs"] if run.get("name") == "waits"]
        await kernel.runs.send(waits["run_id"], topic="go", content={"n": 1})
        seen = await rested(kernel, waits["run_id"])
        assert (seen["status"], seen.get("output")) == ("completed", {"said": {"n": 1}, "before": 1, "after": 1}), seen
        await still_has_its_skill(kernel, folder, version)
        page = await m.search(limit=2)
        assert len((await m.search(limit=2, cursor=page.cursor)).hits) == 1
        gone = await m.forget([sails.id], mode="erase", reason="asked to")
        assert gone.proof.clean
        assert f"kernel.db.v{version}" in [place.place for place in gone.elsewhere]

    opened(folder, act)


async def still_has_its_skill(kernel, folder, version):
    """Versions of a skill were kept from the first schema on; states have one since the fifth."""
    skill = folder / "skills" / "tally"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text("---\nname: tally\ndescription: Counts.\n---\nOther.\n", encoding="utf8")
    versions = (await kernel.skills.load("tally", view="history")).versions
    bodies = {(await kernel.skills.load("tally", revision=one.revision)).body for one in versions}
    assert bodies == {"Other.", *(("Count jars.", "Count jars twice.") if version >= 5 else ())}
    assert [found.name for found in await kernel.skills.search("counts")] == ["tally"]


def test_every_schema_but_the_present_one_is_kept(tmp_path):
    opened(tmp_path / "state", lambda _: _nothing())
    with sqlite3.connect(tmp_path / "state/kernel.db") as db:
        present = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    assert [path.name for path in STATES] == [f"schema-{version}.db.xz" for version in range(1, present)]


async def _nothing():
    return None
