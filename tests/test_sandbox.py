"""What a sandbox promises, asked from outside it wherever that can be, in both tiers; and that ordinary programs work in it."""

import asyncio
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from agent_kernel.base.errors import ArgumentError, Denied, HostError, LimitExceeded, NotFound
from agent_kernel.base.policy import Folder, Grants
from agent_kernel.sandbox import Result, Sandbox, probe
from boxes import BOTH, Opened, boxed, processes_with, run_code

both = pytest.mark.parametrize("tier", BOTH)
ROOT = os.geteuid() == 0


class Box:
    """One sandbox for many tests: a fresh child each time all the same."""

    def __init__(self, tier: str, runner: asyncio.Runner, sandbox: Sandbox) -> None:
        self.tier, self.runner, self.sandbox = tier, runner, sandbox

    def run(self, code: str, **options: Any) -> Result:
        return self.runner.run(self.sandbox.run(code, **options))


@pytest.fixture(scope="module", params=BOTH)
def box(request, tmp_path_factory):
    with asyncio.Runner() as runner:
        opened = Opened(tmp_path_factory.mktemp("box"), request.param)
        try:
            yield Box(request.param, runner, runner.run(opened.open()))
        finally:
            runner.run(opened.close())


def code(text: str) -> str:
    return textwrap.dedent(text)


# --- results


def test_python_gives_output_value_and_files(box, tmp_path):
    r = run_code(
        tmp_path,
        box.tier,
        "print('out')\nimport sys; print('err', file=sys.stderr)\nopen('a/b.txt', 'w').write('new')",
        files={"a/in.txt": "x"},
    )
    assert (r.exit_code, r.stdout, r.stderr, r.value, r.error, r.stopped_by) == (0, "out\n", "err\n", "3", None, None)
    assert [(f.path, f.size_bytes) for f in r.files] == [("a/b.txt", 3)]
    assert r.tier == box.tier
    assert r.usage.wall_s > 0
    assert r.usage.cpu_s > 0
    assert r.usage.peak_memory_bytes > 1 << 20


def test_an_exception_is_a_result_with_the_guests_own_lines(box):
    r = box.run("def f():\n    raise ValueError('bad \x1b[31m')\nf()")
    assert r.exit_code == 1
    assert r.error["type"] == "ValueError"
    assert "raise ValueError" in r.stderr
    assert "guest.py" not in r.stderr
    assert "\x1b" not in r.stderr + r.error["message"]


@pytest.mark.parametrize(
    ("text", "exit_code"),
    [
        ("import sys; sys.exit(7)", 7),
        ("import os; os._exit(3)", 3),
        ("import sys; sys.exit('no')", 1),
        ("def", 1),
        ("import os; os.abort()", 134),
    ],
)
def test_exit_codes_are_those_of_an_interpreter(box, text, exit_code):
    assert box.run(text).exit_code == exit_code


def test_bash_has_arguments_stdin_and_its_exit_status(box, tmp_path):
    r = run_code(
        tmp_path,
        box.tier,
        "cat; echo $1-$2; diff <(echo a) <(echo a); echo late >/dev/stderr; exit 4",
        language="bash",
        stdin="in\n",
        argv=["x", "y z"],
    )
    assert (r.exit_code, r.stdout, r.stderr) == (4, "in\nx-y z\n", "late\n")


def test_input_that_comes_back_unchanged_is_no_output(box):
    r = box.run("open('b','w').write('2')", files={"a": "1", "b": "1", "c": b"\xff\x00"})
    assert [f.path for f in r.files] == ["b"]


@both
def test_files_and_long_output_are_kept_under_their_uri(tmp_path, tier):
    async def body(sandbox: Sandbox):
        r = await sandbox.run("print('x' * 10000); open('ä b.txt', 'w').write('data')")
        return await sandbox.read(uri=r.files[0].uri), await sandbox.read(uri=r.stdout_uri, offset=9990, limit=20)

    file, tail = boxed(tmp_path, tier, body)
    assert file.data == b"data"
    assert (tail.data, tail.size_bytes) == (b"x" * 10 + b"\n", 10001)


def test_another_principal_has_no_such_uri(tmp_path):
    async def body(sandbox: Sandbox):
        r = await sandbox.run("open('a','w').write('1')", principal="one")
        with pytest.raises(NotFound):
            await sandbox.read(uri=r.files[0].uri, principal="two")
        return (await sandbox.read(uri=r.files[0].uri, principal="one")).data

    assert boxed(tmp_path, "full", body) == b"1"


def test_notes_arrive_while_the_code_runs(box):
    notes = []
    box.run("import kernel\nkernel.log('a', 1)\nkernel.progress(1, 2, 'half')", on_note=notes.append)
    assert notes == [{"log": "a 1"}, {"progress": [1, 2, "half"]}]


# --- what is refused before anything runs


