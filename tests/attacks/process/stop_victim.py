# Stops a process of the host, which then does nothing and looks alive.
# severity: high
# escape: victim
import os
import signal

from raw import A, refusable, tried

with refusable("stop"):
    os.kill(int(A.victim), signal.SIGSTOP)
tried()
