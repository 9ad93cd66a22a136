"""Limits are totals: a guest that spreads what it takes over processes, files, descriptors or streams is bounded all the same, the reason
is named, and the next sandbox of the same kernel is unharmed.
"""

import asyncio
import os
import re
import resource
import sys
import textwrap
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from agent_kernel.sandbox import Result, Sandbox
from boxes import BOTH, boxed, processes_with

both = pytest.mark.parametrize("tier", BOTH)
MIB = 1 << 20

SPREAD = """
import os, sys, time
def spread(number, act):
    for n in range(number):
        if os.fork() == 0:
            try:
                act(n)
            finally:
                os._exit(0)
def hold():
    time.sleep(120)
"""


def run(folder: Path, tier: str, code: str, *, limits: dict | None = None, **options) -> Result:
    """And then a program of good manners, which must find everything as ever."""

    async def body(sandbox: Sandbox) -> Result:
        result = await sandbox.run(SPREAD + textwrap.dedent(code), **{"timeout_s": 60, **options})
        after = await sandbox.run(
            "open('f', 'w').write('x'); import subprocess; subprocess.check_output(['echo', '42'])"
        )
        assert (after.exit_code, after.value, after.stopped_by, [f.path for f in after.files]) == (
            0,
            "b'42\\n'",
            None,
            ["f"],
        )
        return result

    return boxed(folder, tier, body, **(limits or {}))


@both
def test_time_is_one_bound_for_whatever_a_call_leaves_running(tmp_path, tier):
    r = run(tmp_path, tier, "spread(8, lambda n: (os.setsid(), hold()))\nhold()", timeout_s=0.5)
    assert r.stopped_by == "timeout"
    assert r.usage.wall_s >= 0.5


@both
def test_memory_spread_over_processes(tmp_path, tier):
    """Each of the ten has a sixth of the limit."""
    r = run(
        tmp_path,
        tier,
        "spread(10, lambda n: (bytearray(os.urandom(4096) * (16 << 8)), hold())[0])\nhold()",
        memory_mb=96,
    )
    assert r.stopped_by == "memory"
    assert r.usage.peak_memory_bytes > 96 * MIB


@both
def test_memory_of_the_host_that_is_in_no_figure_of_a_process(tmp_path, tier):
    locks = """
        import fcntl, struct
        def hoard(n):
            file = open(f"f{n}", "w")
            for n in range(1 << 20):
                fcntl.fcntl(file, fcntl.F_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 2 * n, 1, 0))
        held = [os.pipe() for _ in range(8)]
        hoard(0)
    """
    assert run(tmp_path, tier, locks).stopped_by == "memory"


def test_connections_that_nobody_accepts_count_as_memory(tmp_path):
    """What was sent stays with the listener, while its sender has no descriptor any more."""
    backlog = """
        import socket
        listener = socket.socket(socket.AF_UNIX); listener.bind("s"); listener.listen(4096)
        for _ in range(2000):
            sender = socket.socket(socket.AF_UNIX); sender.setblocking(False)
            sender.connect("s")
            try:
                while True: sender.send(bytes(32768))
            except BlockingIOError: pass
            sender.close()
        hold()
    """
    assert run(tmp_path, "full", backlog, memory_mb=128).stopped_by == "memory"


def test_what_waits_in_tcp_counts_as_memory(tmp_path):
    """Its buffers grow to megabytes, few connections hold much, and not a byte of it is in a process."""
    hoard = """
        import socket
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        held = []
        for _ in range(50):
            held.append(socket.create_connection(listener.getsockname()))
            held[-1].setblocking(False)
        while True:
            for sender in held:
                try: sender.send(bytes(1 << 20))
                except BlockingIOError: pass
            time.sleep(0.001)
    """
    assert run(tmp_path, "full", hoard, memory_mb=64).stopped_by == "memory"


CPU = {
    "processes": "spread(4, lambda n: [None for _ in iter(int, 1)])\nhold()",
    "threads": "import threading\nfor _ in range(4): threading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()",
    "processes that nobody waits for": """
        import signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        def burn(n):
            while time.process_time() < 0.15: pass
        while True:
            spread(2, burn)
            try: os.wait()
            except ChildProcessError: pass
    """,
    "orphans": """
        def burn(n):
            while time.process_time() < 0.15: pass
        while True:
            spread(1, lambda n: spread(2, burn))
            os.wait()
            time.sleep(0.1)
    """,
}


@both
@pytest.mark.parametrize("kind", CPU)
def test_cpu_is_one_total_whoever_uses_it_and_however_short_it_lives(tmp_path, tier, kind):
    r = run(tmp_path, tier, CPU[kind], timeout_s=60, limits={"cpus_max": 1 / 60})
    assert r.stopped_by == "cpu"
    assert r.usage.cpu_s > 1