@pytest.mark.parametrize(
    ("options", "kind", "what"),
    [
        ({"packages": ["numpy"]}, Denied, "packages.denied"),
        ({"allow_hosts": ["example.org"]}, Denied, "egress.denied"),
        ({"timeout_s": 1e9}, LimitExceeded, "limit.exceeded"),
        ({"timeout_s": 0}, LimitExceeded, "limit.exceeded"),
        ({"timeout_s": float("nan")}, LimitExceeded, "limit.exceeded"),
        ({"memory_mb": 10**6}, LimitExceeded, "limit.exceeded"),
        ({"language": "cobol"}, ArgumentError, "argument.invalid"),
        ({"files": {"../x": ""}}, ArgumentError, "path.outside"),
        ({"files": {"/etc/x": ""}}, ArgumentError, "path.outside"),
        ({"files": {"a\0b": ""}}, ArgumentError, "path.outside"),
        ({"files": {"a": "\ud800"}}, ArgumentError, "argument.invalid"),
        ({"stdin": "\ud800"}, ArgumentError, "argument.invalid"),
    ],
)
def test_arguments_can_only_narrow(tmp_path, options, kind, what):
    with pytest.raises(kind) as refused:
        run_code(tmp_path, "full", "print(1)", **options)
    assert refused.value.code == what


def test_a_tier_that_cannot_be_had_refuses_to_run_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr("agent_kernel.base.filter.compile_filter", _no_library)

    async def body(sandbox: Sandbox):
        assert sandbox.tier == "none"
        with pytest.raises(HostError) as refused:
            await sandbox.run("print(1)")
        return refused.value

    error = boxed(tmp_path, None, body)
    assert error.code == "sandbox.unavailable"
    assert "libseccomp2" in error.message


def _no_library(tier):
    raise HostError("sandbox.unavailable", "Install it: `apt-get install libseccomp2`")


# --- limits


@pytest.mark.parametrize("language", ["python", "bash"])
def test_time_is_limited(box, language):
    endless = {"python": "print('begun')\nwhile True: pass", "bash": "echo begun; while :; do :; done"}[language]
    r = box.run(endless, language=language, timeout_s=0.5)
    assert (r.stopped_by, r.exit_code, r.stdout) == ("timeout", None, "begun\n")


def test_memory_is_limited_over_all_processes(box):
    hog = code("""
        import os, time
        for _ in range(4):
            if os.fork() == 0:
                held = [b"x" * (1 << 20) for _ in range(60)]
                time.sleep(60)
        time.sleep(60)
    """)
    assert box.run(hog, memory_mb=128).stopped_by == "memory"


def test_shared_anonymous_memory_counts(box):
    hog = (
        "import mmap, time\nm = mmap.mmap(-1, 300 << 20)\nfor i in range(0, 300 << 20, 4096): m[i] = 1\ntime.sleep(60)"
    )
    assert box.run(hog, memory_mb=128).stopped_by == "memory"


@pytest.mark.parametrize("language", ["python", "bash"])
def test_a_fork_bomb_is_stopped(box, language):
    bomb = {
        "python": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "bash": ":(){ :|:& };:; sleep 60",
    }[language]
    r = box.run(bomb, language=language, timeout_s=60)
    assert r.stopped_by == "processes"


def test_a_gigabyte_of_output_is_stopped_and_bounded(box):
    r = box.run("print('head')\nfor _ in range(1024): print('x' * (1 << 20))")
    assert r.stopped_by == "output"
    assert r.stdout.startswith("head\n")
    assert "bytes left out" in r.stdout
    assert len(r.stdout) < 300_000


@both
def test_one_file_is_limited(tmp_path, tier):
    r = run_code(
        tmp_path,
        tier,
        "f = open('big','wb')\nfor _ in range(64): f.write(bytes(1 << 20))",
        limits={"file_bytes_max": 8 << 20},
    )
    assert r.stopped_by == "files"


@both
@pytest.mark.parametrize(
    "text",
    [
        "for n in range(64):\n    open(f'f{n}','wb').write(bytes(1 << 20))\nimport time; time.sleep(60)",
        "for n in range(5000):\n    open(f'f{n}','wb')\nimport time; time.sleep(60)",
        "import os\nos.chdir(os.environ['TMPDIR'])\nfor n in range(64):\n    open(f'f{n}','wb').write(bytes(1 << 20))\nimport time; time.sleep(60)",
        "import os\nheld = []\nfor n in range(64):\n    held.append(open('f','wb', 0)); os.unlink('f'); held[-1].write(bytes(1 << 20))\nimport time; time.sleep(60)",
    ],
)
def test_disk_and_inodes_are_limited(tmp_path, tier, text):
    ended = text.replace("import time; time.sleep(60)", "import time\ntime.sleep(60)")
    wrapped = "try:\n" + textwrap.indent(ended, "    ") + "\nexcept OSError:\n    import time\n    time.sleep(60)"
    r = run_code(
        tmp_path, tier, wrapped, limits={"workspace_bytes_max": 16 << 20, "workspace_inodes_max": 1000}, timeout_s=60
    )
    assert r.stopped_by == "disk"


def test_an_oversize_frame_ends_the_guest_and_not_the_kernel(box):
    r = box.run("import os, time\nos.write(3, b'\\xff' * 9)\ntime.sleep(60)", timeout_s=60)
    assert r.stopped_by == "killed"


@pytest.mark.parametrize("end", [b"[" * 100_000, b"{}", b'{"exit_code": "0"}', b'{"exit_code": true}', b"\xff\xfe"])
def test_a_forged_end_is_taken_for_no_claim_at_all(box, end):
    forged = f"import os, struct\nend = {end!r}\nos.write(3, struct.pack('<IBI', len(end), 10, 0) + end)\nimport time; time.sleep(60)"
    r = box.run(forged, timeout_s=60)
    assert (r.stopped_by, r.exit_code, r.value) == ("killed", None, None)


