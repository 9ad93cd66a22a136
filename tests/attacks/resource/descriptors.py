# Opens descriptors without end.
# severity: medium
# escape: descriptors
import os

from raw import hold, refusable, tried

with refusable("dup"):
    for _ in range(800):
        os.dup(0)
hold(0.5)
tried()
