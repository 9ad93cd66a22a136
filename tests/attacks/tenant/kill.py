# Ends and signals another tenant's processes.
# severity: critical
# escape: neighbour
# neighbour: yes
import os
import signal

from raw import A, refusable, tried

for number in (signal.SIGUSR1, signal.SIGKILL):
    with refusable("kill"):
        os.kill(int(A.neighbour), number)
    with refusable("group"):
        os.killpg(int(A.neighbour), number)
tried()