# --- nothing survives, nothing leaks


def test_no_process_outlives_its_result(box):
    daemon = code("""
        import os, signal, subprocess
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.execv("/bin/sleep", ["sleep", "7654.321"])
            os._exit(0)
        os.wait()
        subprocess.Popen(["/bin/sleep", "7654.321"], start_new_session=True)
        print("done")
    """)
    r = box.run(daemon)
    assert r.stdout == "done\n"
    box.runner.run(box.sandbox.settled())
    assert processes_with("7654.321") == []


@both
def test_nothing_is_left_after_many(tmp_path, tier):
    async def body(sandbox: Sandbox):
        await sandbox.run("1")
        await sandbox.settled()
        before = descriptors_of("self"), descriptors_of(sandbox._zygote.pid)
        await asyncio.gather(*(sandbox.run("open('a','w').write('1')") for _ in range(40)))
        await sandbox.settled()
        for _ in range(500):
            if not sandbox._places.scratch or not list(sandbox._places.scratch.iterdir()):
                break
            await asyncio.sleep(0.01)
        scratch = sandbox._places.scratch
        left = list(scratch.iterdir()) if scratch else []
        return before, (descriptors_of("self"), descriptors_of(sandbox._zygote.pid)), left

    before, after, left = boxed(tmp_path, tier, body, sandboxes_parked_max=0)
    assert after <= before
    assert left == []


def descriptors_of(pid: int | str) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@both
def test_a_cancelled_run_dies(tmp_path, tier):
    async def body(sandbox: Sandbox):
        task = asyncio.ensure_future(
            sandbox.run("import os; os.execv('/bin/sleep', ['sleep', '8765.4321'])", timeout_s=60)
        )
        while not processes_with("8765.4321"):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await sandbox.settled()

    boxed(tmp_path, tier, body)
    assert processes_with("8765.4321") == []


