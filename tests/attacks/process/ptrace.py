# Traces a process of the host and reads its memory.
# severity: critical
# escape: secret
import ctypes
import os

from raw import A, call, libc, refusable, show, tried

with refusable("attach"):
    call("ptrace", 16, int(A.victim), 0, 0)
    os.waitpid(int(A.victim), 0x40000000)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    words = [libc.ptrace(1, int(A.victim), int(A.victim_address) + 8 * n, 0) for n in range(5)]
    show(b"".join((word & (1 << 64) - 1).to_bytes(8, "little") for word in words))
    call("ptrace", 17, int(A.victim), 0, 0)
tried()
