# Makes mount, network, pid, time and other namespaces of its own, and enters others'.
# severity: high
# escape: said
# as: root
import os

from raw import A, attempt, call, tried

for name, flag in {
    "mount": 0x20000,
    "network": 0x40000000,
    "ipc": 0x8000000,
    "uts": 0x4000000,
    "pid": 0x20000000,
    "time": 0x80,
    "cgroup": 0x2000000,
}.items():
    attempt(name, lambda flag=flag: call("unshare", flag))
attempt("enter", lambda: call("setns", os.open(f"/proc/{A.victim}/ns/net", os.O_RDONLY), 0))
attempt("enter by pidfd", lambda: call("setns", os.pidfd_open(int(A.victim)), 0x40000000))
tried()