@both
def test_the_death_of_the_kernel_ends_its_sandboxes(tmp_path, tier):
    kernel = code(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from boxes import run_code
        run_code(Path({str(tmp_path)!r}), {tier!r}, "import os; print(flush=True); os.execv('/bin/sleep', ['sleep', '6543.21'])", timeout_s=600)
    """)
    process = subprocess.Popen([sys.executable, "-c", kernel])
    try:
        assert waited(lambda: processes_with("6543.21"))
    finally:
        process.kill()
        process.wait()
    assert waited(lambda: not processes_with("6543.21"))


@both
def test_a_dead_zygote_is_replaced(tmp_path, tier):
    async def body(sandbox: Sandbox):
        os.kill(sandbox._zygote.pid, 9)
        while sandbox._zygote.alive:
            await asyncio.sleep(0.01)
        return await sandbox.run("6 * 7")

    assert boxed(tmp_path, tier, body).value == "42"


def waited(condition) -> bool:
    for _ in range(1000):
        if condition():
            return True
        subprocess.run(["sleep", "0.02"], check=True)
    return False


# --- isolation, seen from outside


SPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")


@both
def test_a_guest_is_locked_as_its_layers_say(tmp_path, tier):
    async def body(sandbox: Sandbox):
        cell = await sandbox._cell(30.0, 256)
        try:
            guest = str(cell.guest)
            seen = {}
            for pid in (guest, str(cell.pid)):
                text = Path(f"/proc/{pid}/status").read_text()
                seen[pid] = dict(line.split(":\t", 1) for line in text.splitlines())
            spaces = {name: str(Path(f"/proc/{guest}/ns/{name}").readlink()) for name in SPACES} if ROOT else {}
            descriptors = Path(f"/proc/{guest}/fd")
            for _ in range(500):
                if not ROOT or len(list(descriptors.iterdir())) == 4:
                    break
                await asyncio.sleep(0.01)
            return (
                cell.layers,
                seen[guest],
                seen[str(cell.pid)],
                spaces,
                len(list(descriptors.iterdir())) if ROOT else 4,
            )
        finally:
            cell.abandon()

    layers, guest, init, spaces, descriptors = boxed(tmp_path, tier, body)
    assert guest["Seccomp"] == "2"
    assert guest["NoNewPrivs"] == "1"
    assert {guest[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
    assert "0" not in guest["Uid"].split() + init["Uid"].split()
    assert descriptors == 4
    assert "seccomp allow-list" in layers
    if tier == "full":
        assert guest["CapBnd"] == "0" * 16
        assert (init["Seccomp"], init["NoNewPrivs"]) == ("2", "1")
        assert not ROOT or set(init["Uid"].split()).isdisjoint(guest["Uid"].split())
        assert all(str(Path(f"/proc/self/ns/{name}").readlink()) != inode for name, inode in spaces.items())
    else:
        assert not any("namespace" in layer for layer in layers)


@pytest.mark.skipif(not ROOT, reason="uids are reserved as root only")
@both
def test_every_sandbox_has_a_uid_of_its_own_as_root(tmp_path, tier):
    async def body(sandbox: Sandbox):
        cells = [await sandbox._cell(30.0, 256) for _ in range(3)]
        try:
            return [uid_of(cell.guest) for cell in cells]
        finally:
            for cell in cells:
                cell.abandon()

    uids = boxed(tmp_path, tier, body)
    assert len(set(uids)) == 3
    assert 0 not in uids


def uid_of(pid: int) -> int:
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:")]
    return int(line.split()[1])


CONTAINED = {
    "canary file": "open({canary!r}).read()",
    "canary by list": "import os; os.listdir({folder!r})",
    "canary through a link": "import os; os.symlink({canary!r}, 'l'); open('l').read()",
    "canary through proc root": "open('/proc/self/root' + {canary!r}).read()",
    "canary through the init's root": "open('/proc/1/root' + {canary!r}).read()",
    "shadow": "open('/etc/shadow').read()",
    "environment of pid 1": "open('/proc/1/environ').read()",
    "own environ file": "open('/proc/self/environ').read()",
    "core pattern": "open('/proc/sys/kernel/core_pattern', 'w').write('x')",
    "oom score": "open('/proc/self/oom_score_adj', 'w').write('-1000')",
    "kernel symbols": "open('/proc/kallsyms').read(10)",
    "sys": "open('/sys/kernel/notes', 'rb').read(1)",
    "write to the runtime": "open('/usr/bin/planted', 'w')",
    "write to the interpreter": "import os, json; open(json.__file__, 'a')",
    "write beside the workspace": "open('/planted', 'w')",
    "tcp to a listener of the host": "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
    "tcp out": "import socket; s = socket.socket(); s.settimeout(2); s.connect(('192.0.2.1', 80))",
    "udp out": "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(b'x', ('192.0.2.1', 53))",
    "raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "packet socket": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "netlink socket": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "vsock": "import socket; socket.socket(40, socket.SOCK_STREAM)",
    "crypto socket": "import socket; socket.socket(38, socket.SOCK_SEQPACKET)",
    "unix socket of the host": "import socket; s = socket.socket(socket.AF_UNIX); s.connect({unix!r})",
    "abstract socket of the host": "import socket; s = socket.socket(socket.AF_UNIX); s.connect({abstract!r})",
    "datagram pair to an abstract socket": "import socket; a, b = socket.socketpair(type=socket.SOCK_DGRAM); a.sendto(b'x', {abstract_datagram!r})",
    "signal to a host process": "import os; os.kill({victim}, 0)",
    "signal to the init": "import os, signal; os.kill(os.getppid(), signal.SIGKILL); import time; time.sleep(0.2); assert os.getppid() in (0, 1) or True; os.kill(os.getppid(), 0); raise PermissionError if os.getppid() == 1 else SystemExit(0)",
    "priority of a host process": "import os; os.setpriority(os.PRIO_PROCESS, {victim}, 19)",
    "affinity of a host process": "import os; os.sched_setaffinity({victim}, {{0}})",
    "mode of a host file": "import os; os.chmod({canary!r}, 0o600)",
    "mode of a host file through a link": "import os; os.symlink({canary!r}, 'm'); os.chmod('m', 0o600)",
    "time of a host file": "import os; os.utime({canary!r})",
    "attribute names of a host file": "import os; os.listxattr({canary!r})",
    "watching a host folder": "libc('inotify_add_watch', ctypes.CDLL(None).inotify_init(), {folder!r}.encode(), 0xFFF)",
    "set-uid file": "import os; open('f', 'w'); os.chmod('f', 0o4755)",
    "set-uid at creation": "import os; os.open('g', os.O_CREAT | os.O_WRONLY, 0o4755)",
    "set-gid by fchmod": "import os; os.fchmod(os.open('h', os.O_CREAT | os.O_WRONLY), 0o2755)",
    "device": "import os, stat; os.mknod('d', 0o666 | stat.S_IFCHR, os.makedev(1, 1))",
    "chroot": "import os; os.chroot('.')",
    "setuid": "import os; os.setuid(0)",
    "chown": "import os; open('f', 'w'); os.chown('f', 0, 0)",
    "extended attribute": "import os; open('f', 'w'); os.setxattr('f', 'user.a', b'1')",
    "unshare": "libc('unshare', 0x10000000)",
    "clone of a user namespace": "libc('syscall', {clone}, 0x10000000 | 17, 0, 0, 0, 0)",
    "clone of a sibling": "libc('syscall', {clone}, 0x8000 | 17, 0, 0, 0, 0)",
    "mount": "libc('mount', b'none', b'.', b'tmpfs', 0, 0)",
    "ptrace": "libc('ptrace', 0, 0, 0, 0)",
    "memory of another": "libc('process_vm_readv', 1, 0, 0, 0, 0, 0)",
    "memory file": "import os; os.memfd_create('m')",
    "io_uring": "libc('syscall', 425, 1, 0)",
    "bpf": "libc('syscall', {bpf}, 0, 0, 0)",
    "keyring": "libc('syscall', {keyctl}, 0, -3, 0, 0, 0)",
    "userfaultfd": "libc('syscall', {userfaultfd}, 0)",
    "perf": "libc('syscall', {perf}, 0, 0, -1, -1, 0)",
    "openat2": "libc('syscall', 437, -100, b'.', 0, 0)",
    "handle": "libc('name_to_handle_at', -100, b'.', 0, 0, 0)",
    "shared memory of the host": "libc('shmget', 1, 4096, 0o1600)",
    "message queue": "libc('msgget', 1, 0o1600)",
    "terminal injection": "import fcntl; fcntl.ioctl(0, 0x5412, b'x')",
    "terminal injection by high bits": "libc('syscall', {ioctl}, 0, 0x100005412, b'x')",
    "signal owner of a descriptor": "import fcntl; fcntl.fcntl(3, fcntl.F_SETOWN, {victim})",
    "raise a limit": "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (10000, 10000))",
    "limits of another": "import resource; resource.prlimit({victim}, resource.RLIMIT_NOFILE)",
    "host name": "import socket; socket.sethostname('x')",
    "new filter": "libc('syscall', {seccomp}, 0, 0, 0)",
    "own subreaper": "libc('prctl', 36, 1, 0, 0, 0)",
    "dumpable again": "libc('prctl', 4, 1, 0, 0, 0)",
    "foreign syscall abi": "int80()",
}

PRELUDE = """
import ctypes, os, mmap
def libc(name, *arguments):
    found = getattr(ctypes.CDLL(None, use_errno=True), name)
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if found(*wide) < 0:
        raise OSError(ctypes.get_errno(), name)
def int80():
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("b814000000cd80c3"))
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""
NUMBERS = {"clone": 56, "bpf": 321, "keyctl": 250, "userfaultfd": 323, "perf": 298, "ioctl": 16, "seccomp": 317}


