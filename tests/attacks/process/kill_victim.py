# Ends a process of the host.
# severity: critical
# escape: victim
import os
import signal

from raw import A, refusable, tried

with refusable("kill"):
    os.kill(int(A.victim), signal.SIGKILL)
tried()
