# Ends every process that it may.
# severity: critical
# escape: victim
# as: own uid
import os
import signal

from raw import refusable, tried

with refusable("kill"):
    os.kill(-1, signal.SIGKILL)
tried()
