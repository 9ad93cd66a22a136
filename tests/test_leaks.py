"""Nothing is left: not of a thousand sandboxes, and not of a kernel that was killed with sandboxes parked and at work.

Looked at from outside: processes, mounts, namespaces, control groups, folders in the temporary one, reserved uids, and the descriptors and
memory of the two processes that live on.
"""

import asyncio
import gc
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from agent_kernel.base.pool import CELL
from agent_kernel.sandbox import Sandbox
from boxes import BOTH, boxed, processes_with

ROOT = os.geteuid() == 0
both = pytest.mark.parametrize("tier", BOTH)
MIB = 1 << 20
MARK = f"{os.getpid()}.0625"
"""Of processes that guests become; those that stay what they were show the folder of the cell's code."""


class Left(NamedTuple):
    """What there is now that sandboxes could have left."""

    processes: frozenset[str]
    mounts: frozenset[str]
    groups: frozenset[str]
    folders: frozenset[str]
    uids: frozenset[str]

    def beyond(self, before: "Left") -> dict[str, frozenset[str]]:
        both = zip(self._fields, self, before, strict=True)
        return {name: now - then for name, now, then in both if now - then}


def left() -> Left:
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    hierarchies = [Path(line.split()[4]) for line in mounts if " - cgroup" in line]
    return Left(
        frozenset(map(str, processes_with(str(CELL)) + processes_with(MARK))),
        frozenset(line.split()[4] for line in mounts),
        frozenset(group for top in hierarchies for group in groups_below(top)),
        frozenset(path.name for path in Path(tempfile.gettempdir()).glob("agent-kernel-[sp]*")),
        frozenset(re.findall(r"@agent-kernel-uid-\d+", Path("/proc/net/unix").read_text())),
    )


def groups_below(top: Path) -> list[str]:
    """os.walk, since others come and go meanwhile."""
    found = (Path(folder, name) for folder, names, _ in os.walk(top) for name in names)
    return [str(path) for path in found if path.name.startswith("agent-kernel-")]


def network_namespaces() -> int:
    """Of the whole machine, those of the dead too: they are torn down behind their backs."""
    [line] = [line for line in Path("/proc/slabinfo").read_text().splitlines() if line.startswith("net_namespace ")]
    return int(line.split()[1])


def becomes(condition: Callable[[], bool], seconds: float = 60) -> bool:
    for _ in range(int(seconds / 0.05)):
        if condition():
            return True
        subprocess.run(["sleep", "0.05"], check=True)
    return condition()


class Size(NamedTuple):
    descriptors: int
    own_bytes: int
    """Memory shared with children counts in parts, so that those who are parked take nothing away from what it is."""


def size(pid: int) -> Size:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = sum(
        int(number)
        for number in re.findall(r"^(?:Private_Clean|Private_Dirty|Shared_Dirty): +(\d+) kB", rollup, re.MULTILINE)
    )
    return Size(len(list(Path(f"/proc/{pid}/fd").iterdir())), kib << 10)


