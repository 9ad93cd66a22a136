# Stops itself with SIGSTOP: it uses nothing and never ends.
# severity: low
# escape: wall
# timeout: 1
# stops: timeout
import os
import signal

os.kill(os.getpid(), signal.SIGSTOP)