def test_a_call_may_use_several_cpus_as_long_as_it_may_run(tmp_path):
    r = run(tmp_path, "full", "spread(2, lambda n: [None for _ in iter(int, 1)])\nhold()", timeout_s=1)
    assert r.stopped_by == "timeout"


@both
@pytest.mark.parametrize("kind", ["processes", "threads", "threads of processes"])
def test_tasks_of_every_kind_are_one_total(tmp_path, tier, kind):
    """A program that ends by itself when the system refuses it one is not stopped; these wait."""
    code = {
        "processes": "spread(60, lambda n: hold())",
        "threads": "import threading\nfor _ in range(60): threading.Thread(target=hold, daemon=True).start()",
        "threads of processes": """
            import threading
            spread(6, lambda n: ([threading.Thread(target=hold, daemon=True).start() for _ in range(10)], hold()))
        """,
    }[kind]
    code = "try:\n" + textwrap.indent(textwrap.dedent(code), "    ") + "\nexcept (OSError, RuntimeError): pass\nhold()"
    assert run(tmp_path, tier, code, limits={"processes_max": 40}).stopped_by == "processes"


@both
def test_descriptors_are_bounded_for_each_process_and_so_their_sum(tmp_path, tier):
    code = """
        read, write = os.pipe()
        def hoard(n):
            held = []
            try:
                while True: held.append(os.dup(0))
            except OSError as error:
                os.write(write, b"%d %d\\n" % (len(held), error.errno))
        spread(10, hoard)
        os.close(write)
        said = [list(map(int, line.split())) for line in open(read)]
        (sum(count for count, _ in said), {errno for _, errno in said})
    """
    r = run(tmp_path, tier, code, limits={"descriptors_max": 64})
    assert r.exit_code == 0
    total, errnos = eval(r.value)
    assert errnos == {24}
    assert 10 * 40 < total <= 10 * 64


@both
def test_disk_spread_over_processes_and_files(tmp_path, tier):
    code = """
        def fill(n):
            for k in range(100): open(f"f{n}-{k}", "wb").write(bytes(1 << 18))
        try:
            spread(4, fill)
            hold()
        except OSError:
            hold()
    """
    assert run(tmp_path, tier, code, limits={"workspace_bytes_max": 16 * MIB}).stopped_by == "disk"


@both
def test_inodes_spread_over_folders_and_kinds(tmp_path, tier):
    code = """
        def litter(n):
            os.mkdir(f"d{n}")
            for k in range(400):
                (os.mkdir, os.mkfifo, lambda path: os.symlink("x", path))[k % 3](f"d{n}/{k}")
        spread(4, litter)
        hold()
    """
    assert run(tmp_path, tier, code, limits={"workspace_inodes_max": 1000}).stopped_by == "disk"


@both
def test_output_spread_over_processes_and_streams(tmp_path, tier):
    code = """
        spread(8, lambda n: [os.write(1 + n % 2, b"x" * 65536) for _ in range(1000)])
        hold()
    """
    r = run(tmp_path, tier, code, limits={"output_bytes_max": 4 * MIB})
    assert r.stopped_by == "output"
    assert len(r.stdout) + len(r.stderr) < 600_000


def test_a_gigabyte_of_output_takes_no_memory_of_ours(tmp_path):
    """Bounded while it is produced, not when it is there: here the total is allowed, and a gigabyte goes through."""

    async def body(sandbox: Sandbox) -> tuple[Result, int]:
        await sandbox.run("print('x' * 1000000)")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = await sandbox.run("import os\nfor _ in range(16384): os.write(1, b'x' * 65536)", timeout_s=120)
        return result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    result, more_kib = boxed(tmp_path, "full", body, output_bytes_max=2 << 30)
    assert result.exit_code == 0
    assert f"{(1 << 30) - 262144} bytes left out" in result.stdout
    assert more_kib < 16 << 10


@both
def test_output_is_text_that_does_nothing(tmp_path, tier):
    r = run(
        tmp_path,
        tier,
        r"os.write(1, b'a\0b\xff\xfe\x1b[2J\x1b]0;t\x07\r\xe2\x80\xaec\xc2\x9b1m\n'); os.write(2, b'\xf0\x9f\xa6\x80\x80')",
    )
    assert r.stdout == "a␀b\ufffd\ufffd␛[2J␛]0;t␇␍\ufffdc\ufffd1m\n"
    assert r.stderr == "🦀\ufffd"
    assert all(c.isprintable() or c == "\n" for c in r.stdout.replace("\ufffd", ""))


@both
def test_results_of_a_hostile_guest_hold_no_more_than_is_promised(tmp_path, tier):
    """Names, output and the last value are all as large as they can be."""
    code = """
        for n in range(3000): open("n" * 200 + str(n), "w").write("x")
        print("o" * 3_000_000); print("e" * 3_000_000, file=sys.stderr)
        "v" * 10_000_000
    """
    r = run(tmp_path, tier, code, limits={"collected_files_max": 10})
    assert len(r.value) <= 2000
    assert len(r.stdout) + len(r.stderr) < 600_000
    assert len([f for f in r.files if f.uri]) == 10
    assert len(r.files) <= 3000


