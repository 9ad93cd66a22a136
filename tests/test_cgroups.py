"""base/cgroups.py against this machine's own hierarchies, and the finding of a place against the shapes that other machines have."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from agent_kernel.base.cgroups import PREFIX, Counted, Group, Groups, Most, Unavailable, _places, _Tree

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="an ordinary user has groups only where an operator delegated one")
PLENTY = Most(256 << 20, 64)


@pytest.fixture
def groups():
    """As root a machine without any cgroup fails these tests by name."""
    found = Groups.open(os.urandom)
    yield found
    assert gone(found.close), "groups are left"


class Program:
    """A Python process that begins when it is told to, so that it is in its group before it does anything."""

    def __init__(self, code: str) -> None:
        held = "import sys; sys.stdin.readline()\n" + textwrap.dedent(code)
        self.process = subprocess.Popen([sys.executable, "-I", "-S", "-c", held], stdin=-1, stdout=-1, text=True)

    def run(self, group: Group) -> str:
        group.add(self.process.pid)
        return self.process.communicate("go\n", timeout=60)[0]

    def begin(self, group: Group) -> str:
        """Until its first line."""
        group.add(self.process.pid)
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def end(self) -> int:
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(60)


def gone(condition) -> bool:
    for _ in range(500):
        if condition():
            return True
        subprocess.run(["sleep", "0.02"], check=True)
    return False


@as_root
def test_memory_is_one_total_over_all_processes(groups):
    """No process of the four comes near the limit by itself."""
    group = groups.make("sbx_memory", Most(64 << 20, 64))
    program = Program("""
        import os
        for _ in range(4):
            if os.fork() == 0:
                read, write = os.pipe()
                held = bytearray(os.urandom(4096) * (30 << 8))
                os.read(read, 1)
        print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
        os.read(0, 1)
    """)
    program.begin(group)
    counted = group.count()
    group.kill()
    program.end()
    assert counted.out_of_memory
    assert counted.peak_bytes <= 64 << 20
    groups.retire(group)


@as_root
def test_files_in_memory_count_as_memory(groups, tmp_path):
    group = groups.make("sbx_shared", Most(48 << 20, 64))
    hoard = Program("""
        import mmap, os
        if os.fork() == 0:
            held = mmap.mmap(-1, 100 << 20)
            held[:] = bytes(100 << 20)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.wait()[1]))
    """)
    hoard.run(group)
    assert group.count().out_of_memory
    groups.retire(group)


@as_root
def test_a_limit_may_be_raised_and_lowered_while_it_runs(groups):
    group = groups.make("sbx_moved", Most(32 << 20, 8))
    group.limit(Most(512 << 20, 64))
    program = Program("held = bytes(bytearray(b'x') * (100 << 20)); print('held')")
    assert program.run(group) == "held\n"
    group.limit(Most(16 << 20, 4))
    assert not group.count().out_of_memory
    groups.retire(group)


@as_root
def test_tasks_are_one_total_and_a_refusal_is_seen(groups):
    group = groups.make("sbx_tasks", Most(256 << 20, 10))
    program = Program("""
        import os, time
        children = 0
        try:
            for _ in range(50):
                if os.fork() == 0:
                    time.sleep(60)
                children += 1
        except BlockingIOError:
            print(children, flush=True)
        time.sleep(60)
    """)
    said = program.begin(group)
    counted = group.count()
    group.kill()
    program.end()
    assert said == "9\n"
    assert counted.too_many_tasks
    groups.retire(group)


@as_root
def test_cpu_of_processes_that_nobody_waited_for_is_counted(groups):
    """Their times reach no parent: the process that starts them ignores SIGCHLD."""
    group = groups.make("sbx_cpu", PLENTY)
    program = Program("""
        import os, signal, time
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for _ in range(4):
            if os.fork() == 0:
                while time.process_time() < 0.1: pass
                os._exit(0)
        try:
            os.wait()
        except ChildProcessError:
            print(time.process_time() + sum(os.times()[2:4]))
    """)
    known = float(program.run(group))
    counted = group.count().cpu_s
    assert counted >= known + 0.3
    groups.retire(group)


@as_root
def test_a_kill_reaches_a_fork_bomb(groups):
    group = groups.make("sbx_bomb", Most(256 << 20, 40))
    program = Program("""
        import os
        print("begun", flush=True)
        os.setsid()
        while True:
            try: os.fork()
            except OSError: pass
    """)
    assert program.begin(group) == "begun\n"
    group.kill()
    assert program.end() == -signal.SIGKILL
    assert gone(group.remove)


@as_root
def test_a_kill_without_the_systems_help_reaches_everything(groups):
    """As where the kernel is older than cgroup.kill, or has v1 only."""
    group = groups.make("sbx_v1", Most(256 << 20, 40))
    alone = Group([tree._replace(totals=tree.totals - {"kill"}) for tree in group._trees])
    program = Program("""
        import os, time
        print("begun", flush=True)
        for _ in range(4): os.fork()
        time.sleep(60)
    """)
    program.begin(alone)
    alone.kill()
    assert program.end() == -signal.SIGKILL
    assert gone(group.remove)


@as_root
def test_a_group_that_drains_is_removed_later(groups):
    group = groups.make("sbx_late", PLENTY)
    program = Program("print('begun', flush=True)\nimport time; time.sleep(60)")
    program.begin(group)
    groups.retire(group)
    assert group.folders[0].exists()
    program.process.kill()
    program.end()
    groups.retire(groups.make("sbx_next", PLENTY))
    assert not any(folder.exists() for folder in group.folders)


@as_root
def test_the_next_kernel_removes_what_a_killed_one_left_and_leaves_a_living_ones_alone(groups):
    mine = groups.make("sbx_mine", PLENTY)
    dead = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent("""
            import os, subprocess, time
            from agent_kernel.base.cgroups import Groups, Most
            groups = Groups.open(os.urandom)
            group = groups.make("sbx_left", Most(64 << 20, 8))
            left = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
            group.add(left.pid)
            print(left.pid, *group.folders, sep="\\n", flush=True)
            time.sleep(600)
        """)],
        stdout=-1, text=True,
    )  # fmt: skip
    pid = int(dead.stdout.readline())
    folders = [Path(dead.stdout.readline().strip()) for _ in mine.folders]
    groups.sweep()
    assert all(folder.exists() for folder in folders), "its kernel lives"
    dead.kill()
    dead.communicate()
    other = Groups.open(os.urandom)
    try:
        assert gone(lambda: not running(pid))
        assert gone(lambda: other.sweep() or not any(folder.parent.exists() for folder in folders))
        assert all(folder.exists() for folder in mine.folders)
    finally:
        other.close()
    groups.retire(mine)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@as_root
def test_every_total_of_this_machine_is_found(groups):
    offered = {
        name for line in Path("/proc/self/cgroup").read_text().splitlines() for name in line.split(":")[1].split(",")
    }
    assert {"memory", "pids"} & offered <= {"memory", "pids"}
    if {"memory", "pids"} <= offered:
        assert {"memory", "processes"} <= set(groups.totals)
        assert groups.lacks == ""
    assert all(name in groups.layer for name in groups.totals)


@pytest.mark.skipif(ROOT, reason="root may make groups")
def test_a_user_without_delegation_is_told_so():
    with pytest.raises(Unavailable) as refused:
        Groups.open(os.urandom)
    assert "Permission denied" in str(refused.value) or "no cgroup" in str(refused.value)


# --- finding a place: what other machines look like


class Machine:
    """A made-up /proc/self and cgroup tree."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.top = folder / "proc", folder / "cgroup fs"
        self.proc.mkdir()
        self.top.mkdir()
        self.mounts: list[str] = []
        self.groups: list[str] = []

    def v1(self, controllers: str, group: str, root: str = "/", *, shown: bool = True) -> Path:
        mountpoint = self.top / controllers
        mountpoint.mkdir()
        self._mount(root, mountpoint, "cgroup", controllers)
        self.groups.append(f"1:{controllers}:{group}")
        place = mountpoint / (group[len(root) :].lstrip("/") if group.startswith(root) else group.lstrip("/"))
        if shown:
            place.mkdir(parents=True, exist_ok=True)
        return place

    def v2(self, group: str, root: str = "/") -> Path:
        self._mount(root, self.top, "cgroup2", "rw")
        self.groups.append(f"0::{group}")
        place = self.top
        for part in group.strip("/").split("/"):
            place = place / part
            if part:
                self.group_v2(place, "memory pids")
        return place

    def group_v2(self, place: Path, controllers: str, *, processes: str = "", delegated: bool = False) -> None:
        place.mkdir(exist_ok=True)
        for name, text in (("type", "domain"), ("controllers", controllers), ("procs", processes), ("kill", "")):
            (place / f"cgroup.{name}").write_text(text)
        (place / "cpu.stat").write_text("usage_usec 5\n")
        if delegated:
            os.setxattr(place, "trusted.delegate" if ROOT else "user.delegate", b"1")

    def _mount(self, root: str, mountpoint: Path, kind: str, options: str) -> None:
        escaped = str(mountpoint).replace(" ", "\\040")
        self.mounts.append(f"30 20 0:26 {root} {escaped} rw,nosuid shared:9 - {kind} {kind} rw,{options}")

    def places(self) -> tuple[dict[str, set[str]], str]:
        (self.proc / "cgroup").write_text("\n".join(self.groups))
        (self.proc / "mountinfo").write_text("\n".join(["1 0 8:1 / / rw - ext4 /dev/sda rw", *self.mounts]))
        trees, reasons = _places(self.proc)
        return {str(tree.above.relative_to(self.top)): set(tree.totals) for tree in trees}, "; ".join(reasons)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_v1_is_used_beneath_our_own_group(machine):
    machine.v1("memory", "/user/me")
    machine.v1("cpu,cpuacct", "/")
    machine.v1("pids", "/user/me")
    machine.v1("freezer", "/user/me")
    found, reasons = machine.places()
    assert found == {"memory/user/me": {"memory"}, "cpu,cpuacct": {"cpu"}, "pids/user/me": {"processes"}}
    assert reasons == ""


