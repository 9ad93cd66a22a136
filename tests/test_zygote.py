"""The zygote and its children as the kernel's end of the wire sees them: nothing here waits for a guest to be well-behaved."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from agent_kernel.base.errors import GuestError, HostError
from agent_kernel.base.reserve import PREFERRED_FIRST, RANGE, _first_of_range, reserve_uid
from agent_kernel.cell.frames import END
from agent_kernel.sandbox import Sandbox
from boxes import BOTH, boxed

both = pytest.mark.parametrize("tier", BOTH)


@both
def test_a_child_that_waits_for_start_has_run_nothing_and_takes_start_later(tmp_path, tier):
    async def body(sandbox: Sandbox):
        cell = await sandbox._cell(30.0, 256)
        assert "seccomp allow-list" in cell.layers
        assert Path(f"/proc/{cell.guest}/comm").exists()
        cell.begin({"v": 1, "mode": "code", "language": "python", "code": "1+1", "argv": [], "files": {}})
        [frame] = await cell.receive()
        ended = await cell.end(kill=True)
        return frame, ended

    frame, ended = boxed(tmp_path, tier, body)
    assert frame.type == END
    assert b'"value": "2"' in frame.payload
    assert ended.stopped_by is None


@both
def test_the_guest_that_lost_its_kernel_end_is_killed(tmp_path, tier):
    async def body(sandbox: Sandbox):
        cell = await sandbox._cell(30.0, 256)
        guest = cell.guest
        cell.abandon()
        await asyncio.wait_for(asyncio.shield(cell.reaped), 10)
        return Path(f"/proc/{guest}").exists()

    assert not boxed(tmp_path, tier, body)


@both
def test_an_init_that_is_killed_takes_its_guest_along_and_says_killed(tmp_path, tier):
    async def body(sandbox: Sandbox):
        cell = await sandbox._cell(30.0, 256)
        guest = cell.guest
        os.kill(cell.pid, signal.SIGKILL)
        ended = await cell.end(kill=False)
        for _ in range(500):
            if not Path(f"/proc/{guest}").exists():
                break
            await asyncio.sleep(0.01)
        return ended.stopped_by, Path(f"/proc/{guest}").exists()

    assert boxed(tmp_path, tier, body) == ("killed", False)


ORPHANS = """
import asyncio, ctypes, os, pathlib, sys
sys.path.insert(0, {tests!r})
from boxes import boxed
PR_SET_CHILD_SUBREAPER = 36

async def body(sandbox):
    begun = asyncio.Event()
    code = "import kernel, time; kernel.log('begun'); time.sleep(600)"
    running = asyncio.ensure_future(sandbox.run(code, timeout_s=600, on_note=lambda _: begun.set()))
    await begun.wait()
    known.extend(pid for cell in sandbox._cells for pid in (cell.pid, cell.guest))
    os.kill(sandbox._zygote.pid, 9)
    (lost,) = await asyncio.gather(running, return_exceptions=True)
    print(lost.code, (await sandbox.run("6 * 7")).value)

known = []

def kernel():
    boxed(pathlib.Path({folder!r}), {tier!r}, body)

assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
"""


def in_a_process(tmp_path, tier, then: str) -> list[str]:
    code = ORPHANS.format(tests=str(Path(__file__).parent), folder=str(tmp_path), tier=tier) + then
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    return done.stdout.splitlines()


@both
def test_a_kernel_that_adopts_the_orphans_of_its_zygote_reaps_them(tmp_path, tier):
    """As pid 1 of a container does, or a subreaper."""
    then = "kernel()\nprint(len(known), [pid for pid in known if os.path.exists(f'/proc/{pid}')])"
    assert in_a_process(tmp_path, tier, then) == ["sandbox.lost 42", "2 []"]


@both
def test_a_kernel_closes_where_nobody_reaps_the_orphans_of_its_zygote(tmp_path, tier):
    """Its parent adopts them and does not look."""
    assert in_a_process(
        tmp_path,
        tier,
        "pid = os.fork()\nif not pid:\n    kernel()\n    print('closed')\n    sys.exit()\nos.waitpid(pid, 0)",
    ) == ["sandbox.lost 42", "closed"]


@both
def test_a_layer_that_fails_in_the_child_is_named_and_nothing_runs(tmp_path, tier):
    async def body(sandbox: Sandbox):
        sandbox._filters = dict.fromkeys(sandbox._filters, b"notaBPF!")
        await sandbox._zygote.close()
        with pytest.raises(HostError) as refused:
            await sandbox.run("open('/tmp/ran', 'w')")
        return refused.value

    error = boxed(tmp_path, tier, body)
    assert error.code == "sandbox.unavailable"
    assert "seccomp" in error.message


@both
def test_an_oversize_frame_is_the_guests_fault(tmp_path, tier):
    async def body(sandbox: Sandbox):
        cell = await sandbox._cell(30.0, 256)
        code = "import os,time; os.write(3, b'\\xff' * 9); time.sleep(60)"
        cell.begin({"v": 1, "mode": "code", "language": "python", "code": code, "argv": [], "files": {}})
        try:
            with pytest.raises(GuestError):
                await cell.receive()
        finally:
            await cell.end(kill=True)

    boxed(tmp_path, tier, body)


def test_many_at_once_are_bounded_and_all_end(tmp_path):
    async def body(sandbox: Sandbox):
        results = await asyncio.gather(*(sandbox.run(f"{n} * 2") for n in range(20)))
        return [r.value for r in results]

    assert boxed(tmp_path, "full", body, sandboxes_max=3) == [str(n * 2) for n in range(20)]


def test_a_uid_is_one_sandboxs_until_it_is_given_back():
    first = reserve_uid(bytes)
    second = reserve_uid(bytes)
    assert second.uid == first.uid + 1
    first.release()
    third = reserve_uid(bytes)
    assert third.uid == first.uid
    for reserved in (second, third):
        reserved.release()


@pytest.mark.parametrize(
    ("uid_map", "first"),
    [
        ("0 0 4294967295", PREFERRED_FIRST),
        ("0 100000 65536", 65534 - RANGE),
        ("0 1000 1\n1 100000 65536", 65534 - RANGE),
        ("0 0 1000000", 1_000_000 - RANGE),
    ],
)
def test_uids_are_taken_from_what_is_mapped_here(uid_map, first):
    found = _first_of_range(uid_map)
    assert found == first


def test_a_namespace_without_ids_has_none_to_give():
    with pytest.raises(Exception, match="Run as an ordinary user"):
        _first_of_range("0 1000 1")
