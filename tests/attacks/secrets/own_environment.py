# Prints its environment.
# severity: critical
# escape: secret
import os

from raw import show, steal, tried

show(repr(dict(os.environ)).encode())
steal("/proc/self/environ")
tried()