def attack(name: str, around: dict) -> str:
    """Tries each and prints `name ESCAPED` when the machine let it happen; the last line tells that all were tried."""
    body = CONTAINED[name].format(**around, **NUMBERS)
    return f"try:\n    {body}\n    print({name!r}, 'ESCAPED')\nexcept BaseException as error:\n    print({name!r}, 'refused', type(error).__name__, error)\n"


@pytest.fixture
def around(tmp_path):
    """Things of the host that must stay out of reach: a secret, listeners of every kind, a process."""
    canary = tmp_path / "canary.txt"
    canary.write_text("SECRET")
    for folder in (tmp_path, *tmp_path.parents):
        if ROOT and folder.stat().st_mode & 0o001 == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    canary.chmod(0o644)
    tcp = socket.create_server(("127.0.0.1", 0))
    unix, abstract, datagram = (
        socket.socket(socket.AF_UNIX),
        socket.socket(socket.AF_UNIX),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    )
    unix.bind(str(tmp_path / "s"))
    (tmp_path / "s").chmod(0o777)
    abstract.bind(f"\0canary-{os.getpid()}")
    datagram.bind(f"\0canary-datagram-{os.getpid()}")
    for listener in (unix, abstract):
        listener.listen()
    victim = subprocess.Popen(["sleep", "600"])
    yield {
        "canary": str(canary), "folder": str(tmp_path), "port": tcp.getsockname()[1], "unix": str(tmp_path / "s"), "victim": victim.pid,
        "abstract": f"\0canary-{os.getpid()}", "abstract_datagram": f"\0canary-datagram-{os.getpid()}",
    }  # fmt: skip
    datagram.setblocking(False)
    heard = True
    try:
        datagram.recv(10)
    except BlockingIOError:
        heard = False
    alive = victim.poll() is None
    victim.kill()
    victim.wait()
    for listener in (tcp, unix, abstract, datagram):
        listener.close()
    assert not heard
    assert alive


def test_the_attacks_are_contained(box, tmp_path, around):
    apart = ("foreign syscall abi", "signal to the init")  # these end the process that tries them
    tries = "".join(attack(name, around) for name in CONTAINED if name not in apart)
    r = box.run(PRELUDE + tries + "print('all tried')", timeout_s=60)
    assert "ESCAPED" not in r.stdout, [line for line in r.stdout.splitlines() if "ESCAPED" in line]
    assert r.stdout.endswith("all tried\n")
    assert "SECRET" not in r.stdout + r.stderr
    assert not list(tmp_path.rglob("planted"))


def test_the_attacks_are_real(tmp_path, around):
    """Outside a sandbox most of them work: an attack that cannot succeed anywhere proves nothing."""
    able = ["canary file", "canary through a link", "canary through proc root", "own environ file", "tcp to a listener of the host",
            "unix socket of the host", "abstract socket of the host", "signal to a host process", "set-uid file", "set-uid at creation",
            "set-gid by fchmod", "memory file", "netlink socket", "limits of another", "own subreaper", "mode of a host file",
            "mode of a host file through a link", "time of a host file", "attribute names of a host file", "watching a host folder",
            "affinity of a host process", "priority of a host process"]  # fmt: skip
    tries = "".join(attack(name, around) for name in able)
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + tries], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert [line.removesuffix(" ESCAPED") for line in done.stdout.splitlines() if line.endswith("ESCAPED")] == able


def test_another_architectures_calls_kill(box):
    r = box.run(PRELUDE + "int80()\nprint('alive')")
    assert r.exit_code == 128 + 31
    assert "alive" not in r.stdout