def test_files_of_a_sandbox_that_is_long_gone_are_read_a_day_later(tmp_path):
    day_s = 24 * 3600.0

    async def body(sandbox: Sandbox):
        r = await sandbox.run("open('kept.txt', 'w').write('data')")
        clock = sandbox._store._ports.clock
        assert sandbox._limits.artifact_ttl_s >= day_s
        later = clock.now() + day_s
        object.__setattr__(
            sandbox._store._ports,
            "clock",
            type("Later", (), {"now": lambda _: later, "monotonic": clock.monotonic, "sleep": clock.sleep})(),
        )
        await sandbox.run("open('other.txt', 'w').write('data')")
        return await sandbox.read(uri=r.files[0].uri)

    assert boxed(tmp_path, "full", body).data == b"data"


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has groups only where an operator delegated one")
@both
def test_a_sandbox_that_was_parked_in_quiet_is_in_a_control_group_and_says_so(tmp_path, tier):
    """As root a machine without control groups fails this by name."""

    async def body(sandbox: Sandbox) -> None:
        counted, lacks = sandbox.group
        assert lacks == "", lacks
        await grouped(sandbox)
        held = asyncio.ensure_future(
            sandbox.run("import os; os.execv('/bin/sleep', ['sleep', '4321.0625'])", timeout_s=60)
        )
        while not processes_with("4321.0625"):
            await asyncio.sleep(0.01)
        [cell] = sandbox._cells
        assert counted in cell.layers
        [pid] = processes_with("4321.0625")
        groups = [line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
        assert any(re.search(rf"/agent-kernel-\w+/{cell.id}$", group) for group in groups)
        folders = cell.group.folders
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
        await sandbox.settled()
        while any(folder.exists() for folder in folders):
            await asyncio.sleep(0.01)

    boxed(tmp_path, tier, body)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has groups only where an operator delegated one")
@both
@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("memory", "held = bytearray(os.urandom(4096) * (200 << 8))\nhold()"),
        (
            "memory",
            "spread(6, lambda n: (bytearray(os.urandom(4096) * (60 << 8)), hold())[0])\nfor _ in range(6): os.wait()",
        ),
        ("cpu", CPU["processes that nobody waits for"].replace("0.15", "0.004")),
    ],
)
def test_in_a_control_group_the_system_counts_what_no_look_would_have_met(tmp_path, tier, reason, code, monkeypatch):
    """Here nobody looks before it has happened."""
    if reason == "memory":
        monkeypatch.setattr("agent_kernel.base.cell.WATCH_S", 50.0)

    async def body(sandbox: Sandbox) -> tuple[Result, str]:
        await grouped(sandbox)
        return await sandbox.run(
            SPREAD + textwrap.dedent(code), timeout_s=60, memory_mb=64 if reason == "memory" else 512
        ), sandbox.group[0]

    r, layer = boxed(tmp_path, tier, body, workspace_bytes_max=32 * MIB, cpus_max=1 / 30)
    assert layer in r.layers
    assert r.stopped_by == reason
    assert r.usage.wall_s < 45


async def grouped(sandbox: Sandbox) -> None:
    """Until all that are parked are in their groups."""
    while sandbox.parked < 4 or not all(cell.group for cell in sandbox._parked_cells()):
        await asyncio.sleep(0.01)


@both
def test_many_hostile_at_once_each_end_for_their_own_reason(tmp_path, tier):
    wanted = {
        "timeout": "hold()",
        "memory": "held = bytearray(os.urandom(4096) * (200 << 8))\nhold()",
        "processes": "try:\n    spread(200, lambda n: hold())\nexcept OSError:\n    hold()",
        "output": "while True: os.write(1, b'x' * 65536)",
        "disk": "try:\n    for n in range(9999): open(f'f{n}', 'wb').write(bytes(1 << 20))\nexcept OSError: hold()",
        "files": "f = open('f', 'wb')\nwhile True: f.write(bytes(1 << 20))",
        "killed": "os.write(3, b'\\xff' * 9)\nhold()",
    }

    async def body(sandbox: Sandbox) -> list[str | None]:
        results = await asyncio.gather(
            *(
                sandbox.run(
                    SPREAD + code,
                    timeout_s=4 if reason == "timeout" else 90,
                    memory_mb=128 if reason == "memory" else 512,
                )
                for reason, code in wanted.items()
            )
        )
        assert (await sandbox.run("6 * 7")).value == "42"
        return [r.stopped_by for r in results]

    limits = {"workspace_bytes_max": 32 * MIB, "file_bytes_max": 16 * MIB}
    assert boxed(tmp_path, tier, body, **limits) == list(wanted)
