# Leaves a stopped process behind, which no polite signal ends.
# severity: critical
# escape: survivor
import os
import signal

from raw import fork, tried

fork(lambda: os.kill(os.getpid(), signal.SIGSTOP))
tried()
