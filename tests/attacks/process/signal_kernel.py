# Asks whether it might signal the kernel's own process.
# severity: critical
# escape: said
# as: root
import os

from raw import A, attempt, tried

attempt("signal 0 to the kernel", lambda: os.kill(int(A.kernel), 0))
tried()
