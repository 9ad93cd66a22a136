# Learns that a file of the host is there, its size and its times.
# severity: low
# escape: said
# price: confined: other paths can still be *stat*-ed
import os

from raw import A, attempt, escaped, tried

attempt("stat", lambda: os.stat(A.canary))
if os.access(A.canary, os.F_OK):
    escaped("access")
tried()
