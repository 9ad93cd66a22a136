# Hands its memory on from child to child, each parent ending at once, so that a walk of the tree finds nobody.
# severity: high
# escape: memory, survivor
# stops: memory, timeout
# timeout: 20
import os
import time

from raw import A, tried

held = bytearray(b"x") * (int(A.memory_mb) * 3 << 19)
tried()
until = time.monotonic() + (2.5 if A.way == "control" else 12)
while time.monotonic() < until:
    if os.fork() != 0:
        os._exit(0)