def test_the_init_cannot_be_killed_from_inside(box, tmp_path):
    r = run_code(
        tmp_path,
        box.tier,
        "import os, signal\ntry: os.kill(os.getppid() or 1, signal.SIGKILL)\nexcept OSError: pass\nprint('still here')",
    )
    assert (r.exit_code, r.stdout, r.stopped_by) == (0, "still here\n", None)


@both
def test_two_sandboxes_do_not_see_each_other(tmp_path, tier):
    async def body(sandbox: Sandbox):
        cell = await sandbox._cell(30.0, 256)
        try:
            return await sandbox.run(f"import os\nos.kill({cell.guest}, 9)")
        finally:
            assert cell.alive
            cell.abandon()

    r = boxed(tmp_path, tier, body)
    assert r.error["type"] in ("ProcessLookupError", "PermissionError")


def test_the_environment_holds_nothing_of_ours(box, tmp_path, monkeypatch):
    monkeypatch.setenv("API_KEY", "SECRET-KEY")
    r = box.run("env; tr '\\0' '\\n' < /proc/self/environ; tr '\\0' '\\n' < /proc/1/environ", language="bash")
    assert "SECRET-KEY" not in r.stdout
    names = {line.split("=")[0] for line in r.stdout.splitlines()}
    assert names <= {"PATH", "HOME", "TMPDIR", "LANG", "TZ", "WORKSPACE", "PWD", "SHLVL", "_", "OLDPWD"}


def test_links_and_pipes_are_not_collected(box, around):
    planted = code(f"""
        import os
        os.symlink({around["canary"]!r}, "link.txt")
        os.symlink({around["folder"]!r}, "folder")
        os.mkfifo("fifo")
        os.mkdir("d"); os.symlink("..", "d/up")
        open("real.txt", "w").write("1"); os.link("real.txt", "second.txt")
        with open("sparse", "wb") as f: f.truncate(200 << 20)
        open("fine.txt", "w").write("2")
        open("new\\nline\\x1b.txt", "w").write("3")
    """)
    r = box.run(planted)
    assert [(f.path, f.uri is not None) for f in r.files] == [
        ("fine.txt", True),
        ("new\nline␛.txt", True),
        ("sparse", False),
    ]


@both
def test_a_shared_folder_is_seen_read_only_at_its_own_path(tmp_path, tier, around):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "data.csv").write_text("1,2")
    (shared / "data.csv").chmod(0o644)
    shared.chmod(0o755)

    async def body(sandbox: Sandbox):
        path = str(shared / "data.csv")
        return await sandbox.run(f"print(open({path!r}).read())\nopen({path!r}, 'a')")

    r = boxed(tmp_path, tier, body, shared=(shared,))
    assert r.stdout == "1,2\n"
    assert r.error["type"] in ("PermissionError", "OSError")
    assert (shared / "data.csv").read_text() == "1,2"


@both
def test_a_call_sees_the_folders_of_its_own_caller_only(tmp_path, tier, around):
    paths = {}
    for name in ("ada", "bob"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "note.txt").write_text(name)
        (tmp_path / name / "note.txt").chmod(0o644)
        (tmp_path / name).chmod(0o755)
        paths[name] = str(tmp_path / name / "note.txt")

    async def body(sandbox: Sandbox):
        code = f"for path in {list(paths.values())!r}:\n try: print(open(path).read())\n except OSError as e: print(type(e).__name__)"
        seen = []
        for _ in range(5):  # from the fourth on children are parked for each of them
            for name in ("ada", "bob"):
                r = await sandbox.run(code, grants=Grants(folders=(Folder(tmp_path / name),)))
                seen.append(r.stdout.split())
            seen.append((await sandbox.run(code)).stdout.split())
        return seen

    hidden = "FileNotFoundError" if tier == "full" else "PermissionError"
    assert boxed(tmp_path, tier, body) == [["ada", hidden], [hidden, "bob"], [hidden, hidden]] * 5


def test_a_shared_folder_that_holds_the_state_is_refused(tmp_path):
    async def body(sandbox: Sandbox):
        return await sandbox.run("1")

    with pytest.raises(HostError) as refused:
        boxed(tmp_path, "full", body, shared=(tmp_path,))
    assert refused.value.code == "config.invalid"


def test_a_skill_is_seen_read_only(box, tmp_path):
    skill = tmp_path / "skill"
    (skill / "scripts").mkdir(parents=True)
    (skill / "scripts" / "a.py").write_text("print('ran', __import__('sys').argv[1:])")
    r = run_code(
        tmp_path,
        box.tier,
        'cd "$SKILL"; python3 scripts/a.py x; touch new; [ -e /skill ] && echo fixed',
        language="bash",
        skill=skill,
    )
    assert r.stdout.splitlines()[0] == "ran ['x']"
    assert "new" in r.stderr
    assert ("fixed" in r.stdout) == (box.tier == "full")


# --- ordinary programs

