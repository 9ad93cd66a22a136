# Reads the environment of another process of the host.
# severity: critical
# escape: secret
from raw import A, steal, tried

steal(f"/proc/{A.victim}/environ")
tried()
