# Leaves a process behind that keeps the output open, so that whoever reads to the end waits for ever.
# severity: critical
# escape: survivor, wall
import os

from raw import fork, stay, tried

fork(lambda: (os.setsid(), stay(60)))
tried()
