"""Power loss under the real store: images of the disk at any moment, each opened and compared with what had been acknowledged.

5,000 images run always, 50,000 with `-m long`. That the test can see is shown by a store whose commits do not wait for the disk.
"""

import asyncio
import dataclasses
import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from agent_kernel.base.errors import HostError
from agent_kernel.base.limits import Limits
from agent_kernel.base.ports import Ports
from agent_kernel.base.replay import Made
from agent_kernel.base.store import Store
from agent_kernel.journal import MIGRATIONS as OF_RUNS
from agent_kernel.journal import Journal, NewRun
from agent_kernel.memory import MIGRATIONS as OF_MEMORY
from agent_kernel.memory import Memory
from agent_kernel.scheduler import Scheduler

sys.path.insert(0, str(Path(__file__).parent))
from disk import FULL, IOERR_FSYNC, IOERR_WRITE, Disk

RUNS, STEPS = 6, 60
LIMITS = dataclasses.replace(Limits(), wal_bytes_checkpoint=96 << 10, batch_units_max=8)
"""A log that is folded into the file, and begins anew, every few batches."""


class Opened:
    def __init__(self, folder):
        self.folder, self.ports = folder, Ports.real()

    async def __aenter__(self):
        self.scheduler = Scheduler(slots=8, queue_max=1000)
        self.store = await Store.open(
            self.folder, ports=self.ports, limits=LIMITS, migrations=[OF_RUNS, OF_MEMORY], spawn=self.scheduler.spawn
        )
        self.journal = Journal(self.store, self.ports, LIMITS)
        self.memory = Memory(store=self.store, ports=self.ports, limits=LIMITS)
        return self

    async def __aexit__(self, *_):
        await self.store.close()
        await self.scheduler.close()

    async def begin(self, name):
        new = NewRun(
            run_id=f"run_{name}", principal="local", program="", runtime="", path_version=1, input=b"", seed=b""
        )
        row, _ = await self.store.write(lambda tx: self.journal.create_in(tx, new))
        return row.rid

    def step_in(self, tx, rid, n):
        """A step and its effect: a delivery, long enough to be a blob now and then, and a fact."""
        value = json.dumps([n, "x" * (40_000 if n % 7 == 0 else 50)]).encode()
        call = Made(n, "step", "at_least_once", f"step {n}", b"", b"digest")
        self.journal.deliver_in(tx, rid, kind="ok", t=n / 100, value=value, call=call)
        self.memory.add_in(tx, [{"text": f"step {n} of run {rid} is done"}])


async def work(folder, disk, *, synchronous=None):
    """Steps of several runs at once; (run, step) in the order of their commits. Each acknowledgement is a mark on the disk."""
    order = []

    async with Opened(folder) as kernel:
        if synchronous:
            await kernel.store.write(lambda _: None)
            await kernel.store._between_batches(lambda db: db.execute(f"PRAGMA synchronous={synchronous}"))
        runs = [await kernel.begin(name) for name in range(RUNS)]
        disk.acted("runs", 0)

        def step(tx, rid, n):
            kernel.step_in(tx, rid, n)
            order.append((rid, n))

        async def run(rid):
            for n in range(STEPS):
                await kernel.store.write(lambda tx, n=n: step(tx, rid, n))
                disk.acted("ack", order.index((rid, n)))

        await asyncio.gather(*map(run, runs))
    return order


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    with Disk() as disk:
        order = asyncio.run(work(tmp_path_factory.mktemp("power") / "state", disk))
    assert [act.kind for act in disk.acts].count("ack") == RUNS * STEPS
    assert {"kernel.db", "kernel.db-wal"} <= {act.file for act in disk.acts if act.kind == "sync"}
    return disk, order


