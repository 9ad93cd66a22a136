# Reads a file of the host by its absolute path.
# severity: critical
# escape: secret
from raw import A, steal, tried

steal(A.canary)
tried()
