# Writes files that it has already removed and keeps open.
# severity: high
# escape: disk
# stops: disk
import os

from raw import hold, refusable, tried

held = []
with refusable("write"):
    for _ in range(30):
        held.append(open("f", "wb", 0))
        os.unlink("f")
        held[-1].write(bytes(4 << 20))
hold()
tried()