def wrong(image, disk, order, folder):
    """What an image lacks of what was acknowledged before it, or has by halves; empty when it is as it must be."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    image.lay(folder)
    marks = [act for act in disk.acts[: image.acts] if act.kind in ("ack", "runs")]
    if not marks:
        return ""  # nothing had been promised yet
    least = max((mark.at + 1 for mark in marks if mark.kind == "ack"), default=0)
    try:
        with closing(sqlite3.connect(folder / "kernel.db")) as db:
            verdict = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            steps = db.execute(
                "SELECT rid, cseq, coalesce(value, data) FROM delivery d LEFT JOIN blob b ON b.digest=d.blob"
            ).fetchall()
            facts = {text for (text,) in db.execute("SELECT text FROM memory")}
            holes = db.execute("SELECT rid FROM delivery GROUP BY rid HAVING max(dseq)+1 != count(*)").fetchall()
    except sqlite3.Error as error:
        return f"it cannot be read: {error}"
    if verdict != "ok" or holes:
        return f"{verdict}, holes in {holes}"
    if {(rid, n) for rid, n, _ in steps} != set(order[: len(steps)]):
        return "it is no beginning of what was committed"
    if facts != {f"step {n} of run {rid} is done" for rid, n, _ in steps}:
        return "steps and facts differ"
    if any(json.loads(value)[0] != n for _, n, value in steps):
        return "a value is another's"
    return "" if len(steps) >= least else f"{least} were acknowledged, {len(steps)} are there"


@pytest.mark.parametrize("number", [5_000, pytest.param(50_000, marks=pytest.mark.long)])
def test_no_power_loss_takes_what_was_acknowledged(worked, tmp_path, number):
    disk, order = worked
    found = [problem for image in disk.images(1, number) if (problem := wrong(image, disk, order, tmp_path / "image"))]
    assert not found, (len(found), found[:5])


def test_what_a_power_loss_left_is_opened_and_goes_on(worked, tmp_path):
    """By the store itself, whose check of the log must not take the torn end of a crash for damage."""
    disk, order = worked

    async def go_on(folder):
        async with Opened(folder) as kernel:
            rid = await kernel.begin("after")
            await kernel.store.write(lambda tx: kernel.step_in(tx, rid, 0))
            return await kernel.store.read(lambda db: db.execute("SELECT count(*) FROM delivery").fetchone()[0])

    for number, image in enumerate(disk.images(2, 150)):
        if any(act.kind == "runs" for act in disk.acts[: image.acts]):
            (folder := tmp_path / str(number)).mkdir()
            image.lay(folder)
            least = max((act.at + 1 for act in disk.acts[: image.acts] if act.kind == "ack"), default=0)
            assert least < asyncio.run(go_on(folder)) <= len(order) + 1
            shutil.rmtree(folder)


def test_the_images_show_a_commit_that_does_not_wait_for_the_disk(tmp_path):
    with Disk() as disk:
        order = asyncio.run(work(tmp_path / "state", disk, synchronous="NORMAL"))
    found = [problem for image in disk.images(3, 300) if (problem := wrong(image, disk, order, tmp_path / "image"))]
    assert any("were acknowledged" in problem for problem in found)


@pytest.mark.parametrize(
    ("act", "code", "says"),
    [("sync", IOERR_FSYNC, "state.failed"), ("write", FULL, "state.disk_full"), ("write", IOERR_WRITE, "state.failed")],
)
def test_nothing_is_acknowledged_that_the_disk_refused(tmp_path, act, code, says):
    """The store stops there, throws the connection away, and goes on with another when the disk does."""

    async def body(disk):
        async with Opened(tmp_path / "state") as kernel:
            rid = await kernel.begin("a")
            await kernel.store.write(lambda tx: kernel.step_in(tx, rid, 0))
            disk.fails = lambda kind, file: code if kind == act and file == "kernel.db-wal" else 0
            refused = await asyncio.gather(
                *(kernel.store.write(lambda tx, n=n: kernel.step_in(tx, rid, n)) for n in range(1, 5)),
                return_exceptions=True,
            )
            assert [type(problem) for problem in refused] == [HostError] * 4
            assert {problem.code for problem in refused} == {says}
            assert refused[0].retryable
            disk.fails = lambda _kind, _file: 0
            before = await kernel.store.read(lambda db: db.execute("SELECT count(*) FROM delivery").fetchone()[0])
            await kernel.store.write(lambda tx: kernel.step_in(tx, rid, 9))
            return before

    with Disk() as disk:
        assert asyncio.run(body(disk)) == 1
    with closing(sqlite3.connect(tmp_path / "state" / "kernel.db")) as db:
        assert [n for (n,) in db.execute("SELECT cseq FROM delivery ORDER BY dseq")] == [0, 9]
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
