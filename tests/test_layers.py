"""Each privilege step by itself, in a child that is thrown away: what worked before it must fail after it, by it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from agent_kernel.base.filter import compile_filter, digest
from agent_kernel.base.pool import CELL, probe_layers

CHILD = """
import json, sys, os, socket
sys.path.insert(0, {parent!r})
from cell import layers
def tried(act):
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return "worked"
"""


def child(code: str, data: bytes = b"") -> object:
    """The JSON that `code` prints, run in a fresh single-threaded interpreter with `layers` and `tried` in scope."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CHILD.format(parent=str(CELL.parent)) + code],
        input=data,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_no_new_privileges_shows_in_the_status():
    status = child("layers.no_new_privileges()\nprint(json.dumps(open('/proc/self/status').read()))")
    assert "NoNewPrivs:\t1" in status


def test_landlock_leaves_named_trees_and_nothing_else(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("in/a", "out"):
        (tmp_path / name).write_text("x")
    before, inside, outside, into = child(f"""
inside, outside = {str(tmp_path / "in/a")!r}, {str(tmp_path / "out")!r}
before = tried(lambda: open(outside))
layers.no_new_privileges()
layers.confine_files(layers.opened_rules([({str(tmp_path / "in")!r}, layers.READ_RUN)]), tcp_denied=True)
print(json.dumps([before, tried(lambda: open(inside)), tried(lambda: open(outside)), tried(lambda: open(inside, 'w'))]))
""")
    assert (before, inside, outside, into) == ("worked", "worked", "PermissionError", "PermissionError")


def test_landlock_scopes_signals_and_tcp():
    victim = subprocess.Popen(["sleep", "60"])
    try:
        answers = child(f"""
layers.no_new_privileges()
before = tried(lambda: os.kill({victim.pid}, 0))
layers.confine_files(layers.opened_rules([("/usr", layers.READ_RUN)]), tcp_denied=True)
print(json.dumps([before, tried(lambda: os.kill({victim.pid}, 0)), tried(lambda: socket.socket().bind(("127.0.0.1", 0)))]))
""")
    finally:
        victim.kill()
        victim.wait()
    assert answers == ["worked", "PermissionError", "PermissionError"]


@pytest.mark.parametrize("abi", [1, 2, 3, 4, 5, 6])
def test_an_old_landlock_is_no_wall_by_itself(abi):
    """Below ABI 6 a guest without namespaces could signal whatever its uid may; below 3 cut any file of it to nothing."""
    alone, beside = child(f"""
layers.landlock_abi = lambda: {abi}
def confined(alone):
    if os.fork() == 0:
        try:
            layers.no_new_privileges()
            layers.confine_files([("/usr", layers.READ_RUN)], tcp_denied=alone)
        except layers.LayerError as error:
            os._exit(3 if error.layer == "landlock" and "Linux 6.12" in str(error) else 4)
        os._exit(tried(lambda: open("/etc/passwd")) == "PermissionError")
    return os.waitstatus_to_exitcode(os.wait()[1])
print(json.dumps([confined(True), confined(False)]))
""")
    assert (alone, beside) == (1 if abi >= 6 else 3, 1)


@pytest.mark.parametrize("tier", ["full", "visiting", "shared"])
def test_the_filter_gives_errnos_of_its_own(tier):
    """As bubblewrap tests its filters: without the filter the same call must not give the filter's errno."""
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def errno_of(number, *arguments):
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return ctypes.get_errno()
calls = [(101, -1, 0, 0, 0), (272, 0), (319, 0, 0), (437, -1, 0, 0, 0), (1000,)]
before = [errno_of(*call) for call in calls]
layers.no_new_privileges()
layers.filter_calls(sys.stdin.buffer.read())
print(json.dumps([before, [errno_of(*call) for call in calls]]))
"""
    before, after = child(code, compile_filter(tier))
    ptrace, unshare, memfd, openat2, nothing = after
    assert (ptrace, unshare, memfd, openat2, nothing) == (1, 1, 1, 38, 38)
    assert [first for first, second in zip(before[:4], after[:4], strict=True) if first == second] == []


def test_only_the_full_tier_has_sockets():
    code = """
layers.no_new_privileges()
layers.filter_calls(sys.stdin.buffer.read())
print(json.dumps([tried(socket.socket), tried(socket.socketpair), tried(lambda: socket.socketpair(type=socket.SOCK_DGRAM))]))
"""
    assert child(code, compile_filter("full")) == ["worked", "worked", "worked"]
    assert child(code, compile_filter("shared"))[:2] == ["PermissionError", "worked"]
    assert child(code, compile_filter("shared"))[2] != "worked"


def test_the_filter_is_the_same_each_time_and_differs_by_tier():
    full, confined = compile_filter("full"), compile_filter("shared")
    assert full == compile_filter("full")
    assert digest(full) != digest(confined)
    assert len(full) % 8 == 0


@pytest.mark.parametrize("program", [b"", b"1234567"])
def test_a_filter_that_is_no_program_is_refused(program):
    code = """
try:
    layers.filter_calls(sys.stdin.buffer.read())
except layers.LayerError as error:
    print(json.dumps(error.layer))
"""
    assert child(code, program) == "seccomp"


def test_no_step_makes_host_uid_zero():
    code = """
found = []
for act in (lambda: layers.become(0, 5), lambda: layers.map_ids(os.getpid(), 0, 5)):
    try:
        act()
    except layers.LayerError as error:
        found.append(error.layer)
print(json.dumps(found))
"""
    assert child(code) == ["identity", "user namespace"]


def test_limits_are_hard_and_never_above_the_hosts():
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
layers.limit(memory_bytes=1 << 40, file_bytes=5 << 20, descriptors=256, processes=10)
layers.lower_limits(memory_bytes=1 << 39, processes=12, cpu_s=7)
names = ("NOFILE", "FSIZE", "CORE", "NPROC", "CPU", "AS")
print(json.dumps([resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in names]))
"""
    assert child(code) == [[100, 100], [5 << 20, 5 << 20], [1, 1], [10, 10], [7, 8], [1 << 39, 1 << 39]]


def test_every_other_descriptor_is_closed():
    code = """
kept = os.open("/dev/null", os.O_RDONLY)
others = [os.dup(kept) for _ in range(5)]
layers.close_all_but((0, 1, 2, kept))
print(json.dumps(sorted(n for n in range(64) if tried(lambda: os.fstat(n)) == "worked") == [0, 1, 2, kept]))
"""
    assert child(code) is True


def test_a_machine_without_a_layer_is_told_so():
    """The probe under a filter that forbids namespaces: what it then finds must shrink, and say which."""
    found = {name: works for name, works, _ in probe_layers(sys.executable)}
    assert found["user namespace"]
    assert found["private root"]
    assert found["landlock"]
    boot = f"""
import importlib.util, sys
sys.path.insert(0, {str(Path(CELL).parent)!r})
import pyseccomp as s
f = s.SyscallFilter(s.ALLOW)
f.add_rule(s.ERRNO(1), "clone", s.Arg(0, s.MASKED_EQ, 0x10000000, 0x10000000))
f.load()
from cell import probe
probe.main()
"""
    done = subprocess.run([sys.executable, "-c", boot], capture_output=True, timeout=60, check=True)
    inside = {name: works for name, works, _ in json.loads(done.stdout)}
    assert not any(works for name, works in inside.items() if "namespace" in name or name == "private root")
    assert inside["landlock"]
    assert inside["seccomp"]


def test_root_alone_has_uids_to_give():
    found = {name: works for name, works, _ in probe_layers(sys.executable)}
    assert found["own uid"] == (os.geteuid() == 0)