BENIGN = {
    "subprocess": "import subprocess, sys; assert subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True, check=True).stdout == b'1\\n'",
    "tempfile": "import tempfile; f = tempfile.NamedTemporaryFile(); f.write(b'x'); tempfile.mkdtemp()",
    "sqlite": "import sqlite3; d = sqlite3.connect('a.db'); d.execute('PRAGMA journal_mode=WAL'); d.execute('CREATE TABLE t(a)'); d.commit()",
    "asyncio": "import asyncio\nasync def f():\n    p = await asyncio.create_subprocess_exec('echo', 'x', stdout=-1)\n    assert (await p.communicate())[0] == b'x\\n'\nasyncio.run(f())",
    "threads": "import threading, concurrent.futures as c\nassert sum(c.ThreadPoolExecutor(16).map(lambda n: n, range(100))) == 4950",
    "fork": "import os\nif os.fork() == 0: os._exit(5)\nassert os.waitstatus_to_exitcode(os.wait()[1]) == 5",
    "csv and json": "import csv, json, decimal, statistics\njson.dump({'a': 1}, open('a.json', 'w'))",
    "archives": "import zipfile, tarfile, gzip\nopen('a','w').write('x')\nzipfile.ZipFile('z.zip', 'w').write('a')\ntarfile.open('t.tgz', 'w:gz').add('a')",
    "shutil": "import shutil, os\nos.makedirs('a/b')\nopen('a/b/c', 'w').write('1')\nshutil.copytree('a', 'd')\nshutil.move('d', 'e')\nshutil.rmtree('e')",
    "module beside": "open('mine.py', 'w').write('x = 3')\nimport mine\nassert mine.x == 3",
    "dates": "import datetime, zoneinfo, time, locale\ndatetime.datetime.now(); time.localtime(); zoneinfo.ZoneInfo('Europe/Paris')",
    "ids": "import uuid, random, secrets, hashlib\nuuid.uuid4(); random.random(); secrets.token_hex(); hashlib.sha256(b'x')",
    "ctypes": "import ctypes; assert ctypes.CDLL(None).getpid() > 0",
    "signals": "import signal, os\nheard = []\nsignal.signal(signal.SIGUSR1, lambda *a: heard.append(1))\nos.kill(os.getpid(), signal.SIGUSR1)\nassert heard",
    "mmap": "import mmap\nm = mmap.mmap(-1, 1 << 20)\nm[0] = 1\nopen('f','wb').write(bytes(4096))\nf = open('f','r+b')\nmmap.mmap(f.fileno(), 0)[0] = 1",
    "who": "import os, getpass, platform\nos.getuid(); os.cpu_count(); platform.platform()",
    "at exit": "import atexit; atexit.register(print, 'bye')",
    "pickle across processes": "import subprocess, sys, pickle\np = subprocess.run([sys.executable, '-c', 'import pickle,sys; pickle.dump(1, sys.stdout.buffer)'], stdout=-1)\nassert pickle.loads(p.stdout) == 1",
    "modes and times": "import os, shutil\nopen('a','w')\nos.chmod('a', 0o750)\nshutil.copy2('a', 'b')\nassert os.stat('b').st_mode & 0o777 == 0o750\nos.utime('b', (1, 2))\nassert os.stat('b').st_mtime == 2\nf = open('b')\nos.fchmod(f.fileno(), 0o700)\nassert os.stat('b').st_mode & 0o777 == 0o700",
    "isatty": "import os, sys\nassert not sys.stdin.isatty() and not os.isatty(1)",
    "socketpair": "import socket\na, b = socket.socketpair()\na.send(b'x'); assert b.recv(1) == b'x'",
    "file locks": "import fcntl\nf = open('l', 'w')\nfcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(f, fcntl.LOCK_UN)",
    "sparse and truncate": "f = open('s', 'w+b'); f.truncate(1000); f.seek(0); import os; os.posix_fallocate(f.fileno(), 0, 4096)",
}
BENIGN_FULL_ONLY = {
    "loopback": "import socket, threading\ns = socket.create_server(('127.0.0.1', 0))\nthreading.Thread(target=lambda: s.accept()[0].send(b'x')).start()\nassert socket.create_connection(s.getsockname()).recv(1) == b'x'",
    "own unix socket": "import socket\ns = socket.socket(socket.AF_UNIX); s.bind('sock'); s.listen()\nc = socket.socket(socket.AF_UNIX); c.connect('sock')",
    "multiprocessing pool": "import multiprocessing\ndef f(n): return n * n\nwith multiprocessing.Pool(2) as p: assert p.map(f, range(4)) == [0, 1, 4, 9]",
    "localhost by name": "import socket; assert socket.gethostbyname('localhost') == '127.0.0.1'",
    "user name": "import getpass, os, pwd; assert pwd.getpwuid(os.getuid()).pw_dir == '/workspace'",
}


@pytest.mark.parametrize("name", BENIGN)
def test_ordinary_python_works(box, name):
    r = box.run(BENIGN[name])
    assert (r.exit_code, r.stderr) == (0, "")


