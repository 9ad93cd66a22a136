# Reads every descriptor that it finds open.
# severity: critical
# escape: secret
import os

from raw import show, tried

for descriptor in range(3, 256):
    try:
        show(os.pread(descriptor, 4096, 0))
    except OSError:
        pass
tried()
