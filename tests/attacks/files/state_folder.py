# Reads the kernel's state folder: its database is everybody's memory.
# severity: critical
# escape: secret
# as: root
import os

from raw import A, refusable, steal, tried

with refusable("list"):
    for name in os.listdir(A.state):
        print(name)
steal(f"{A.state}/planted.txt")
tried()
