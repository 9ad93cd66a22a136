# Makes processes as fast as it can.
# severity: high
# escape: tasks
# stops: processes
import os

from raw import hold, refusable, stay, tried

for _ in range(150):
    with refusable("fork"):
        if os.fork() == 0:
            stay(15)
            os._exit(0)
hold()
tried()
