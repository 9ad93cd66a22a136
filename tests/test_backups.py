"""`agent-kernel backup`, `restore`, `verify`, as a person calls them."""

import asyncio
import io
import json
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from agent_kernel import Kernel


def command(*words, status=0):
    done = subprocess.run(
        [sys.executable, "-m", "agent_kernel_mcp", *map(str, words)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == status, (done.stdout, done.stderr)
    return done.stdout + done.stderr


SKILL = "---\nname: mine\ndescription: What is mine.\n---\nDo it.\n"


async def filled(folder, meanwhile=None):
    """A finished run with a value that is a blob, a fact, a skill; `meanwhile` is called while the kernel runs."""
    (folder / "skills" / "mine").mkdir(parents=True, mode=0o700)
    (folder / "skills" / "mine" / "SKILL.md").write_text(SKILL)
    async with Kernel.open(folder) as kernel:
        await kernel.memory.add([{"text": "lives in Kiel"}])
        handle = await kernel.runs.start(
            program="async def main(input):\n    return await kernel.step('one', lambda: 'x' * 50_000)", name="kept"
        )
        assert len(await handle.result()) == 50_000
        if meanwhile:
            await asyncio.to_thread(meanwhile)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Taken while the kernel runs."""
    place = tmp_path_factory.mktemp("backups")
    folder = place / "state"
    folder.mkdir(mode=0o700)
    asyncio.run(filled(folder, lambda: command("backup", place / "file", "--state", folder)))
    return place / "file"


async def contents(folder):
    async with Kernel.open(folder) as kernel:
        [run] = (await kernel.runs.list())["runs"]
        return (
            [hit.text for hit in (await kernel.memory.search("Kiel")).hits],
            (run["name"], run["status"], len(run["output"])),
            (await kernel.skills.load("mine")).name,
        )


def test_what_was_backed_up_of_a_running_kernel_is_there_after_a_restore(packed, tmp_path):
    command("restore", packed, "--state", tmp_path / "new")
    assert "is whole" in command("verify", "--state", tmp_path / "new")
    assert asyncio.run(contents(tmp_path / "new")) == (["lives in Kiel"], ("kept", "completed", 50_000), "mine")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "kernel.db").stat().st_mode & 0o777 == 0o600


def test_a_backup_is_for_its_owner_only(packed):
    assert packed.stat().st_mode & 0o777 == 0o600


def test_nothing_is_overwritten(packed, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "mine").write_text("mine")
    assert "restore.not_empty" in command("restore", packed, "--state", tmp_path / "state", status=1)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["mine"]
    command("restore", packed, "--state", tmp_path / "new")
    before = packed.read_bytes()
    assert "backup.exists" in command("backup", packed, "--state", tmp_path / "new", status=1)
    assert packed.read_bytes() == before


def test_a_link_among_the_skills_is_named(packed, tmp_path):
    command("restore", packed, "--state", tmp_path / "new")
    (tmp_path / "new" / "skills" / "other").symlink_to(tmp_path)
    assert "skills/other" in command("backup", tmp_path / "file", "--state", tmp_path / "new")


def changed(packed, into, change):
    """The backup with another database."""
    with tarfile.open(packed) as tar:
        tar.extractall(into / "parts", filter="data")
    with closing(sqlite3.connect(into / "parts" / "kernel.db")) as db:
        db.execute("PRAGMA ignore_check_constraints=1")
        db.executescript(change)
        db.commit()
    return into / "parts" / "kernel.db"


DAMAGE = {
    "has a hole in its deliveries": "UPDATE delivery SET dseq = dseq + 1",
    "has a clock that falls": "INSERT INTO delivery SELECT principal, rid, dseq + 1, 'tick', -1, -1, 0, '', '', '', x'', NULL, 1, x'00', NULL FROM delivery ORDER BY dseq DESC LIMIT 1",
    "lacks the value of a delivery": "DELETE FROM blob",
    "has another program": "UPDATE run SET program = 'another'",
    "are not those that were stored": "UPDATE blob SET data = x'00'",
    "belong to no run": "UPDATE event SET rid = 99",
    "still waits": "INSERT INTO timer SELECT principal, rid, 7, 1 FROM run",
    "a child of a run that is not there": "UPDATE run SET parent_rid = 99",
    "audit event 2": "DROP TRIGGER audit_fixed; UPDATE audit SET facts = '{}' WHERE n = 2",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named_and_such_a_backup_is_not_restored(packed, tmp_path, what):
    (tmp_path / "broken").mkdir(mode=0o700)
    changed(packed, tmp_path, DAMAGE[what]).rename(tmp_path / "broken" / "kernel.db")
    found = json.loads(command("verify", "--json", "--state", tmp_path / "broken", status=1))
    assert not found["whole"]
    assert any(what in problem for problem in found["problems"]), found
    with tarfile.open(tmp_path / "file", "w:gz") as tar:
        tar.add(tmp_path / "broken" / "kernel.db", "kernel.db")
    assert "restore.damaged" in command("restore", tmp_path / "file", "--state", tmp_path / "new", status=1)
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".restore-*"))


def test_a_damaged_state_is_not_backed_up(packed, tmp_path):
    (tmp_path / "broken").mkdir(mode=0o700)
    changed(packed, tmp_path, DAMAGE["lacks the value of a delivery"]).rename(tmp_path / "broken" / "kernel.db")
    assert "backup.damaged" in command("backup", tmp_path / "file", "--state", tmp_path / "broken", status=1)
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "other", "skills/../../out", "kernel.db/../../out"])
def test_a_hostile_file_gets_nothing_out_of_the_folder(tmp_path, name):
    with tarfile.open(tmp_path / "file", "w:gz") as tar:
        facts = tarfile.TarInfo(name)
        facts.size = 1
        tar.addfile(facts, io.BytesIO(b"x"))
    assert "restore.unreadable" in command("restore", tmp_path / "file", "--state", tmp_path / "a" / "new", status=1)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "file"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_file_with_anything_but_files_is_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "file", "w:gz") as tar:
        facts = tarfile.TarInfo("skills/x")
        facts.type, facts.linkname = kind, "/etc/passwd"
        tar.addfile(facts)
    assert "restore.unreadable" in command("restore", tmp_path / "file", "--state", tmp_path / "new", status=1)


def test_a_file_that_was_damaged_in_its_middle_is_refused(packed, tmp_path):
    data = bytearray(packed.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = b"\xff" * 64
    (tmp_path / "file").write_bytes(data)
    said = command("restore", tmp_path / "file", "--state", tmp_path / "new", status=1)
    assert "restore." in said
    assert "Traceback" not in said
    assert not (tmp_path / "new").exists()


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    with tarfile.open(tmp_path / "file", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        facts = tarfile.TarInfo("skills/x")
        facts.pax_headers = {"path": "skills/a\0b"}
        tar.addfile(facts)
    assert "restore.unreadable" in command("restore", tmp_path / "file", "--state", tmp_path / "new", status=1)


@pytest.mark.parametrize("data", [b"", b"not a tar", b"\x1f\x8b\x08\x00"])
def test_what_is_no_backup_is_said_to_be_none(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    assert "restore.unreadable" in command("restore", tmp_path / "file", "--state", tmp_path / "new", status=1)
    assert "restore.unreadable" in command("restore", tmp_path / "none", "--state", tmp_path / "new", status=1)
    assert not Path(tmp_path / "new").exists()
