import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from agent_kernel.base.errors import Conflict, HostError
from agent_kernel.base.limits import Limits
from agent_kernel.base.ports import Ports
from agent_kernel.base.store import Store, file_system_of
from agent_kernel.scheduler import Scheduler

TABLE = {1: "CREATE TABLE t(principal TEXT, x);"}


@asynccontextmanager
async def opened(folder, *, migrations=(TABLE,), probe=None, limits=None):
    scheduler = Scheduler(slots=4, queue_max=100)
    ports = replace(Ports.real(), probe=probe)
    store = await Store.open(
        folder, ports=ports, limits=limits or Limits(), migrations=migrations, spawn=scheduler.spawn
    )
    try:
        yield store
    finally:
        await store.close()
        await scheduler.close()


def insert(x):
    return lambda tx: tx.execute("INSERT INTO t VALUES('local', ?)", (x,)).rowcount


def rows(db):
    return [row[0] for row in db.execute("SELECT x FROM t ORDER BY rowid")]


def test_what_write_returned_is_there_after_a_kill(tmp_path):
    code = """
import asyncio, os, sys
from pathlib import Path
from agent_kernel.base.limits import Limits
from agent_kernel.base.ports import Ports
from agent_kernel.base.store import Store
from agent_kernel.scheduler import Scheduler
async def main():
    s = await Store.open(Path(sys.argv[1]), ports=Ports.real(), limits=Limits(),
        migrations=[{1: "CREATE TABLE t(principal TEXT, x);"}], spawn=Scheduler(slots=1, queue_max=1).spawn)
    for i in range(10):
        await s.write(lambda tx: tx.execute("INSERT INTO t VALUES('local', ?)", (i,)).rowcount)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    gone = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], timeout=60)
    assert gone.returncode == -9

    async def look():
        async with opened(tmp_path / "s") as store:
            return await store.read(rows)

    assert asyncio.run(look()) == list(range(10))


def test_writes_that_wait_together_share_one_commit(tmp_path):
    async def main():
        async with opened(tmp_path / "s") as store:
            before = store.commits
            await asyncio.gather(*(store.write(insert(i)) for i in range(100)))
            assert store.commits - before <= 2
            assert await store.read(rows) == list(range(100))

    asyncio.run(main())


def test_a_failing_unit_undoes_only_itself(tmp_path):
    def half(tx):
        tx.execute("INSERT INTO t VALUES('local', 'half')")
        raise Conflict("test.conflict", "no")

    async def main():
        async with opened(tmp_path / "s") as store:
            outcomes = await asyncio.gather(
                store.write(insert(1)), store.write(half), store.write(insert(2)), return_exceptions=True
            )
            assert isinstance(outcomes[1], Conflict)
            assert await store.read(rows) == [1, 2]

    asyncio.run(main())


def test_a_failed_commit_acknowledges_nothing_and_the_store_goes_on(tmp_path):
    armed = []

    def probe(point):
        if point == "store.before_commit" and armed:
            armed.clear()
            raise sqlite3.OperationalError("database or disk is full")

    async def main():
        async with opened(tmp_path / "s", probe=probe) as store:
            armed.append(True)
            outcomes = await asyncio.gather(store.write(insert(1)), store.write(insert(2)), return_exceptions=True)
            assert [error.code for error in outcomes] == ["state.disk_full"] * 2
            await store.write(insert(3))
            assert await store.read(rows) == [3]

    asyncio.run(main())


def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path):
    """A page limit makes SQLite give the very error of a full disk, inside a unit."""

    def fill(tx):
        tx.execute("PRAGMA max_page_count=40")
        for _ in range(1000):
            tx.execute("INSERT INTO t VALUES('local', zeroblob(4096))")

    async def main():
        async with opened(tmp_path / "s") as store:
            await store.write(insert(1))
            with pytest.raises(HostError) as caught:
                await store.write(fill)
            assert caught.value.code == "state.disk_full"
            await store.write(insert(2))
            assert await store.read(rows) == [1, 2]

    asyncio.run(main())


def test_the_reading_connection_cannot_write(tmp_path):
    async def main():
        async with opened(tmp_path / "s") as store:
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                await store.read(insert(1))

    asyncio.run(main())


def test_durability_is_wal_with_full_sync(tmp_path):
    async def main():
        async with opened(tmp_path / "s") as store:
            return await store.write(
                lambda tx: [tx.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
            )

    assert asyncio.run(main()) == ["wal", 2]


def test_the_wal_stays_bounded(tmp_path):
    async def main():
        async with opened(tmp_path / "s", limits=replace(Limits(), wal_bytes_checkpoint=64 * 1024)) as store:
            for _ in range(200):
                await store.write(insert(b"x" * 4096))
            return (tmp_path / "s" / "kernel.db-wal").stat().st_size

    assert asyncio.run(main()) < 1024 * 1024


def test_closing_finishes_what_waits(tmp_path):
    async def main():
        async with opened(tmp_path / "s") as store:
            waiting = asyncio.gather(*(store.write(insert(i)) for i in range(10)))
            await asyncio.wait_for(asyncio.gather(waiting, store.close()), 30)
        async with opened(tmp_path / "s") as store:
            assert await store.read(rows) == list(range(10))

    asyncio.run(main())


def test_a_taken_folder_is_refused_with_the_owners_pid(tmp_path):
    async def main():
        async with opened(tmp_path / "s"):
            with pytest.raises(HostError) as caught:
                async with opened(tmp_path / "s"):
                    pass
            assert caught.value.code == "state.locked"
            assert str(os.getpid()) in caught.value.message
        async with opened(tmp_path / "s"):
            pass

    asyncio.run(main())


def refusal(folder, **kwargs):
    async def main():
        async with opened(folder, **kwargs):
            pass

    with pytest.raises(HostError) as caught:
        asyncio.run(main())
    return caught.value


def test_a_link_a_file_and_a_folder_others_may_write_are_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert refusal(tmp_path / "link").code == "state.link"
    assert refusal(tmp_path / "file").code == "state.not_a_folder"
    assert refusal(tmp_path / "open").code == "state.not_private"


def test_a_folder_others_may_read_is_made_private(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s").chmod(0o755)

    async def main():
        async with opened(tmp_path / "s"):
            pass

    asyncio.run(main())
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700


def test_a_damaged_file_is_refused_and_left_alone(tmp_path):
    (tmp_path / "s").mkdir(mode=0o700)
    damaged = b"this is no database" * 100
    (tmp_path / "s" / "kernel.db").write_bytes(damaged)
    error = refusal(tmp_path / "s")
    assert error.code == "state.damaged"
    assert "kernel.db" in error.message
    assert (tmp_path / "s" / "kernel.db").read_bytes() == damaged


def test_a_log_damaged_before_its_end_is_refused_and_left_alone(tmp_path):
    """As it is after a kill: copied while the store is open."""
    crashed, log = tmp_path / "crashed", tmp_path / "crashed" / "kernel.db-wal"
    crashed.mkdir(mode=0o700)

    async def fill():
        sizes = []
        async with opened(tmp_path / "s") as store:
            for n in range(9):
                await store.write(insert(n))
                sizes.append((tmp_path / "s" / "kernel.db-wal").stat().st_size)
            for name in ("kernel.db", "kernel.db-wal"):
                shutil.copy(tmp_path / "s" / name, crashed / name)
        return sizes

    sizes = asyncio.run(fill())
    with log.open("r+b") as file:
        file.seek(sizes[5] + 100)
        file.write(b"damage")
    damaged = log.read_bytes()
    error = refusal(crashed)
    assert error.code == "state.damaged"
    assert f"3 commits behind page {(sizes[5] - 32) // 4120}" in error.message
    assert log.read_bytes() == damaged
    size = int(re.search(r"truncate -s (\d+)", error.message)[1])
    assert size == sizes[5]
    os.truncate(log, sizes[7])
    assert refusal(crashed).code == "state.damaged"
    os.truncate(log, sizes[6])  # a crash may leave as much: one commit that was not acknowledged

    async def look():
        async with opened(crashed) as store:
            return await store.read(rows)

    assert asyncio.run(look()) == [0, 1, 2, 3, 4, 5]


def test_pages_damaged_in_the_middle_are_noticed_at_open(tmp_path):
    async def fill():
        async with opened(tmp_path / "s") as store:
            await asyncio.gather(*(store.write(insert(b"x" * 3000)) for _ in range(200)))

    asyncio.run(fill())
    path = tmp_path / "s" / "kernel.db"
    data = bytearray(path.read_bytes())
    data[8 * 4096 : 80 * 4096] = b"\xff" * (72 * 4096)
    path.write_bytes(data)
    assert refusal(tmp_path / "s").code == "state.damaged"


def test_a_newer_schema_is_refused_with_both_numbers(tmp_path):
    async def make():
        async with opened(tmp_path / "s", migrations=(TABLE, {2: "CREATE TABLE later(x);"})):
            pass

    asyncio.run(make())
    error = refusal(tmp_path / "s")
    assert error.code == "state.newer"
    assert "schema 2" in error.message
    assert "up to 1" in error.message


def test_an_older_schema_is_copied_before_it_is_migrated(tmp_path):
    async def main():
        async with opened(tmp_path / "s") as store:
            await store.write(insert("old"))
        async with opened(tmp_path / "s", migrations=(TABLE, {2: "ALTER TABLE t ADD COLUMN y;"})) as store:
            assert await store.read(lambda db: db.execute("SELECT x, y FROM t").fetchall()) == [("old", None)]
        copy = sqlite3.connect(tmp_path / "s" / "kernel.db.v1")
        assert rows(copy) == ["old"]
        copy.close()

    asyncio.run(main())


def test_a_network_file_system_is_refused_by_name(tmp_path):
    device = tmp_path.stat().st_dev
    line = f"29 1 {os.major(device)}:{os.minor(device)} / / rw,relatime shared:1 - {{}} server:/export rw"
    assert file_system_of(tmp_path, line.format("nfs4")) == "nfs4"
    assert file_system_of(tmp_path, line.format("ext4")) == "ext4"
    assert file_system_of(tmp_path, "30 1 0:1 / /proc rw - proc proc rw") == ""


def test_a_long_path_works(tmp_path):
    deep = tmp_path / ("d" * 60) / ("e" * 60)

    async def main():
        async with opened(deep) as store:
            return await store.write(insert(1))

    assert asyncio.run(main()) == 1


def test_artifacts_belong_to_a_principal_and_end(tmp_path):
    async def main():
        async with opened(tmp_path / "s", limits=replace(Limits(), artifact_ttl_s=1000.0)) as store:
            await store.write(lambda tx: store.keep(tx, "ann", "sandbox://a/f", b"data", "text/plain"))
            kept = await store.artifact("ann", "sandbox://a/f")
            assert kept is not None
            assert kept.data == b"data"
            assert await store.artifact("bob", "sandbox://a/f") is None
            await store.write(lambda tx: tx.execute("UPDATE artifact SET expires_at = 1"))
            assert await store.artifact("ann", "sandbox://a/f") is None
            await store.write(lambda tx: tx.execute("UPDATE blob SET expires_at = 1"))
            await store.write(lambda tx: store.keep(tx, "ann", "sandbox://b/f", b"new", "text/plain"))
            left = await store.read(lambda db: db.execute("SELECT count(*) FROM blob").fetchone()[0])
            assert left == 1

    asyncio.run(main())