def test_a_containers_mount_shows_its_own_group_at_the_top(machine):
    machine.v1("memory", "/docker/abc", root="/docker/abc")
    machine.v1("pids", "/", root="/docker/abc")
    assert machine.places()[0] == {"memory": {"memory"}, "pids": {"processes"}}


def test_a_group_that_is_not_shown_is_no_place(machine):
    machine.v1("memory", "/elsewhere", root="/docker/abc", shown=False)
    machine.v1("pids", "/../x", shown=False)
    found, reasons = machine.places()
    assert found == {}
    assert reasons.count("does not show the group that we are in") == 2


def test_v2_with_processes_in_our_own_group_counts_cpu_and_kills_and_says_what_is_lacking(machine):
    own = machine.v2("/user.slice/session.scope")
    (own / "cgroup.procs").write_text("12\n13\n")
    (own.parent / "cgroup.procs").write_text("")
    found, reasons = machine.places()
    assert found == {"user.slice/session.scope": {"cpu", "kill"}}
    assert "holds processes" in reasons
    assert "DelegateSubgroup" in reasons


def test_v2_takes_an_empty_delegated_group_above(machine):
    own = machine.v2("/system.slice/ours.service/kernel")
    machine.group_v2(own.parent, "memory pids", delegated=True)
    found, reasons = machine.places()
    assert found == {"system.slice/ours.service": {"cpu", "kill", "memory", "processes"}}
    assert reasons == ""


