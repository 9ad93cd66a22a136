"""Machines that allow less than this one: a launcher that gives up system calls for good, and then becomes the command.

What it takes away is refused as the real thing refuses it: a container's default profile answers EPERM (clone3: ENOSYS), a kernel
without Landlock or seccomp ENOSYS or EINVAL, a switched-off user namespace ENOSPC.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent

LAUNCHER = """
import ctypes, json, os, sys
import pyseccomp as s

rules, how, command = json.loads(sys.argv[1])
if how == "sysctl":  # a user namespace in which no further one may be made: what an operator's sysctl does to the machine
    uid, gid = os.geteuid(), os.getegid()
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        open(f"/proc/self/{name}", "w").write(text)
    open("/proc/sys/user/max_user_namespaces", "w").write("0")
filter = s.SyscallFilter(s.ALLOW)
if os.geteuid() == 0:
    filter.set_attr(s.Attr.CTL_NNP, 0)
for name, errno, conditions in rules:
    try:
        number = s.resolve_syscall(s.Arch.NATIVE, name)
    except ValueError:
        continue
    filter.add_rule(s.ERRNO(errno), number, *(s.Arg(a, s.MASKED_EQ, mask, value) for a, mask, value in conditions))
filter.load()
if how == "capabilities" and os.geteuid() == 0:  # a container's root keeps these; the next exec applies it
    kept = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
    for number in range(int(open("/proc/sys/kernel/cap_last_cap").read()) + 1):
        assert number in kept or ctypes.CDLL(None).prctl(24, number, 0, 0, 0) == 0
os.execv(command[0], command)
"""

EPERM, ENOSYS, EINVAL, ENOSPC = 1, 38, 22, 28
NEW_NAMESPACES = (0x00000080, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
PRIVILEGED = """
    acct add_key bpf clock_settime delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick init_module io_uring_enter
    io_uring_register io_uring_setup ioperm iopl kexec_file_load kexec_load keyctl lookup_dcookie mount mount_setattr move_mount
    move_pages name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root quotactl reboot request_key
    setdomainname sethostname setns settimeofday swapoff swapon sysfs syslog umount umount2 unshare uselib userfaultfd ustat vhangup
""".split()  # noqa: SIM905

Rule = tuple[str, int, list[tuple[int, int, int]]]
CONTAINER: list[Rule] = [
    *((name, EPERM, []) for name in PRIVILEGED),
    *(("clone", EPERM, [(0, flag, flag)]) for flag in NEW_NAMESPACES[1:]),
    ("clone3", ENOSYS, []),
]
NO_LANDLOCK: list[Rule] = [(f"landlock_{name}", ENOSYS, []) for name in ("create_ruleset", "add_rule", "restrict_self")]
NO_USER_NAMESPACES: list[Rule] = [(name, ENOSPC, [(0, 0x10000000, 0x10000000)]) for name in ("clone", "unshare")]
NO_SECCOMP: list[Rule] = [("seccomp", ENOSYS, []), ("prctl", EINVAL, [(0, 0xFFFFFFFF, 22)])]


def start(rules: list[Rule], *command: str, how: str = "", **options: Any) -> "subprocess.Popen[str]":
    """`command` in a world that refuses `rules`; `how` is "", "sysctl" or "capabilities"."""
    argv = [sys.executable, "-c", LAUNCHER, json.dumps([rules, how, list(command)])]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    return subprocess.Popen(argv, stdin=-1, stdout=-1, stderr=-1, text=True, env=environment, **options)