@pytest.mark.parametrize("name", BENIGN_FULL_ONLY)
def test_ordinary_python_that_needs_its_own_machine_works_in_full(tmp_path, name):
    r = run_code(tmp_path, "full", BENIGN_FULL_ONLY[name])
    assert (r.exit_code, r.stderr) == (0, "")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("printf 'b\\na\\n' | sort | uniq -c | awk '{print $2}'", "a\nb\n"),
        ("mkdir d && cd d && echo x > f && tar czf ../t.tgz . && cd .. && tar tzf t.tgz | grep f", "./f\n"),
        ("for i in 1 2 3; do echo $i & done; wait; true", None),
        ("trap 'echo caught' TERM; kill -TERM $$; echo on", "caught\non\n"),
        ("x=$(mktemp); echo y > $x; cat $x; rm $x", "y\n"),
        ("cat <<E | tee copy | wc -l\na\nb\nE", "2\n"),
        ("mkfifo p; (echo through > p &) ; cat p", "through\n"),
        ("cp -p /usr/bin/env e && ./e -i A=1 ./e", "A=1\n"),
        ("find . -name x; sed -n 1p /etc/ld.so.cache >/dev/null; date +%Y >/dev/null; python3 -c 'print(5)'", "5\n"),
    ],
)
def test_ordinary_shell_works(box, script, said):
    r = box.run(script, language="bash")
    assert (r.exit_code, r.stderr) == (0, "")
    assert said is None or r.stdout == said


# --- the host


def test_the_probe_names_each_layer_and_the_tier():
    report = probe()
    assert report.tier == "full"
    assert {layer.name for layer in report.layers if layer.works} >= {
        "user namespace",
        "landlock",
        "seccomp",
        "private root",
    }
    assert "seccomp allow-list" in report.applied
    assert report.missing == ()


FRAME = """
import json, os, struct
def frame(kind, payload):
    left = struct.pack("<IBI", len(payload), kind, 0) + payload
    while left:
        left = left[os.write(3, left):]
"""


def test_a_guest_that_floods_the_channel_holds_up_nobody(tmp_path):
    """Every read finds more at once, so without a turn for the others this loop would hear nothing else until the guest ends."""
    flood = FRAME + "for _ in range(200):\n    os.write(3, struct.pack('<IBI', 0, 8, 0) * 5000)"

    async def body(sandbox):
        running = asyncio.create_task(sandbox.run(flood))
        while not sandbox._cells:
            await asyncio.sleep(0)
        (cell,) = sandbox._cells
        turns, heard = 0, cell.output_bytes
        while not running.done():
            await asyncio.sleep(0)
            turns, heard = turns + (cell.output_bytes != heard), cell.output_bytes
        return turns, await running

    turns, r = boxed(tmp_path, "full", body)
    assert r.exit_code == 0
    assert turns >= 20, "reads between two turns of somebody else"


def test_notes_count_as_output(tmp_path):
    flood = FRAME + "while True:\n    os.write(3, struct.pack('<IBI', 0, 8, 0) * 5000)"
    r = run_code(tmp_path, "full", flood, limits={"output_bytes_max": 1 << 20})
    assert r.stopped_by == "output"


def test_a_frame_that_one_call_cannot_send_ends_it(box):
    r = box.run(FRAME + "frame(2, b'')\nimport time; time.sleep(60)")
    assert (r.stopped_by, r.exit_code) == ("killed", None)


def test_a_claim_is_cut_to_the_fields_and_sizes_that_are_promised(box):
    said = "{'exit_code': 0, 'value': 'v' * 9999, 'error': {'type': 't' * 9999, 'message': ['m' * 9999], 'traceback': 'x' * 99999, 'more': 1}}"
    r = box.run(FRAME + f"frame(10, json.dumps({said}).encode())\nimport time; time.sleep(60)")
    assert len(r.value) == 2000
    assert {name: len(text) for name, text in r.error.items()} == {"type": 200, "message": 2000, "traceback": 16_000}


def test_a_note_that_no_client_could_read_is_left_out(box):
    notes = []
    box.run("import kernel\nfor n in (float('nan'), 1e999, 10**400, 1):\n    kernel.progress(n)", on_note=notes.append)
    assert notes == [{"progress": [1, None, ""]}]


def test_files_whose_names_are_no_text_are_collected_past_every_limit(box):
    """Their names become the same one; what else is known of them has no order."""
    r = box.run("for n in range(300):\n    open(bytes([248 + n % 8, 248 + n // 8 % 8, 248 + n // 64]), 'w').write('x')")
    assert r.exit_code == 0
    assert len(r.files) == 300
    assert {f.path for f in r.files} == {"???"}


def test_what_sockets_and_pipes_hold_counts_as_memory(box):
    """It is the host's memory, and in no figure of any process; without a bound a few processes take gigabytes."""
    hoard = """
        import os, socket, time
        for _ in range(3):
            if os.fork() == 0:
                break
        held = []
        for _ in range(100):
            for end in (pair := socket.socketpair()):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
                end.setblocking(False)
                try:
                    while True:
                        end.send(bytes(65536))
                except BlockingIOError:
                    held.append(pair)
        time.sleep(60)
        """
    r = box.run(code(hoard), memory_mb=128)
    assert r.stopped_by == "memory"


def test_a_socket_keeps_its_buffer_and_other_options_work(box):
    r = box.run(
        code(
            """
            import socket
            a, b = socket.socketpair()
            before = a.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
            a.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            a.settimeout(5)
            [before == a.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), a.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)]
            """
        )
    )
    assert r.value == "[True, 1]", r.stderr


def test_what_was_given_and_cannot_be_written_is_said(tmp_path):
    files = {f"f{n}": "x" for n in range(30)}
    r = run_code(tmp_path, "full", "print(1)", files=files, limits={"workspace_inodes_max": 16})
    assert r.stdout == ""
    assert "What was given cannot be written: [Errno 28]" in r.stderr