@pytest.mark.parametrize("manager", [True, False])
def test_v2_leaves_a_group_alone_that_a_systemd_manages_or_that_is_not_empty(machine, manager):
    own = machine.v2("/user@1000.service/app.slice")
    machine.group_v2(own.parent, "memory pids", delegated=True, processes="" if manager else "7\n")
    if manager:
        (own.parent / "init.scope").mkdir()
    assert machine.places()[0] == {"user@1000.service/app.slice": {"cpu", "kill"}}


def test_v2_without_controllers_says_so(machine):
    own = machine.v2("/box")
    (own / "cgroup.controllers").write_text("")
    found, reasons = machine.places()
    assert found == {"box": {"cpu", "kill"}}
    assert "is not given `memory` and `pids`" in reasons


def test_at_the_top_of_a_v2_machine_everything_is_had(machine):
    machine.v2("/")
    (machine.top / "cgroup.controllers").write_text("cpu memory pids\n")
    (machine.top / "cgroup.procs").write_text("1\n")
    (machine.top / "cpu.stat").write_text("usage_usec 1\n")
    assert machine.places()[0] == {".": {"cpu", "kill", "memory", "processes"}}


def test_a_hybrid_machine_gives_each_total_from_where_it_is(machine):
    machine.v1("memory", "/")
    machine.v1("pids", "/")
    machine.v1("cpuacct", "/")
    (machine.top / "cpu.stat").write_text("usage_usec 1\n")
    machine.v2("/")
    assert machine.places()[0] == {"memory": {"memory"}, "pids": {"processes"}, ".": {"cpu", "kill"}}