KINDS = [
    {"code": "open('a', 'w').write('1'); print('out')"},
    {"code": "echo out; (sleep MARK &) ; touch b", "language": "bash"},
    {"code": "import os\nfor _ in range(3):\n    if os.fork() == 0:\n        os.setsid(); os.execv('/bin/sleep', ['sleep', 'MARK'])"},
    {"code": "raise ValueError"},
    {"code": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"},
    {"code": "import tempfile, threading\nkept = [tempfile.mkstemp() for _ in range(20)]\nthreading.Thread(target=print).start()"},
    {"code": "import os, time; os.write(3, b'garbage that is no frame at all'); time.sleep(60)"},
    {"code": "import time; time.sleep(60)", "timeout_s": 0.05},
    {"code": "held = bytearray(b'x' * (100 << 20))\nimport time; time.sleep(60)", "memory_mb": 64},
    {"code": "import os\nwhile True: os.fork()", "timeout_s": 2},
]  # fmt: skip


async def many(sandbox: Sandbox, number: int) -> None:
    """Eight at once; of a hundred, forty are of every kind in turn, hostile ones among them, and sixty are ordinary."""
    wanted = iter(range(number))

    async def worker() -> None:
        for n in wanted:
            kind = KINDS[n % len(KINDS) if n % 100 < 40 else n % 2]
            await sandbox.run(**{**kind, "code": kind["code"].replace("MARK", MARK)})

    await asyncio.gather(*(worker() for _ in range(8)))


@both
@pytest.mark.parametrize("number", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_nothing_is_left_of_many_sandboxes_and_nobody_has_grown(tmp_path, tier, number):
    before = left()
    networks = network_namespaces() if ROOT else 0

    async def body(sandbox: Sandbox) -> tuple[list[Size], list[Size]]:
        pids = (os.getpid(), sandbox._zygote.pid)

        async def rested() -> list[Size]:
            """When all are reaped and as many are parked as there were."""
            await sandbox.settled()
            while sandbox.parked < 4 or len(sandbox._cells):
                await asyncio.sleep(0.01)
            assert not processes_with(MARK)
            gc.collect()
            return [size(pid) for pid in pids]

        await many(sandbox, 60)
        first = await rested()
        await many(sandbox, number)
        last = await rested()
        assert sandbox._zygote.pid == pids[1], "the same zygote was there all the time"
        return first, last

    limits = {"sandboxes_parked_min": 4, "sandboxes_parked_max": 4}
    (ours, zygotes), (ours_now, zygotes_now) = boxed(tmp_path, tier, body, patience_s=120 + number, **limits)
    assert becomes(lambda: not left().beyond(before)), left().beyond(before)
    assert (ours_now.descriptors, zygotes_now.descriptors) <= (ours.descriptors, zygotes.descriptors)
    assert ours_now.own_bytes - ours.own_bytes < 12 * MIB
    assert zygotes_now.own_bytes - zygotes.own_bytes < 1 * MIB
    if ROOT:  # a tenth of the machine's own coming and going is allowed for
        assert becomes(lambda: network_namespaces() <= networks + 16)


KILLED = """
import asyncio, sys
from pathlib import Path
from boxes import Opened

async def main():
    opened = Opened(Path(sys.argv[1]), sys.argv[2])
    sandbox = await opened.open()
    for code, language in (
        ("import os; os.execv('/bin/sleep', ['sleep', MARK])", "python"),
        ("import os\\nif os.fork() == 0: os.setsid()\\nos.fork()\\nos.execv('/bin/sleep', ['sleep', MARK])", "python"),
        ("trap '' TERM HUP INT; (setsid sleep $0 &); while :; do sleep $0; done", "bash"),
        ("open('left', 'w').write('x' * 1000000)\\nimport os; os.execv('/bin/sleep', ['sleep', MARK])", "python"),
    ):
        code = code.replace("MARK", repr(sys.argv[3])).replace("$0", sys.argv[3])
        opened.scheduler.spawn(sandbox.run(code, language=language, timeout_s=600), "held")
    while sandbox.parked < 4:
        await asyncio.sleep(0.01)
    print(sandbox._zygote.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@both
@pytest.mark.parametrize("first", ["kernel", "zygote"])
def test_nothing_is_left_of_a_kernel_that_was_killed(tmp_path, tier, first):
    """Its processes end by themselves; what is left in folders and groups the next kernel removes, whatever its state folder is."""
    before = left()
    networks = network_namespaces() if ROOT else 0
    kernel = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed"), tier, MARK],
        stdout=-1, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    try:
        zygote = int(kernel.stdout.readline())
        assert becomes(lambda: len(processes_with(MARK)) >= 9), processes_with(MARK)
        if first == "zygote":
            os.kill(zygote, 9)
    finally:
        kernel.kill()
        kernel.communicate()
    assert becomes(lambda: not {"processes", "uids", "mounts"} & set(left().beyond(before))), left().beyond(before)

    async def body(sandbox: Sandbox) -> str | None:
        return (await sandbox.run("6 * 7")).value

    assert boxed(tmp_path / "another", tier, body) == "42"
    assert becomes(lambda: not left().beyond(before)), left().beyond(before)
    if ROOT:
        assert becomes(lambda: network_namespaces() <= networks + 16)
