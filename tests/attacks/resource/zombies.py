# Fills the process table with children that nobody reaps.
# severity: medium
# escape: tasks
# stops: processes, memory
import os

from raw import hold, refusable, tried

for _ in range(150):
    with refusable("fork"):
        if os.fork() == 0:
            os._exit(0)
hold()
tried()
