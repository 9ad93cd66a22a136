# Leaves a child behind whose parent is its own parent (CLONE_PARENT), out of the reach of whoever waits for children.
# severity: critical
# escape: survivor
import os

from raw import call, refusable, stay, tried

with refusable("clone"):
    if call("clone", 0x8000 | 17, 0, 0, 0, 0) == 0:
        stay(60)
        os._exit(0)
tried()
