# Forks all the time, each process living for a moment, so that whoever lists and kills is always late.
# severity: critical
# escape: survivor
import os
import time

from raw import tried

if os.fork() == 0:
    os.setsid()
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if os.fork() != 0:
            os._exit(0)
        time.sleep(0.0005)
    os._exit(0)
tried()
