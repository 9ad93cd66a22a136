# Reads a file that only the kernel's own user may read.
# severity: critical
# escape: secret
# as: root
from raw import A, steal, tried

steal(A.private)
tried()