def test_without_any_cgroup_the_reason_is_one_sentence(machine):
    machine.places()
    with pytest.raises(Unavailable, match="no cgroup file system is mounted"):
        Groups.open(os.urandom, proc=machine.proc)


def test_a_place_that_cannot_be_written_is_named_with_what_the_machine_said(machine):
    place = machine.v1("memory", "/")
    machine.places()
    place.rmdir()
    (machine.top / "memory").write_text("a file")
    with pytest.raises(Unavailable) as refused:
        Groups.open(os.urandom, proc=machine.proc)
    assert "memory" in str(refused.value)


def test_v2_is_written_and_read_by_its_own_names(tmp_path):
    names = ("memory.max", "memory.oom.group", "memory.swap.max", "pids.max", "cgroup.procs", "cgroup.kill")
    for name in names:
        (tmp_path / name).write_text("")
    for name, text in (
        ("memory.current", "4096\n"),
        ("memory.peak", "8192\n"),
        ("memory.events", "low 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 1\n"),
        ("pids.events", "max 2\n"),
        ("cpu.stat", "usage_usec 1500000\nuser_usec 1\n"),
    ):
        (tmp_path / name).write_text(text)
    group = Group([_Tree(2, tmp_path, frozenset({"memory", "processes", "cpu", "kill"}), tmp_path)])
    group.limit(Most(1 << 20, 7))
    group.add(42)
    group.kill()
    assert [(tmp_path / name).read_text() for name in names] == ["1048576", "1", "0", "7", "42", "1"]
    assert group.count() == Counted(4096, 8192, 1.5, True, True)


@as_root
def test_only_a_living_process_of_that_user_is_adopted(groups):
    group = groups.make("sbx_adopted", PLENTY)
    program = Program("import time; time.sleep(60)")
    pid = program.process.pid
    assert not group.adopt(pid, 65534)
    assert group.adopt(pid, os.geteuid())
    members = [(folder / "cgroup.procs").read_text().split() for folder in group.folders]
    program.process.kill()
    program.end()
    assert not group.adopt(pid, os.geteuid())
    assert members == [[str(pid)]] * len(members)
    groups.retire(group)


@as_root
def test_a_stranger_is_sent_back_to_where_the_kernel_itself_is(groups):
    """A number that was another's by the time it was written: what it names now must not stay in a group that is killed."""
    group = groups.make("sbx_stranger", PLENTY)
    stranger = subprocess.Popen(["sleep", "60"])
    group.add(stranger.pid)
    group._send_back()
    try:
        assert [(folder / "cgroup.procs").read_text() for folder in group.folders] == [""] * len(group.folders)
        assert [line.split(":", 2)[2] for line in Path(f"/proc/{stranger.pid}/cgroup").read_text().splitlines()] == [
            line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()
        ]
    finally:
        stranger.kill()
        stranger.wait()
    groups.retire(group)


@as_root
def test_names_of_kernels_do_not_collide(groups):
    other = Groups.open(os.urandom)
    mine, theirs = groups.make("sbx_same", PLENTY), other.make("sbx_same", PLENTY)
    assert not set(mine.folders) & set(theirs.folders)
    assert all(folder.parent.name.startswith(PREFIX) for folder in (*mine.folders, *theirs.folders))
    groups.retire(mine)
    other.retire(theirs)
    assert other.close()
